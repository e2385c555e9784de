"""An image file of a disk, by byte offsets: what the kinds of disk have in common."""

import errno
import os
import stat
from pathlib import Path

from emuvisor.devices.storage.locks import lock_image
from emuvisor.devices.storage.scatter import Buffers, total_length, transfer
from emuvisor.errors import ImageError
from emuvisor.holes import punch_hole, zero_range
from emuvisor.units import MIB

__all__ = ["ImageFile", "sync_directory"]

STAT_BLOCK = 512
"""Unit of a file's `st_blocks`."""
ZEROS = bytes(MIB)


class ImageFile:
    """The file at `path`, open for reading, and for writing unless `read_only`. `size` is read once, at opening.

    A file that is open for writing is nobody else's; one that is open for reading is no writer's (`locks.py`). `kind`
    is what messages call it. Raises ImageError for a file that cannot be opened or is in use.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool, kind: str = "disk image") -> None:
        self.path = Path(path)
        self.kind = kind
        self._flush_failed = False
        try:
            self.fd = os.open(self.path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR))
        except OSError as error:
            raise ImageError(f"{self.path}: cannot open the {kind}: {error.strerror}") from error
        try:
            lock_image(self.fd, self.path, exclusive=not read_only, kind=kind)
            # The end of the file instead of its stat size: that is 0 for a host's block device.
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
            if self.size > 0:
                os.pread(self.fd, 1, 0)
        except OSError as error:
            self.close()
            raise ImageError(f"{self.path}: cannot read the {kind}: {error.strerror}") from error
        except ImageError:
            self.close()
            raise

    @property
    def allocated(self) -> int:
        """Bytes that the file takes on the host's file system; of a host's block device, all of them."""
        status = os.fstat(self.fd)
        return self.size if stat.S_ISBLK(status.st_mode) else status.st_blocks * STAT_BLOCK

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises OSError when they cannot be read or the file has become shorter."""
        data = os.pread(self.fd, length, offset)
        while len(data) < length:
            part = os.pread(self.fd, length - len(data), offset + len(data))
            if not part:
                raise self._shorter()
            data += part
        return data

    def read_into(self, offset: int, views: Buffers) -> None:
        """Fill `views` with the bytes from `offset` on. Raises OSError as `read` does."""
        if transfer(os.preadv, self.fd, offset, views) < total_length(views):
            raise self._shorter()

    def _shorter(self) -> OSError:
        return OSError(errno.EIO, f"the {self.kind} became shorter", str(self.path))

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data` from `offset` on. Raises OSError when the host cannot write it."""
        done = os.pwrite(self.fd, data, offset)
        while done < len(data):
            done += os.pwrite(self.fd, memoryview(data)[done:], offset + done)

    def write_from(self, offset: int, views: Buffers) -> None:
        """Store what `views` have from `offset` on. Raises OSError when the host cannot write it."""
        transfer(os.pwritev, self.fd, offset, views)

    def discard(self, offset: int, length: int) -> bool:
        """Make `length` bytes from `offset` a hole, zeros that take no space. False when the file system has no holes:
        the bytes then stay what they were. Raises OSError."""
        try:
            punch_hole(self.fd, offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return False
        return True

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make `length` bytes from `offset` zeros: a hole with `unmap`, otherwise zeros that have their space. Where
        the file system cannot do that, they are written. Raises OSError."""
        try:
            (punch_hole if unmap else zero_range)(self.fd, offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            for start in range(offset, offset + length, len(ZEROS)):
                self.write(start, memoryview(ZEROS)[: offset + length - start])

    def flush(self) -> None:
        """Return when everything written is on stable storage. Raises OSError (EIO).

        The kernel reports what it could not store once, and forgets it: after a failure no later flush succeeds,
        because none could vouch for what was written before.
        """
        if self._flush_failed:
            raise OSError(errno.EIO, f"an earlier flush of the {self.kind} failed", str(self.path))
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self._flush_failed = True
            raise OSError(errno.EIO, f"cannot flush: {error.strerror}", str(self.path)) from error

    def share(self) -> None:
        """Be one of many readers from now on; nobody writes the file. Raises ImageError."""
        lock_image(self.fd, self.path, exclusive=False, kind=self.kind)

    def close(self) -> None:
        """Close the file; more than once is allowed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sync_directory(path: Path) -> None:
    """Return when the name of the new file at `path` is on stable storage too. Raises OSError."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
