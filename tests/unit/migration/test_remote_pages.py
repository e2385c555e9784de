"""Pages that are still on the other side of a migration."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emuvisor.errors import MigrationError, PageLost
from emuvisor.host import GuestState, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.memory.stage2 import FrameState, entry
from emuvisor.migration import remote_pages
from emuvisor.migration.late_pages import LatePages
from emuvisor.migration.remote_pages import RemoteGuest, RemotePages
from emuvisor.units import MIB, PAGE_SIZE

NOTHING = FlatConfig(Path("nothing"), 0x7C00)
"""It is never switched on."""


class Line:
    """Notes what is wanted."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.asked = threading.Event()

    def demand(self, page: int) -> None:
        self.wanted.append(page)
        self.asked.set()


def attached(store: RemotePages, missing: list[int]) -> tuple[RemoteGuest, Line]:
    line = Line()
    guest = RemoteGuest(np.array(missing, np.bool_), line.demand)
    store.attach(guest)
    return guest, line


def loaded(store: RemotePages, slot: int) -> int:
    into = bytearray(PAGE_SIZE)
    store.load(slot, memoryview(into))
    return into[0]


class Slice:
    """A machine in whose slice pages are wanted."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.on_stop: Callable[[], None] | None = None
        self.suspended: list[str] = []

    def suspend(self, reason: str) -> None:
        self.suspended.append(reason)

    def stop(self) -> None:
        self.is_stopping = True
        if self.on_stop is not None:
            self.on_stop()


@pytest.fixture
def slice_(monkeypatch: pytest.MonkeyPatch) -> Slice:
    """Every thread runs its slice."""
    machine = Slice()
    monkeypatch.setattr(remote_pages, "present_machine", lambda: machine)
    return machine


def test_a_slice_waits_for_its_page(slice_: Slice) -> None:
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
    assert slice_.on_stop is None
    assert store.used_bytes == store.limit_bytes == PAGE_SIZE
    store.free([2])
    assert store.used_bytes == 0
    assert store.statistics == {"loaded": 1, "lost": 0, "attached": 1}
    assert store.store([memoryview(bytes(PAGE_SIZE))]) == [None]


def test_a_slice_that_is_to_end_does_not_wait(slice_: Slice) -> None:
    store = RemotePages()
    _, line = attached(store, [1])
    errors: list[str] = []

    def wants() -> None:
        with pytest.raises(MemoryError) as caught:
            loaded(store, 0)
        errors.append(str(caught.value))

    waiting = threading.Thread(target=wants)
    waiting.start()
    assert line.asked.wait(10)
    slice_.stop()
    waiting.join(10)
    wants()  # nor does it begin to
    assert (errors, line.wanted) == (["it is still at the other side of a migration"] * 2, [0])


def test_nobody_else_waits() -> None:
    store = RemotePages()
    guest, line = attached(store, [1])
    for _ in range(2):
        with pytest.raises(MemoryError, match=r"^it is still at the other side of a migration$"):
            loaded(store, 0)
    assert line.wanted == [0]
    store.arrive(guest, 0, b"\3" * PAGE_SIZE)
    assert loaded(store, 0) == 3


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


def test_without_a_line_the_guest_stalls(slice_: Slice) -> None:
    store = RemotePages()
    guest, line = attached(store, [1])
    store.set_line(guest, broken="no line")
    with pytest.raises(MemoryError, match="no line"):
        loaded(store, 0)
    assert (slice_.suspended, line.wanted, guest.stalled) == (["no line"], [], {slice_})
    store.set_line(guest)
    store.arrive(guest, 0, b"\3" * PAGE_SIZE)
    assert loaded(store, 0) == 3


def test_without_a_line_nobody_else_is_suspended() -> None:
    store = RemotePages()
    guest, _ = attached(store, [1])
    store.set_line(guest, broken="no line")
    with pytest.raises(MemoryError, match="no line"):
        loaded(store, 0)
    assert not guest.stalled


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
    big = RemoteGuest(np.zeros(1 << 24, np.bool_), lambda _: None)
    with pytest.raises(MigrationError) as caught:
        store.attach(big)
    assert (
        str(caught.value)
        == "migration: the guest has 16777216 pages; guests that wait for theirs can have 16777216"
    )


def test_a_clone_that_stalls_goes_on_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the same pages as the guest that it was made of, and is suspended by itself."""
    with Host(16 * MIB) as host:
        guest = host.create(GuestConfig(name="guest", memory=4 * MIB, flat=NOTHING))
        clone = host.create(GuestConfig(name="clone", memory=4 * MIB, flat=NOTHING))
        late = LatePages(host, guest, np.array([3]), guest.memory.page_count, lambda _: None)
        late.line_lost("no line")
        resumed: list[str] = []
        monkeypatch.setattr(clone, "resume", lambda: resumed.append("clone"))
        clone.state, clone.suspended = GuestState.PAUSED, True
        late._remote.stalled.add(clone.machine)
        late.line_back()
        assert (resumed, late._remote.stalled, late._remote.broken) == (["clone"], set(), "")


def test_who_is_gone_gets_no_frames() -> None:
    with Host(16 * MIB) as host:
        guest = host.create(GuestConfig(name="guest", memory=4 * MIB, flat=NOTHING))
        late = LatePages(host, guest, np.array([3]), guest.memory.page_count, lambda _: None)
        guest.memory.sets[0].entries[3] = entry(FrameState.REMOTE, 3)
        guest.memory.stores = host.memory.stores
        host.guests["guest"] = host.create(GuestConfig(name="another", memory=4 * MIB, flat=NOTHING))
        late.settle()
        assert guest.memory.census()["remote"] == 1
        host.guests["guest"] = guest
        late.begin()
        late._store.arrive(late._remote, 3, bytes(PAGE_SIZE))
        late.settle()
        assert guest.memory.census()["remote"] == 0
