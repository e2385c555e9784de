"""An image file of a disk, by byte offsets: what the kinds of disk have in common."""

import errno
import os
from pathlib import Path

from emuvisor.devices.storage.holes import punch_hole
from emuvisor.errors import ImageError

__all__ = ["ImageFile"]


class ImageFile:
    """The file at `path`, open for reading, and for writing unless `read_only`. `size` is read once, at opening.

    `kind` is what messages call it. Raises ImageError for a file that cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool, kind: str = "disk image") -> None:
        self.path = Path(path)
        self.kind = kind
        try:
            self.fd = os.open(self.path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR))
        except OSError as error:
            raise ImageError(f"{self.path}: cannot open the {kind}: {error.strerror}") from error
        try:
            # The end of the file instead of its stat size: that is 0 for a host's block device.
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
            if self.size > 0:
                os.pread(self.fd, 1, 0)
        except OSError as error:
            self.close()
            raise ImageError(f"{self.path}: cannot read the {kind}: {error.strerror}") from error

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises OSError when they cannot be read or the file has become shorter."""
        data = os.pread(self.fd, length, offset)
        while len(data) < length:
            part = os.pread(self.fd, length - len(data), offset + len(data))
            if not part:
                raise OSError(errno.EIO, f"the {self.kind} became shorter", str(self.path))
            data += part
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data` from `offset` on. Raises OSError when the host cannot write it."""
        done = os.pwrite(self.fd, data, offset)
        while done < len(data):
            done += os.pwrite(self.fd, memoryview(data)[done:], offset + done)

    def discard(self, offset: int, length: int) -> None:
        """Make `length` bytes from `offset` zeros that take no space. Raises OSError."""
        punch_hole(self.fd, offset, length)

    def flush(self) -> None:
        """Return when everything written is on stable storage. Raises OSError."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Close the file; more than once is allowed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
