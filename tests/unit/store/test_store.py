"""Guests, snapshots and disks of a store, and what is freed."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from store_samples import content, everything, names_in, noise, page, snapshot

from emuvisor.errors import ConfigError, HostError, SnapshotError, StateError, UsageError
from emuvisor.store import Store
from emuvisor.store.files import HostFiles
from emuvisor.store.pack import MAX_PAGES, hash_page
from emuvisor.store.packs import ZERO_PAGE, Packs
from emuvisor.units import PAGE_SIZE


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        store.define("web", "memory = '64M'\n")
        yield store


def refused(kind, call):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# ---- guests ----


def test_guests_are_defined_changed_and_renamed(store):
    snapshot(store, "web", "a", {0: page(1)})
    assert refused(StateError, lambda: store.define("web", "")) == "there is a guest 'web' already"
    store.define("web", "memory = '1G'\n", replace=True)
    store.define("db", "")
    assert refused(StateError, lambda: store.rename_guest("web", "db")) == "there is a guest 'db' already"
    store.rename_guest("web", "www")
    assert store.guests() == ["db", "www"]
    assert store.definition("www") == "memory = '1G'\n"
    assert content(store, "www", "a") == (None, {0: page(1)})
    assert refused(UsageError, lambda: store.definition("web")) == (
        f"there is no guest 'web' in store {store.folder}"
    )


def test_a_definition_is_toml(store):
    assert refused(ConfigError, lambda: store.define("db", "a =")) == (
        "the definition of guest 'db' is no TOML: Invalid value (at end of document)"
    )
    assert store.guests() == ["web"]


def test_all_is_there_in_the_next_process(tmp_path, store):
    snapshot(store, "web", "a", {0: page(1), 7: noise(2)}, {"x": [1, b"\0"]})
    before = everything(store)
    store.close()
    with Store(store.folder) as again:
        assert everything(again) == before
    with Store(store.folder, read_only=True) as again:
        assert everything(again) == before


# ---- snapshots ----


def test_a_snapshot_has_the_pages_that_are_not_zero(store):
    with store.new_snapshot("web", "a", comment="first", now=lambda: 5.5) as draft:
        places = draft.put_pages([page(1), bytes(PAGE_SIZE), page(2), page(1)])
        assert places[1] == ZERO_PAGE
        assert places[0] == places[3] != places[2]
        draft.map(range(3, 7), places)
        draft.put([3], [page(2)])
        assert draft.new_pages == 2
        info = draft.commit({"rip": 1})
    assert content(store, "web", "a") == ({"rip": 1}, {3: page(2), 5: page(2), 6: page(1)})
    assert (info.metadata.comment, info.metadata.created, info.pages) == ("first", 5.5, 3)
    assert store.snapshots() == [info]
    assert draft.new_bytes == info.metadata.bytes


def test_an_empty_snapshot(store):
    with store.new_snapshot("web", "a") as draft:
        assert draft.put_pages([]).tolist() == []
        draft.commit()
    assert content(store, "web", "a") == (None, {})


def test_pages_in_an_array(store):
    pages = np.frombuffer(page(1) + noise(2) + page(3), np.uint8).reshape(3, PAGE_SIZE)
    with store.new_snapshot("web", "a") as draft:
        draft.put(np.array([2, 4], np.uint32), pages[::2])
        draft.put([9], [memoryview(noise(2))])
        draft.commit()
    assert content(store, "web", "a")[1] == {2: page(1), 4: page(3), 9: noise(2)}


def test_snapshots_share_pages_with_all_others(store):
    store.define("db", "")
    snapshot(store, "web", "a", {n: noise(n) for n in range(20)})
    with store.new_snapshot("db", "b") as draft:
        draft.put(range(20), [noise(n) for n in reversed(range(20))])
        assert draft.new_pages == 0
        draft.commit()
    info = store.info()
    assert (info.snapshots, info.pages, info.packs, info.deduplication) == (2, 20, 1, 2.0)
    assert content(store, "db", "b")[1][0] == noise(19)


def test_an_increment_has_the_rest_from_its_parent(store):
    first = snapshot(store, "web", "a", {1: page(1), 2: page(2), 3: page(3)})
    second = snapshot(store, "web", "b", {2: page(9), 3: bytes(PAGE_SIZE)}, parent=first)
    third = snapshot(store, "web", "c", {4: page(4)}, parent=second)
    assert content(store, "web", "c")[1] == {1: page(1), 2: page(9), 4: page(4)}
    assert store.parent_of(first) is None
    assert store.parent_of(third) == second
    store.delete_snapshot("web", "b")
    assert store.parent_of(third) == first
    assert content(store, "web", "c")[1] == {1: page(1), 2: page(9), 4: page(4)}
    snapshot(store, "web", "b", {})
    assert store.parent_of(third) == first


def test_pages_of_an_open_snapshot_go_into_another(store):
    snapshot(store, "web", "a", {5: page(1), 8: page(2)})
    with store.open_snapshot("web", "a") as opened, store.new_snapshot("web", "b") as draft:
        draft.map([1], opened.places[opened.slots_of(np.array([8], np.uint32))])
        assert refused(UsageError, lambda: opened.slots_of(np.array([5, 6, 99], np.uint32))) == (
            "snapshot 'a' has no page for guest frame 0x6"
        )
        draft.commit()
    assert content(store, "web", "b")[1] == {1: page(2)}


def test_more_pages_than_a_pack_has(store):
    numbers = np.arange(1, MAX_PAGES + 11, dtype=np.uint64)
    pages = np.zeros((len(numbers), PAGE_SIZE), np.uint8)
    pages[:, :8] = numbers.view(np.uint8).reshape(-1, 8)
    with store.new_snapshot("web", "a") as draft:
        draft.put(range(len(pages)), pages)
        draft.put(range(len(pages)), pages)
        assert draft.new_pages == len(pages)
        draft.commit()
    assert store.info().packs == 2
    into = memoryview(bytearray(PAGE_SIZE))
    with store.open_snapshot("web", "a") as opened:
        for slot in (0, MAX_PAGES - 1, MAX_PAGES, MAX_PAGES + 9):
            opened.read(slot, into)
            assert into == pages[slot].tobytes()


def test_what_a_draft_refuses(store):
    snapshot(store, "web", "a", {})
    assert refused(StateError, lambda: store.new_snapshot("web", "a")) == (
        "guest 'web' has a snapshot 'a' already"
    )
    with store.new_snapshot("web", "b") as draft:
        assert refused(UsageError, lambda: draft.put([0], [b"x"])) == "a page of 1 bytes; it has 4096"
        places = draft.put_pages([page(1)])
        assert refused(UsageError, lambda: draft.map([1, 2], places)) == "2 guest frames for 1 pages"
        assert refused(UsageError, lambda: draft.map([1 << 32], places)) == (
            "guest frames 0x100000000 to 0x100000000; the last one is 0xffffffff"
        )
        assert refused(SnapshotError, lambda: draft.commit({1})) == "{1} is no plain data, at its top"
        assert refused(StateError, lambda: draft.put([0], [page(1)])) == (
            "the draft of snapshot 'b' is committed or abandoned"
        )
    assert [info.name for info in store.snapshots()] == ["a"]
    assert store.check() == []


def test_a_guest_that_went_while_its_snapshot_was_written(store):
    with store.new_snapshot("web", "a") as draft:
        store.delete_guest("web")
        assert "there is no guest 'web'" in refused(UsageError, draft.commit)
    assert store.check() == []


def test_two_drafts_at_a_time(store):
    with store.new_snapshot("web", "a") as one, store.new_snapshot("web", "b") as other:
        one.put([0, 1], [page(1), page(2)])
        other.put([0, 1], [page(1), page(3)])
        assert refused(StateError, store.gc) == (
            f"gc of store {store.folder} is impossible while a snapshot is written"
        )
        assert refused(StateError, store.check) == (
            f"check of store {store.folder} is impossible while a snapshot is written"
        )
        one.commit()
        other.commit()
    assert content(store, "web", "a")[1] == {0: page(1), 1: page(2)}
    assert content(store, "web", "b")[1] == {0: page(1), 1: page(3)}
    assert store.check() == []


def test_threads_write_and_read_at_a_time(store):
    def work(number):
        for n in range(5):
            pages = {frame: page(frame % (n + 2) + number + 1) for frame in range(1, 30)}
            snapshot(store, "web", f"s{number}-{n}", pages)
            assert content(store, "web", f"s{number}-{n}")[1] == pages
            done.append(n)

    done = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 20
    assert store.check() == []


def test_a_snapshot_that_is_not_there(store):
    path = store.folder / "guests" / "web" / "snapshots" / "a.snapshot"
    assert refused(SnapshotError, lambda: store.open_snapshot("web", "a")) == f"there is no snapshot {path}"
    assert refused(UsageError, lambda: store.delete_snapshot("web", "a")) == (
        "guest 'web' has no snapshot 'a'"
    )


def test_a_snapshot_in_use_is_not_deleted(store):
    snapshot(store, "web", "a", {0: page(1)})
    wrong = "snapshot 'a' is in use: a guest that was restored from it still takes pages from it"
    with Store(store.folder, read_only=True) as reader, reader.open_snapshot("web", "a") as opened:
        assert refused(StateError, lambda: store.delete_snapshot("web", "a")) == wrong
        assert refused(StateError, lambda: store.delete_guest("web")) == wrong
        store.rename_guest("web", "www")
        opened.read(0, memoryview(bytearray(PAGE_SIZE)))
        assert not opened.closed
    assert opened.closed
    assert store.delete_guest("www") > 0
    assert store.guests() == []


# ---- deletion ----


def test_deletion_says_what_becomes_free_and_gc_frees_it(store):
    first = snapshot(store, "web", "a", {n: noise(n) for n in range(10)})
    second = snapshot(store, "web", "b", {0: noise(50)}, parent=first)
    third = snapshot(store, "web", "c", {n: noise(n) for n in (1, 2)})
    assert store.delete_snapshot("web", "a") == PAGE_SIZE + first.file_bytes
    assert store.gc().bytes_freed == 0
    assert store.delete_snapshot("web", "b") == 8 * PAGE_SIZE + second.file_bytes
    assert store.info().live_bytes == 2 * PAGE_SIZE
    done = store.gc()
    assert (done.packs_deleted, done.packs_rewritten) == (1, 1)
    assert done.bytes_freed > 9 * PAGE_SIZE
    assert content(store, "web", "c")[1] == {1: noise(1), 2: noise(2)}
    assert store.check() == []
    snapshot(store, "web", "d", {1: noise(1), 5: noise(5)})
    assert content(store, "web", "d")[1] == {1: noise(1), 5: noise(5)}
    assert store.delete_guest("web") > 3 * PAGE_SIZE + third.file_bytes
    store.gc()
    assert names_in(store.folder / "packs") == []
    assert store.check() == []


def test_nothing_of_a_deleted_guest_is_left(store):
    store.define("db", "")
    snapshot(store, "web", "a", {1: noise(1), 2: noise(2)})
    snapshot(store, "db", "b", {2: noise(2), 3: noise(3)})
    store.delete_guest("web")
    store.gc(least_dead=0.0)
    left = b"".join(path.read_bytes() for path in (store.folder / "packs").iterdir())
    assert noise(1) not in left
    assert hash_page(noise(1)) not in left
    assert noise(2) in left


def test_an_open_snapshot_is_read_on_while_its_packs_are_written_again(store):
    snapshot(store, "web", "a", {n: noise(n) for n in range(4)})
    snapshot(store, "web", "b", {3: noise(3)})
    into = memoryview(bytearray(PAGE_SIZE))
    with Store(store.folder, read_only=True) as reader, reader.open_snapshot("web", "b") as opened:
        opened.read(0, into)
        store.delete_snapshot("web", "a")
        assert store.gc().packs_rewritten == 1
        opened.read(0, into)
        assert into == noise(3)


def test_few_packs_are_open_at_a_time(store):
    for n in range(6):
        snapshot(store, "web", f"s{n}", {0: noise(n)})
    packs = Packs(store.folder / "packs", max_open=2)
    before = len(names_in(Path("/proc/self/fd")))
    for uid in packs.on_disk() * 2:
        packs.open(uid)
    assert len(names_in(Path("/proc/self/fd"))) == before + 2


# ---- disks ----


def test_disks_of_snapshots_stay(store):
    store.disk_path("web.qcow2").write_bytes(bytes(8192))
    with store.new_snapshot("web", "a") as draft:
        draft.commit(disks={"vda": ["web.qcow2"]})
    assert store.disks() == ["web.qcow2"]
    assert refused(StateError, lambda: store.delete_disk("web.qcow2")) == (
        "disk 'web.qcow2' is part of snapshot web/a"
    )
    with store.open_snapshot("web", "a") as opened:
        assert opened.metadata.disks == {"vda": ("web.qcow2",)}
    with store.new_snapshot("web", "b") as draft:
        assert refused(UsageError, lambda: draft.commit(disks={"vda": ["x"]})) == (
            f"there is no disk 'x' in store {store.folder}"
        )
    store.delete_snapshot("web", "a")
    assert store.delete_disk("web.qcow2") == 8192
    assert refused(UsageError, lambda: store.delete_disk("web.qcow2")) == (
        f"there is no disk 'web.qcow2' in store {store.folder}"
    )


# ---- a host without room ----


class FullFiles(HostFiles):
    full = False

    def append(self, path, data):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().append(path, data)


def test_a_full_disk_ends_a_draft_and_harms_nothing(tmp_path):
    files = FullFiles()
    with Store(tmp_path, files=files) as store:
        store.define("web", "")
        snapshot(store, "web", "a", {0: page(1)})
        before = everything(store)
        draft = store.new_snapshot("web", "b")
        files.full = True
        wrong = refused(HostError, lambda: draft.put(range(1200), [noise(n) for n in range(1200)]))
        assert wrong.startswith(f"{tmp_path}/packs: No space left on device: {tmp_path}/packs/")
        assert refused(HostError, lambda: snapshot(store, "web", "c", {0: noise(1)}))
        assert refused(HostError, lambda: store.define("db", "")).endswith("guests/db/guest.toml.new")
        files.full = False
        assert everything(store) == before
        assert store.check(repair=True)[0].repaired
        assert store.check() == []
        snapshot(store, "web", "b", {0: noise(1)})
