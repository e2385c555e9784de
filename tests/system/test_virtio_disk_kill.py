"""What a guest's programs were told is on the disk is there when emuvisor was killed while the guest wrote on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from compatibility import Compatibility
from filesystems import copy_out, is_clean, on_the_host
from guests import BOOTED, command, power_off, reach_shell

from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

DISK_SIZE = 48 * MIB
REPORTS = (13, 33)
"""After how many files emuvisor is killed, one number for each time."""
KEPT = 6
"""Files that are left before the oldest is removed: the journal shall have something to do."""
WORK = f"""\
dmesg -n 1; mkdir /raw /qcow2; mount -t ext4 /dev/vda /raw; mount -t ext4 /dev/vdb /qcow2
n=0; while n=$((n + 1)); do for disk in raw qcow2; do \
rm -f /$disk/ROUND-$((n - {KEPT})); \
dd if=/dev/urandom of=/$disk/ROUND-$n bs=$((n * 7001 % 90000 + 1)) count=1 conv=fsync 2>/dev/null; \
echo "synced: $(cd /; sha256sum $disk/ROUND-$n)"; done; done
"""
REPORT = re.compile(r"synced: (?P<digest>[0-9a-f]{64})  (?P<path>\S+)\s*$")


def write_until_killed(paths: tuple[Path, Path], kill: int, reports: int) -> dict[str, str]:
    """Files that the guest wrote and synced, by name, in order: their digests."""
    disks = [option for path in paths for option in ("--disk", f"{path},bus=virtio")]
    command = [sys.executable, "-m", "emuvisor", "run", "--image", "debian", *disks]
    synced: dict[str, str] = {}
    seen = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(WORK.replace("ROUND", str(kill)))
        process.stdin.flush()
        for line in process.stdout:
            seen.append(line)
            if report := REPORT.match(line):
                synced[report["path"]] = report["digest"]
                if len(synced) == reports:
                    process.kill()  # what it has printed until then is still read
    assert any(BOOTED in line for line in seen)
    assert len(synced) >= reports, "".join(seen[-20:])
    return synced


def test_what_was_synced_survives(
    host: Host, debian: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    raw, qcow2 = paths = tmp_path / "disk.img", tmp_path / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(DISK_SIZE)
    on_the_host("mke2fs", "-q", "-t", "ext4", raw)
    on_the_host(sys.executable, "-m", "emuvisor", "disk", "convert", raw, qcow2)
    synced: dict[str, str] = {}
    lasting: list[str] = []
    for kill, reports in enumerate(REPORTS):
        written = write_until_killed(paths, kill, reports)
        synced |= written
        lasting += list(written)[-KEPT:]  # of both disks together: none of them was removed
        assert check(qcow2).corruptions == 0

    guest = host.create(
        GuestConfig(
            memory=256 * MIB,
            kernel=KernelConfig(debian.path / "vmlinuz", debian.initrd, debian.append),
            disks=tuple(DiskConfig(path, bus="virtio") for path in paths),
        )
    )
    guest.start()
    reach_shell(guest)
    recovered = command(
        guest,
        "mkdir /raw /qcow2; mount -t ext4 /dev/vda /raw; mount -t ext4 /dev/vdb /qcow2; dmesg | grep recovery",
    )
    assert recovered.count("recovery complete") == 2
    listed = command(guest, "cd /; sha256sum raw/*-* qcow2/*-*; cd; umount /raw /qcow2").splitlines()
    found = {path: digest for digest, path in (line.split("  ") for line in listed)}
    assert {path: found.get(path) for path in lasting} == {path: synced[path] for path in lasting}
    both = synced.keys() & found.keys()
    assert {path: found[path] for path in both} == {path: synced[path] for path in both}
    power_off(guest)
    guest.delete()

    is_clean(raw)
    assert check(qcow2).corruptions == 0
    disk = Qcow2Disk(qcow2, read_only=True)
    is_clean(copy_out(disk, tmp_path / "copy.img"))
    disk.close()
    RawDisk(raw).close()  # no lock is left
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots=f"directly on pc, disks on virtio, emuvisor killed {len(REPORTS)} times",
        checked="files that were synced on raw and qcow2 are there after journal replay; e2fsck",
    )
