"""The guest's open files and directories: host descriptors by handle.

Only regular files and directories are opened, and only through the O_PATH descriptor of an inode, so what is opened
is the inode that was looked up. A FIFO would block, and opening a device node does something.
"""

import errno
import os
import stat
from typing import Any, TypeVar

from emuvisor.bus.device import SavedState
from emuvisor.devices.virtio.fs.dirents import DirectoryReader
from emuvisor.devices.virtio.fs.inodes import Inode, Inodes
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.syscalls import magic_link, open_descriptor
from emuvisor.errors import SnapshotError

__all__ = ["MAX_HANDLES", "Handles", "OpenDirectory", "OpenFile", "host_flags", "wants_write"]

MAX_HANDLES = 1024
"""Open files and directories of one share."""

# Flags of open(2) as Linux guests of x86 and ARM send them (asm-generic/fcntl.h).
O_ACCMODE = 0o3
O_WRONLY = 0o1
O_RDWR = 0o2
O_TRUNC = 0o1000
O_DSYNC = 0o10000
O_SYNC = 0o4010000

_ACCESS = {0: os.O_RDONLY, O_WRONLY: os.O_WRONLY, O_RDWR: os.O_RDWR}
_PASSED = ((O_TRUNC, os.O_TRUNC), (O_DSYNC, os.O_DSYNC), (O_SYNC, os.O_SYNC))


def wants_write(flags: int) -> bool:
    """Whether the guest's flags of open(2) ask to change the file."""
    return bool(flags & (O_ACCMODE | O_TRUNC))


def host_flags(flags: int) -> int:
    """The host's flags for the guest's. What is not about data is the guest's own affair.

    O_APPEND is one of these: a guest sends the offset of each write, and a host's O_APPEND would ignore it. Raises
    OSError EINVAL for an access mode that does not exist.
    """
    access = _ACCESS.get(flags & O_ACCMODE)
    if access is None:
        raise refusal(errno.EINVAL)
    for guest, host in _PASSED:
        if flags & guest == guest:
            access |= host
    return access


class OpenFile:
    """An open regular file. `flags` are the host's, to open it again."""

    def __init__(self, inode: Inode, fd: int, flags: int) -> None:
        self.inode = inode
        self.fd = fd
        self.flags = flags


class OpenDirectory:
    """An open directory and where its reader stands."""

    flags = os.O_RDONLY | os.O_DIRECTORY

    def __init__(self, inode: Inode, fd: int) -> None:
        self.inode = inode
        self.fd = fd
        self.reader = DirectoryReader(fd)


HandleT = TypeVar("HandleT", OpenFile, OpenDirectory)


class Handles:
    """Open files and directories by handle number. Raises OSError ENFILE beyond `limit` of them."""

    def __init__(self, *, limit: int = MAX_HANDLES) -> None:
        self._limit = limit
        self._table: dict[int, OpenFile | OpenDirectory] = {}
        self._next = 1

    def check_room(self) -> None:
        """Raises OSError ENFILE when no more handle fits."""
        if len(self._table) >= self._limit:
            raise refusal(errno.ENFILE)

    def open_file(self, inode: Inode, flags: int) -> int:
        """Open a regular file with the host's `flags`; its handle.

        Raises OSError: EISDIR, ELOOP or EPERM for what is no regular file, and what the host says.
        """
        self.check_room()
        if inode.kind != stat.S_IFREG:
            raise refusal(
                {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}.get(inode.kind, errno.EPERM)
            )
        return self.add_file(inode, open_descriptor(magic_link(inode.fd), flags), flags)

    def add_file(self, inode: Inode, fd: int, flags: int) -> int:
        """A handle for the descriptor `fd` of the regular file `inode`, which is taken over."""
        return self._add(OpenFile(inode, fd, flags & ~os.O_TRUNC))

    def open_directory(self, inode: Inode) -> int:
        """Open a directory; its handle."""
        self.check_room()
        fd = open_descriptor(b".", OpenDirectory.flags | os.O_NOFOLLOW, dir_fd=inode.fd)
        return self._add(OpenDirectory(inode, fd))

    def _add(self, handle: OpenFile | OpenDirectory) -> int:
        number = self._next
        self._next += 1
        self._table[number] = handle
        handle.inode.handles += 1
        return number

    def file(self, number: int) -> OpenFile:
        """The open file. Raises OSError EBADF for any other number."""
        return self._of_kind(number, OpenFile)

    def directory(self, number: int) -> OpenDirectory:
        """The open directory. Raises OSError EBADF for any other number."""
        return self._of_kind(number, OpenDirectory)

    def _of_kind(self, number: int, kind: type[HandleT]) -> HandleT:
        handle = self._table.get(number)
        if not isinstance(handle, kind):
            raise refusal(errno.EBADF)
        return handle

    def release(self, number: int) -> None:
        """Close a handle; an unknown one is none to close."""
        handle = self._table.pop(number, None)
        if handle is not None:
            handle.inode.handles -= 1
            os.close(handle.fd)

    def clear(self) -> None:
        """Close all."""
        for number in list(self._table):
            self.release(number)

    def save(self) -> SavedState:
        """The handles, each with its inode and how it was opened."""
        return {
            "next_handle": self._next,
            "handles": [
                [number, handle.inode.nodeid, handle.flags, isinstance(handle, OpenDirectory)]
                for number, handle in self._table.items()
            ],
        }

    def load(self, state: SavedState, inodes: Inodes) -> None:
        """The handles of `save`, opened again; one whose file is gone answers EBADF from now on.

        Raises SnapshotError.
        """
        self.clear()
        saved = state.get("handles")
        next_handle = state.get("next_handle")
        if not isinstance(saved, list) or type(next_handle) is not int or len(saved) > self._limit:
            raise SnapshotError("virtio-fs: the saved handles are not a list with the next handle")
        for item in saved:
            number, nodeid, flags, is_directory = _saved_handle(item)
            self._next = number
            try:
                inode = inodes.directory(nodeid) if is_directory else inodes.get(nodeid)
                if is_directory:
                    self.open_directory(inode)
                else:
                    self.open_file(inode, flags & (os.O_ACCMODE | os.O_SYNC | os.O_DSYNC))
            except OSError:
                continue
        self._next = next_handle


def _saved_handle(item: Any) -> tuple[int, int, int, bool]:
    match item:
        case [int(number), int(nodeid), int(flags), bool(is_directory)]:
            return number, nodeid, flags, is_directory
    raise SnapshotError(f"virtio-fs: {item!r} is not a saved handle")
