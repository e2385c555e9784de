"""Operations on names: what a guest's kernel asks for when a path is walked, made or removed."""

import errno
import os
import stat
from pathlib import Path
from struct import pack

import pytest
from fuse_client import GID, ROOT, UID, FuseClient, names_in, refused

from emuvisor.devices.virtio.fs.protocol import Opcode
from emuvisor.devices.virtio.fs.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE

RENAME_WHITEOUT = 1 << 2


def test_lookup_finds_what_the_host_has(client: FuseClient, share: Path) -> None:
    (share / "a").write_bytes(b"12345")
    found = client.lookup(b"a")
    status = (share / "a").stat()
    assert (found.attr.ino, found.attr.size, found.attr.mode) == (status.st_ino, 5, status.st_mode)
    assert (found.attr.uid, found.attr.gid, found.attr.nlink) == (UID, GID, 1)
    assert found.attr.mtime * 10**9 + found.attr.mtimensec == status.st_mtime_ns
    assert client.lookup(b"a").nodeid == found.nodeid
    with refused(errno.ENOENT):
        client.lookup(b"b")


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"../x"])
def test_a_name_is_one_component(client: FuseClient, share: Path, name: bytes) -> None:
    client.mkdir(b"a")
    with refused(errno.EINVAL):
        client.lookup(name)
    with refused(errno.EINVAL):
        client.mkdir(name)
    with refused(errno.EINVAL):
        client.rename(b"a", name)
    with refused(errno.EINVAL):
        client.rename(name, b"a")
    assert names_in(share.parent) == ["share"]


def test_long_and_unterminated_names(client: FuseClient) -> None:
    client.mkdir(b"n" * 255)
    assert client.lookup(b"n" * 255).nodeid
    with refused(errno.ENAMETOOLONG):
        client.call(Opcode.RENAME, ROOT, pack("<Q", ROOT) + b"n" * 256 + b"\0x\0")
    with refused(errno.EINVAL):  # more is not even read, so there is no end
        client.lookup(b"n" * 300)
    with refused(errno.EINVAL):
        client.call(Opcode.LOOKUP, ROOT, b"n")


def test_hard_links_are_one_inode(client: FuseClient, share: Path) -> None:
    (share / "a").touch()
    first = client.lookup(b"a")
    linked = client.link(first.nodeid, b"b")
    assert linked.nodeid == first.nodeid
    assert linked.attr.nlink == 2
    assert (share / "a").samefile(share / "b")
    client.symlink(b"s", b"a")
    client.link(client.lookup(b"s").nodeid, b"t")
    assert str((share / "t").readlink()) == "a"
    with refused(errno.EEXIST):
        client.link(first.nodeid, b"b")
    with refused(errno.EPERM):
        client.link(client.mkdir(b"d").nodeid, b"e")


def test_forgotten_inodes_are_unknown(client: FuseClient, share: Path) -> None:
    (share / "a").touch()
    (share / "b").touch()
    a, b = client.lookup(b"a").nodeid, client.lookup(b"b").nodeid
    client.lookup(b"a")
    client.forget(a)
    client.getattr(a)
    client.forget(a)
    with refused(errno.ESTALE):
        client.getattr(a)
    client.batch_forget((a, 1), (b, 1), (ROOT, 10))
    with refused(errno.ESTALE):
        client.getattr(b)
    again = client.lookup(b"a").nodeid
    assert again not in (a, b)
    client.batch_forget((again, 1), announced=1000)
    with refused(errno.ESTALE):
        client.getattr(again)
    client.getattr(ROOT)


def test_symbolic_links_are_texts(client: FuseClient, share: Path) -> None:
    made = client.symlink(b"s", b"../../etc/passwd")
    assert stat.S_ISLNK(made.attr.mode)
    assert client.readlink(made.nodeid) == b"../../etc/passwd"
    assert str((share / "s").readlink()) == "../../etc/passwd"
    long = client.symlink(b"long", b"x" * 4095)
    assert client.readlink(long.nodeid) == b"x" * 4095
    with refused(errno.ENAMETOOLONG):
        client.call(Opcode.SYMLINK, ROOT, b"q\0" + b"x" * 4096 + b"\0")
    with refused(errno.ENOENT):
        client.symlink(b"t", b"")
    with refused(errno.EINVAL):
        client.readlink(ROOT)
    with refused(errno.ENOTDIR):
        client.lookup(b"passwd", made.nodeid)


def test_mknod(client: FuseClient, share: Path) -> None:
    assert stat.S_ISREG(client.mknod(b"plain", 0o600).attr.mode)
    client.mknod(b"file", stat.S_IFREG | 0o640)
    client.mknod(b"fifo", stat.S_IFIFO | 0o600)
    client.mknod(b"socket", stat.S_IFSOCK | 0o600)
    assert stat.S_IMODE((share / "file").stat().st_mode) == 0o640
    assert stat.S_ISFIFO((share / "fifo").stat().st_mode)
    assert stat.S_ISSOCK((share / "socket").stat().st_mode)
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, stat.S_IFLNK):
        with refused(errno.EPERM):
            client.mknod(b"device", kind | 0o600)
    assert not (share / "device").exists()


def test_permissions_are_what_the_guest_asked_for(client: FuseClient, share: Path) -> None:
    assert stat.S_IMODE(client.mkdir(b"d", 0o1777).attr.mode) == 0o1777
    assert stat.S_IMODE(client.mknod(b"f", 0o666).attr.mode) == 0o666
    found, fh = client.create(b"c", mode=0o6777)
    assert stat.S_IMODE(found.attr.mode) == 0o777  # never a set-user-ID program
    assert stat.S_IMODE(client.mknod(b"m", 0o6755).attr.mode) == 0o755
    client.release(fh)


def test_a_set_group_id_directory_hands_down_its_group(client: FuseClient, share: Path) -> None:
    parent = client.mkdir(b"d", 0o2775).nodeid
    assert stat.S_IMODE((share / "d").stat().st_mode) == 0o2775
    client.gid = GID + 1
    assert client.mknod(b"f", 0o644, parent).attr.gid == GID
    below = client.mkdir(b"d", 0o755, parent).attr
    assert (below.gid, stat.S_IMODE(below.mode)) == (GID, 0o2755)


@pytest.mark.skipif(UID != 0, reason="only root can give files away")
def test_roots_share_gives_files_to_the_guests_user(client: FuseClient, share: Path) -> None:
    client.uid, client.gid = 1234, 5678
    found, fh = client.create(b"a")
    client.release(fh)
    for attr in (found.attr, client.mkdir(b"d").attr, client.symlink(b"s", b"x").attr):
        assert (attr.uid, attr.gid) == (1234, 5678)
    assert (share / "a").stat().st_uid == 1234


def test_remove(client: FuseClient, share: Path) -> None:
    client.mkdir(b"d")
    client.mknod(b"f", 0o600)
    with refused(errno.EISDIR):
        client.unlink(b"d")
    with refused(errno.ENOTDIR):
        client.rmdir(b"f")
    (share / "d/x").touch()
    with refused(errno.ENOTEMPTY):
        client.rmdir(b"d")
    client.unlink(b"x", client.lookup(b"d").nodeid)
    client.rmdir(b"d")
    client.unlink(b"f")
    assert names_in(share) == []


def test_rename(client: FuseClient, share: Path) -> None:
    (share / "a").write_text("a")
    (share / "b").write_text("b")
    a = client.lookup(b"a").nodeid
    d = client.mkdir(b"d").nodeid
    client.rename(b"a", b"c", to=d)
    assert client.lookup(b"c", d).nodeid == a
    client.rename(b"c", b"b", parent=d)
    assert (share / "b").read_text() == "a"
    with refused(errno.ENOENT):
        client.rename(b"nothing", b"x")
    with refused(errno.EINVAL):
        client.rename(b"d", b"e", to=d)


def test_rename_with_flags(client: FuseClient, share: Path) -> None:
    (share / "a").write_text("a")
    (share / "b").write_text("b")
    with refused(errno.EEXIST):
        client.rename(b"a", b"b", flags=RENAME_NOREPLACE)
    client.rename(b"a", b"c", flags=RENAME_NOREPLACE)
    client.rename(b"c", b"b", flags=RENAME_EXCHANGE)
    assert (share / "b").read_text() == "a"
    assert (share / "c").read_text() == "b"
    client.rename(b"c", b"b", flags=0)
    assert names_in(share) == ["b"]
    with refused(errno.EINVAL):
        client.rename(b"b", b"x", flags=RENAME_WHITEOUT)


def test_create(client: FuseClient, share: Path) -> None:
    found, fh = client.create(b"a", os.O_RDWR, 0o600)
    assert client.write(fh, 0, b"hello") == 5
    assert (share / "a").read_bytes() == b"hello"
    client.release(fh)
    again, fh = client.create(b"a", os.O_RDONLY)
    assert again.nodeid == found.nodeid
    assert client.read(fh, 0, 100) == b"hello"
    client.release(fh)
    _, fh = client.create(b"a", os.O_WRONLY | os.O_TRUNC)
    client.release(fh)
    assert (share / "a").read_bytes() == b""
    with refused(errno.EEXIST):
        client.create(b"a", os.O_RDWR | os.O_EXCL)
    with refused(errno.EINVAL):
        client.create(b"b", 3)
    client.mkdir(b"d")
    with refused(errno.EISDIR):
        client.create(b"d")
    client.symlink(b"s", b"/etc/passwd")
    with refused(errno.ELOOP):
        client.create(b"s")
    client.mknod(b"fifo", stat.S_IFIFO | 0o600)
    with refused(errno.EPERM):
        client.create(b"fifo", os.O_RDONLY)


def test_a_read_only_file_can_be_made_and_written(client: FuseClient, share: Path) -> None:
    _, fh = client.create(b"a", os.O_WRONLY, 0o444)
    assert client.write(fh, 0, b"x") == 1
    client.release(fh)
    assert stat.S_IMODE((share / "a").stat().st_mode) == 0o444
