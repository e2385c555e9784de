"""Text screens, compared whole."""

import re
import threading
import time
from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import LOOK_S, SCREEN_S, boot_disks, command, disk, power_off, reach_shell, see, shown

from emuvisor.host import Guest, Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig, KernelConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

SEABIOS = """\
SeaBIOS (version VERSION)
Booting from Hard Disk...
Boot failed: not a bootable disk

Booting from Floppy...
Boot failed: could not read the boot disk

No bootable device."""

GRUB = """\

                       GNU GRUB  version VERSION

 ┌────────────────────────────────────────────────────────────────────────────┐
 │*Debian                                                                     │
 │ memtest86+                                                                 │
 │ Power off                                                                  │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 │                                                                            │
 └────────────────────────────────────────────────────────────────────────────┘

      Use the ARROW and ARROW keys to select which entry is highlighted.
      Press enter to boot the selected OS, `e' to edit the commands
      before booting or `c' for a command-line."""

DEBIAN = """\
      /   0 zero
     /    1 one
    /     2 two
a line of eighty columns, after which the next character has to begin a new one*
*and the next one"""


def without_versions(text: str) -> str:
    """What varies from package to package: versions, and how GRUB draws its arrows."""
    text = re.sub(r"(?<=version )[^\s)]+", "VERSION", text)
    return re.sub(r"(?<=Use the )\S?( and )\S?(?= keys)", r"ARROW\1ARROW", text)


def comes_to_show(guest: Guest, screen: str) -> str:
    """`screen`, or what is there in its place after all patience: it is drawn piece by piece."""
    end = time.monotonic() + SCREEN_S
    while (seen := without_versions(shown(see(guest, "")))) != screen and time.monotonic() < end:
        threading.Event().wait(LOOK_S)
    return seen


def test_seabios(host: Host, seabios: Image, tmp_path: Path, compatibility: Compatibility) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    guest = boot_disks(host, DiskConfig(path), memory=32 * MIB)
    assert without_versions(shown(see(guest, "^No bootable device"))) == SEABIOS
    compatibility.row(
        guest="SeaBIOS (Debian's package)",
        boots="from the reset vector, a blank disk in its drive",
        checked="the whole screen as text",
    )


def test_grub(host: Host, grub: Image, compatibility: Compatibility) -> None:
    guest = boot_disks(host, disk(grub))
    assert comes_to_show(guest, GRUB) == GRUB
    guest.send_keys("down")
    see(guest, r"^ .\*memtest86\+")
    guest.send_keys("up")
    assert comes_to_show(guest, GRUB) == GRUB
    compatibility.row(
        guest="GRUB (Debian's package)",
        boots="from an IDE disk, SeaBIOS",
        checked="the whole screen as text; arrow keys",
    )


def test_debian_console(host: Host, debian: Image, compatibility: Compatibility) -> None:
    """Linux's own VGA text console: cursor addressing, scrolling, line wrap."""
    kernel = KernelConfig(debian.path / "vmlinuz", debian.initrd, "console=tty0 console=ttyS0")
    guest = host.create(GuestConfig(board="pc", memory=128 * MIB, kernel=kernel))
    guest.start()
    reach_shell(guest)
    command(guest, "seq 100 > /dev/tty1")
    assert shown(see(guest, "^100$")).splitlines()[-3:] == ["98", "99", "100"]
    slope = "".join(rf"\033[{row};{8 - row}H/\033[{row};11H{row - 1} {word}" for row, word in
                    enumerate(("zero", "one", "two"), 1))  # fmt: skip
    wrap = "a line of eighty columns, after which the next character has to begin a new one*"
    command(guest, rf"printf '\033[2J{slope}\033[4;1H{wrap}*and the next one' > /dev/tty1")
    assert shown(see(guest, "next one")) == DEBIAN
    picture = guest.screen().png()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="directly on pc, VGA text console",
        checked="the whole screen as text: cursor addressing, scrolling, line wrap",
    )
