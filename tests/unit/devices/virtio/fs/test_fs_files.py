"""Open files: data, holes, allocation, copies."""

import errno
import hashlib
import os
import random
import stat
from pathlib import Path

import pytest
from fuse_client import ROOT, FuseClient, names_in, refused

from emuvisor.devices.virtio.fs.files import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    MAX_COPY,
)
from emuvisor.devices.virtio.fs.handles import MAX_HANDLES
from emuvisor.devices.virtio.fs.protocol import FUSE_FSYNC_FDATASYNC, FUSE_WRITE_KILL_PRIV
from emuvisor.units import MIB

PAGE = 4096


def test_big_files_come_and_go_unchanged(client: FuseClient, share: Path) -> None:
    data = random.Random(4).randbytes(3 * MIB + 17)
    _, fh = client.create(b"big")
    for start in range(0, len(data), MIB):
        piece = data[start : start + MIB]
        assert client.write(fh, start, piece) == len(piece)
    assert hashlib.sha256((share / "big").read_bytes()).digest() == hashlib.sha256(data).digest()
    found = b"".join(client.read(fh, start, MIB) for start in range(0, len(data) + MIB, MIB))
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()
    client.fsync(fh)
    client.fsync(fh, FUSE_FSYNC_FDATASYNC)
    client.flush(fh)
    client.release(fh)


def test_reads_end_with_the_file_and_with_the_room(client: FuseClient, share: Path) -> None:
    (share / "a").write_bytes(b"0123456789")
    fh = client.open(client.lookup(b"a").nodeid)
    assert client.read(fh, 4, 100) == b"456789"
    assert client.read(fh, 10, 100) == b""
    assert client.read(fh, 0, 100, room=3) == b"012"
    assert client.read(fh, 0, 3, room=100) == b"012"
    assert client.read(fh, 0, 0) == b""
    with refused(errno.EINVAL):
        client.read(fh, 1 << 63, 10)
    with refused(errno.EBADF):
        client.write(fh, 0, b"x")
    with refused(errno.EBADF):
        client.read(fh + 1, 0, 10)


def test_writes_have_the_length_that_they_say(client: FuseClient, share: Path) -> None:
    _, fh = client.create(b"a")
    assert client.write(fh, 0, b"") == 0
    assert client.write(fh, 2, b"abcdef", size=3) == 3
    assert (share / "a").read_bytes() == b"\0\0abc"
    with refused(errno.EINVAL):
        client.write(fh, 0, b"abc", size=4)
    with refused(errno.EINVAL):
        client.write(fh, 0, bytes(MIB + 1))
    with refused(errno.EINVAL):
        client.write(fh, 1 << 63, b"x")
    assert (share / "a").stat().st_size == 5


def test_open_flags(client: FuseClient, share: Path) -> None:
    (share / "a").write_bytes(b"12345")
    node = client.lookup(b"a").nodeid
    appending = client.open(node, os.O_WRONLY | os.O_APPEND)
    client.write(appending, 0, b"x")  # at the offset that was sent
    assert (share / "a").read_bytes() == b"x2345"
    client.open(node, os.O_WRONLY | os.O_TRUNC | os.O_SYNC)
    assert (share / "a").read_bytes() == b""
    with refused(errno.EINVAL):
        client.open(node, 3)
    with refused(errno.EISDIR):
        client.open(ROOT)


def test_what_is_no_file_is_never_opened(client: FuseClient, share: Path) -> None:
    os.mkfifo(share / "fifo")
    (share / "link").symlink_to("/etc/passwd")
    with refused(errno.EPERM):
        client.open(client.lookup(b"fifo").nodeid)
    with refused(errno.ELOOP):
        client.open(client.lookup(b"link").nodeid)
    with refused(errno.ENOTDIR):
        client.opendir(client.lookup(b"fifo").nodeid)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make device nodes")
def test_a_device_node_is_seen_and_not_opened(client: FuseClient, share: Path) -> None:
    os.mknod(share / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    found = client.lookup(b"zero")
    assert (stat.S_ISCHR(found.attr.mode), found.attr.rdev) == (True, 0x105)
    with refused(errno.EPERM):
        client.open(found.nodeid)
    with refused(errno.EPERM):
        client.create(b"zero")
    with refused(errno.EINVAL):
        client.setattr(found.nodeid, size=0)


def test_open_file_without_a_name(client: FuseClient, share: Path) -> None:
    _, fh = client.create(b"a")
    client.write(fh, 0, b"12345")
    client.unlink(b"a")
    assert client.read(fh, 0, 10) == b"12345"
    client.release(fh)
    client.release(fh)  # one that is not open is none to close
    with refused(errno.EBADF):
        client.read(fh, 0, 10)


def test_handles_are_limited(client: FuseClient, share: Path) -> None:
    found, fh = client.create(b"a")
    client.release(fh)
    handles = [client.open(found.nodeid) for _ in range(MAX_HANDLES)]
    for attempt in (
        lambda: client.open(found.nodeid),
        lambda: client.create(b"b"),
        client.opendir,
    ):
        with refused(errno.ENFILE):
            attempt()
    assert names_in(share) == ["a"]
    client.release(handles[0])
    client.opendir()


def test_holes(client: FuseClient, share: Path) -> None:
    _, fh = client.create(b"a")
    client.write(fh, 4 * MIB, b"data")
    hole = client.lseek(fh, 4 * MIB, os.SEEK_HOLE)
    assert hole == 4 * MIB + 4
    assert client.lseek(fh, 0, os.SEEK_HOLE) == 0
    assert 0 < client.lseek(fh, 0, os.SEEK_DATA) <= 4 * MIB
    assert (share / "a").stat().st_blocks * 512 < MIB
    with refused(errno.ENXIO):
        client.lseek(fh, 5 * MIB, os.SEEK_DATA)
    with refused(errno.EINVAL):
        client.lseek(fh, 0, os.SEEK_END)
    with refused(errno.EINVAL):
        client.lseek(fh, 1 << 63, os.SEEK_DATA)


def test_fallocate(client: FuseClient, share: Path) -> None:
    found, fh = client.create(b"a")
    client.fallocate(fh, 0, 64 * PAGE)
    assert client.getattr(found.nodeid).size == 64 * PAGE
    assert (share / "a").stat().st_blocks * 512 >= 64 * PAGE
    client.fallocate(fh, 64 * PAGE, PAGE, FALLOC_FL_KEEP_SIZE)
    assert client.getattr(found.nodeid).size == 64 * PAGE
    client.write(fh, 0, b"x" * (8 * PAGE))
    client.fallocate(fh, 0, 4 * PAGE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    assert client.read(fh, 0, 8 * PAGE) == bytes(4 * PAGE) + b"x" * (4 * PAGE)
    with refused(errno.EOPNOTSUPP):
        client.fallocate(fh, 0, PAGE, FALLOC_FL_PUNCH_HOLE)
    with refused(errno.EINVAL):
        client.fallocate(fh, 0, 0)
    with refused(errno.EINVAL):
        client.fallocate(fh, 0, 1 << 63, FALLOC_FL_ZERO_RANGE)


def test_copy_file_range(client: FuseClient, share: Path) -> None:
    _, source = client.create(b"a")
    _, target = client.create(b"b")
    client.write(source, 0, b"0123456789")
    assert client.copy(source, 2, target, 1, 5) == 5
    assert (share / "b").read_bytes() == b"\x0023456"
    client.setattr(client.lookup(b"a").nodeid, size=MAX_COPY + PAGE)
    assert client.copy(source, 0, target, 0, 1 << 62) <= MAX_COPY
    with refused(errno.EINVAL):
        client.copy(source, 0, target, 0, 5, flags=1)
    with refused(errno.EINVAL):
        client.copy(source, 0, target, 1 << 63, 5)
    with refused(errno.EBADF):
        client.copy(source, 0, target + 1, 0, 5)


def test_a_write_takes_a_program_s_privileges(client: FuseClient, share: Path) -> None:
    (share / "program").touch()
    (share / "program").chmod(0o6755)
    fh = client.open(client.lookup(b"program").nodeid, os.O_WRONLY)
    client.write(fh, 0, b"x")
    client.write(fh, 0, b"x", flags=FUSE_WRITE_KILL_PRIV)
    assert stat.S_IMODE((share / "program").stat().st_mode) == 0o755
    client.write(fh, 0, b"y", flags=FUSE_WRITE_KILL_PRIV)
