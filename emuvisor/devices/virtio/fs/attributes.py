"""GETATTR, SETATTR, READLINK, ACCESS, STATFS, and how the host's metadata look to the guest.

Owners, modes and times are the host's as they are; times are the host's also for a guest on a virtual clock. A guest
may change owners as far as the host's user may. Set-user-ID and set-group-ID bits are never set on files: a guest
could leave a program in the folder that gives others of the host the user's rights.
"""

import errno
import os
import stat

from emuvisor.devices.virtio.fs.inodes import Inode
from emuvisor.devices.virtio.fs.names import TARGET_MAX
from emuvisor.devices.virtio.fs.protocol import (
    ACCESS_IN,
    ATTR,
    ATTR_OUT,
    ENTRY_OUT,
    FUSE_GETATTR_FH,
    GETATTR_IN,
    SETATTR_IN,
    STATFS_OUT,
    Fattr,
    Opcode,
    SetattrIn,
)
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.request import Operation, Request, Share, file_offset
from emuvisor.devices.virtio.fs.syscalls import (
    UTIME_NOW,
    UTIME_OMIT,
    change_mode,
    chown,
    magic_link,
    set_times,
)
from emuvisor.units import NS_PER_S

__all__ = ["ENTRY_SIZE", "Attributes", "allowed_mode", "entry"]

VALID_S = 1
"""Seconds of the guest's time for which its kernel may trust names and metadata without asking again."""
ENTRY_SIZE = ENTRY_OUT.size + ATTR.size
ACCESS_MASK = os.R_OK | os.W_OK | os.X_OK
UNCHANGED = -1
_DEVICE_SHIFT = 48


def allowed_mode(kind: int, mode: int) -> int:
    """The permission bits that a guest may set on a file of type `kind` (S_IFMT bits)."""
    if kind == stat.S_IFDIR:
        return stat.S_IMODE(mode)
    return stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID)


def entry(inode: Inode, status: os.stat_result, root_device: int) -> bytes:
    """fuse_entry_out with its fuse_attr."""
    return ENTRY_OUT.pack(inode.nodeid, 0, VALID_S, VALID_S, 0, 0) + _attr(status, root_device)


def _attr(status: os.stat_result, root_device: int) -> bytes:
    """fuse_attr. Numbers of inodes are unique in the guest: files of other devices (parts of an overlay, a file that
    is a mount point) get the device's number in."""
    number = status.st_ino
    if status.st_dev != root_device:
        number ^= (status.st_dev % (1 << 16) + 1 << _DEVICE_SHIFT) % (1 << 64)
    atime, atime_ns = divmod(status.st_atime_ns, NS_PER_S)
    mtime, mtime_ns = divmod(status.st_mtime_ns, NS_PER_S)
    ctime, ctime_ns = divmod(status.st_ctime_ns, NS_PER_S)
    return ATTR.pack(
        number,
        status.st_size,
        status.st_blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        _encoded_device(status.st_rdev),
        status.st_blksize,
    )


def _encoded_device(device: int) -> int:
    """A device number as the kernel's new_encode_dev writes it: 20 bits of minor around 12 of major."""
    major, minor = os.major(device) & 0xFFF, os.minor(device) & 0xFFFFF
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


class Attributes:
    """The operations on metadata."""

    def __init__(self, share: Share) -> None:
        self._share = share
        size = ATTR_OUT.size + ATTR.size
        self.operations: dict[int, Operation] = {
            Opcode.GETATTR: Operation(self._getattr, GETATTR_IN.size, size),
            Opcode.SETATTR: Operation(self._setattr, SETATTR_IN.size, size, changes=True),
            Opcode.READLINK: Operation(self._readlink, 0, data=TARGET_MAX),
            Opcode.ACCESS: Operation(self._access, ACCESS_IN.size),
            Opcode.STATFS: Operation(self._statfs, 0, STATFS_OUT.size),
        }

    def _reply(self, fd: int) -> bytes:
        return ATTR_OUT.pack(VALID_S, 0) + _attr(os.fstat(fd), self._share.inodes.root.device)

    def _getattr(self, request: Request) -> bytes:
        arguments = GETATTR_IN.parse(request.arguments)
        if arguments.getattr_flags & FUSE_GETATTR_FH:
            return self._reply(self._share.handles.file(arguments.fh).fd)
        return self._reply(self._share.inodes.get(request.header.nodeid).fd)

    def _setattr(self, request: Request) -> bytes:
        arguments = SETATTR_IN.parse(request.arguments)
        inode = self._share.inodes.get(request.header.nodeid)
        valid = arguments.valid
        if valid & Fattr.MODE:
            if inode.kind == stat.S_IFLNK:
                raise refusal(errno.EOPNOTSUPP)
            change_mode(inode.fd, allowed_mode(inode.kind, arguments.mode))
        if valid & (Fattr.UID | Fattr.GID):
            chown(
                inode.fd,
                arguments.uid if valid & Fattr.UID else UNCHANGED,
                arguments.gid if valid & Fattr.GID else UNCHANGED,
            )
        if valid & Fattr.SIZE:
            self._truncate(inode, arguments)
        if valid & (Fattr.ATIME | Fattr.MTIME):
            set_times(
                inode.fd,
                _new_time(valid, Fattr.ATIME, Fattr.ATIME_NOW, arguments.atime, arguments.atimensec),
                _new_time(valid, Fattr.MTIME, Fattr.MTIME_NOW, arguments.mtime, arguments.mtimensec),
            )
        return self._reply(inode.fd)

    def _truncate(self, inode: Inode, arguments: SetattrIn) -> None:
        size = file_offset(arguments.size)
        if arguments.valid & Fattr.FH:
            os.ftruncate(self._share.handles.file(arguments.fh).fd, size)
        elif inode.kind == stat.S_IFREG:
            os.truncate(magic_link(inode.fd), size)
        else:
            raise refusal(errno.EISDIR if inode.kind == stat.S_IFDIR else errno.EINVAL)

    def _readlink(self, request: Request) -> bytes:
        inode = self._share.inodes.get(request.header.nodeid)
        if inode.kind != stat.S_IFLNK:
            raise refusal(errno.EINVAL)
        return os.readlink(b"", dir_fd=inode.fd)

    def _access(self, request: Request) -> bytes:
        mask = ACCESS_IN.parse(request.arguments).mask
        inode = self._share.inodes.get(request.header.nodeid)
        if mask & ~ACCESS_MASK:
            raise refusal(errno.EINVAL)
        if mask & os.W_OK and self._share.read_only:
            raise refusal(errno.EROFS)
        if inode.kind != stat.S_IFLNK and not os.access(magic_link(inode.fd), mask):
            raise refusal(errno.EACCES)
        return b""

    def _statfs(self, request: Request) -> bytes:
        status = os.statvfs(self._share.inodes.get(request.header.nodeid).fd)
        return STATFS_OUT.pack(
            status.f_blocks,
            status.f_bfree,
            status.f_bavail,
            status.f_files,
            status.f_ffree,
            status.f_bsize,
            status.f_namemax,
            status.f_frsize,
        )


def _new_time(valid: int, given: Fattr, now: Fattr, seconds: int, nanoseconds: int) -> tuple[int, int]:
    """A time for `set_times`. Raises OSError EINVAL for more nanoseconds than a second has."""
    if valid & now:
        return (0, UTIME_NOW)
    if not valid & given:
        return (0, UTIME_OMIT)
    if nanoseconds >= NS_PER_S:
        raise refusal(errno.EINVAL)
    return (seconds, nanoseconds)
