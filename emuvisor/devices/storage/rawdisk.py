"""A disk whose sectors are the bytes of a file, in order."""

import os
from typing import Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.errors import ImageError

__all__ = ["RawDisk"]


class RawDisk:
    """The raw image file at `path` as a block device; a context manager that closes the file.

    Raises ImageError for a file that cannot be opened, is empty, or is not a whole number of sectors.
    """

    def __init__(self, path: str | os.PathLike[str], read_only: bool = False) -> None:
        self._read_only = read_only
        self._file = ImageFile(path, read_only=read_only)
        size = self._file.size
        if size == 0 or size % SECTOR_SIZE:
            self.close()
            raise ImageError(
                f"{self.name}: the disk image is empty"
                if size == 0
                else f"{self.name}: the disk image has {size} bytes, not a multiple of the {SECTOR_SIZE}-byte sector"
            )

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._file.path)

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        return self._file.size // SECTOR_SIZE

    @property
    def read_only(self) -> bool:
        """Whether the file was opened for reading only."""
        return self._read_only

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`.

        Raises OSError when the host cannot read them, or the file has become shorter.
        """
        return self._file.read(lba * SECTOR_SIZE, count * SECTOR_SIZE)

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on.

        Raises OSError when the host cannot write them.
        """
        self._file.write(lba * SECTOR_SIZE, data)

    def discard(self, lba: int, count: int) -> None:
        """Make the sectors a hole in the file: zeros that take no space. Raises OSError."""
        self._file.discard(lba * SECTOR_SIZE, count * SECTOR_SIZE)

    def flush(self) -> None:
        """Return when everything written is on the host's stable storage. Raises OSError."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; more than once is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
