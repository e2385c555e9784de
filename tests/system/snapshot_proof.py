"""A Debian guest that computes on pages it keeps changing, snapshotted in the middle and restored in other processes.

    python tests/system/snapshot_proof.py [RESTORES]

takes the snapshot and restores it in so many processes one after the other (five), each with another size of the pool,
clock and number of pCPUs. `python tests/system/snapshot_proof.py restore STORE SNAPSHOT '{...}'` is such a process.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from guests import expect, reach_shell, tail
from virtio_guests import kernel

from emuvisor.host import Guest, Host
from emuvisor.host.snapshots import restore_guest, take_snapshot
from emuvisor.images.cache import Image, find
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.store import Store
from emuvisor.units import KIB, MIB

SIZE = MIB
STEPS = 16
SNAPSHOT_AT = 6
DISK_SIZE = 8 * MIB
PIECE = 64 * KIB
FROM, COUNT = 64, 50
"""Where on the disk a part of it is copied to, again and again; in pieces."""
WORK_S = 120
LINE = b"emuvisor\n"
SCRIPT = f"""
yes emuvisor | head -c {SIZE} > /tmp/f
dd if=/dev/vda of=/tmp/d bs=1M 2>/dev/null; sha256sum < /tmp/d
(sleep 4; echo slept) &
i=0
while [ $i -lt {STEPS} ]; do
sha256sum < /tmp/f > /tmp/s
tr a-z b-za < /tmp/f > /tmp/g
dd if=/tmp/s of=/tmp/g bs=64 count=1 seek=$((i * 1000)) conv=notrunc 2>/dev/null
mv /tmp/g /tmp/f
i=$((i + 1))
(dd if=/dev/vda of=/dev/vda bs=64k count={COUNT} seek={FROM} 2>/dev/null; sync) &
echo step $i
done
wait
echo sum $(cat /dev/vda /tmp/f | sha256sum) done
"""
VARIANTS = (
    {"pool": 64, "clock": "host", "pcpus": 2},
    {"pool": 512, "clock": "virtual", "pcpus": 1},
    {"pool": 96, "clock": "virtual", "pcpus": 2},
    {"pool": 256, "clock": "host", "pcpus": 1},
    {"pool": 1024, "clock": "host", "pcpus": 4},
)


def disk_content() -> bytes:
    """What is on the disk at the beginning: each sector is another one."""
    return b"".join(number.to_bytes(8, "little") * 64 for number in range(DISK_SIZE // 512))


def expected() -> str:
    """The sum that the guest has to find in the end."""
    table = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"bcdefghijklmnopqrstuvwxyza")
    data = bytearray((LINE * (SIZE // len(LINE) + 1))[:SIZE])
    for step in range(STEPS):
        digest = hashlib.sha256(data).hexdigest().encode()
        data = data.translate(table)
        data[step * 64 * 1000 : (step * 1000 + 1) * 64] = digest
    disk = bytearray(disk_content())
    disk[FROM * PIECE : (FROM + COUNT) * PIECE] = disk[: COUNT * PIECE]
    return hashlib.sha256(disk + data).hexdigest()


def begin(host: Host, image: Image, folder: Path) -> Guest:
    """A guest in the middle of its work."""
    path = folder / "disk.img"
    path.write_bytes(disk_content())
    disks = (DiskConfig(path, overlay="temporary", bus="virtio"),)
    guest = host.create(
        GuestConfig(name="work", board="microvm", memory=256 * MIB, kernel=kernel(image), disks=disks)
    )
    guest.start()
    reach_shell(guest)
    guest.type("cat > /work <<'EOF'\n" + SCRIPT + "EOF\nsh /work\n")
    expect(guest, f"step {SNAPSHOT_AT}\r\n", WORK_S)  # it copies a part of its disk now, and sleeps
    return guest


def finish(guest: Guest) -> str:
    """The sum that the guest finds, and whether its sleep ended."""
    expect(guest, " done\r\n", WORK_S)
    printed = guest.console.text.replace("\r", "")
    assert printed.count("\nslept\n") == 1, tail(guest)
    return printed.rpartition("\nsum ")[2].split()[0]


def restore(store: Path, snapshot: str, variant: dict[str, Any]) -> str:
    """Restore it in this process and let it finish."""
    with Store(store, read_only=True) as opened, Host(variant["pool"] * MIB, variant["pcpus"]) as host:
        return finish(restore_guest(host, opened, "work", snapshot, clock=variant["clock"]))


def restore_elsewhere(store: Path, snapshot: str, variant: dict[str, Any]) -> str:
    """`restore` in another process."""
    done = subprocess.run(
        [sys.executable, __file__, "restore", str(store), snapshot, json.dumps(variant)],
        capture_output=True,
        text=True,
        timeout=2 * WORK_S,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def main(restores: int) -> None:
    """Do all of it, and say how it went."""
    image = find("debian")
    assert image is not None
    with tempfile.TemporaryDirectory() as name, Host(512 * MIB, 2) as host:
        with Store(Path(name) / "store") as store:
            guest = begin(host, image, Path(name))
            store.define("work", "")
            with guest.checkpoint() as checkpoint:
                print(f"stopped for {checkpoint.stop_ns / 1e6:.1f} ms")
                began = time.perf_counter()
                info = take_snapshot(checkpoint, store, "work", "half")
            print(f"{info.pages} pages written in {time.perf_counter() - began:.2f} s")
            assert finish(guest) == expected()
        for number in range(restores):
            variant = VARIANTS[number % len(VARIANTS)]
            began = time.perf_counter()
            assert restore_elsewhere(Path(name) / "store", "half", variant) == expected(), variant
            print(f"restored {number + 1}: {variant}, right after {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["restore"]:
        print(restore(Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
