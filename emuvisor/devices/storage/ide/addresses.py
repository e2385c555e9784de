"""The address in a drive's registers: cylinder, head and sector, or an LBA of 28 or 48 bits.

Source: ATA/ATAPI-6 (T13/1410D), section 7 for the registers, and the 48-bit Address feature set, for which they hold
two bytes each: the one written last, and above it the one before.
"""

from emuvisor.devices.storage.ide import registers as r
from emuvisor.devices.storage.ide.drive import Drive
from emuvisor.devices.storage.ide.geometry import Geometry

__all__ = ["addressed_count", "addressed_lba", "show_lba"]

EXTENDED = {
    r.READ_SECTORS_EXT,
    r.READ_DMA_EXT,
    r.READ_NATIVE_MAX_EXT,
    r.READ_MULTIPLE_EXT,
    r.WRITE_SECTORS_EXT,
    r.WRITE_DMA_EXT,
    r.WRITE_MULTIPLE_EXT,
    r.READ_VERIFY_EXT,
}
"""Commands of the 48-bit Address feature set."""


def addressed_count(drive: Drive) -> int:
    """How many sectors the command is about; 0 in the register stands for the most."""
    if drive.command in EXTENDED:
        return drive.count or 0x10000
    return drive.count & 0xFF or 0x100


def addressed_lba(drive: Drive, geometry: Geometry) -> int | None:
    """The first sector's number, by the current `geometry`; None for a CHS address that does not exist."""
    low, mid, high = drive.lba_low, drive.lba_mid, drive.lba_high
    if drive.command in EXTENDED:
        older = (high >> 8) << 16 | (mid >> 8) << 8 | low >> 8
        return older << 24 | (high & 0xFF) << 16 | (mid & 0xFF) << 8 | low & 0xFF
    cylinder = (high & 0xFF) << 8 | mid & 0xFF
    head = drive.device_head & r.HEAD_MASK
    if drive.device_head & r.LBA:
        return head << 24 | cylinder << 8 | low & 0xFF
    return geometry.to_lba(cylinder, head, low & 0xFF)


def show_lba(drive: Drive, lba: int, geometry: Geometry) -> None:
    """Put `lba` into the registers, in the form that the command uses."""
    if drive.command in EXTENDED:
        drive.lba_low = (lba >> 24 & 0xFF) << 8 | lba & 0xFF
        drive.lba_mid = (lba >> 32 & 0xFF) << 8 | lba >> 8 & 0xFF
        drive.lba_high = (lba >> 40 & 0xFF) << 8 | lba >> 16 & 0xFF
        return
    if drive.device_head & r.LBA:
        cylinder, head, drive.lba_low = lba >> 8 & 0xFFFF, lba >> 24, lba & 0xFF
    else:
        cylinder, head, drive.lba_low = geometry.from_lba(lba)
    drive.lba_mid, drive.lba_high = cylinder & 0xFF, cylinder >> 8 & 0xFF
    drive.device_head = drive.device_head & ~r.HEAD_MASK | head & r.HEAD_MASK
