"""INIT and DESTROY, read-only shares, what the server does not know, saved states."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from fuse_client import GID, ROOT, UID, BytesMessage, FuseClient, names_in, open_descriptors, refused
from fuse_ways import send_to

from emuvisor.devices.virtio.fs import syscalls
from emuvisor.devices.virtio.fs.protocol import IN_HEADER, InitFlag, Opcode
from emuvisor.devices.virtio.fs.server import OFFERED, FuseServer
from emuvisor.errors import SnapshotError
from emuvisor.units import MIB

FUSE_SYNCFS = 50
FUSE_IOCTL = 39
FUSE_GETXATTR = 22


@pytest.fixture
def server(share: Path) -> Iterator[FuseServer]:
    before = open_descriptors()
    server = FuseServer(share, read_only=False)
    yield server
    server.close()
    assert open_descriptors() <= before


def test_init_agrees_on_the_older_version(server: FuseServer) -> None:
    client = FuseClient(send_to(server))
    for minor, agreed in ((27, 27), (31, 31), (45, 31)):
        out = client.init(minor=minor)
        assert (out.major, out.minor, server.minor) == (7, 31, agreed)
    assert (out.max_write, out.max_pages, out.time_gran) == (MIB, 256, 1)
    assert out.max_readahead == 1 << 17
    assert out.flags == OFFERED
    assert client.init(flags=InitFlag.ASYNC_READ | 1 << 16).flags == InitFlag.ASYNC_READ


def test_init_refuses_older_guests_and_asks_newer_ones_again(server: FuseServer) -> None:
    client = FuseClient(send_to(server))
    for major, minor in ((7, 26), (6, 40)):
        with refused(errno.EPROTO):
            client.init(major, minor)
    assert client.init(8, 0)[:2] == (7, 31)
    assert server.minor is None


def test_nothing_is_served_before_init_and_after_destroy(server: FuseServer) -> None:
    client = FuseClient(send_to(server))
    with refused(errno.EIO):
        client.getattr(ROOT)
    client.init()
    client.getattr(ROOT)
    client.destroy()
    with refused(errno.EIO):
        client.getattr(ROOT)


def test_unknown_requests(serve: Callable[..., FuseClient]) -> None:
    client = serve()
    for opcode in (0, FUSE_GETXATTR, FUSE_IOCTL, FUSE_SYNCFS, 4096, 2**32 - 1):
        with refused(errno.ENOSYS):
            client.call(opcode, ROOT, bytes(64))
    client.tell(Opcode.INTERRUPT, 0, pack("<Q", 5))
    assert client.send([IN_HEADER.pack(48, Opcode.INTERRUPT, 1, 0, 0, 0, 0), bytes(8)], 4096) == b""


def header(length: int, opcode: int, unique: int = 9) -> bytes:
    return IN_HEADER.pack(length, opcode, unique, ROOT, 0, 0, 0)


def test_headers_that_lie(serve: Callable[..., FuseClient], share: Path) -> None:
    send = serve().send
    einval = pack("<IiQ", 16, -errno.EINVAL, 9)
    assert send([header(56, Opcode.GETATTR) + bytes(15)], 200) == einval
    assert send([header(39, Opcode.GETATTR) + bytes(16)], 200) == einval
    assert send([header(0, Opcode.STATFS)], 200) == einval
    assert send([header(42, Opcode.GETATTR) + bytes(16)], 200) == einval
    assert send([header(42, Opcode.LOOKUP) + b"abc\0"], 200) == einval  # the name ends behind the message
    assert send([header(40, Opcode.STATFS)[:-1]], 200) == b""
    assert send([b""], 200) == b""


def test_no_room_for_the_reply(serve: Callable[..., FuseClient], share: Path) -> None:
    send = serve().send
    mkdir = [header(50, Opcode.MKDIR) + pack("<II", 0o755, 0) + b"d\0"]
    assert send(mkdir, 15) == b""
    assert send(mkdir, 0) == b""
    assert send(mkdir, 16 + 127) == pack("<IiQ", 16, -errno.EINVAL, 9)
    assert names_in(share) == []
    assert len(send(mkdir, 16 + 128)) == 16 + 128


def test_memory_that_fails_leaves_nothing_done(server: FuseServer, share: Path) -> None:
    FuseClient(send_to(server)).init()

    class NoFrames(BytesMessage):
        def writable_views(self, offset: int = 0, length: int | None = None) -> list[memoryview]:
            raise MemoryError

    with pytest.raises(MemoryError):
        server.serve(NoFrames(header(50, Opcode.MKDIR) + pack("<II", 0o755, 0) + b"d\0", 200))
    assert names_in(share) == []


def test_a_read_only_share(serve: Callable[..., FuseClient], share: Path) -> None:
    (share / "d").mkdir()
    (share / "a").write_bytes(b"text")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in (share, *share.iterdir())}
    client = serve(read_only=True)
    node = client.lookup(b"a").nodeid
    fh = client.open(node)
    assert client.read(fh, 0, 10) == b"text"
    assert client.names() == [b"a", b"d"]
    client.access(node, os.R_OK)
    client.fsync(fh)
    for attempt in (
        lambda: client.access(node, os.W_OK),
        lambda: client.open(node, os.O_WRONLY),
        lambda: client.open(node, os.O_RDWR),
        lambda: client.open(node, os.O_RDONLY | os.O_TRUNC),
        lambda: client.create(b"a", os.O_RDONLY),
        lambda: client.create(b"b"),
        lambda: client.mkdir(b"b"),
        lambda: client.mknod(b"b", 0o600),
        lambda: client.symlink(b"b", b"a"),
        lambda: client.link(node, b"b"),
        lambda: client.unlink(b"a"),
        lambda: client.rmdir(b"d"),
        lambda: client.rename(b"a", b"b"),
        lambda: client.rename(b"a", b"b", flags=0),
        lambda: client.setattr(node, mode=0),
        lambda: client.setattr(node, size=0),
        lambda: client.write(fh, 0, b"x"),
        lambda: client.fallocate(fh, 0, 10),
        lambda: client.copy(fh, 0, fh, 10, 2),
    ):
        with refused(errno.EROFS):
            attempt()
    after = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in (share, *share.iterdir())}
    assert after == before


def test_a_system_call_that_this_host_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(errno.ENOSYS):
        syscalls._function("no_such_call_in_any_library")


def test_the_limit_of_descriptors_is_raised_once(monkeypatch: pytest.MonkeyPatch, share: Path) -> None:
    real, limits, failures = os.open, [[100, 200]], [2]

    def full(*arguments: Any, **options: Any) -> int:
        if failures[0]:
            failures[0] -= 1
            raise OSError(errno.EMFILE, "full")
        return real(*arguments, **options)

    def setrlimit(_which: int, new: tuple[int, int]) -> None:
        limits.append(list(new))

    monkeypatch.setattr(syscalls.resource, "getrlimit", lambda _which: tuple(limits[-1]))
    monkeypatch.setattr(syscalls.resource, "setrlimit", setrlimit)
    monkeypatch.setattr(syscalls.os, "open", full)
    with refused(errno.EMFILE):  # raised, and still full
        syscalls.open_descriptor(b"/", os.O_PATH)
    assert limits == [[100, 200], [200, 200]]
    failures[0] = 1
    with refused(errno.EMFILE):
        syscalls.open_descriptor(b"/", os.O_PATH)
    limits.append([100, 200])
    failures[0] = 1
    os.close(syscalls.open_descriptor(b"/", os.O_PATH))


def test_a_full_process_is_enfile_to_the_guest(
    serve: Callable[..., FuseClient], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share / "a").touch()
    client = serve()

    def full(*_arguments: Any, **_options: Any) -> int:
        raise OSError(errno.EMFILE, "full")

    monkeypatch.setattr("emuvisor.devices.virtio.fs.inodes.open_descriptor", full)
    with refused(errno.ENFILE):
        client.lookup(b"a")


def test_failed_openings_leave_no_descriptor(
    serve: Callable[..., FuseClient], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()

    def fail(*_arguments: Any) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr("emuvisor.devices.virtio.fs.namespace._give", fail)
    with refused(errno.EIO):
        client.create(b"a")
    with refused(errno.EIO):
        client.mkdir(b"b")


# ---- saved states ----


def test_a_restored_guest_goes_on(server: FuseServer, share: Path) -> None:
    client = FuseClient(send_to(server))
    client.init()
    (share / "d").mkdir()
    (share / "d/a").write_bytes(b"0123456789")
    d = client.lookup(b"d").nodeid
    a = client.lookup(b"a", d).nodeid
    for name in "xyz":
        (share / name).touch()
    reading, writing, listing = client.open(a), client.open(a, os.O_RDWR | os.O_TRUNC), client.opendir()
    client.write(writing, 0, b"abcde")
    first = client.readdir(listing, 0, 80)
    whole = [entry.name for entry in client.listing(client.opendir())]
    lost, lost_handle = client.create(b"lost")
    state = server.save()
    server.close()
    (share / "lost").unlink()
    restored = FuseServer(share, read_only=False)
    restored.load(state)
    client = FuseClient(send_to(restored))
    assert client.getattr(a).size == 5
    assert client.lookup(b"a", d).nodeid == a
    assert client.read(reading, 0, 10) == b"abcde"
    assert client.write(writing, 2, b"X") == 1
    rest = [entry.name for entry in client.readdir(listing, first[-1].cookie)]
    assert [entry.name for entry in first] + rest == whole
    with refused(errno.ESTALE):
        client.getattr(lost.nodeid)
    with refused(errno.EBADF):
        client.read(lost_handle, 0, 1)
    new, _ = client.create(b"new")
    assert new.nodeid > lost.nodeid
    client.forget(a, 2)
    with refused(errno.ESTALE):
        client.getattr(a)
    restored.close()


def test_a_guest_restored_elsewhere_finds_everything_stale(server: FuseServer, share: Path) -> None:
    client = FuseClient(send_to(server))
    client.init()
    found, fh = client.create(b"a")
    fd = client.opendir()
    other = share.parent / "other"
    other.mkdir()
    (other / "a").touch()
    restored = FuseServer(other, read_only=False)
    restored.load(server.save())
    client = FuseClient(send_to(restored))
    with refused(errno.ESTALE):
        client.getattr(found.nodeid)
    with refused(errno.EBADF):
        client.read(fh, 0, 1)
    assert len(client.readdir(fd)) == 3
    assert client.lookup(b"a").nodeid != found.nodeid
    restored.close()


GOOD_INODE = [5, 1, b"a", 1, 1, 0o100000, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minor": 26}, "virtio-fs: saved field 'minor' is 26; expected None or an integer from 27 to 31"),
        ({"inodes": None}, "virtio-fs: the saved inodes are not a list with the next node ID"),
        ({"next_nodeid": "7"}, "virtio-fs: the saved inodes are not a list with the next node ID"),
        ({"inodes": [[1]]}, "virtio-fs: [1] is not a saved inode"),
        (
            {"inodes": [[1, *GOOD_INODE[1:]]]},
            "virtio-fs: [1, 1, b'a', 1, 1, 32768, 1] is not a saved inode",
        ),
        (
            {"inodes": [[5, 1, b"..", 1, 1, 0o100000, 1]]},
            "virtio-fs: b'..' is not the name of a saved inode",
        ),
        ({"handles": None}, "virtio-fs: the saved handles are not a list with the next handle"),
        ({"handles": [[1, 1, 0]]}, "virtio-fs: [1, 1, 0] is not a saved handle"),
    ],
)
def test_states_that_are_none(server: FuseServer, change: dict[str, Any], message: str) -> None:
    good = {
        "minor": 31,
        "next_nodeid": 7,
        "inodes": [GOOD_INODE],
        "next_handle": 3,
        "handles": [[1, 1, 0, True]],
    }
    server.load(good)
    assert server.save() == {**good, "handles": [[1, 1, os.O_DIRECTORY, True]]}
    with pytest.raises(SnapshotError) as caught:
        server.load(good | change)
    assert str(caught.value) == message


def test_new_files_are_the_host_user_s(serve: Callable[..., FuseClient]) -> None:
    attr = serve().mkdir(b"d").attr
    assert (attr.uid, attr.gid) == (UID, GID)
