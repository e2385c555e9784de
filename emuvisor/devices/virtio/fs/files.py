"""The operations on open files. Data go between the guest's pages and the host's file without a copy."""

import errno
import os
import stat

from emuvisor.devices.virtio.fs.handles import OpenFile, host_flags, wants_write
from emuvisor.devices.virtio.fs.protocol import (
    COPY_FILE_RANGE_IN,
    FALLOCATE_IN,
    FLUSH_IN,
    FSYNC_IN,
    FUSE_FSYNC_FDATASYNC,
    FUSE_WRITE_KILL_PRIV,
    IN_HEADER,
    LSEEK_IN,
    LSEEK_OUT,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    WRITE_IN,
    WRITE_OUT,
    Opcode,
)
from emuvisor.devices.virtio.fs.refusal import refusal
from emuvisor.devices.virtio.fs.request import MAX_WRITE, Operation, Request, Share, file_offset
from emuvisor.devices.virtio.fs.scatter import first
from emuvisor.devices.virtio.fs.syscalls import fallocate

__all__ = ["Files"]

MAX_COPY = 16 * MAX_WRITE
"""Bytes that one COPY_FILE_RANGE copies at most; the guest asks again for the rest."""
IOV_MAX = 1024
"""Pieces that one preadv(2) or pwritev(2) takes. Only a guest that means ill sends more for MAX_WRITE bytes."""

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10
_FALLOCATE_MODES = (
    0,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
)


class Files:
    """The operations on open files."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.operations: dict[int, Operation] = {
            Opcode.OPEN: Operation(self._open, OPEN_IN.size, OPEN_OUT.size),
            Opcode.READ: Operation(self._read, READ_IN.size, data=MAX_WRITE),
            Opcode.WRITE: Operation(self._write, WRITE_IN.size, WRITE_OUT.size, changes=True),
            Opcode.FLUSH: Operation(self._flush, FLUSH_IN.size),
            Opcode.RELEASE: Operation(self._release, RELEASE_IN.size),
            Opcode.FSYNC: Operation(self._fsync, FSYNC_IN.size),
            Opcode.LSEEK: Operation(self._lseek, LSEEK_IN.size, LSEEK_OUT.size),
            Opcode.FALLOCATE: Operation(self._fallocate, FALLOCATE_IN.size, changes=True),
            Opcode.COPY_FILE_RANGE: Operation(
                self._copy_file_range, COPY_FILE_RANGE_IN.size, WRITE_OUT.size, changes=True
            ),
        }

    def _file(self, number: int) -> OpenFile:
        return self._share.handles.file(number)

    def _open(self, request: Request) -> bytes:
        flags = OPEN_IN.parse(request.arguments).flags
        if wants_write(flags) and self._share.read_only:
            raise refusal(errno.EROFS)
        inode = self._share.inodes.get(request.header.nodeid)
        return OPEN_OUT.pack(self._share.handles.open_file(inode, host_flags(flags)), 0)

    def _read(self, request: Request) -> int:
        arguments = READ_IN.parse(request.arguments)
        file = self._file(arguments.fh)
        offset = file_offset(arguments.offset)
        room = first(request.room, arguments.size)[:IOV_MAX]
        return os.preadv(file.fd, room, offset) if room else 0

    def _write(self, request: Request) -> bytes:
        arguments = WRITE_IN.parse(request.arguments)
        file = self._file(arguments.fh)
        offset = file_offset(arguments.offset)
        if arguments.size > MAX_WRITE:
            raise refusal(errno.EINVAL)
        data = request.data(IN_HEADER.size + WRITE_IN.size, arguments.size)[:IOV_MAX]
        if arguments.write_flags & FUSE_WRITE_KILL_PRIV:
            _drop_privileges(file)
        return WRITE_OUT.pack(os.pwritev(file.fd, data, offset) if data else 0)

    def _flush(self, request: Request) -> bytes:
        """FLUSH: a program closed the file. Every WRITE has already been made."""
        self._file(FLUSH_IN.parse(request.arguments).fh)
        return b""

    def _release(self, request: Request) -> bytes:
        self._share.handles.release(RELEASE_IN.parse(request.arguments).fh)
        return b""

    def _fsync(self, request: Request) -> bytes:
        arguments = FSYNC_IN.parse(request.arguments)
        sync = os.fdatasync if arguments.fsync_flags & FUSE_FSYNC_FDATASYNC else os.fsync
        sync(self._file(arguments.fh).fd)
        return b""

    def _lseek(self, request: Request) -> bytes:
        arguments = LSEEK_IN.parse(request.arguments)
        if arguments.whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise refusal(errno.EINVAL)
        offset = file_offset(arguments.offset)
        return LSEEK_OUT.pack(os.lseek(self._file(arguments.fh).fd, offset, arguments.whence))

    def _fallocate(self, request: Request) -> bytes:
        arguments = FALLOCATE_IN.parse(request.arguments)
        if arguments.mode not in _FALLOCATE_MODES:
            raise refusal(errno.EOPNOTSUPP)
        fallocate(
            self._file(arguments.fh).fd,
            arguments.mode,
            file_offset(arguments.offset),
            file_offset(arguments.length),
        )
        return b""

    def _copy_file_range(self, request: Request) -> bytes:
        arguments = COPY_FILE_RANGE_IN.parse(request.arguments)
        if arguments.flags:
            raise refusal(errno.EINVAL)
        copied = os.copy_file_range(
            self._file(arguments.fh_in).fd,
            self._file(arguments.fh_out).fd,
            min(arguments.len, MAX_COPY),
            file_offset(arguments.off_in),
            file_offset(arguments.off_out),
        )
        return WRITE_OUT.pack(copied)


def _drop_privileges(file: OpenFile) -> None:
    """What a write by anyone but root does to a set-user-ID program: it becomes a plain one."""
    mode = stat.S_IMODE(os.fstat(file.fd).st_mode)
    if mode & (stat.S_ISUID | stat.S_ISGID):
        os.fchmod(file.fd, mode & ~(stat.S_ISUID | stat.S_ISGID))
