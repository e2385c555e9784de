"""memtest86+ tests memory: started by us, from a floppy, a hard disk and a CD."""

import re

import pytest
from compatibility import Compatibility
from guests import boot_disks, cdrom, disk, expect, floppy, see, shown

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

MEMORY = 8 * MIB
PASS_S = 720
BIT_FADE = r"Test #10 +\[Bit fade test"


def finish_pass(guest: Guest) -> str:
    """The screen after a whole first pass.

    Its last test waits minutes for bits to fade, which emulated memory's do not: it is skipped in the menu.
    """
    see(guest, BIT_FADE, PASS_S)
    guest.send_keys("f1")
    see(guest, "<F5>  Skip current test")
    guest.send_keys("f5")
    return shown(see(guest, r"Pass: +1 +Errors"))


def check(screen: str) -> None:
    assert re.search(r"Memtest86\+ v\d", screen.splitlines()[0]), screen
    assert re.search(r"Status: Pass ", screen), screen
    assert re.search(r"Pass: +1 +Errors: 0\b", screen), screen


CHECKED = "a whole pass without errors"


def test_linux_boot_protocol(host: Host, memtest: Image, compatibility: Compatibility) -> None:
    assert memtest.kernel is not None
    kernel = KernelConfig(memtest.kernel, append="nosmp nobench nosm nopause")
    guest = host.create(GuestConfig(board="pc", memory=MEMORY, kernel=kernel))
    guest.start()
    check(finish_pass(guest))
    compatibility.row(guest="memtest86+", boots="directly, 32-bit boot protocol", checked=CHECKED)


def test_floppy(host: Host, memtest: Image, seabios: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, floppy(memtest), memory=MEMORY)
    check(finish_pass(guest))
    compatibility.row(guest="memtest86+", boots="floppy, SeaBIOS", checked=CHECKED)


def test_hard_disk(host: Host, syslinux: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, disk(syslinux), memory=MEMORY)
    expect(guest, "boot: ")
    guest.type("memtest\r")
    check(finish_pass(guest))
    compatibility.row(guest="memtest86+", boots="SYSLINUX from an IDE disk (FAT), SeaBIOS", checked=CHECKED)


def test_iso(host: Host, memtest: Image, seabios: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, cdrom(memtest), memory=MEMORY)
    check(finish_pass(guest))
    compatibility.row(
        guest="memtest86+", boots="ISO (El Torito floppy emulation, ATAPI CD-ROM), SeaBIOS", checked=CHECKED
    )
