"""Giving a file's blocks back to the host: fallocate(2) with FALLOC_FL_PUNCH_HOLE, for which Python has no call."""

import ctypes
import os

__all__ = ["punch_hole"]

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make `length` bytes from `offset` zeros that take no space.

    Raises OSError, EOPNOTSUPP among them: not every file system has holes.
    """
    if _fallocate is None:
        raise OSError(95, "the host has no fallocate")
    if _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
