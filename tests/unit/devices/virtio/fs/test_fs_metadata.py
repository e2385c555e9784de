"""GETATTR, SETATTR, ACCESS, STATFS."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_client import GID, ROOT, UID, FuseClient, refused

from emuvisor.devices.virtio.fs.attributes import _encoded_device
from emuvisor.devices.virtio.fs.protocol import Fattr


def test_getattr(client: FuseClient, share: Path) -> None:
    assert client.getattr(ROOT).ino == share.stat().st_ino
    assert stat.S_ISDIR(client.getattr(ROOT).mode)
    found, fh = client.create(b"a")
    client.write(fh, 0, b"123")
    assert client.getattr(found.nodeid).size == 3
    client.unlink(b"a")
    assert client.getattr(found.nodeid, fh).nlink == 0
    with refused(errno.EBADF):
        client.getattr(found.nodeid, fh + 1)
    with refused(errno.ESTALE):
        client.getattr(999)


def test_mode(client: FuseClient, share: Path) -> None:
    node = client.mknod(b"a", 0o600).nodeid
    assert stat.S_IMODE(client.setattr(node, mode=0o751).mode) == 0o751
    assert stat.S_IMODE(client.setattr(node, mode=0o7777).mode) == 0o1777
    directory = client.mkdir(b"d").nodeid
    assert stat.S_IMODE(client.setattr(directory, mode=0o2775).mode) == 0o2775
    with refused(errno.EOPNOTSUPP):
        client.setattr(client.symlink(b"s", b"a").nodeid, mode=0o777)


def test_size(client: FuseClient, share: Path) -> None:
    found, fh = client.create(b"a")
    client.write(fh, 0, b"123456")
    assert client.setattr(found.nodeid, size=4).size == 4
    assert client.setattr(found.nodeid, size=2, fh=fh).size == 2
    assert client.setattr(found.nodeid, size=1 << 40).size == 1 << 40
    with refused(errno.EINVAL):
        client.setattr(found.nodeid, size=1 << 63)
    with refused(errno.EBADF):
        client.setattr(found.nodeid, size=1, fh=fh + 1)
    with refused(errno.EISDIR):
        client.setattr(ROOT, size=1)
    with refused(errno.EINVAL):
        client.setattr(client.symlink(b"s", b"a").nodeid, size=0)


def test_times(client: FuseClient, share: Path) -> None:
    node = client.mknod(b"a", 0o600).nodeid
    attr = client.setattr(node, atime=(1000, 5), mtime=(-3, 999_999_999))
    assert (attr.atime, attr.atimensec, attr.mtime, attr.mtimensec) == (1000, 5, -3, 999_999_999)
    attr = client.setattr(node, mtime=(7, 8))
    assert (attr.atime, attr.atimensec, attr.mtime, attr.mtimensec) == (1000, 5, 7, 8)
    assert (share / "a").stat().st_mtime_ns == 7_000_000_008
    attr = client.setattr(node, valid=Fattr.ATIME | Fattr.ATIME_NOW | Fattr.MTIME | Fattr.MTIME_NOW)
    assert min(attr.atime, attr.mtime) > 1_700_000_000
    with refused(errno.EINVAL):
        client.setattr(node, mtime=(0, 1_000_000_000))


def test_times_of_a_symbolic_link_are_its_own(client: FuseClient, share: Path) -> None:
    (share / "a").touch()
    before = (share / "a").stat().st_mtime_ns
    assert client.setattr(client.symlink(b"s", b"a").nodeid, mtime=(5, 6)).mtime == 5
    assert (share / "a").stat().st_mtime_ns == before
    assert (share / "s").lstat().st_mtime_ns == 5_000_000_006


@pytest.mark.skipif(UID != 0, reason="only root can give files away")
def test_owner(client: FuseClient, share: Path) -> None:
    node = client.mknod(b"a", 0o600).nodeid
    attr = client.setattr(node, uid=1234)
    assert (attr.uid, attr.gid) == (1234, GID)
    attr = client.setattr(node, gid=99)
    assert (attr.uid, attr.gid) == (1234, 99)
    assert client.setattr(client.symlink(b"s", b"/etc/passwd").nodeid, uid=7).uid == 7
    assert Path("/etc/passwd").stat().st_uid == 0


def test_the_host_s_user_cannot_give_files_away(
    serve: Callable[..., FuseClient], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(_fd: int, _uid: int, _gid: int) -> None:
        raise PermissionError(errno.EPERM, "not root")

    monkeypatch.setattr("emuvisor.devices.virtio.fs.namespace.chown", no)
    monkeypatch.setattr("emuvisor.devices.virtio.fs.attributes.chown", no)
    client = serve(uid=UID + 1)
    made = client.mkdir(b"d")
    assert made.attr.uid == UID
    with refused(errno.EPERM):
        client.setattr(made.nodeid, uid=UID + 1)


def test_access(client: FuseClient, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = client.mknod(b"a", 0o600).nodeid
    client.access(node, os.R_OK | os.W_OK)
    client.access(ROOT, os.X_OK)
    client.access(client.symlink(b"s", b"nowhere").nodeid, os.R_OK)
    with refused(errno.EACCES):
        client.access(node, os.X_OK)
    with refused(errno.EINVAL):
        client.access(node, 8)


def test_statfs(client: FuseClient, share: Path) -> None:
    found, expected = client.statfs(), os.statvfs(share)
    assert (found.blocks, found.bsize, found.namelen) == (expected.f_blocks, expected.f_bsize, 255)
    assert (found.frsize, found.files) == (expected.f_frsize, expected.f_files)


def test_device_numbers_are_encoded_as_the_kernel_does() -> None:
    assert _encoded_device(os.makedev(8, 1)) == 0x801
    assert _encoded_device(os.makedev(259, 0x12345)) == 0x12310345
