"""The file that pages are swapped to, as far as the operating system is concerned."""

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from emuvisor.errors import HostError, UsageError
from emuvisor.holes import punch_hole

__all__ = ["HostPagingFile", "PagingFile"]

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that cannot lock files: some of the network's."""


class PagingFile(Protocol):
    """What a swap file needs of a file; tests put a faulty one in its place. All calls raise OSError."""

    @property
    def path(self) -> Path:
        """What messages call it."""
        ...

    def read(self, buffers: Sequence[memoryview | bytearray], offset: int) -> int:
        """Fill `buffers` in order from `offset`; returns how many bytes there were, fewer at the file's end."""
        ...

    def write(self, pages: Sequence[memoryview], offset: int) -> int:
        """Write `pages` in order at `offset`; returns how many bytes were, at least one."""
        ...

    def punch(self, offset: int, length: int) -> None:
        """Let the host have the space of a range; what it held is gone. EOPNOTSUPP where there are no holes."""
        ...

    def close(self) -> None:
        """Close and delete it."""
        ...


class HostPagingFile:
    """A new file at `path`, of mode 600, locked where the file system has locks, and deleted by `close`.

    Raises UsageError when something is at `path` already, which is never opened for writing; HostError when the file
    cannot be made.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self.path = path.absolute()  # it is deleted at the end, whatever folder the process is in then
            self._fd = os.open(path, flags, 0o600)
        except FileExistsError:
            raise UsageError(f"swap file {path} {_why_not(path)}") from None
        except OSError as error:
            raise HostError(f"swap file {path} cannot be made: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self.close()
                raise HostError(f"swap file {path} cannot be locked: {error.strerror}") from None

    def read(self, buffers: Sequence[memoryview | bytearray], offset: int) -> int:
        """As `PagingFile.read`."""
        return os.preadv(self._fd, buffers, offset)

    def write(self, pages: Sequence[memoryview], offset: int) -> int:
        """As `PagingFile.write`."""
        return os.pwritev(self._fd, pages, offset)

    def punch(self, offset: int, length: int) -> None:
        """As `PagingFile.punch`."""
        punch_hole(self._fd, offset, length)

    def close(self) -> None:
        """As `PagingFile.close`. A file that has taken its place at `path` is left alone."""
        if self._fd < 0:
            return
        ours = os.fstat(self._fd)
        try:
            there = self.path.lstat()
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                self.path.unlink()
        except FileNotFoundError:
            pass
        finally:
            os.close(self._fd)
            self._fd = -1


def _why_not(path: Path) -> str:
    """What is known about the thing that is in a swap file's place."""
    left = "exists already; one that was left behind by a host that was killed can be removed"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return left
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return "is a folder; name a new file in it"
        if not stat.S_ISREG(mode):
            return "exists already and is no file"
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "is in use by another host"
    except OSError:  # no locks, so nobody knows
        return left
    finally:
        os.close(fd)
    return left
