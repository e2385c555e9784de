"""Pages that a store keeps: which are chosen, how they come back, and what happens when they do not."""

import re

import numpy as np
import pytest
from fake_store import FakeStore

from emuvisor.errors import OutOfFrames, PageLost
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.store import SlotOwners
from emuvisor.units import MIB, PAGE_SIZE

PAGE = PAGE_SIZE
SWAPPED = FrameState.SWAPPED


def exactly(message):
    return f"^{re.escape(message)}$"


class Ears:
    """An engine that may hold translated code."""

    def __init__(self):
        self.heard = []

    def changed(self, frame, offset, length):
        self.heard.append((frame, offset, length))


@pytest.fixture
def pool():
    return FramePool(16 * PAGE)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def memory(pool, store):
    """Eight pages at 0 and eight at 1 MiB, of which pages 0 to 3 and those at 1 MiB hold their number."""
    memory = GuestMemory(pool, [(0, 8 * PAGE), (MIB, 8 * PAGE)])
    memory.stores[SWAPPED] = store
    for page in range(4):
        memory.write(page * PAGE, bytes([page + 1]) * PAGE)
    for page in range(2):
        memory.write(MIB + page * PAGE, bytes([page + 0x11]) * PAGE)
    return memory


def census(memory):
    return {state: count for state, count in memory.census().items() if count}


def test_there_and_back(pool, store, memory):
    assert memory.send_away(SWAPPED, [(0, 1), (1, 0), (0, 2)]) == 3
    assert (pool.used, store.pages) == (3, 3)
    assert census(memory) == {"absent": 10, "resident": 3, "swapped": 3}
    assert memory.written_pages() == [0, 1, 2, 3, MIB // PAGE, MIB // PAGE + 1]
    assert memory.read(PAGE, PAGE) == b"\2" * PAGE
    assert memory.fault(2, False)
    memory.write(MIB + 1, b"x")
    assert (pool.used, store.pages) == (6, 0), "the store forgets what is back"
    assert memory.read(MIB, 3) == b"\x11x\x11"
    assert memory.read(2 * PAGE, PAGE) == b"\3" * PAGE


def test_the_order_is_a_clocks(memory):
    all_pages = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert memory.evictable(2) == all_pages[:2]
    assert memory.evictable(3) == all_pages[2:5]
    assert memory.evictable(3) == [all_pages[5], *all_pages[:2]]
    assert memory.evictable(0) == []
    assert memory.evictable(100) == [*all_pages[2:], *all_pages[:2]], "each once"


def test_what_was_unused_for_longest_goes_first(memory):
    memory.start_sampling()
    memory.read(3 * PAGE, 1)
    assert memory.collect_accessed() == 1
    memory.read(0, 1)
    memory.read(MIB, 1)
    assert memory.collect_accessed() == 2
    memory.fault(1, False)  # the core sets the byte; nobody plays it here
    memory.slots[0].touch(1)
    assert memory.evictable(6) == [(0, 2), (1, 1), (0, 3), (0, 0), (0, 1), (1, 0)]


def test_only_ram_with_a_frame_of_its_own_is_chosen(pool, store):
    memory = GuestMemory(pool, [(0, 8 * PAGE)])
    memory.stores[SWAPPED] = store
    memory.add_rom(PAGE, b"rom")
    shadow = memory.add_shadow(2 * PAGE, PAGE)
    shadow.set(2 * PAGE, PAGE, read_ram=True, write_ram=True)
    memory.write(0, b"\1" * PAGE)
    memory.write(2 * PAGE, b"\1" * (3 * PAGE))
    memory.add_region(PAGE).write(0, b"video")
    memory.inflate(np.array([5]))
    memory.fault(6, True)
    memory.share_zero(0, np.array([6]))
    assert memory.evictable(100) == [(0, 0), (0, 3), (0, 4)]
    twin = memory.clone()
    assert memory.evictable(100) == [], "the clone has them too"
    assert memory.send_away(SWAPPED, [(0, page) for page in range(8)] + [(1, 0)]) == 0
    twin.close()
    assert memory.evictable(100) == [(0, 0), (0, 3), (0, 4)], "the last owner's alone"
    assert memory.send_away(SWAPPED, [(0, 4), (0, 4), (0, 0)]) == 2, "each once"
    assert store.pages == 2


def test_what_the_store_does_not_take_stays(pool, store, memory):
    store.refused = {2}
    store.room = 2
    assert memory.send_away(SWAPPED, [(0, 0), (0, 1), (0, 2), (0, 3)]) == 2
    assert census(memory) == {"absent": 10, "resident": 4, "swapped": 2}
    assert [memory.read(page * PAGE, 1)[0] for page in range(4)] == [1, 2, 3, 4]


def test_engines_hear_before_a_frame_is_free(pool, memory):
    pool.users = ears = Ears()
    frame = memory.place(1, False) // PAGE
    pool.fetched[frame] = 1
    free = []
    memory.on_revoke = lambda: free.append(pool.free)
    memory.send_away(SWAPPED, [(0, 1)])
    assert free == [10], "revoked while the frame was still taken"
    assert pool.free == 11
    assert ears.heard == [(frame, 0, PAGE)]


def test_a_page_that_comes_back_is_not_dirty(memory):
    memory.start_log()
    memory.send_away(SWAPPED, [(0, 0), (0, 1)])
    memory.read(0, 1)
    memory.write(PAGE, b"x")
    assert memory.collect_log().tolist() == [1]


def test_without_a_frame_it_stays_away(pool, store, memory):
    memory.send_away(SWAPPED, [(0, 0)])
    pool.take_many(pool.free)
    assert not memory.fault(0, False)
    assert (memory.starved, memory.at_limit) == (True, False)
    message = "no frame for guest physical address 0x0: the pool's 16 are taken"
    with pytest.raises(OutOfFrames, match=exactly(message)):
        memory.read(0, 1)
    with pytest.raises(OutOfFrames, match=exactly(message)):
        memory.views(0, 1, write=False)
    assert store.pages == 1


def test_a_page_that_is_lost(pool, store, memory):
    memory.send_away(SWAPPED, [(0, 1)])
    store.broken.update(store.contents)
    used = pool.used
    message = "guest physical address 0x1000 is lost: fake store: page 1: checksum"
    with pytest.raises(PageLost, match=exactly(message)):
        memory.fault(1, True)
    with pytest.raises(PageLost, match=exactly(message)):
        memory.read(PAGE, 1)
    with pytest.raises(PageLost, match=exactly(message)):
        memory.write(PAGE, b"x")
    assert not memory.starved
    assert (pool.used, store.pages) == (used, 1)
    store.broken.clear()
    assert memory.read(PAGE, PAGE) == b"\2" * PAGE
    other = GuestMemory(pool, [(0, PAGE)])
    other.fault(0, False)
    assert other.read(0, 10) == bytes(10), "what was read in vain is nobody's"


@pytest.mark.parametrize("forget", ["discard", "inflate", "reset", "close"])
def test_a_page_that_is_forgotten_is_forgotten_by_the_store(store, memory, forget):
    memory.send_away(SWAPPED, [(0, 0), (0, 3)])
    if forget == "discard":
        memory.discard(0, 8 * PAGE)
    elif forget == "inflate":
        memory.inflate(np.arange(8))
    else:
        getattr(memory, forget)()
    assert store.pages == 0


def test_clones_share_what_the_store_keeps(pool, store, memory):
    memory.send_away(SWAPPED, [(0, 0), (0, 1)])
    twin = memory.clone()
    third = twin.clone()
    assert store.pages == 2
    assert memory.read(0, 1) == b"\1"
    twin.write(0, b"t")
    assert store.pages == 2
    assert third.read(0, 2) == b"\1\1"
    assert store.pages == 1
    third.close()
    memory.close()
    assert store.pages == 1
    assert (twin.read(0, 1), twin.read(PAGE, 1)) == (b"t", b"\2")
    assert store.pages == 0
    twin.close()
    assert pool.used == 0


def test_a_bound_on_what_the_guest_may_take(pool, store, memory):
    assert memory.frames_taken == 6
    memory.send_away(SWAPPED, [(0, 0)])
    memory.take_limit = 6
    message = "no frame for guest physical address 0x0: its guest may take no more"
    with pytest.raises(OutOfFrames, match=exactly(message)):
        memory.read(0, 1)
    assert (memory.starved, memory.at_limit) == (True, True)
    assert not memory.fault(5, False), "nor one that was never touched"
    with pytest.raises(OutOfFrames):
        memory.write(5 * PAGE, b"\1" * (3 * PAGE))
    memory.take_limit = 8
    assert memory.fault(0, False)
    assert not memory.at_limit
    memory.write(5 * PAGE, b"\1")
    assert (memory.frames_taken, memory.fault(6, False)) == (8, False)
    memory.take_limit = None
    assert memory.fault(6, False)


def test_a_bound_and_pages_that_are_shared(memory):
    twin = memory.clone()
    memory.take_limit = 6
    assert not memory.fault(0, True), "a copy is a frame more"
    twin.close()
    assert memory.fault(0, True), "the last owner has the frame already"
    assert memory.frames_taken == 6


def test_rom_counts_but_is_not_refused(pool, memory):
    memory.take_limit = 6
    memory.add_rom(5 * PAGE, b"rom")
    assert memory.frames_taken == 7
    memory.change_rom(5 * PAGE, b"ROM")
    assert memory.frames_taken == 7, "in place"
    twin = memory.clone()
    memory.change_rom(5 * PAGE, b"Rom")
    assert (memory.frames_taken, twin.frames_taken) == (8, 0)


def test_owners_of_a_number():
    owners = SlotOwners()
    owners.share([1, 2, 1])
    assert owners.free([1, 3]) == [3]
    assert owners.free([1, 2, 2]) == [2]
    assert owners.free([1, 1]) == [1, 1]
