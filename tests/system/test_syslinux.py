"""SYSLINUX from a FAT disk and a floppy, ISOLINUX from a CD, started by SeaBIOS."""

import pytest
from compatibility import Compatibility
from guests import boot_disks, cdrom, disk, expect, floppy, power_off, reach_shell, see

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.units import MIB

pytestmark = pytest.mark.system


def test_hard_disk(host: Host, syslinux: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, disk(syslinux))
    see(guest, "^boot:")
    guest.type_keys("debian\n")
    reach_shell(guest)
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="SYSLINUX from an IDE disk (FAT), SeaBIOS",
        checked="name typed at the keyboard; shell; power-off",
    )


def test_iso(host: Host, syslinux: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, cdrom(syslinux))
    expect(guest, "boot: ")
    guest.type("debian\r")
    reach_shell(guest)
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="ISOLINUX from an ISO (ATAPI CD-ROM), SeaBIOS",
        checked="name typed on the serial port; shell; power-off",
    )


def test_floppy(host: Host, syslinux: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, floppy(syslinux), memory=8 * MIB)
    lines = see(guest, r"Pass +[1-9]\d*%")
    assert "Memtest86+" in lines[0]
    compatibility.row(
        guest="memtest86+",
        boots="SYSLINUX from a floppy (FAT), SeaBIOS",
        checked="its tests begin",
    )
