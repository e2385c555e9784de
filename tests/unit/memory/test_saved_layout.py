"""A guest's memory made again from its layout and its pages; layouts that nobody saved."""

from contextlib import suppress

import numpy as np
import pytest
from fake_store import FakeStore
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from test_memory_layout import RAM, REGIONS, SHADOW, SHADOW_PAGES
from test_memory_layout import Layout as LayoutMachine

from emuvisor.errors import OutOfFrames, SnapshotError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.memory.saved_layout import Layout, MemoryLoader
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STORED, FrameState, entry, in_states
from emuvisor.units import MIB, PAGE_SIZE

ROM = 40
BAD = "the saved layout of memory is not this guest's: "


def fresh(pool):
    memory = GuestMemory(pool, [(0, len(RAM) * PAGE_SIZE)])
    memory.add_shadow(SHADOW * PAGE_SIZE, SHADOW_PAGES * PAGE_SIZE)
    for count in REGIONS:
        memory.add_region(count * PAGE_SIZE)
    return memory


def saved(memory, store):
    """Its layout, and which of its pages are where in `store`."""
    numbers, entries, at = [], [], 0
    for part in memory.sets:
        for index in np.flatnonzero(in_states(part.entries, FRAMED)).tolist():
            page = memory.pool.frames[int(part.entries[index]) & FRAME_MASK]
            if page.any():
                numbers.append(at + index)
                entries.append(entry(FrameState.SAVED, store.store([memoryview(page)])[0]))
        at += len(part.entries)
    return Layout.of(memory).as_plain(), np.array(numbers, np.uint32), np.array(entries, np.uint32)


def restored(pool, store, layout, numbers, entries):
    memory = fresh(pool)
    memory.stores[FrameState.SAVED] = store
    loader = MemoryLoader(memory, Layout.from_plain(layout, memory))
    loader.place(numbers, entries)
    try:
        loader.finish()
    except OutOfFrames:
        memory.close()
        raise
    return memory


class Restoring(LayoutMachine):
    """Guests that are made again behave as those that were never saved."""

    def __init__(self):
        super().__init__()
        self.store_of_pages = FakeStore()

    @precondition(lambda self: len(self.guests) < 3)
    @rule(g=st.integers(0, 3))
    def restore(self, g):
        memory, model = self.guest(g)
        if any(in_states(part.entries, STORED).any() for part in memory.sets):
            return  # `saved` reads frames only
        try:
            self.guests.append(
                (restored(self.pool, self.store_of_pages, *saved(memory, self.store_of_pages)), model.copy())
            )
        except OutOfFrames:
            assert self.pool.free == 0

    def teardown(self):
        super().teardown()
        assert not self.store_of_pages.pages


TestRestoring = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(Restoring.TestCase)
TestRestoring.settings = settings(max_examples=30, stateful_step_count=25, deadline=None, derandomize=True)


@pytest.fixture
def memory():
    memory = fresh(FramePool(MIB))
    memory.add_rom(ROM * PAGE_SIZE, b"\xcc" * 2 * PAGE_SIZE)
    memory.write(0, b"content")
    memory.regions[1].place(0x30000)
    memory.regions[1].write(0, b"picture")
    return memory


def test_only_what_can_wait_stays_in_the_store(memory):
    store = FakeStore()
    again = restored(memory.pool, store, *saved(memory, store))
    assert again.census()["saved"] == store.pages == 1  # RAM; ROM and a device's memory have frames
    assert (again.regions[1].gpa, again.regions[1].read(0, 7)) == (0x30000, b"picture")
    assert again.read(ROM * PAGE_SIZE, 2 * PAGE_SIZE) == b"\xcc" * 2 * PAGE_SIZE
    assert again.read(0, 7) == b"content"
    assert not store.pages


def test_what_was_there_before_is_forgotten(memory):
    used, layout = memory.pool.used, Layout.of(memory).as_plain()
    MemoryLoader(memory, Layout.from_plain(layout, memory))
    assert (used, memory.pool.used) == (4, 0)
    assert memory.read(ROM * PAGE_SIZE, 4) == bytes(4)


def test_plugged_blocks(memory):
    ram = memory.add_pluggable(16 * MIB, 4 * MIB, 2 * MIB)
    ram.plug(1, 1)
    layout = Layout.of(memory).as_plain()
    other = GuestMemory(memory.pool, [(0, len(RAM) * PAGE_SIZE)])
    other.add_shadow(SHADOW * PAGE_SIZE, SHADOW_PAGES * PAGE_SIZE)
    for count in REGIONS:
        other.add_region(count * PAGE_SIZE)
    with pytest.raises(SnapshotError) as caught:
        Layout.from_plain(layout, other)
    assert str(caught.value) == BAD + "its pluggable RAM is another one"
    other.add_rom(ROM * PAGE_SIZE, b"\xcc" * 2 * PAGE_SIZE)
    again = other.add_pluggable(16 * MIB, 4 * MIB, 2 * MIB)
    MemoryLoader(other, Layout.from_plain(layout, other))
    assert again.plugged(0, 2).tolist() == [False, True]
    other.write(18 * MIB, b"there")


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([3, 5000], "page 0x1388 of the snapshot is outside the guest's 0x17 pages"),
        ([SHADOW], "page 0x3 of the snapshot is where the guest has no memory"),
    ],
)
def test_pages_that_can_have_no_content(memory, pages, message):
    store = FakeStore()
    layout = Layout.of(memory).as_plain()
    other = fresh(memory.pool)
    other.stores[FrameState.SAVED] = store
    loader = MemoryLoader(other, Layout.from_plain(layout, other))
    entries = [entry(FrameState.SAVED, store.store([memoryview(b"x" * PAGE_SIZE)])[0]) for _ in pages]
    with pytest.raises(SnapshotError) as caught:
        loader.place(np.array(pages), np.array(entries, np.uint32))
    assert str(caught.value) == message
    assert store.pages == len(pages)
    assert other.close() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 3}, "it cannot be read (TypeError)"),
        ({"slots": [[0, 10]]}, "it cannot be read (ValueError)"),
        ({"ends": "text"}, "it cannot be read (TypeError)"),
        ({"ends": b"odd"}, "it cannot be read (ValueError)"),
        ({"ends": b""}, "it does not say of what kind its 23 pages are"),
        ({"kinds": b"\0" * 9}, "it does not say of what kind its 23 pages are"),
        ({"shadows": []}, "its shadow RAM is another one"),
        ({"plugged": [b""]}, "its pluggable RAM is another one"),
        ({"slots": []}, "it has 0 blocks of memory, this guest has 3"),
        ({"slots": [[0, "10", False]]}, "a block of memory that is none"),
    ],
)
def test_layouts_of_others(memory, change, message):
    layout = Layout.of(memory).as_plain()
    with pytest.raises(SnapshotError) as caught:
        Layout.from_plain({**layout, **change}, fresh(memory.pool))
    assert str(caught.value) == BAD + message


@pytest.mark.parametrize(
    ("number", "slot", "message"),
    [
        (0, [0, 11, False], "a block of 11 pages at 0x0"),
        (0, [1, 10, False], "a block of 10 pages at 0x1000"),
        (1, [0, 2, False], "a block of 2 pages at 0x0"),
        (1, [-1, 2, True], "a region at an impossible address"),
        (3, [ROM, 2, True], "ROM where there can be none"),
        (3, [5, 2, False], "ROM where there can be none"),
        (3, [ROM, 0, False], "ROM where there can be none"),
        (3, [ROM, 1 << 20, False], "ROM where there can be none"),
        (3, [1 << 52, 2, False], "ROM where there can be none"),
    ],
)
def test_blocks_of_others(memory, number, slot, message):
    layout = Layout.of(memory).as_plain()
    slots = [*layout["slots"]]
    slots[number] = slot
    with pytest.raises(SnapshotError) as caught:
        Layout.from_plain({**layout, "slots": slots}, fresh(memory.pool))
    assert str(caught.value) == BAD + message


def test_pages_of_no_kind(memory):
    layout = Layout.of(memory).as_plain()
    with pytest.raises(SnapshotError) as caught:
        Layout.from_plain({**layout, "kinds": b"\x63" + layout["kinds"][1:]}, fresh(memory.pool))
    assert str(caught.value) == BAD + "there are pages of no kind"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=40) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_layout_that_somebody_made_up(data):
    pool = FramePool(MIB)
    layout = Layout.of(fresh(pool)).as_plain()
    for key in data.draw(st.lists(st.sampled_from(sorted(layout)), min_size=1)):
        layout[key] = data.draw(plain)
    memory = fresh(pool)
    with suppress(SnapshotError):
        made = Layout.from_plain(layout, memory)
        MemoryLoader(memory, made)
        assert memory.page_count == len(made.kinds)
    memory.close()
    assert pool.used == 0
