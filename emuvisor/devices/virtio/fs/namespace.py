"""The operations on names: LOOKUP, FORGET, and what makes, moves and removes names.

New files belong to the guest's user who made them as far as the host's user may give them away, else to the host's
user. FIFOs and sockets can be made, as names for the guest's own programs; the host opens neither. Device nodes
cannot.
"""

import errno
import os
import stat
from contextlib import suppress

from emuvisor.devices.virtio.fs.attributes import ENTRY_SIZE, allowed_mode, entry
from emuvisor.devices.virtio.fs.handles import host_flags
from emuvisor.devices.virtio.fs.inodes import Inode
from emuvisor.devices.virtio.fs.names import NAME_MAX, TARGET_MAX, link_target, single_name, two_names
from emuvisor.devices.virtio.fs.protocol import (
    BATCH_FORGET_IN,
    CREATE_IN,
    FORGET_IN,
    FORGET_ONE,
    LINK_IN,
    MKDIR_IN,
    MKNOD_IN,
    OPEN_OUT,
    RENAME2_IN,
    RENAME_IN,
    InHeader,
    Opcode,
)
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.request import Operation, Request, Share
from emuvisor.devices.virtio.fs.syscalls import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    change_mode,
    chown,
    magic_link,
    open_descriptor,
    rename,
)

__all__ = ["Namespace"]

MAX_FORGETS = 4096
"""Inodes that one BATCH_FORGET forgets; what is beyond stays until the guest's kernel is reset."""
O_EXCL = 0o200
"""Of a Linux guest (asm-generic/fcntl.h)."""

_NAME = NAME_MAX + 1
_CREATABLE = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)


class Namespace:
    """The operations on names."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.operations: dict[int, Operation] = {
            Opcode.LOOKUP: Operation(self._lookup, _NAME, ENTRY_SIZE),
            Opcode.SYMLINK: Operation(self._symlink, _NAME + TARGET_MAX + 1, ENTRY_SIZE, changes=True),
            Opcode.MKNOD: Operation(self._mknod, MKNOD_IN.size + _NAME, ENTRY_SIZE, changes=True),
            Opcode.MKDIR: Operation(self._mkdir, MKDIR_IN.size + _NAME, ENTRY_SIZE, changes=True),
            Opcode.CREATE: Operation(
                self._create, CREATE_IN.size + _NAME, ENTRY_SIZE + OPEN_OUT.size, changes=True
            ),
            Opcode.LINK: Operation(self._link, LINK_IN.size + _NAME, ENTRY_SIZE, changes=True),
            Opcode.UNLINK: Operation(self._unlink, _NAME, changes=True),
            Opcode.RMDIR: Operation(self._rmdir, _NAME, changes=True),
            Opcode.RENAME: Operation(self._rename, RENAME_IN.size + 2 * _NAME, changes=True),
            Opcode.RENAME2: Operation(self._rename2, RENAME2_IN.size + 2 * _NAME, changes=True),
        }

    def forget(self, header: InHeader, arguments: bytes) -> None:
        """FORGET, which has no reply."""
        self._share.inodes.forget(header.nodeid, FORGET_IN.parse(arguments).nlookup)

    def batch_forget(self, header: InHeader, arguments: bytes) -> None:
        """BATCH_FORGET, which has no reply either."""
        count = min(BATCH_FORGET_IN.parse(arguments).entries, MAX_FORGETS)
        for index in range(count):
            one = FORGET_ONE.parse(arguments, BATCH_FORGET_IN.size + index * FORGET_ONE.size)
            self._share.inodes.forget(one.nodeid, one.nlookup)

    def _directory(self, request: Request) -> Inode:
        return self._share.inodes.directory(request.header.nodeid)

    def _entry(self, parent: Inode, name: bytes) -> bytes:
        inode, status = self._share.inodes.look_up(parent, name)
        return entry(inode, status, self._share.inodes.root.device)

    def _lookup(self, request: Request) -> bytes:
        return self._entry(self._directory(request), single_name(request.arguments))

    def _made(self, request: Request, parent: Inode, name: bytes, mode: int | None) -> bytes:
        """The entry of what was just made; `mode` are its permissions, None for a symbolic link's."""
        inode, status = self._share.inodes.look_up(parent, name)
        status = _give(inode.fd, status, parent.fd, request.header, mode)
        return entry(inode, status, self._share.inodes.root.device)

    def _symlink(self, request: Request) -> bytes:
        parent = self._directory(request)
        name, target = link_target(request.arguments)
        os.symlink(target, name, dir_fd=parent.fd)
        return self._made(request, parent, name, None)

    def _mknod(self, request: Request) -> bytes:
        parent = self._directory(request)
        mode = MKNOD_IN.parse(request.arguments).mode
        name = single_name(request.arguments[MKNOD_IN.size :])
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind not in _CREATABLE:
            raise refusal(errno.EPERM)
        os.mknod(name, kind | allowed_mode(kind, mode), dir_fd=parent.fd)
        return self._made(request, parent, name, mode)

    def _mkdir(self, request: Request) -> bytes:
        parent = self._directory(request)
        mode = MKDIR_IN.parse(request.arguments).mode
        name = single_name(request.arguments[MKDIR_IN.size :])
        os.mkdir(name, allowed_mode(stat.S_IFDIR, mode), dir_fd=parent.fd)
        return self._made(request, parent, name, mode)

    def _create(self, request: Request) -> bytes:
        parent = self._directory(request)
        arguments = CREATE_IN.parse(request.arguments)
        name = single_name(request.arguments[CREATE_IN.size :])
        flags = host_flags(arguments.flags)
        self._share.handles.check_room()
        exclusive = flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            fd = open_descriptor(
                name, exclusive, mode=allowed_mode(stat.S_IFREG, arguments.mode), dir_fd=parent.fd
            )
        except FileExistsError:
            if arguments.flags & O_EXCL:
                raise
            return self._create_existing(parent, name, flags)
        try:
            inode, status = self._share.inodes.adopt(open_descriptor(magic_link(fd), os.O_PATH), parent, name)
            status = _give(inode.fd, status, parent.fd, request.header, arguments.mode)
        except OSError:
            os.close(fd)
            raise
        handle = self._share.handles.add_file(inode, fd, flags)
        return entry(inode, status, self._share.inodes.root.device) + OPEN_OUT.pack(handle, 0)

    def _create_existing(self, parent: Inode, name: bytes, flags: int) -> bytes:
        """CREATE of what is there: it is looked up before it is opened, as it may be anything."""
        inode, _status = self._share.inodes.look_up(parent, name)
        try:
            handle = self._share.handles.open_file(inode, flags)
        except OSError:
            self._share.inodes.forget(inode.nodeid, 1)
            raise
        return entry(inode, os.fstat(inode.fd), self._share.inodes.root.device) + OPEN_OUT.pack(handle, 0)

    def _link(self, request: Request) -> bytes:
        parent = self._directory(request)
        inode = self._share.inodes.get(LINK_IN.parse(request.arguments).oldnodeid)
        name = single_name(request.arguments[LINK_IN.size :])
        os.link(magic_link(inode.fd), name, dst_dir_fd=parent.fd)
        return self._entry(parent, name)

    def _unlink(self, request: Request) -> bytes:
        os.unlink(single_name(request.arguments), dir_fd=self._directory(request).fd)
        return b""

    def _rmdir(self, request: Request) -> bytes:
        os.rmdir(single_name(request.arguments), dir_fd=self._directory(request).fd)
        return b""

    def _rename(self, request: Request) -> bytes:
        new_directory = RENAME_IN.parse(request.arguments).newdir
        return self._move(request, new_directory, request.arguments[RENAME_IN.size :], 0)

    def _rename2(self, request: Request) -> bytes:
        arguments = RENAME2_IN.parse(request.arguments)
        if arguments.flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise refusal(errno.EINVAL)
        return self._move(request, arguments.newdir, request.arguments[RENAME2_IN.size :], arguments.flags)

    def _move(self, request: Request, new_directory: int, names: bytes, flags: int) -> bytes:
        old_name, new_name = two_names(names)
        inodes = self._share.inodes
        old_parent = self._directory(request)
        new_parent = inodes.directory(new_directory)
        rename(old_parent.fd, old_name, new_parent.fd, new_name, flags)
        inodes.moved(new_parent, new_name)
        if flags & RENAME_EXCHANGE:
            inodes.moved(old_parent, old_name)
        return b""


def _give(fd: int, status: os.stat_result, parent: int, header: InHeader, mode: int | None) -> os.stat_result:
    """Give a new inode to the guest's user, as far as the host's user may, with exactly the permissions `mode`,
    which the umask of this process may have cut. Returns its new status.

    In a directory (`parent`) with the set-group-ID bit, the group is the directory's and a new directory has the
    bit too, as on any Linux.
    """
    kind = stat.S_IFMT(status.st_mode)
    inherited = os.fstat(parent).st_mode & stat.S_ISGID
    group = status.st_gid if inherited else header.gid
    with suppress(PermissionError):
        if mode is not None:
            wanted = allowed_mode(kind, mode | inherited)
            if wanted != stat.S_IMODE(status.st_mode):
                change_mode(fd, wanted)
        if (header.uid, group) != (status.st_uid, status.st_gid):
            chown(fd, header.uid, group)
    return os.fstat(fd)
