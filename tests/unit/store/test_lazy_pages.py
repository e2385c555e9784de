"""The pages of snapshots as a store that guests take their pages from."""

import numpy as np
import pytest
from store_samples import noise, page, snapshot

from emuvisor.errors import PageLost, UsageError
from emuvisor.memory.store import PageStore
from emuvisor.store import LazyPages, Store
from emuvisor.store import lazy as lazy_module
from emuvisor.units import PAGE_SIZE


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        store.define("web", "")
        snapshot(store, "web", "a", {3: page(1), 5: noise(2)})
        snapshot(store, "web", "b", {0: page(3), 1: page(4), 2: page(5)})
        snapshot(store, "web", "empty", {})
        yield store


def load(pages, slot):
    into = memoryview(bytearray(PAGE_SIZE))
    pages.load(slot, into)
    return bytes(into)


def test_pages_come_from_the_snapshots(store):
    pages: PageStore = LazyPages()
    opened = store.open_snapshot("web", "a"), store.open_snapshot("web", "b")
    assert [pages.attach(snapshot) for snapshot in opened] == [0, 2]
    assert [load(pages, slot) for slot in range(5)] == [page(1), noise(2), page(3), page(4), page(5)]
    assert (pages.name, pages.pages) == ("snapshots", 5)
    assert pages.used_bytes == pages.limit_bytes == sum(one.metadata.bytes for one in opened) > PAGE_SIZE
    assert pages.statistics == {"loaded": 5, "lost": 0, "attached": 2}
    assert pages.store([memoryview(page(1))]) == [None]


def test_a_snapshot_is_closed_when_nobody_owns_a_page_of_it(store):
    pages = LazyPages()
    opened = store.open_snapshot("web", "a")
    pages.attach(opened)
    pages.share([0, 1])
    pages.free([0])
    assert load(pages, 0) == page(1)
    pages.free([0, 1])
    assert pages.pages == 1
    with pytest.raises(PageLost) as caught:
        load(pages, 0)
    assert str(caught.value) == "no snapshot has a page 0"
    with pytest.raises(PageLost, match="no snapshot has a page 0"):
        pages.free([0])
    assert not opened.closed
    pages.free([1])
    assert opened.closed
    assert pages.statistics == {"loaded": 1, "lost": 1, "attached": 0}


def test_numbers_are_used_again(store):
    pages = LazyPages()
    names = ["a", "b", "a"]
    opened = [store.open_snapshot("web", name) for name in names]
    assert [pages.attach(one) for one in opened] == [0, 2, 5]
    pages.free([2, 3, 4])
    assert pages.attach(store.open_snapshot("web", "a")) == 2
    assert pages.attach(store.open_snapshot("web", "b")) == 7
    assert [load(pages, 3), load(pages, 9), load(pages, 5)] == [noise(2), page(5), page(1)]
    pages.close()
    assert all(one.closed for one in opened)
    with pytest.raises(PageLost, match="no snapshot has a page 5"):
        load(pages, 5)


def test_what_cannot_be_attached(store, monkeypatch):
    pages = LazyPages()
    with pytest.raises(UsageError) as caught:
        pages.attach(store.open_snapshot("web", "empty"))
    assert str(caught.value) == "snapshot 'empty' has no pages"
    monkeypatch.setattr(lazy_module, "MAX_PAGES", 4)
    pages.attach(store.open_snapshot("web", "a"))
    with pytest.raises(UsageError) as caught:
        pages.attach(store.open_snapshot("web", "b"))
    assert str(caught.value) == "snapshot 'b' has 3 pages; restored guests can wait for 4"


def test_a_page_that_is_lost_is_counted(store):
    pages = LazyPages()
    opened = store.open_snapshot("web", "a")
    pages.attach(opened)
    for path in (store.folder / "packs").iterdir():
        path.unlink()
    with Store(store.folder, read_only=True) as reader:
        pages.attach(reader.open_snapshot("web", "a"))
        with pytest.raises(PageLost, match="No such file or directory"):
            load(pages, 2)
    assert pages.statistics == {"loaded": 0, "lost": 1, "attached": 2}


def test_slots_of_frames(store):
    with store.open_snapshot("web", "a") as opened:
        assert opened.slots_of(np.array([5, 3], np.uint32)).tolist() == [1, 0]
        assert opened.frames.tolist() == [3, 5]
    with store.open_snapshot("web", "empty") as opened, pytest.raises(UsageError):
        opened.slots_of(np.array([0], np.uint32))


def test_many_pages_at_a_time(store):
    pages = LazyPages()
    for name in "ab":
        pages.attach(store.open_snapshot("web", name))
    pages.share([0, 4, 4])
    assert pages.pages == 5
    pages.free([0, 1, 4])
    pages.free([0])
    with pytest.raises(PageLost) as caught:
        pages.free([2, 1])
    assert str(caught.value) == "no snapshot has some of the pages"
    with pytest.raises(PageLost) as caught:
        pages.share([2, 77])
    assert str(caught.value) == "no snapshot has some of the pages"
    pages.free([4, 4])
    with pytest.raises(PageLost) as caught:
        pages.share([4, 3])
    assert str(caught.value) == "no snapshot has a page 4"
    assert pages.pages == 2


def test_where_pages_are(store, tmp_path):
    pages = LazyPages()
    pages.attach(store.open_snapshot("web", "a"))
    with Store(tmp_path / "other") as other:
        other.define("web", "")
        snapshot(other, "web", "c", {9: page(1)})
        pages.attach(other.open_snapshot("web", "c"))
        with store.new_snapshot("web", "d") as draft:
            assert draft.keep(np.array([7, 8]), pages, np.array([1, 2])).tolist() == [True, False]
            draft.commit()
    with store.open_snapshot("web", "d") as opened:
        into = memoryview(bytearray(PAGE_SIZE))
        opened.read(0, into)
        assert (opened.frames.tolist(), bytes(into)) == ([7], noise(2))
