"""Formats of floppy disks: an image's size says which one it has.

Sources: Intel 82077AA data sheet, data rates; the drive types are those of a PC's CMOS byte 10h.
"""

from dataclasses import dataclass

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.errors import ImageError
from emuvisor.units import KIB

__all__ = ["SIDES", "MediaFormat", "format_of"]

SIDES = 2

# Data rates, as the DSR and the CCR select them.
RATE_500K = 0
RATE_300K = 1
RATE_250K = 2
RATE_1M = 3


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """`tracks` on each side of `sectors` sectors, readable at `rates`, in a drive of CMOS type `drive_type`."""

    name: str
    tracks: int
    sectors: int
    rates: tuple[int, ...]
    drive_type: int

    @property
    def size(self) -> int:
        """Bytes of an image."""
        return self.tracks * SIDES * self.sectors * SECTOR_SIZE


FORMATS = (
    # 250 kb/s in a drive that turns at 300 rpm, 300 kb/s at 360: firmware and kernels differ on what this one has.
    MediaFormat("360 KB", 40, 9, (RATE_250K, RATE_300K), 1),
    MediaFormat("1.2 MB", 80, 15, (RATE_500K,), 2),
    MediaFormat("720 KB", 80, 9, (RATE_250K,), 3),
    MediaFormat("1.44 MB", 80, 18, (RATE_500K,), 4),
    MediaFormat("2.88 MB", 80, 36, (RATE_1M,), 5),
)
_BY_SIZE = {media.size: media for media in FORMATS}
EMPTY_DRIVE_TYPE = 4
"""What a drive without a disk says it is: a 1.44 MB drive."""


def format_of(disk: BlockDevice) -> MediaFormat:
    """The format of the floppy disk `disk`. Raises ImageError when none has its size."""
    size = disk.sectors * SECTOR_SIZE
    media = _BY_SIZE.get(size)
    if media is None:
        sizes = ", ".join(f"{media.size // KIB} KiB ({media.name})" for media in FORMATS)
        raise ImageError(f"{disk.name}: no floppy disk has {size} bytes; sizes are {sizes}")
    return media
