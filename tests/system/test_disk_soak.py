"""An hour of a guest's time with work on every kind of storage, checked by sums; the virtual clock skips the idle part,
and the same run repeats bit for bit."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from compatibility import Compatibility
from filesystems import copy_out, is_clean, with_mke2fs
from guests import tail, wait_for_power_off

from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.images.cpio import CpioWriter
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig, ShareConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

DISK_SIZE = 64 * MIB
SOAK_S = 900
HOUR_NS = 3600 * 10**9
ROUNDS = 20
REST_S = 183
"""Between rounds; with it, an hour has passed at the end."""
FEW_ROUNDS = 4
PORT = "org.example.log"
INIT = """\
#!/bin/busybox sh
export PATH=/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
/sbin/load-drivers
mkdir -p /raw /qcow2 /share
for pair in vda:raw vdb:qcow2; do
    /sbin/mkfs.ext4 -q /dev/${pair%:*}
    mount -t ext4 -o discard /dev/${pair%:*} /${pair#*:}
done
mount -t virtiofs share /share
set -- /dev/vport*p1  # the port that is no console
exec 3> $1
fail() { echo "FAILED: $*"; /sbin/poweroff; }
round=0
while [ $round -lt ROUNDS ]; do
    round=$((round + 1))
    new=$round.part old=$((round - 3))
    head -c $((round * 7919 % 300000 + 1)) /dev/hwrng > /raw/$new || fail write $round
    sha256sum < /raw/$new > /raw/$round.sum
    cp /raw/$new /qcow2/$new; cp /qcow2/$new /share/$new
    for folder in /raw /qcow2 /share; do mv $folder/$new $folder/$round; done
    sync; echo 3 > /proc/sys/vm/drop_caches
    for folder in /raw /qcow2 /share; do
        for number in $old $round; do
            [ $number -lt 1 ] || sha256sum < $folder/$number | cmp - /raw/$number.sum || fail $folder/$number
        done
        rm -f $folder/$old
    done
    [ $((round % 8)) != 0 ] || fstrim /raw || fail trim
    echo "round $round $(cut -c1-64 /raw/$round.sum)" >&3
    sleep REST
done
exec 3>&-
umount /raw /qcow2 /share
echo "$round rounds, $(cut -d. -f1 /proc/uptime) seconds"
/sbin/poweroff
"""


@dataclass(frozen=True)
class Soaked:
    """What is left of a run."""

    console: str
    log: str
    guest_ns: int
    disks: str
    """A digest of both disks' content."""
    shared: dict[str, str]
    """Digests of the files in the shared folder."""


def soak(image: Image, folder: Path, rounds: int) -> Soaked:
    assert image.initrd is not None
    folder.mkdir()
    raw, qcow2, share = folder / "disk.img", folder / "disk.qcow2", folder / "share"
    create_raw(raw, DISK_SIZE)
    create(qcow2, DISK_SIZE)
    share.mkdir()
    cpio = CpioWriter()
    script = INIT.replace("ROUNDS", str(rounds)).replace("REST", str(REST_S))
    cpio.file("soak", script.encode(), 0o755)
    initrd = folder / "initrd.cpio"
    initrd.write_bytes(with_mke2fs(image.initrd.read_bytes()) + cpio.finish())
    with Host(400 * MIB) as host:
        guest = host.create(
            GuestConfig(
                memory=256 * MIB,
                kernel=KernelConfig(image.path / "vmlinuz", initrd, f"{image.append} rdinit=/soak"),
                disks=(DiskConfig(raw, bus="virtio"), DiskConfig(qcow2, bus="virtio")),
                shares=(ShareConfig(share, "share", readonly=False),),
                rng=True,
                console_ports=("hvc", PORT),
            )
        )
        guest.start()
        wait_for_power_off(guest, SOAK_S)
        assert "FAILED" not in guest.console.text, tail(guest)
        console, log = guest.console.text, guest.port(PORT).text
        guest_ns = guest.statistics().guest_ns
    is_clean(raw)
    assert check(qcow2).clean
    disk = Qcow2Disk(qcow2, read_only=True)
    copy = copy_out(disk, folder / "copy.img")
    disk.close()
    is_clean(copy)
    return Soaked(
        console,
        log,
        guest_ns,
        hashlib.sha256(raw.read_bytes() + copy.read_bytes()).hexdigest(),
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in share.iterdir()},
    )


def test_an_hour_of_work(debian: Image, tmp_path: Path, compatibility: Compatibility) -> None:
    soaked = soak(debian, tmp_path / "run", ROUNDS)
    assert soaked.guest_ns >= HOUR_NS
    assert f"{ROUNDS} rounds" in soaked.console
    lines = soaked.log.splitlines()
    assert [line.split()[1] for line in lines] == [str(number) for number in range(1, ROUNDS + 1)]
    written = {number: digest for _, number, digest in (line.split() for line in lines)}
    assert soaked.shared == {str(number): written[str(number)] for number in range(ROUNDS - 2, ROUNDS + 1)}
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="directly on pc, an hour of its time: virtio disks (raw, qcow2), shared folder, rng, console port",
        checked=f"{ROUNDS} rounds of files written, read, renamed, deleted, trimmed, all checksums right; e2fsck",
    )


def test_the_same_work_twice_is_the_same(debian: Image, tmp_path: Path) -> None:
    assert soak(debian, tmp_path / "one", FEW_ROUNDS) == soak(debian, tmp_path / "two", FEW_ROUNDS)
