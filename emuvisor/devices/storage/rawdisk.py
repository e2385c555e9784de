"""A disk whose sectors are the bytes of a file, in order. Sectors that are zeros may be holes and take no space."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.extents import file_extents
from emuvisor.devices.storage.imagefile import ImageFile, sync_directory
from emuvisor.devices.storage.scatter import Buffers
from emuvisor.errors import ImageError
from emuvisor.holes import allocate
from emuvisor.units import MIB

__all__ = ["Preallocation", "RawDisk", "create_raw"]

Preallocation = Literal["off", "falloc", "full"]
"""What a new image gets from the host at once: nothing, its space, or its space with zeros written to it."""

CHUNK = MIB
"""Bytes that a full preallocation writes at a time."""


class RawDisk:
    """The raw image file at `path` as a block device; a context manager that closes the file.

    Raises ImageError for a file that cannot be opened, is in use, is empty, or is not a whole number of sectors.
    """

    reads_in_parallel = True

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
    def host_path(self) -> Path:
        """The file's path."""
        return self._file.path

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        return self._file.size // SECTOR_SIZE

    @property
    def read_only(self) -> bool:
        """Whether the file was opened for reading only."""
        return self._read_only

    @property
    def allocated(self) -> int:
        """Bytes that the file takes on the host's file system. Raises OSError."""
        return self._file.allocated

    def data_extents(self, lba: int, count: int) -> Iterator[tuple[int, int]]:
        """The sector ranges among `count` from `lba` that are not holes of the file, in order. Raises OSError."""
        for start, end in file_extents(self._file.fd, lba * SECTOR_SIZE, count * SECTOR_SIZE):
            yield start // SECTOR_SIZE, end // SECTOR_SIZE

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`.

        Raises OSError when the host cannot read them, or the file has become shorter.
        """
        return self._file.read(lba * SECTOR_SIZE, count * SECTOR_SIZE)

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views`, whole sectors together, with the sectors from `lba` on. Raises OSError."""
        self._file.read_into(lba * SECTOR_SIZE, views)

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on.

        Raises OSError when the host cannot write them.
        """
        self._file.write(lba * SECTOR_SIZE, data)

    def write_from(self, lba: int, views: Buffers) -> None:
        """Store what `views` have, whole sectors together, from sector `lba` on. Raises OSError."""
        self._file.write_from(lba * SECTOR_SIZE, views)

    def write_zeroes(self, lba: int, count: int, *, unmap: bool) -> None:
        """Make the sectors zeros; a hole with `unmap`. Raises OSError."""
        self._file.write_zeroes(lba * SECTOR_SIZE, count * SECTOR_SIZE, unmap=unmap)

    def discard(self, lba: int, count: int) -> None:
        """Make the sectors a hole in the file, if the host's file system has holes. Raises OSError."""
        self._file.discard(lba * SECTOR_SIZE, count * SECTOR_SIZE)

    def flush(self) -> None:
        """Return when everything written is on the host's stable storage. Raises OSError."""
        self._file.flush()

    def share_file(self) -> None:
        """It is written no more: from now on others may read the file too. Raises ImageError."""
        self._file.share()

    def close(self) -> None:
        """Close the file; more than once is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_raw(
    path: str | os.PathLike[str],
    size: int,
    preallocation: Preallocation = "off",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make a raw image of `size` bytes, whole sectors, all zeros. `progress(done, size)` hears how far a full
    preallocation is.

    Raises ImageError for a size that no disk has, for a `path` that exists, and when the host cannot make the file, of
    which nothing is then left.
    """
    path = Path(path)
    if size <= 0 or size % SECTOR_SIZE:
        raise ImageError(
            f"{path}: a disk image cannot have {size} bytes; "
            f"a positive multiple of the {SECTOR_SIZE}-byte sector is allowed"
        )
    try:
        with path.open("xb", buffering=0) as file:
            try:
                _fill(file.fileno(), size, preallocation, progress)
                sync_directory(path)
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        reason = error.strerror
        if error.errno == errno.EOPNOTSUPP:
            reason = "its file system cannot preallocate; preallocation full writes zeros instead"
        raise ImageError(f"{path}: cannot make the disk image: {reason}") from error


def _fill(
    fd: int, size: int, preallocation: Preallocation, progress: Callable[[int, int], None] | None
) -> None:
    """Give the new file `fd` its size and its space. Raises OSError."""
    os.ftruncate(fd, size)
    if preallocation == "falloc":
        allocate(fd, 0, size)
    elif preallocation == "full":
        zeros = memoryview(bytes(CHUNK))
        done = 0
        while done < size:
            done += os.pwrite(fd, zeros[: size - done], done)
            if progress is not None:
                progress(done, size)
    os.fsync(fd)
