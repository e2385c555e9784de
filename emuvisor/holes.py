"""Space in a file: fallocate(2), of which Python has only the part that POSIX has."""

import ctypes
import errno
import os

__all__ = ["allocate", "punch_hole", "zero_range"]

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _call(fd: int, mode: int, offset: int, length: int) -> None:
    if _fallocate is None:
        raise OSError(errno.EOPNOTSUPP, "the host has no fallocate")
    while _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make `length` bytes from `offset` zeros that take no space.

    Raises OSError, EOPNOTSUPP among them: not every file system has holes.
    """
    _call(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make `length` bytes from `offset` zeros that have their space.

    Raises OSError, EOPNOTSUPP among them: not every file system can do this without writing.
    """
    _call(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length)


def allocate(fd: int, offset: int, length: int) -> None:
    """Give `length` bytes from `offset` their space; content stays, and the file grows if they lie behind its end.

    Raises OSError, EOPNOTSUPP among them.
    """
    _call(fd, 0, offset, length)
