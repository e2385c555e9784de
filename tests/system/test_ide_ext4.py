"""A guest makes an ext4 file system on an IDE disk; the host finds it whole."""

import hashlib
from pathlib import Path

import pytest
from compatibility import Compatibility
from filesystems import is_clean, numbers, read_file, with_mke2fs
from guests import command, power_off, reach_shell

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

DISK_SIZE = 64 * MIB
LINES = 200_000


@pytest.mark.parametrize("place", ["sda", "sdb"])
def test_made_written_and_checked(
    host: Host, debian: Image, place: str, tmp_path: Path, compatibility: Compatibility
) -> None:
    assert debian.initrd is not None
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(with_mke2fs(debian.initrd.read_bytes()))
    paths = [tmp_path / "sda.img", tmp_path / "sdb.img"]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(DISK_SIZE)
    guest = host.create(
        GuestConfig(
            board="pc",
            memory=256 * MIB,
            kernel=KernelConfig(debian.path / "vmlinuz", initrd, "console=ttyS0"),
            disks=tuple(DiskConfig(path) for path in paths),
        )
    )
    guest.start()
    reach_shell(guest)
    assert command(guest, "cat /sys/block/sd*/size") == f"{DISK_SIZE // 512}\n{DISK_SIZE // 512}"
    made = command(guest, f"/sbin/mkfs.ext4 -q /dev/{place}; echo made=$?")
    assert made.endswith("made=0"), made
    command(guest, f"mkdir -p /mnt; mount -t ext4 /dev/{place} /mnt; mkdir /mnt/folder")
    command(guest, f"seq {LINES} > /mnt/folder/numbers; cp /mnt/folder/numbers /mnt/gone; sync; rm /mnt/gone")
    # Drop what is cached, so that it is read from the disk.
    command(guest, f"umount /mnt; echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/{place} /mnt")
    assert command(guest, "sha256sum < /mnt/folder/numbers") == numbers(LINES)
    assert "DMA" in command(guest, "cat /sys/class/ata_device/dev1.0/xfer_mode")
    command(guest, "umount /mnt; sync")
    power_off(guest)

    image = paths[place == "sdb"]
    is_clean(image)
    digest = hashlib.sha256(read_file(image, "/folder/numbers")).hexdigest()
    assert f"{digest}  -" == numbers(LINES)
    assert not any(paths[place == "sda"].read_bytes()), "the other disk was written to"
    drive = {"sda": "master", "sdb": "slave"}[place]
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots=f"directly on pc, two IDE disks, {drive} in use",
        checked="ext4 made, written, read back by DMA; e2fsck and checksum on the host",
    )


def test_floppy_is_written(
    host: Host, debian_i386: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    path = tmp_path / "floppy.img"
    path.write_bytes(bytes(1440 * 1024))
    guest = host.create(
        GuestConfig(
            board="pc",
            memory=128 * MIB,
            kernel=KernelConfig(
                debian_i386.path / "vmlinuz", debian_i386.path / "initrd.cpio", "console=ttyS0"
            ),
            disks=(DiskConfig(path, kind="floppy"),),
        )
    )
    guest.start()
    reach_shell(guest)
    command(guest, "modprobe floppy; mkdir /mnt; mkdosfs /dev/fd0")
    command(guest, "mount -t vfat /dev/fd0 /mnt; seq 20000 > /mnt/numbers; sync; umount /mnt")
    command(guest, "echo 3 > /proc/sys/vm/drop_caches; mount -t vfat /dev/fd0 /mnt")
    text = "".join(f"{i}\n" for i in range(1, 20_001)).encode()
    assert command(guest, "sha256sum < /mnt/numbers; umount /mnt") == f"{hashlib.sha256(text).hexdigest()}  -"
    power_off(guest)
    assert text[:512] in path.read_bytes()
    compatibility.row(
        guest="Debian 686 kernel (i386)",
        boots="directly on pc, a floppy disk in its drive",
        checked="FAT made, written, read back; found on the host",
    )
