"""A nameless file that is made when something is first written to it, and is gone when it is closed."""

import errno
import os
import tempfile
from pathlib import Path

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.errors import ImageError

__all__ = ["TemporaryFile", "temporary_folder"]

WITHOUT_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""What file systems say that have no O_TMPFILE."""


class TemporaryFile(ImageFile):
    """A sparse file of `size` bytes in `folder`, without a name: it vanishes with the process, however that ends.

    It takes nothing of the host before `fd` is first used, which raises OSError when the host cannot make it. Raises
    ImageError for a folder that is not there or cannot be written to.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder
        self.kind = "temporary overlay"
        self.size = size
        self._flush_failed = False
        self.fd = -1
        if not os.access(folder, os.W_OK | os.X_OK):
            number = errno.EACCES if folder.exists() else errno.ENOENT
            raise ImageError(f"{folder}: cannot make a temporary overlay: {os.strerror(number)}")

    @property
    def fd(self) -> int:
        """The open file. Raises OSError."""
        if self._fd < 0:
            fd = _nameless(self.path)
            try:
                os.ftruncate(fd, self.size)
            except OSError:
                os.close(fd)
                raise
            self.fd = fd
        return self._fd

    @fd.setter
    def fd(self, fd: int) -> None:
        self._fd = fd

    @property
    def allocated(self) -> int:
        """Bytes that the file takes on the host's file system."""
        return super().allocated if self._fd >= 0 else 0

    def close(self) -> None:
        """Forget what is in it; it can be used again, and then reads as zeros. More than once is allowed."""
        if self._fd >= 0:
            os.close(self._fd)
            self.fd = -1


def _nameless(folder: Path) -> int:
    """A new file in `folder` that has no name, open. Raises OSError."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in WITHOUT_NAMELESS_FILES:
            raise
    fd, path = tempfile.mkstemp(prefix="emuvisor-overlay-", dir=folder)
    Path(path).unlink()
    return fd


def temporary_folder(near: Path) -> Path:
    """Where temporary files for the disk at `near`, a file or folder, go: its folder, or the host's one for such files
    where that cannot be written to or `near` is no regular file."""
    if near.is_dir():
        return near
    if near.is_file() and os.access(near.parent, os.W_OK | os.X_OK):
        return near.parent
    return Path(tempfile.gettempdir())
