"""Linux system calls on descriptors that Python's os module lacks, and opening with room for one more descriptor.

An O_PATH descriptor names an inode without opening it. It cannot be read, but it can be looked through by
`magic_link`, a path that leads to this very inode whatever its name is by now.
"""

import ctypes
import errno
import os
import resource
from functools import cache
from typing import Any

from emuvisor.devices.virtio.fs.refusal import refusal

__all__ = [
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "UTIME_NOW",
    "UTIME_OMIT",
    "change_mode",
    "chown",
    "fallocate",
    "getdents",
    "magic_link",
    "open_descriptor",
    "present_path",
    "rename",
    "set_times",
]

# linux/fs.h, linux/stat.h, linux/fcntl.h
RENAME_NOREPLACE = 1 << 0
RENAME_EXCHANGE = 1 << 1
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
AT_EMPTY_PATH = 0x1000


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)


@cache
def _function(name: str, *arguments: Any) -> Any:
    """The C library's function with the types of its arguments. Raises OSError ENOSYS when it has none."""
    try:
        function = getattr(_libc, name)
    except AttributeError:
        raise refusal(errno.ENOSYS) from None
    function.argtypes = arguments
    function.restype = ctypes.c_ssize_t if name == "getdents64" else ctypes.c_int
    return function


def _call(function: Any, *arguments: Any) -> int:
    result: int = function(*arguments)
    if result < 0:
        raise refusal(ctypes.get_errno())
    return result


def magic_link(fd: int) -> bytes:
    """A path to the inode of descriptor `fd` (proc(5))."""
    return b"/proc/self/fd/%d" % fd


def present_path(fd: int) -> bytes:
    """Where the inode of descriptor `fd`, which may be O_PATH, is now. Raises OSError beyond PATH_MAX bytes."""
    return os.readlink(magic_link(fd))  # noqa: PTH115 - a path of bytes


def change_mode(fd: int, mode: int) -> None:
    """chmod(2) on the inode of `fd`, which may be O_PATH."""
    os.chmod(magic_link(fd), mode)  # noqa: PTH101 - a path of bytes


def open_descriptor(path: bytes, flags: int, *, mode: int = 0, dir_fd: int | None = None) -> int:
    """`os.open`. When the process has used up its descriptors, its soft limit is raised to the hard one, once."""
    try:
        return os.open(path, flags, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.EMFILE or not _raise_limit():
            raise
    return os.open(path, flags, mode, dir_fd=dir_fd)


def _raise_limit() -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


def rename(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    function = _function(
        "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
    )
    _call(function, old_dir, old, new_dir, new, flags)


def set_times(fd: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """utimensat(2) on the inode of `fd`, which may be O_PATH; times are seconds and nanoseconds or a UTIME_ value."""
    function = _function("utimensat", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _call(function, fd, b"", ctypes.addressof(times), AT_EMPTY_PATH)


def chown(fd: int, uid: int, gid: int) -> None:
    """fchownat(2) on the inode of `fd`, which may be O_PATH; -1 leaves an id as it is."""
    function = _function(
        "fchownat", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_int
    )
    _call(function, fd, b"", uid, gid, AT_EMPTY_PATH)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _call(
        _function("fallocate64", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64),
        fd,
        mode,
        offset,
        length,
    )


def getdents(fd: int, size: int) -> bytes:
    """getdents64(2): the next entries of the directory `fd`, at most `size` bytes of struct linux_dirent64."""
    buffer = ctypes.create_string_buffer(size)
    used = _call(_function("getdents64", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t), fd, buffer, size)
    return buffer.raw[:used]
