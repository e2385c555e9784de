"""A disk whose sectors are the bytes of a file, in order."""

import errno
import os
from pathlib import Path
from typing import Self

from emuvisor.devices.blockdevice import SECTOR_SIZE
from emuvisor.errors import ImageError

__all__ = ["RawDisk"]


class RawDisk:
    """The raw image file at `path` as a block device; a context manager that closes the file.

    The size is read once, when the file is opened. Raises ImageError for a file that cannot be opened, is
    empty, or is not a whole number of sectors.
    """

    def __init__(self, path: str | os.PathLike[str], read_only: bool = False) -> None:
        self._path = Path(path)
        self._read_only = read_only
        try:
            self._fd = os.open(self._path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR))
        except OSError as error:
            raise ImageError(f"{self._path}: cannot open the disk image: {error.strerror}") from error
        try:
            self._sectors = self._measure()
        except ImageError:
            self.close()
            raise

    def _measure(self) -> int:
        # The end of the file instead of its stat size: that is 0 for a host's block device.
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if size == 0:
            raise ImageError(f"{self._path}: the disk image is empty")
        if size % SECTOR_SIZE:
            raise ImageError(
                f"{self._path}: the disk image has {size} bytes, "
                f"not a multiple of the {SECTOR_SIZE}-byte sector"
            )
        return size // SECTOR_SIZE

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        return self._sectors

    @property
    def read_only(self) -> bool:
        """Whether the file was opened for reading only."""
        return self._read_only

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`.

        Raises OSError when the host cannot read them, or the file has become shorter.
        """
        data = bytearray()
        while len(data) < count * SECTOR_SIZE:
            part = os.pread(self._fd, count * SECTOR_SIZE - len(data), lba * SECTOR_SIZE + len(data))
            if not part:
                raise OSError(errno.EIO, "the disk image became shorter", self.name)
            data += part
        return bytes(data)

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on.

        Raises OSError when the host cannot write them.
        """
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], lba * SECTOR_SIZE + done)

    def close(self) -> None:
        """Close the file; more than once is allowed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
