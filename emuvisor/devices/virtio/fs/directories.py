"""The operations on open directories."""

import errno
import os
from collections.abc import Callable

from emuvisor.devices.virtio.fs.attributes import ENTRY_SIZE, entry
from emuvisor.devices.virtio.fs.dirents import Entry
from emuvisor.devices.virtio.fs.inodes import Inode
from emuvisor.devices.virtio.fs.protocol import (
    DIRENT,
    FSYNC_IN,
    FUSE_FSYNC_FDATASYNC,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    Opcode,
)
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.request import Operation, Request, Share, file_offset

__all__ = ["MAX_LISTING", "Directories"]

MAX_LISTING = 64 * 1024
"""Bytes that one READDIR or READDIRPLUS returns at most."""
ALIGNMENT = 8
"""Each entry of a listing is padded to this many bytes (FUSE_REC_ALIGN)."""

_UNKNOWN_ENTRY = bytes(ENTRY_SIZE)
"""A fuse_entry_out with node ID 0: the guest looks this name up when it needs it."""


class Directories:
    """The operations on open directories."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.operations: dict[int, Operation] = {
            Opcode.OPENDIR: Operation(self._opendir, 0, OPEN_OUT.size),
            Opcode.READDIR: Operation(self._readdir, READ_IN.size, data=MAX_LISTING),
            Opcode.READDIRPLUS: Operation(self._readdirplus, READ_IN.size, data=MAX_LISTING),
            Opcode.RELEASEDIR: Operation(self._releasedir, RELEASE_IN.size),
            Opcode.FSYNCDIR: Operation(self._fsyncdir, FSYNC_IN.size),
        }

    def _opendir(self, request: Request) -> bytes:
        inode = self._share.inodes.directory(request.header.nodeid)
        return OPEN_OUT.pack(self._share.handles.open_directory(inode), 0)

    def _readdir(self, request: Request) -> bytes:
        return self._list(request, 0, lambda _parent, _entry: b"")

    def _readdirplus(self, request: Request) -> bytes:
        return self._list(request, ENTRY_SIZE, self._looked_up)

    def _list(self, request: Request, extra: int, describe: Callable[[Inode, Entry], bytes]) -> bytes:
        """A listing from the offset asked for, each name behind `extra` bytes of description."""
        arguments = READ_IN.parse(request.arguments)
        directory = self._share.handles.directory(arguments.fh)
        inode = self._share.inodes.get(directory.inode.nodeid)
        room = min(arguments.size, request.room_length)
        reader = directory.reader
        reader.seek(file_offset(arguments.offset))
        listing = bytearray()
        while (found := reader.peek()) is not None:
            length = extra + DIRENT.size + len(found.name)
            padding = -length % ALIGNMENT
            if len(listing) + length + padding > room:
                if not listing:
                    raise refusal(errno.EINVAL)
                break
            listing += describe(inode, found)
            listing += DIRENT.pack(self._number(inode, found), found.cookie, len(found.name), found.kind)
            listing += found.name
            listing += bytes(padding)
            reader.take()
        return bytes(listing)

    def _number(self, directory: Inode, found: Entry) -> int:
        """The inode number to show: what is above the root is nobody's business."""
        root = self._share.inodes.root
        return root.number if directory is root and found.name == b".." else found.inode

    def _looked_up(self, parent: Inode, found: Entry) -> bytes:
        """The entry as LOOKUP would answer; an unknown one for a name that is gone or not to be entered."""
        if found.name in (b".", b".."):
            return _UNKNOWN_ENTRY
        try:
            inode, status = self._share.inodes.look_up(parent, found.name)
        except OSError:
            return _UNKNOWN_ENTRY
        return entry(inode, status, self._share.inodes.root.device)

    def _releasedir(self, request: Request) -> bytes:
        self._share.handles.release(RELEASE_IN.parse(request.arguments).fh)
        return b""

    def _fsyncdir(self, request: Request) -> bytes:
        arguments = FSYNC_IN.parse(request.arguments)
        sync = os.fdatasync if arguments.fsync_flags & FUSE_FSYNC_FDATASYNC else os.fsync
        sync(self._share.handles.directory(arguments.fh).fd)
        return b""
