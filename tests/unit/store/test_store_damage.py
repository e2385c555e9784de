"""Files that are cut, changed, swapped or of another version: one clear error, and nothing else is harmed."""

import shutil
import struct

import pytest
from crashing_files import CrashingFiles
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import content, everything, noise, page, snapshot

from emuvisor.errors import EmuvisorError, PageLost, SnapshotError, StateError
from emuvisor.store import Store
from emuvisor.store.manifest import MAX_STATES, Metadata, compress_states, parse
from emuvisor.units import PAGE_SIZE

WEB = {0: page(1), 1: noise(2), 7: noise(3)}
DB = {0: page(4), 1: noise(5)}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store with two guests, each with a snapshot in a pack of its own."""
    folder = tmp_path_factory.mktemp("original") / "store"
    with Store(folder) as store:
        store.define("web", "a = 1\n")
        store.define("db", "a = 2\n")
        snapshot(store, "web", "s", WEB, {"rip": 1})
        snapshot(store, "db", "t", DB, {"rip": 2})
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "store")


def file_of(folder, guest, name):
    return folder / "guests" / guest / "snapshots" / f"{name}.snapshot"


def pack_of(folder, guest, name):
    path = file_of(folder, guest, name)
    return folder / "packs" / f"{parse(path, path.read_bytes()).packs[0]}.pack"


def mangled(data, draw):
    """`data` cut, lengthened, or with some bytes changed."""
    kind = draw(st.sampled_from(["cut", "longer", "flip", "overwrite"]))
    at = draw(st.integers(0, len(data) - 1))
    if kind == "cut":
        return data[:at]
    if kind == "longer":
        return data + draw(st.binary(min_size=1, max_size=50))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    new = draw(st.binary(min_size=1, max_size=50))
    return data[:at] + new + data[at + len(new) :]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_mangled_snapshot(original, tmp_path_factory, data):
    path = file_of(original, "web", "s")
    good = path.read_bytes()
    bad = mangled(good, data.draw)
    if bad == good:
        return
    path.write_bytes(bad)
    try:
        with Store(original, read_only=True) as store:
            with pytest.raises(SnapshotError) as caught:
                store.open_snapshot("web", "s")
            assert str(caught.value).startswith(f"{path} ")
            assert content(store, "db", "t") == ({"rip": 2}, DB)
    finally:
        path.write_bytes(good)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_mangled_pack(original, tmp_path_factory, data):
    path = pack_of(original, "web", "s")
    good = path.read_bytes()
    path.write_bytes(mangled(good, data.draw))
    lost = []
    try:
        with Store(original, read_only=True) as store:
            assert content(store, "db", "t") == ({"rip": 2}, DB)
            into = memoryview(bytearray(PAGE_SIZE))
            with store.open_snapshot("web", "s") as opened:
                for slot, wanted in enumerate(WEB.values()):
                    try:
                        opened.read(slot, into)
                    except PageLost as error:
                        lost.append(str(error))
                    else:
                        assert into == wanted
        assert all(str(path) in message for message in lost)
    finally:
        path.write_bytes(good)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_mangled_store_can_be_checked_and_repaired(original, tmp_path_factory, data):
    folder = shutil.copytree(original, tmp_path_factory.mktemp("mangled") / "store")
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())), "path")
    path.write_bytes(mangled(path.read_bytes() or b"\0", data.draw))
    try:
        with Store(folder, files=CrashingFiles(backup=folder.parent)) as store:
            store.check(repair=True)
            left = store.check()
            assert all(not problem.repaired for problem in left)
            for guest in store.guests():
                for info in store.snapshots(guest):
                    store.delete_snapshot(guest, info.name)
            store.gc(least_dead=0.0)
            store.define("new", "")
            snapshot(store, "new", "s", WEB)
            assert content(store, "new", "s")[1] == WEB
    except EmuvisorError as error:
        assert path.name == "format", error  # noqa: PT017  # its version is unknown, so nothing is touched
    shutil.rmtree(folder)


def problems(store, **how):
    return [(problem.subject, problem.text, problem.repaired) for problem in store.check(**how)]


def test_swapped_snapshots(folder):
    web, db = file_of(folder, "web", "s"), file_of(folder, "db", "t")
    first, second = web.read_bytes(), db.read_bytes()
    web.write_bytes(second)
    db.write_bytes(first)
    with Store(folder) as store:
        for guest, name, other, path in (("web", "s", "t", web), ("db", "t", "s", db)):
            with pytest.raises(SnapshotError) as caught:
                store.open_snapshot(guest, name)
            assert str(caught.value) == f"{path} holds another snapshot, which was made as {other!r}"
        assert problems(store) == [
            ("index", "it does not say what is in the files", False),
            ("snapshot db/t", f"{db} holds another snapshot, which was made as 's'", False),
            ("snapshot web/s", f"{web} holds another snapshot, which was made as 't'", False),
        ]
        store.check(repair=True)
        with pytest.raises(StateError) as caught:
            store.gc()
        assert str(caught.value) == "snapshot db/t is damaged; delete it first, or bring its file back"
        with pytest.raises(SnapshotError, match="holds another snapshot"):
            store.open_snapshot("web", "s")
        web.write_bytes(first)
        db.write_bytes(second)
        store.check(repair=True)
        assert store.check() == []


def test_a_snapshot_of_another_guest_with_the_same_name(folder):
    with Store(folder) as store:
        snapshot(store, "db", "s", DB)
        path = file_of(folder, "web", "s")
        path.write_bytes(file_of(folder, "db", "s").read_bytes())
        with pytest.raises(SnapshotError) as caught:
            store.open_snapshot("web", "s")
        assert str(caught.value) == f"{path} holds another snapshot, which was made as 's'"


def test_swapped_packs(folder):
    one, other = pack_of(folder, "web", "s"), pack_of(folder, "db", "t")
    other.write_bytes(one.read_bytes())
    with Store(folder) as store:
        assert content(store, "web", "s")[1] == WEB
        with pytest.raises(PageLost) as caught:
            content(store, "db", "t")
        assert str(caught.value) == f"{other} is damaged: it is pack {one.stem}"
        assert problems(store)[1:3] == [
            (f"pack {other.stem}", f"{other} is damaged: it is pack {one.stem}", False),
            ("snapshot db/t", "2 of its pages are lost", False),
        ]


@pytest.mark.parametrize("version", [0, 2])
def test_files_of_another_version(folder, version):
    path, pack = file_of(folder, "web", "s"), pack_of(folder, "db", "t")
    for file in (path, pack):
        data = bytearray(file.read_bytes())
        struct.pack_into("<I", data, 8, version)
        file.write_bytes(data)
    with Store(folder) as store:
        with pytest.raises(SnapshotError) as caught:
            store.open_snapshot("web", "s")
        assert str(caught.value) == f"{path} is a snapshot of version {version}; this emuvisor reads 1"
        with pytest.raises(PageLost) as caught:
            content(store, "db", "t")
        assert str(caught.value) == f"{pack} is a pack of version {version}; this emuvisor reads 1"
        snapshot(store, "db", "again", DB)
        assert content(store, "db", "again")[1] == DB


def test_a_damaged_page_is_taken_out_and_stored_again(folder):
    pack = pack_of(folder, "web", "s")
    data = pack.read_bytes()
    pack.write_bytes(data.replace(noise(2)[:64], bytes(64)))
    with Store(folder) as store:
        with pytest.raises(PageLost) as caught:
            content(store, "web", "s")
        assert str(caught.value) == f"page 1 of {pack} is damaged: its content does not match its hash"
        wrong = [
            (f"pack {pack.stem}", "1 of its pages are damaged"),
            ("snapshot web/s", "1 of its pages are lost"),
        ]
        assert problems(store) == [(*text, False) for text in wrong]
        assert problems(store, repair=True) == [(*wrong[0], True), (*wrong[1], False)]
        assert problems(store) == [(*wrong[1], False)]
        snapshot(store, "web", "again", WEB)
        assert content(store, "web", "again")[1] == WEB
        with pytest.raises(PageLost) as caught:
            content(store, "web", "s")
        assert str(caught.value) == f"{pack} has no page 1"
        store.delete_snapshot("web", "s")
        assert problems(store) == []


def test_a_damaged_snapshot_can_be_deleted(folder):
    path = file_of(folder, "web", "s")
    path_size = path.write_bytes(path.read_bytes()[:-1])
    with Store(folder) as store:
        assert store.delete_snapshot("web", "s") == path_size
        store.gc()
        assert problems(store) == []
        assert everything(store)["web"][1] == {}


def test_missing_files(folder):
    pack_of(folder, "web", "s").unlink()
    (folder / "guests" / "db" / "guest.toml").write_bytes(b"\xff")
    with Store(folder) as store:
        store.disk_path("d").write_bytes(b"x")
        with store.new_snapshot("web", "u") as draft:
            draft.commit(disks={"vda": ["d"]})
        store.disk_path("d").unlink()
        found = problems(store)
    assert found[1] == (
        "guest db",
        "its definition cannot be used: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        False,
    )
    assert ("snapshot web/s", "3 of its pages are lost", False) in found
    assert ("snapshot web/u", "its disk d is missing", False) in found


def test_an_index_that_is_wrong_is_made_again(folder):
    with Store(folder) as store:
        before = everything(store)
        with store._index.change():
            store._index.clear()
        wrong = ("index", "it does not say what is in the files")
        assert problems(store) == [(*wrong, False)]
        assert problems(store, repair=True) == [(*wrong, True)]
        assert problems(store) == []
        assert everything(store) == before


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"id": "1", "name": "a", "created": "x"},
        {"id": "1", "name": "a", "created": 1, "ancestors": "x"},
        {"id": "1", "name": "a", "created": 1, "disks": {"vda": [1]}},
        {"id": "1", "name": "a", "created": 1, "new": 1},
    ],
)
def test_metadata_of_another_kind(data):
    with pytest.raises(TypeError):
        Metadata.from_plain(data)


def test_states_that_would_take_too_much_memory(folder):
    path = file_of(folder, "web", "s")
    manifest = parse(path, path.read_bytes())
    states = bytearray(compress_states("x" * 300))
    assert states[4] == 0x60  # a size of two bytes follows, less 256
    states[4:7] = b"\xe0" + (MAX_STATES + 1).to_bytes(8, "little")
    with pytest.raises(SnapshotError) as caught:
        manifest.__class__(
            manifest.metadata, bytes(states), [], manifest.frames, manifest.places
        ).expand_states()
    assert (
        str(caught.value)
        == f"saved states of {MAX_STATES + 1} bytes are too long; they can have {MAX_STATES}"
    )
    with pytest.raises(SnapshotError, match="saved states are damaged: "):
        manifest.__class__(manifest.metadata, b"x", [], manifest.frames, manifest.places).expand_states()
