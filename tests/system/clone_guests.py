"""Clones of a booted Debian, each of which writes its own number to its disk and its memory.

Many of them, with what they cost:  python tests/system/clone_guests.py [CLONES] [BOARD]
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guests import command, reach_shell

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image, find
from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB, PAGE_SIZE

DISK_SIZE = 8 * MIB
ROOM = 256
"""Frames that the source may have taken meanwhile."""
FORGET = "sync; echo 3 > /proc/sys/vm/drop_caches"


@contextmanager
def booted(host: Host, image: Image, board: BoardName) -> Iterator[Guest]:
    """A Debian at its shell with a disk."""
    assert image.kernel is not None
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder, "disk.img")
        disk.write_bytes(bytes(DISK_SIZE))
        config = GuestConfig(
            name="source",
            board=board,
            clock="host",
            memory=128 * MIB,
            disks=(DiskConfig(disk, bus="virtio"),),
            kernel=KernelConfig(image.kernel, image.initrd, image.append),
        )
        guest = host.create(config)
        guest.start()
        reach_shell(guest)
        assert write_own(guest, "source") == ""
        yield guest
        assert own(guest) == "source source 1024"
        assert disk.read_bytes()[:7] == b"source\n"


def write_own(guest: Guest, number: str) -> str:
    """Write `number` to the disk's first sector, and to a file in memory, a thousand lines of it."""
    return command(
        guest,
        f"echo {number} | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; "
        f"yes {number} | head -n 1024 > /tmp/own; {FORGET}",
    )


def own(guest: Guest) -> str:
    """What is there: on the disk, in memory, and how many lines."""
    said = command(guest, "head -n 1 /dev/vda; sort -u /tmp/own; wc -l < /tmp/own")
    return " ".join(said.split())


def check_clones(clones: list[Guest]) -> None:
    """Each finds what the source had, writes its own number, and keeps it while all others do the same."""
    for clone in clones:
        assert own(clone) == "source source 1024", clone.name
    for clone in clones:
        assert write_own(clone, clone.name) == ""
    for clone in clones:
        assert own(clone) == f"{clone.name} {clone.name} 1024"


def resident() -> int:
    """Bytes of this process that are in the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE


def run(count: int, board: BoardName) -> None:
    image = find("debian")
    assert image is not None, (
        "the image 'debian' is not in the cache; get it with: emuvisor images pull debian"
    )
    with Host(2048 * MIB) as host, booted(host, image, board) as source, source.checkpoint() as checkpoint:
        print(f"source: {source.memory.census()['shared']} frames, stood {checkpoint.stop_ns / 1e6:.2f} ms")
        frames, memory = host.pool.used, resident()

        def report(what: str) -> None:
            each = (resident() - memory) / count / MIB
            pages = (host.pool.used - frames) / count
            print(f"{what}: {pages:.0f} frames and {each:.2f} MiB of resident memory for each clone")

        began = time.perf_counter()
        clones = host.clone_many(checkpoint, [f"c{number}" for number in range(count)])
        took = time.perf_counter() - began
        print(f"{count} clones in {took:.3f} s: {took / count * 1e3:.3f} ms each")
        report("made")
        check_clones(clones)
        report("each has written its number")
        began = time.perf_counter()
        freed = sum(clone.delete() for clone in clones)
        print(f"deleted in {time.perf_counter() - began:.3f} s; {freed} frames came back")
        assert host.pool.used <= frames + ROOM
    assert host.pool.used == 0


if __name__ == "__main__":
    run(
        int(sys.argv[1]) if len(sys.argv) > 1 else 100,
        "pc" if sys.argv[2:] == ["pc"] else "microvm",
    )
