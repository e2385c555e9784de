"""Pages that are still on the other side of a migration."""

import threading

import numpy as np
import pytest

from emuvisor.errors import MigrationError, PageLost
from emuvisor.migration.remote_pages import RemoteGuest, RemotePages
from emuvisor.units import PAGE_SIZE


class Line:
    """Notes what is wanted, and who was stalled; `answers` bring pages at once."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.stalled: list[str] = []
        self.asked = threading.Event()

    def demand(self, page: int) -> None:
        self.wanted.append(page)
        self.asked.set()


def attached(store: RemotePages, missing: list[int]) -> tuple[RemoteGuest, Line]:
    line = Line()
    guest = RemoteGuest(np.array(missing, np.bool_), line.demand, line.stalled.append)
    store.attach(guest)
    return guest, line


def loaded(store: RemotePages, slot: int) -> int:
    into = bytearray(PAGE_SIZE)
    store.load(slot, memoryview(into))
    return into[0]


def test_a_page_is_waited_for() -> None:
    store = RemotePages()
    guest, line = attached(store, [1, 0, 1])
    assert store.pages == 2
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(loaded(store, 2)))
    waiting.start()
    assert line.asked.wait(10)
    store.arrive(guest, 2, b"\7" * PAGE_SIZE)
    waiting.join(10)
    assert (got, line.wanted) == ([7], [2])
    assert store.used_bytes == store.limit_bytes == PAGE_SIZE
    store.free([2])
    assert store.used_bytes == 0
    assert store.statistics == {"loaded": 1, "lost": 0, "attached": 1}
    assert store.store([memoryview(bytes(PAGE_SIZE))]) == [None]


def test_what_nobody_wants_any_more_is_not_kept() -> None:
    store = RemotePages()
    guest, _ = attached(store, [1, 1])
    store.free([0])
    store.arrive(guest, 0, bytes(PAGE_SIZE))
    store.arrive(guest, 5, bytes(PAGE_SIZE))
    store.arrive(guest, -1, bytes(PAGE_SIZE))
    assert store.used_bytes == 0
    store.arrive(guest, 1, b"\1" * PAGE_SIZE)
    store.arrive(guest, 1, b"\2" * PAGE_SIZE)
    store.share([1])
    store.free([1])
    assert loaded(store, 1) == 1
    store.free([1])
    assert store.statistics["attached"] == 0
    with pytest.raises(PageLost, match="no migration has a page 1"):
        loaded(store, 1)


def test_without_a_line_the_guest_stalls() -> None:
    store = RemotePages()
    guest, line = attached(store, [1])
    store.set_line(guest, broken="no line")
    with pytest.raises(MemoryError, match="no line"):
        loaded(store, 0)
    assert (line.stalled, line.wanted) == (["no line"], [])
    store.set_line(guest)
    store.arrive(guest, 0, b"\3" * PAGE_SIZE)
    assert loaded(store, 0) == 3


def test_what_is_lost_is_lost() -> None:
    store = RemotePages()
    guest, _ = attached(store, [1])
    store.set_line(guest, lost="gone")
    with pytest.raises(PageLost, match="gone"):
        loaded(store, 0)
    assert store.statistics["lost"] == 1
    store.release(guest)
    assert store.statistics["attached"] == 1
    store.free([0])
    store.release(guest)
    assert store.statistics["attached"] == 0


def test_several_guests() -> None:
    store = RemotePages()
    first, _ = attached(store, [1] * 4)
    second, _ = attached(store, [1] * 4)
    assert (first.first, second.first) == (0, 4)
    store.arrive(second, 1, b"\5" * PAGE_SIZE)
    assert loaded(store, 5) == 5
    for page in range(4):
        store.arrive(first, page, bytes(PAGE_SIZE))
    store.free([0, 1, 2, 3])
    third, _ = attached(store, [1, 1])
    assert third.first == 0
    big = RemoteGuest(np.zeros(1 << 24, np.bool_), lambda _: None, lambda _: None)
    with pytest.raises(MigrationError) as caught:
        store.attach(big)
    assert (
        str(caught.value)
        == "migration: the guest has 16777216 pages; guests that wait for theirs can have 16777216"
    )
