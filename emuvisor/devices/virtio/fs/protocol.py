"""FUSE messages: opcodes, flags and layouts, with the names of Linux's include/uapi/linux/fuse.h (version 7.31).

All fields are little-endian here, as virtio-fs says. Padding has no name. The layouts of newer minor versions
only append to these.
"""

import errno
from collections.abc import Callable, Iterable
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

from emuvisor.devices.virtio.fs.refusal import refusal

__all__ = [
    "ACCESS_IN",
    "ATTR",
    "ATTR_OUT",
    "BATCH_FORGET_IN",
    "COPY_FILE_RANGE_IN",
    "CREATE_IN",
    "DIRENT",
    "ENTRY_OUT",
    "FALLOCATE_IN",
    "FLUSH_IN",
    "FORGET_IN",
    "FORGET_ONE",
    "FSYNC_IN",
    "FUSE_FSYNC_FDATASYNC",
    "FUSE_GETATTR_FH",
    "FUSE_KERNEL_MINOR_VERSION",
    "FUSE_KERNEL_VERSION",
    "FUSE_ROOT_ID",
    "FUSE_WRITE_KILL_PRIV",
    "GETATTR_IN",
    "INIT_IN",
    "INIT_OUT",
    "IN_HEADER",
    "LINK_IN",
    "LSEEK_IN",
    "LSEEK_OUT",
    "MKDIR_IN",
    "MKNOD_IN",
    "OPEN_IN",
    "OPEN_OUT",
    "OUT_HEADER",
    "READ_IN",
    "RELEASE_IN",
    "RENAME2_IN",
    "RENAME_IN",
    "SETATTR_IN",
    "STATFS_OUT",
    "WRITE_IN",
    "WRITE_OUT",
    "Fattr",
    "InHeader",
    "InitFlag",
    "Layout",
    "Opcode",
    "SetattrIn",
]

FUSE_KERNEL_VERSION = 7
FUSE_KERNEL_MINOR_VERSION = 31
FUSE_ROOT_ID = 1

FUSE_GETATTR_FH = 1 << 0
FUSE_FSYNC_FDATASYNC = 1 << 0
FUSE_WRITE_KILL_PRIV = 1 << 2


class Opcode(IntEnum):
    """enum fuse_opcode, as far as this server answers it."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47


class InitFlag(IntFlag):
    """The flags of INIT that this server knows."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23


class Fattr(IntFlag):
    """Which fields of fuse_setattr_in are valid."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


MessageT = TypeVar("MessageT")


class Layout(Generic[MessageT]):
    """One structure of the protocol: a struct format and the message it is read as."""

    def __init__(self, layout: str, make: Callable[[Iterable[Any]], MessageT]) -> None:
        self._struct = Struct(layout)
        self._make = make
        self.size = self._struct.size
        self.pack = self._struct.pack

    def parse(self, data: bytes, offset: int = 0) -> MessageT:
        """The message at `offset` of `data`. Raises OSError EINVAL when `data` ends before it."""
        if len(data) - offset < self.size:
            raise refusal(errno.EINVAL)
        return self._make(self._struct.unpack_from(data, offset))


class InHeader(NamedTuple):
    """What every request begins with."""

    len: int
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int


class OutHeader(NamedTuple):
    """What every reply begins with."""

    len: int
    error: int
    unique: int


class InitIn(NamedTuple):
    """INIT."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class InitOut(NamedTuple):
    """INIT's reply."""

    major: int
    minor: int
    max_readahead: int
    flags: int
    max_background: int
    congestion_threshold: int
    max_write: int
    time_gran: int
    max_pages: int


class Attr(NamedTuple):
    """Metadata of an inode; times are signed seconds and nanoseconds."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int


class EntryOut(NamedTuple):
    """The reply to whatever finds or makes a name; fuse_attr follows."""

    nodeid: int
    generation: int
    entry_valid: int
    attr_valid: int
    entry_valid_nsec: int
    attr_valid_nsec: int


class AttrOut(NamedTuple):
    """The reply to GETATTR and SETATTR; fuse_attr follows."""

    attr_valid: int
    attr_valid_nsec: int


class ForgetIn(NamedTuple):
    """FORGET."""

    nlookup: int


class ForgetOne(NamedTuple):
    """One of BATCH_FORGET's."""

    nodeid: int
    nlookup: int


class BatchForgetIn(NamedTuple):
    """BATCH_FORGET; fuse_forget_one follows so many times (`count` in fuse.h, which every tuple has already)."""

    entries: int


class GetattrIn(NamedTuple):
    """GETATTR."""

    getattr_flags: int
    fh: int


class SetattrIn(NamedTuple):
    """SETATTR."""

    valid: int
    fh: int
    size: int
    lock_owner: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    uid: int
    gid: int


class MknodIn(NamedTuple):
    """MKNOD; the name follows."""

    mode: int
    rdev: int
    umask: int


class MkdirIn(NamedTuple):
    """MKDIR; the name follows."""

    mode: int
    umask: int


class RenameIn(NamedTuple):
    """RENAME; the old and the new name follow."""

    newdir: int


class Rename2In(NamedTuple):
    """RENAME2; the old and the new name follow."""

    newdir: int
    flags: int


class LinkIn(NamedTuple):
    """LINK; the new name follows."""

    oldnodeid: int


class OpenIn(NamedTuple):
    """OPEN and OPENDIR."""

    flags: int


class CreateIn(NamedTuple):
    """CREATE; the name follows."""

    flags: int
    mode: int
    umask: int


class OpenOut(NamedTuple):
    """The reply to OPEN, OPENDIR and, behind fuse_entry_out, CREATE."""

    fh: int
    open_flags: int


class ReleaseIn(NamedTuple):
    """RELEASE and RELEASEDIR."""

    fh: int


class FlushIn(NamedTuple):
    """FLUSH."""

    fh: int


class FsyncIn(NamedTuple):
    """FSYNC and FSYNCDIR."""

    fh: int
    fsync_flags: int


class ReadIn(NamedTuple):
    """READ, READDIR and READDIRPLUS."""

    fh: int
    offset: int
    size: int


class WriteIn(NamedTuple):
    """WRITE; the data follow."""

    fh: int
    offset: int
    size: int
    write_flags: int


class WriteOut(NamedTuple):
    """The reply to WRITE and COPY_FILE_RANGE."""

    size: int


class StatfsOut(NamedTuple):
    """struct fuse_kstatfs."""

    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    bsize: int
    namelen: int
    frsize: int


class AccessIn(NamedTuple):
    """ACCESS."""

    mask: int


class LseekIn(NamedTuple):
    """LSEEK."""

    fh: int
    offset: int
    whence: int


class LseekOut(NamedTuple):
    """LSEEK's reply."""

    offset: int


class FallocateIn(NamedTuple):
    """FALLOCATE."""

    fh: int
    offset: int
    length: int
    mode: int


class CopyFileRangeIn(NamedTuple):
    """COPY_FILE_RANGE."""

    fh_in: int
    off_in: int
    nodeid_out: int
    fh_out: int
    off_out: int
    len: int
    flags: int


class Dirent(NamedTuple):
    """One name in READDIR's reply, behind fuse_entry_out in READDIRPLUS's; the name follows."""

    ino: int
    off: int
    namelen: int
    type: int


IN_HEADER = Layout("<IIQQIII4x", InHeader._make)
OUT_HEADER = Layout("<IiQ", OutHeader._make)
INIT_IN = Layout("<4I", InitIn._make)
INIT_OUT = Layout("<4I2H2IH34x", InitOut._make)
ATTR = Layout("<3Q3q9I4x", Attr._make)
ENTRY_OUT = Layout("<4Q2I", EntryOut._make)
ATTR_OUT = Layout("<QI4x", AttrOut._make)
FORGET_IN = Layout("<Q", ForgetIn._make)
FORGET_ONE = Layout("<QQ", ForgetOne._make)
BATCH_FORGET_IN = Layout("<I4x", BatchForgetIn._make)
GETATTR_IN = Layout("<I4xQ", GetattrIn._make)
SETATTR_IN = Layout("<I4x3Q3q4I4x2I4x", SetattrIn._make)
MKNOD_IN = Layout("<3I4x", MknodIn._make)
MKDIR_IN = Layout("<2I", MkdirIn._make)
RENAME_IN = Layout("<Q", RenameIn._make)
RENAME2_IN = Layout("<QI4x", Rename2In._make)
LINK_IN = Layout("<Q", LinkIn._make)
OPEN_IN = Layout("<I4x", OpenIn._make)
CREATE_IN = Layout("<3I4x", CreateIn._make)
OPEN_OUT = Layout("<QI4x", OpenOut._make)
RELEASE_IN = Layout("<Q16x", ReleaseIn._make)
FLUSH_IN = Layout("<Q16x", FlushIn._make)
FSYNC_IN = Layout("<QI4x", FsyncIn._make)
READ_IN = Layout("<QQI20x", ReadIn._make)
WRITE_IN = Layout("<QQII16x", WriteIn._make)
WRITE_OUT = Layout("<I4x", WriteOut._make)
STATFS_OUT = Layout("<5Q3I28x", StatfsOut._make)
ACCESS_IN = Layout("<I4x", AccessIn._make)
LSEEK_IN = Layout("<QQI4x", LseekIn._make)
LSEEK_OUT = Layout("<Q", LseekOut._make)
FALLOCATE_IN = Layout("<3QI4x", FallocateIn._make)
COPY_FILE_RANGE_IN = Layout("<7Q", CopyFileRangeIn._make)
DIRENT = Layout("<QQII", Dirent._make)
