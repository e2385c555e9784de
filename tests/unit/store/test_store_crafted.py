"""Files that somebody made to do harm: their hashes are right, their content is not."""

import sqlite3

import numpy as np
import pytest
import zstandard
from store_samples import content, everything, noise, page, snapshot

from emuvisor.errors import HostError, PageLost, SnapshotError
from emuvisor.store import Store
from emuvisor.store.files import HostFiles
from emuvisor.store.manifest import MAX_METADATA, Manifest, Metadata, parse
from emuvisor.store.pack import Pack, PackWriter, hash_page
from emuvisor.units import PAGE_SIZE


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        store.define("web", "")
        snapshot(store, "web", "a", {0: page(1), 1: noise(2)})
        yield store


def manifest(frames=(), places=(), packs=(), **metadata):
    about = Metadata(**{"id": "1", "name": "a", "created": 0.0, **metadata})
    return Manifest(about, b"", packs, np.array(frames, np.uint32), np.array(places, np.uint32))


@pytest.mark.parametrize(
    ("crafted", "wrong"),
    [
        (manifest((2, 1), (0, 1), ["00" * 16]), "its map of pages is of no memory"),
        (manifest((1, 1), (0, 1), ["00" * 16]), "its map of pages is of no memory"),
        (manifest((1,), (1 << 16,), ["00" * 16]), "its map of pages is of no memory"),
        (manifest(id=1), "its metadata cannot be read"),
    ],
)
def test_a_crafted_snapshot(tmp_path, crafted, wrong):
    with pytest.raises(SnapshotError) as caught:
        parse(tmp_path / "a.snapshot", crafted.encode())
    assert str(caught.value) == f"{tmp_path}/a.snapshot is damaged: {wrong}"


def test_snapshots_that_would_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(SnapshotError) as caught:
        manifest(packs=["00" * 16] * 65537).encode()
    assert str(caught.value) == "snapshot 'a' is in 65537 packs; it can be in 65536"
    with pytest.raises(SnapshotError) as caught:
        manifest(comment="x" * MAX_METADATA).encode()
    assert str(caught.value) == "snapshot 'a' has metadata of 1048674 bytes; it can have 1048576"
    monkeypatch.setattr("emuvisor.store.manifest.MAX_METADATA", 2 * MAX_METADATA)
    data = manifest(comment="x" * MAX_METADATA).encode()
    monkeypatch.undo()
    with pytest.raises(SnapshotError) as caught:
        parse(tmp_path / "a.snapshot", data)
    assert str(caught.value) == f"{tmp_path}/a.snapshot is damaged: metadata of 1048674 bytes"


def crafted_pack(folder, *pages):
    writer = PackWriter(folder, HostFiles())
    for digest, data in pages:
        writer.add_stored(digest, data)
    writer.seal()
    return Pack(writer.path)


def test_a_page_that_expands_to_more_is_refused(tmp_path):
    large = bytes(1 << 20)
    pack = crafted_pack(
        tmp_path,
        (hash_page(large), zstandard.ZstdCompressor().compress(large)),
        (hash_page(large), zstandard.ZstdCompressor(write_content_size=False).compress(large)),
        (hash_page(b"short"), zstandard.ZstdCompressor().compress(b"short")),
    )
    into = memoryview(bytearray(PAGE_SIZE))
    with pytest.raises(PageLost) as caught:
        pack.read(0, into)
    assert str(caught.value) == f"page 0 of {pack.path} cannot be read: it would be longer than a page"
    with pytest.raises(PageLost, match=f"page 1 of {pack.path} cannot be read: "):
        pack.read(1, into)
    with pytest.raises(PageLost) as caught:
        pack.read(2, into)
    assert str(caught.value) == f"page 2 of {pack.path} has 5 bytes; a page has 4096"
    with pytest.raises(PageLost) as caught:
        pack.read(3, into)
    assert str(caught.value) == f"{pack.path} has no page 3"


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (0, "it is no pack"),
        (-1, "it is cut"),
        (-20, "its table does not match its hash"),
        (-60, "its table does not match its hash"),
    ],
)
def test_a_pack_with_a_changed_byte(tmp_path, at, wrong):
    path = crafted_pack(tmp_path, (hash_page(noise(1)), noise(1))).path
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError) as caught:
        Pack(path)
    assert str(caught.value) == f"{path} is damaged: {wrong}"


def test_a_pack_whose_pages_end_before_they_begin(tmp_path):
    writer = PackWriter(tmp_path, HostFiles())
    writer.add_stored(bytes(32), b"x" * 10)
    writer.add_stored(bytes(32), b"y" * 10)
    writer._ends.reverse()
    writer.seal()
    with pytest.raises(SnapshotError, match="is damaged: its table is of no pack"):
        Pack(writer.path)


def test_a_link_in_the_place_of_a_snapshot(store, tmp_path):
    path = store.folder / "guests" / "web" / "snapshots" / "a.snapshot"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError) as caught:
        store.open_snapshot("web", "a")
    assert str(caught.value) == f"{path} cannot be read: Too many levels of symbolic links"


def test_a_snapshot_that_is_deleted_while_it_is_opened(store, monkeypatch):
    path = store.folder / "guests" / "web" / "snapshots" / "a.snapshot"
    monkeypatch.setattr("emuvisor.store.snapshot.fcntl.flock", lambda *_: path.unlink())
    with pytest.raises(SnapshotError) as caught:
        store.open_snapshot("web", "a")
    assert str(caught.value) == f"there is no snapshot {path}"


# ---- the index ----


def damage_table(folder, table):
    """Overwrite the page of the database that a table begins with."""
    path = folder / "index.sqlite"
    with sqlite3.connect(path) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.parametrize("clean", [True, False])
def test_a_damaged_table_is_made_again(store, clean):
    before = everything(store)
    store._dirty = store._dirty and clean
    store.close()
    damage_table(store.folder, "snapshots")
    with Store(store.folder) as again:
        if clean:
            with pytest.raises(HostError, match="its index: database disk image is malformed"):
                again.snapshots()
            assert [problem.subject for problem in again.check(repair=True)] == ["index"]
        assert again.check() == []
        assert everything(again) == before


def test_wrong_counts_are_made_again(store):
    with store._index.change():
        store._index._db.execute("UPDATE packs SET counts = ?", (zstandard.compress(b""),))
    with pytest.raises(HostError) as caught:
        store.delete_snapshot("web", "a")
    assert str(caught.value) == f"store {store.folder}: its index: it is damaged: 0 counts for 2 pages"
    assert store.snapshots() == []
    snapshot(store, "web", "b", {5: noise(2)})
    assert content(store, "web", "b")[1] == {5: noise(2)}
    assert store.check() == []
