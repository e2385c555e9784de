"""SeaBIOS, unmodified, finds the drives and tries to boot from each."""

from pathlib import Path

import pytest
from compatibility import Compatibility
from guests import boot_disks, cdrom, disk, expect, floppy, power_off, reach_shell, see, shown

from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

NOT_BOOTABLE = {
    "Booting from Hard Disk...": "Boot failed: not a bootable disk",
    "Booting from Floppy...": "Boot failed: not a bootable disk",
    "Booting from DVD/CD...": "Boot failed: Could not read from CDROM (code 0005)",
}
"""What it says of media that it can read and that hold zeros."""


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_disk_floppy_and_cd_are_found(
    host: Host, seabios: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    guest = boot_disks(
        host,
        DiskConfig(blank(tmp_path / "disk.img", 8 * MIB)),
        DiskConfig(blank(tmp_path / "floppy.img", 1440 * 1024), kind="floppy"),
        DiskConfig(blank(tmp_path / "cd.iso", MIB), kind="cdrom"),
        memory=32 * MIB,
    )
    lines = shown(see(guest, "^No bootable device")).splitlines()
    tried = {line: lines[i + 1] for i, line in enumerate(lines) if line.startswith("Booting from")}
    assert tried == NOT_BOOTABLE
    compatibility.row(
        guest="SeaBIOS (Debian's package)",
        boots="from the reset vector",
        checked="disk, floppy and CD found and read; VGA BIOS's text",
    )


def test_disk_before_cd(host: Host, syslinux: Image, grub: Image, compatibility: Compatibility) -> None:
    """With two bootable media the disk's loader starts, and its kernel finds both."""
    guest = boot_disks(host, disk(syslinux), cdrom(grub), floppy(syslinux))
    expect(guest, "boot: ")
    assert "SYSLINUX" in shown(see(guest, "^boot:"))
    guest.type("debian\r")
    reach_shell(guest)
    power_off(guest)
    compatibility.row(
        guest="Debian cloud kernel (amd64)",
        boots="SYSLINUX from an IDE disk, a bootable CD and floppy in their drives, SeaBIOS",
        checked="the disk comes first; shell; power-off",
    )


def option_rom(text: str) -> bytes:
    """A ROM whose initialization prints `text` to the debug console (PnP BIOS specification, 3.3)."""
    code = b"\xba\x02\x04" + b"".join(bytes((0xB0, letter, 0xEE)) for letter in text.encode()) + b"\xcb"
    rom = bytearray(b"\x55\xaa\x01" + code).ljust(
        512, b"\0"
    )  # mov dx, 402h; mov al, letter; out dx, al; retf
    rom[-1] = -sum(rom) & 0xFF
    return bytes(rom)


def test_option_rom_from_a_file(
    host: Host, seabios: Image, tmp_path: Path, compatibility: Compatibility
) -> None:
    rom = tmp_path / "mine.rom"
    rom.write_bytes(option_rom("<my option ROM>"))
    disk_config = DiskConfig(blank(tmp_path / "disk.img", MIB))
    guest = host.create(
        GuestConfig(firmware="seabios", memory=32 * MIB, disks=(disk_config,), option_roms=(rom,))
    )
    guest.start()
    see(guest, "^No bootable device")
    assert "<my option ROM>" in guest.machine.debug.text
    compatibility.row(
        guest="SeaBIOS (Debian's package)",
        boots="from the reset vector, an option ROM from a file",
        checked="the ROM is found and run",
    )
