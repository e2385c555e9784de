"""GRUB, started by SeaBIOS from a hard disk and from a CD, boots Debian's kernel."""

import hashlib

import pytest
from compatibility import Compatibility
from guests import boot_disks, cdrom, command, disk, power_off, reach_shell, see

from emuvisor.host import Host
from emuvisor.images.cache import Image

pytestmark = pytest.mark.system


def test_hard_disk(host: Host, grub: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, disk(grub))
    see(guest, r"^ .\*Debian")
    guest.send_keys("ret")
    reach_shell(guest)
    assert command(guest, "cat /sys/block/sda/size") == str((grub.path / "disk.img").stat().st_size // 512)
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="GRUB from an IDE disk, SeaBIOS",
        checked="menu chosen at the keyboard; shell; power-off",
    )


def test_serial_menu_of_the_hard_disk(host: Host, grub: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, disk(grub))
    assert guest.expect("Power off", 240)
    see(guest, "Power off")
    guest.type("\x1b[B\x1b[B")
    see(guest, r"\*Power off")
    guest.type("\x1b[A\x1b[A\r")
    reach_shell(guest)
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="GRUB's serial menu from an IDE disk, SeaBIOS",
        checked="menu chosen on the serial port; shell; power-off",
    )


def test_iso(host: Host, grub: Image, debian: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, cdrom(grub))
    reach_shell(guest)
    command(guest, "mkdir -p /mnt; mount -t iso9660 /dev/sr0 /mnt")
    kernel = hashlib.sha256((debian.path / "vmlinuz").read_bytes()).hexdigest()
    assert command(guest, "sha256sum < /mnt/boot/vmlinuz") == f"{kernel}  -"
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="GRUB from an ISO (ATAPI CD-ROM), SeaBIOS",
        checked="shell; a file of the mounted CD; power-off",
    )
