"""Open directories: listings, their positions while names come and go, whole trees."""

import errno
import os
import stat
from pathlib import Path

import pytest
from fuse_client import ROOT, FuseClient, names_in, refused

from emuvisor.devices.virtio.fs.inodes import MAX_OPEN_INODES
from emuvisor.devices.virtio.fs.protocol import FUSE_FSYNC_FDATASYNC

THOUSAND = [f"file-{number:04}".encode() for number in range(1000)]


@pytest.fixture
def thousand(share: Path) -> Path:
    for name in THOUSAND:
        (share / os.fsdecode(name)).touch()
    return share


@pytest.mark.parametrize("plus", [False, True])
def test_a_thousand_files(client: FuseClient, thousand: Path, plus: bool) -> None:
    assert client.names(plus=plus) == THOUSAND
    assert client.names(plus=plus, size=1 << 20) == THOUSAND


def test_entries_say_what_they_are(client: FuseClient, share: Path) -> None:
    (share / "d").mkdir()
    (share / "f").touch()
    (share / "s").symlink_to("f")
    fh = client.opendir()
    listed = {entry.name: entry for entry in client.readdir(fh, plus=True)}
    assert [listed[name].kind for name in (b"d", b"f", b"s", b".")] == [4, 8, 10, 4]
    for name in (b"d", b"f", b"s"):
        assert listed[name].nodeid == client.lookup(name).nodeid
        assert listed[name].ino == (share / os.fsdecode(name)).lstat().st_ino
    assert listed[b"."].nodeid == listed[b".."].nodeid == 0
    assert listed[b".."].ino == share.stat().st_ino  # not the host's folder above
    d = client.opendir(listed[b"d"].nodeid)
    assert {e.name: e.ino for e in client.readdir(d)}[b".."] == share.stat().st_ino
    client.fsyncdir(fh)
    client.fsyncdir(fh, FUSE_FSYNC_FDATASYNC)


def test_listed_inodes_are_counted_once_for_each_entry_sent(client: FuseClient, share: Path) -> None:
    for name in "abcd":
        (share / name).touch()
    fh = client.opendir()
    portion = client.readdir(fh, 0, 160 * 3, plus=True)
    assert len(portion) == 3
    for entry in client.listing(fh, 160, plus=True):
        if entry.nodeid:
            client.forget(entry.nodeid, 1 + (entry.name in [e.name for e in portion]))
            with refused(errno.ESTALE):
                client.getattr(entry.nodeid)


def test_a_name_that_is_gone_is_listed_without_an_inode(client: FuseClient, share: Path) -> None:
    for name in "abcdefgh":
        (share / name).touch()
    fh = client.opendir()
    first = client.readdir(fh, 0, 160, plus=True)[-1]
    for name in "abcdefgh":
        (share / name).unlink()
    rest = client.readdir(fh, first.cookie, plus=True)
    assert [entry.nodeid for entry in rest] == [0] * len(rest)


def test_positions_hold_while_names_come_and_go(client: FuseClient, thousand: Path) -> None:
    fh = client.opendir()
    seen = []
    for count, entry in enumerate(client.listing(fh, 512)):
        seen.append(entry.name)
        if entry.name.startswith(b"file"):
            (thousand / os.fsdecode(entry.name)).unlink()
            (thousand / f"new-{count}").touch()
    assert sorted(name for name in seen if name.startswith(b"file")) == THOUSAND
    assert len(set(seen)) == len(seen)


def test_a_position_can_be_asked_for_again(client: FuseClient, thousand: Path) -> None:
    fh = client.opendir()
    entries = list(client.listing(fh))
    for index in (0, 10, 500, 998, 3):
        again = client.readdir(fh, entries[index].cookie)
        assert again[: len(again)] == entries[index + 1 : index + 1 + len(again)]
    (thousand / "late").touch()
    assert b"late" in [entry.name for entry in client.listing(fh)]  # as after rewinddir(3)
    with refused(errno.EINVAL):
        client.readdir(fh, 1 << 63)
    with refused(errno.EINVAL):
        client.readdir(fh, 0, 16)
    with refused(errno.EBADF):
        client.readdir(fh + 1)


def test_rm_r_of_a_thousand_files_in_folders(client: FuseClient, thousand: Path) -> None:
    tree = client.mkdir(b"tree")
    for number in range(20):
        client.rename(b"file-%04d" % number, b"x%d" % number, to=tree.nodeid)
        client.mkdir(b"d%d" % number, parent=tree.nodeid)
    client.remove_tree(b"tree")
    for name in THOUSAND[20:]:
        client.remove_tree(name)
    assert names_in(thousand) == []


def test_more_inodes_than_descriptors(client: FuseClient, share: Path) -> None:
    """`find` and `cp -r` in a big tree: the guest's kernel remembers more than the share holds open."""
    nodes = {}
    for folder in range(MAX_OPEN_INODES // 50 + 2):
        (share / f"{folder}").mkdir()
        node = client.lookup(b"%d" % folder).nodeid
        for number in range(50):
            (share / f"{folder}/{number}").write_bytes(b"%d/%d" % (folder, number))
            nodes[folder, number] = client.lookup(b"%d" % number, node).nodeid
    assert len(nodes) > MAX_OPEN_INODES
    for (folder, number), node in nodes.items():
        fh = client.open(node)
        assert client.read(fh, 0, 100) == b"%d/%d" % (folder, number)
        client.release(fh)


def test_a_directory_is_no_file(client: FuseClient, share: Path) -> None:
    fh = client.opendir()
    with refused(errno.EBADF):
        client.read(fh, 0, 10)
    _, file = client.create(b"a")
    with refused(errno.EBADF):
        client.readdir(file)
    client.releasedir(fh)
    with refused(errno.EBADF):
        client.fsyncdir(fh)
    assert stat.S_ISDIR(client.getattr(ROOT).mode)
