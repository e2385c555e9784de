"""Nothing outside of the folder is reachable: hostile links, names, and a host that changes the folder meanwhile."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fuse_client import ROOT, FuseClient, refused

from emuvisor.devices.virtio.fs import inodes as inodes_module
from emuvisor.devices.virtio.fs.inodes import Inodes

SECRET = b"not for guests"


@pytest.fixture
def secret(share: Path) -> Path:
    """A file beside the shared folder."""
    secret = share.parent / "secret"
    secret.write_bytes(SECRET)
    return secret


def read_all(client: FuseClient, nodeid: int) -> bytes:
    fh = client.open(nodeid)
    try:
        return client.read(fh, 0, 4096)
    finally:
        client.release(fh)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../secret", "../../../../etc/passwd", "{secret}", ".", "/"]
)
def test_no_operation_follows_a_link(client: FuseClient, share: Path, secret: Path, target: str) -> None:
    target = target.format(secret=secret)
    (share / "link").symlink_to(target)
    link = client.lookup(b"link").nodeid
    assert client.readlink(link) == os.fsencode(target)
    for number, attempt in (
        (errno.ELOOP, lambda: client.open(link)),
        (errno.ELOOP, lambda: client.create(b"link", os.O_RDWR | os.O_TRUNC)),
        (errno.EEXIST, lambda: client.create(b"link", os.O_RDWR | os.O_EXCL)),
        (errno.EEXIST, lambda: client.mkdir(b"link")),
        (errno.EEXIST, lambda: client.mknod(b"link", 0o600)),
        (errno.ENOTDIR, lambda: client.opendir(link)),
        (errno.ENOTDIR, lambda: client.lookup(b"secret", link)),
        (errno.ENOTDIR, lambda: client.mkdir(b"x", parent=link)),
        (errno.ENOTDIR, lambda: client.unlink(b"secret", link)),
        (errno.ENOTDIR, lambda: client.rename(b"secret", b"mine", parent=link)),
        (errno.ENOTDIR, lambda: client.rename(b"link", b"x", to=link)),
        (errno.ENOTDIR, lambda: client.rmdir(b"link")),
        (errno.EINVAL, lambda: client.setattr(link, size=0)),
        (errno.EOPNOTSUPP, lambda: client.setattr(link, mode=0o777)),
    ):
        with refused(number):
            attempt()
    linked = client.link(link, b"link2")
    assert stat.S_ISLNK(linked.attr.mode)
    client.setattr(link, mtime=(1, 1))
    client.rename(b"link", b"link3")
    client.unlink(b"link3")
    assert secret.read_bytes() == SECRET
    assert secret.stat().st_mtime > 1
    assert secret.stat().st_nlink == 1


def test_a_link_swapped_in_after_the_lookup(client: FuseClient, share: Path, secret: Path) -> None:
    (share / "a").write_bytes(b"mine")
    node = client.lookup(b"a").nodeid
    (share / "a").rename(share / "old")
    (share / "a").symlink_to("/etc/passwd")
    assert read_all(client, node) == b"mine"
    with refused(errno.ELOOP):
        client.open(client.lookup(b"a").nodeid)


def test_a_directory_swapped_for_a_link(client: FuseClient, share: Path, secret: Path) -> None:
    (share / "d").mkdir()
    (share / "d/secret").write_bytes(b"mine")
    node = client.lookup(b"d").nodeid
    (share / "d").rename(share / "old")
    (share / "d").symlink_to(share.parent)
    assert read_all(client, client.lookup(b"secret", node).nodeid) == b"mine"
    with refused(errno.ENOTDIR):
        client.lookup(b"secret", client.lookup(b"d").nodeid)


def test_a_host_that_swaps_links_in_all_the_time(client: FuseClient, share: Path, secret: Path) -> None:
    """Whatever the moment, the guest gets the share's own file or an error."""
    mine, done = b"mine", threading.Event()

    def swap() -> None:
        (share / "spare").symlink_to(secret)
        while not done.is_set():
            (share / "file").write_bytes(mine)
            (share / "file").rename(share / "a")
            (share / "link").symlink_to(secret)
            (share / "link").rename(share / "a")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for attempt in range(300):
            try:
                if attempt % 2:
                    found, fh = client.create(b"a", os.O_RDONLY)
                else:
                    found = client.lookup(b"a")
                    fh = client.open(found.nodeid)
                assert client.read(fh, 0, 100) in (mine, b"")
                client.release(fh)
                client.forget(found.nodeid)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOENT, errno.ESTALE):
                    raise
    finally:
        done.set()
        thread.join()
    assert secret.read_bytes() == SECRET


def test_what_the_host_moves_out_is_stale(client: FuseClient, share: Path, secret: Path) -> None:
    (share / "d/below").mkdir(parents=True)
    (share / "d/file").write_bytes(b"mine")
    d = client.lookup(b"d").nodeid
    below, file = client.lookup(b"below", d).nodeid, client.lookup(b"file", d).nodeid
    listing, reading = client.opendir(d), client.open(file)
    (share / "d").rename(share.parent / "moved")
    for attempt in (
        lambda: client.getattr(d),
        lambda: client.lookup(b"file", d),
        lambda: client.lookup(b"secret", d),
        lambda: client.opendir(below),
        lambda: client.readdir(listing),
        lambda: client.open(file),
        lambda: client.setattr(file, mode=0o777),
        lambda: client.mkdir(b"x", parent=below),
        lambda: client.rename(b"file", b"mine", parent=d),
        lambda: client.link(file, b"mine"),
    ):
        with refused(errno.ESTALE):
            attempt()
    assert client.read(reading, 0, 10) == b"mine"  # an open file is open
    (share.parent / "moved").rename(share / "again")
    assert client.getattr(d).ino == (share / "again").stat().st_ino
    assert read_all(client, file) == b"mine"


def test_what_the_host_moves_out_is_not_found_again(share: Path) -> None:
    """The same for inodes whose descriptors were closed meanwhile."""
    (share / "d").mkdir()
    (share / "d/a").touch()
    table = Inodes(share, max_open=2)
    d, _ = table.look_up(table.root, b"d")
    a, _ = table.look_up(d, b"a")
    for name in (b"x", b"y", b"z"):
        (share / os.fsdecode(name)).touch()
        table.look_up(table.root, name)
    assert (d.fd, a.fd) == (-1, -1)
    (share / "d").rename(share.parent / "moved")
    (share / "d").symlink_to(share.parent / "moved")
    for inode in (a, d):
        with refused(errno.ESTALE):
            table.get(inode.nodeid)
    table.close()


def test_inodes_are_found_again_where_they_are_now(share: Path) -> None:
    (share / "d/e").mkdir(parents=True)
    (share / "d/e/a").touch()
    table = Inodes(share, max_open=3)
    d, _ = table.look_up(table.root, b"d")
    e, _ = table.look_up(d, b"e")
    a, _ = table.look_up(e, b"a")

    def lose() -> None:
        for number in range(4):
            (share / f"x{number}").touch()
            table.look_up(table.root, b"x%d" % number)
        assert (d.fd, e.fd, a.fd) == (-1, -1, -1)

    lose()
    assert os.fstat(table.get(a.nodeid).fd).st_ino == a.number
    assert d.fd != -1  # the way there was opened too
    (share / "d/e").rename(share / "f")
    table.moved(table.root, b"f")
    lose()
    assert os.fstat(table.get(a.nodeid).fd).st_ino == a.number
    lose()
    (share / "f/a").unlink()
    with refused(errno.ESTALE):
        table.get(a.nodeid)
    (share / "f/a").mkdir()
    with refused(errno.ESTALE):
        table.get(a.nodeid)
    table.moved(table.root, b"gone")
    table.close()


def test_a_forgotten_way_is_stale(share: Path) -> None:
    (share / "d").mkdir()
    (share / "d/a").touch()
    table = Inodes(share, max_open=2)
    d, _ = table.look_up(table.root, b"d")
    a, _ = table.look_up(d, b"a")
    table.look_up(table.root, b"d")
    for name in (b"x", b"y"):
        (share / os.fsdecode(name)).touch()
        table.look_up(table.root, name)
    table.forget(d.nodeid, 2)
    with refused(errno.ESTALE):
        table.get(a.nodeid)
    table.close()


def test_two_directories_that_each_lay_in_the_other(share: Path) -> None:
    """The host turns two directories round: each was last seen in the other. That ends too."""
    (share / "a/b").mkdir(parents=True)
    (share / "x").mkdir()
    (share / "y").mkdir()
    table = Inodes(share, max_open=2)
    a, _ = table.look_up(table.root, b"a")
    b, _ = table.look_up(a, b"b")
    (share / "a/b").rename(share / "b")
    (share / "a").rename(share / "b/a")
    table.look_up(b, b"a")
    table.look_up(table.root, b"x")
    table.look_up(table.root, b"y")
    with refused(errno.ESTALE):
        table.get(a.nodeid)
    table.close()


def test_open_files_keep_their_inodes(share: Path) -> None:
    (share / "a").touch()
    table = Inodes(share, max_open=2)
    a, _ = table.look_up(table.root, b"a")
    a.handles = 1
    (share / "a").unlink()
    for number in range(5):
        (share / f"x{number}").touch()
        table.look_up(table.root, b"x%d" % number)
    assert os.fstat(table.get(a.nodeid).fd).st_nlink == 0
    table.close()


def test_a_number_used_again_by_another_kind_of_file(share: Path) -> None:
    (share / "a").touch()
    table = Inodes(share)
    a, _ = table.look_up(table.root, b"a")
    a.kind = stat.S_IFDIR
    again, _ = table.look_up(table.root, b"a")
    assert again.nodeid != a.nodeid
    table.forget(a.nodeid, 1)
    assert table.look_up(table.root, b"a")[0] is again
    table.close()


def test_a_closed_inode_s_number_may_go_to_another_file(share: Path) -> None:
    (share / "a").touch()
    table = Inodes(share, max_open=1)
    a, _ = table.look_up(table.root, b"a")
    (share / "link").hardlink_to(share / "a")

    def lose() -> None:
        (share / "x").touch()
        table.look_up(table.root, b"x")
        assert a.fd == -1

    lose()
    assert table.look_up(table.root, b"link")[0] is a  # still at both names
    lose()
    assert table.look_up(table.root, b"link")[0] is a
    lose()
    (share / "link").rename(share / "other")
    (share / "a").unlink()
    assert table.look_up(table.root, b"other")[0] is not a  # as a new file with a's number would be
    table.close()


def test_inodes_are_limited(share: Path) -> None:
    table = Inodes(share, max_inodes=3)
    for name in (b"a", b"b", b"c"):
        (share / os.fsdecode(name)).touch()
    a, _ = table.look_up(table.root, b"a")
    table.look_up(table.root, b"b")
    table.look_up(table.root, b"a")
    with refused(errno.ENFILE):
        table.look_up(table.root, b"c")
    table.forget(a.nodeid, 2)
    table.look_up(table.root, b"c")
    table.close()


def elsewhere(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The inode `number` is on another device from now on: a mount point."""
    real = os.fstat

    def fstat(fd: int) -> Any:
        status = real(fd)
        if status.st_ino != number:
            return status
        fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        return SimpleNamespace(**fields | {"st_dev": status.st_dev + 1})

    monkeypatch.setattr(inodes_module.os, "fstat", fstat)


def test_mount_points_are_seen_and_not_entered(
    client: FuseClient, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share / "mount").mkdir()
    elsewhere(monkeypatch, (share / "mount").stat().st_ino)
    with refused(errno.EXDEV):
        client.lookup(b"mount")
    fh = client.opendir()
    assert [e.nodeid for e in client.readdir(fh, plus=True) if e.name == b"mount"] == [0]


def test_files_of_other_devices_have_numbers_of_their_own(
    client: FuseClient, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share / "a").touch()
    before = client.lookup(b"a")
    elsewhere(monkeypatch, (share / "a").stat().st_ino)
    after = client.lookup(b"a")
    assert after.attr.ino != before.attr.ino
    assert after.nodeid != before.nodeid


def test_the_folder_in_itself_is_not_entered(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (share / "d").mkdir()
    table = Inodes(share)
    fd = os.open(share, os.O_PATH)
    with refused(errno.ELOOP):
        table.adopt(fd, table.root, b"d")
    table.close()


def test_the_whole_file_system_as_a_share() -> None:
    table = Inodes(Path("/"))
    etc, _ = table.look_up(table.root, b"etc")
    assert table.get(etc.nodeid) is etc
    table.close()


def test_nothing_is_left_behind_a_closed_share(serve: Callable[..., FuseClient], share: Path) -> None:
    client = serve()
    client.mkdir(b"d")
    fh = client.opendir()
    client.destroy()
    client.init()
    with refused(errno.EBADF):
        client.readdir(fh)
    assert client.names(ROOT) == [b"d"]
