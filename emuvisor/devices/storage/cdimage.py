"""A CD-ROM or DVD: an ISO 9660 image, which is nothing but the 2,048-byte blocks of a disc in order."""

import errno
import os
from typing import Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDefaults
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.errors import ImageError

__all__ = ["BLOCK_SIZE", "SECTORS_PER_BLOCK", "CdImage"]

BLOCK_SIZE = 2048
"""User data of a CD-ROM sector in mode 1 (ECMA-130), and of every DVD sector."""
SECTORS_PER_BLOCK = BLOCK_SIZE // SECTOR_SIZE


class CdImage(BlockDefaults):
    """The image file at `path` as a read-only block device; a context manager that closes the file.

    A last block that the file cuts short is filled with zeros: tools leave such images. Raises ImageError for a
    file that cannot be opened or is smaller than a block.
    """

    read_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = ImageFile(path, read_only=True, kind="CD image")
        if self._file.size < BLOCK_SIZE:
            self.close()
            raise ImageError(
                f"{self.name}: the CD image has {self._file.size} bytes; a CD has at least one block of {BLOCK_SIZE}"
            )
        self._sectors = -(-self._file.size // BLOCK_SIZE) * SECTORS_PER_BLOCK

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._file.path)

    @property
    def sectors(self) -> int:
        """Capacity in sectors of `SECTOR_SIZE` bytes, a multiple of `SECTORS_PER_BLOCK`."""
        return self._sectors

    @property
    def allocated(self) -> int:
        """Bytes that the file takes on the host's file system. Raises OSError."""
        return self._file.allocated

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`.

        Raises OSError when the host cannot read them, or the file has become shorter.
        """
        offset, length = lba * SECTOR_SIZE, count * SECTOR_SIZE
        there = max(0, min(length, self._file.size - offset))
        return self._file.read(offset, there).ljust(length, b"\0")

    def write(self, lba: int, data: bytes) -> None:
        """Raises OSError: the disc cannot be written."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.name)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the file; more than once is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
