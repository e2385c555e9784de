"""Frames that several pages show are taken from all of their owners at once, or from none."""

import random

import numpy as np
import pytest
from fake_store import FakeStore
from page_merging import PageRef, merge

from emuvisor.errors import PageLost
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.shared_frames import evictable_shared, send_shared_away
from emuvisor.units import MIB, PAGE_SIZE

PAGE = PAGE_SIZE
COMPRESSED, SWAPPED = FrameState.COMPRESSED, FrameState.SWAPPED
PAGES = 4


@pytest.fixture
def pool():
    return FramePool(32 * PAGE)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def memory(pool, store):
    """Eight pages, of which the first four hold their number."""
    memory = GuestMemory(pool, [(0, 8 * PAGE)])
    memory.stores[SWAPPED] = store
    for page in range(PAGES):
        memory.write(page * PAGE, bytes([page + 1]) * PAGE)
    return memory


def frames_of(memory, *pages):
    return [memory.place(page, False) // PAGE for page in pages]


def evictable(*memories, state=SWAPPED, count=100):
    return evictable_shared(memories, count, state).tolist()


def send(state, frames, *memories):
    return send_shared_away(memories, state, np.array(frames, np.uint32))


def holds(memory):
    return [memory.read(page * PAGE, 1)[0] for page in range(PAGES)]


def test_all_owners_lose_it_and_each_gets_a_copy_of_its_own(pool, store, memory):
    twin, third = memory.clone(), memory.clone()
    everybody = (memory, twin, third)
    frames = evictable(*everybody)
    assert sorted(frames) == sorted(frames_of(memory, 0, 1, 2, 3))
    epochs = [m.epoch for m in everybody]
    assert send(SWAPPED, frames, *everybody) == 4
    assert (pool.used, store.pages) == (0, 4), "kept once"
    assert all(m.epoch > epoch for m, epoch in zip(everybody, epochs, strict=True))
    assert [m.census()["swapped"] for m in everybody] == [4, 4, 4]
    assert holds(twin) == [1, 2, 3, 4]
    assert (pool.used, store.pages) == (4, 4), "the others' are still kept"
    assert twin.census()["resident"] == 4
    assert twin.frames_taken == 4
    twin.write(0, b"\x55" * PAGE)
    assert (holds(memory), holds(third)) == ([1, 2, 3, 4],) * 2
    assert (pool.used, store.pages) == (12, 0)
    assert pool.references[pool.references > 0].tolist() == [1] * 12


def test_a_frame_with_an_owner_who_is_not_there_is_left_alone(pool, store, memory):
    twin = memory.clone()
    snapshot = memory.clone()
    frames = frames_of(memory, 0, 1, 2, 3)
    twin.write(0, b"\x77")  # so that page 0 has two owners, the others three
    snapshot.write(PAGE, b"\x77")
    assert evictable(memory, twin) == [frames[1]]
    assert evictable(memory) == evictable(twin) == evictable() == []
    assert send(SWAPPED, frames, memory, twin) == 1
    assert send(SWAPPED, frames, memory, twin) == 0
    assert send(SWAPPED, frames) == 0
    assert store.pages == 1
    assert (holds(memory), holds(twin)) == ([1, 2, 3, 4], [0x77, 2, 3, 4])
    assert holds(snapshot) == [1, 0x77, 3, 4]
    assert evictable(memory, twin, snapshot) == [frames[0], frames[2], frames[3]]


def test_pages_of_one_guest(memory):
    for page in range(4, 6):
        memory.write(page * PAGE, b"\3" * PAGE)
    frame = frames_of(memory, 2)
    assert merge(PageRef(memory, 0, 2), PageRef(memory, 0, 4))
    assert merge(PageRef(memory, 0, 2), PageRef(memory, 0, 5))
    assert evictable(memory) == frame
    assert send(SWAPPED, frame * 2, memory) == 1
    assert memory.census()["swapped"] == 3
    assert memory.read(4 * PAGE, 2 * PAGE) == b"\3" * (2 * PAGE)


def test_only_ram_where_pages_may_be_elsewhere(pool, memory):
    memory.add_rom(4 * PAGE, b"rom")
    memory.add_shadow(3 * PAGE, PAGE).set(3 * PAGE, PAGE, read_ram=True, write_ram=True)
    memory.write(3 * PAGE, b"shadow")
    memory.add_region(PAGE).write(0, b"video")
    memory.fault(5, True)
    memory.share_zero(0, np.array([5]))
    twin = memory.clone()
    frames = sorted(frames_of(memory, 0, 1, 2))
    assert sorted(evictable(memory, twin)) == frames
    used = pool.used
    assert send(SWAPPED, np.arange(pool.limit + 2), memory, twin) == 3
    assert pool.used == used - 3
    # A frame that ROM shows as well stays.
    third = GuestMemory(pool, [(0, PAGE)])
    third.add_rom(MIB, b"\1" * PAGE)
    memory.read(0, 1)
    again = memory.clone()
    assert third.share_frames(1, np.array([0]), np.array(frames_of(memory, 0), np.uint32)).all()
    assert evictable(memory, again, third) == []


def test_the_youngest_owner_counts(memory):
    twin = memory.clone()
    for m in (memory, twin):
        m.start_sampling()
    first, second, third, fourth = frames_of(memory, 0, 1, 2, 3)  # which uses them
    memory.collect_accessed()
    twin.collect_accessed()
    twin.read(PAGE, 1)
    for _ in range(2):
        memory.collect_accessed()
        twin.collect_accessed()
    memory.read(2 * PAGE, 1)
    assert evictable(memory, twin) == [first, fourth, second, third]
    assert evictable(memory, twin, count=2) == [first, fourth]
    assert evictable(memory, twin, count=0) == []
    memory.stop_sampling()
    assert evictable(memory, twin) == sorted([first, second, third, fourth]), "unknown counts as used"


def test_what_the_store_does_not_take_stays(pool, store, memory):
    twin = memory.clone()
    store.refused = {2, 3}
    assert send(SWAPPED, evictable(memory, twin), memory, twin) == 2
    assert (memory.census()["shared"], twin.census()["swapped"], pool.used) == (2, 2, 2)
    store.room = store.pages
    store.refused = set()
    epoch = memory.epoch
    assert send(SWAPPED, evictable(memory, twin), memory, twin) == 0
    assert holds(memory) == holds(twin) == [1, 2, 3, 4]
    assert memory.epoch > epoch


def test_without_memory_for_it_all_stays_as_it_was(pool, store, memory, monkeypatch):
    twin = memory.clone()

    def full(slots):
        raise MemoryError

    monkeypatch.setattr(store, "share", full)
    with pytest.raises(MemoryError):
        send(SWAPPED, evictable(memory, twin), memory, twin)
    assert (pool.used, store.pages) == (4, 0)
    assert holds(memory) == holds(twin) == [1, 2, 3, 4]


def test_what_does_not_compress_is_known_of_all_owners(memory):
    store = CompressedStore(MIB)
    memory.write(0, random.Random(5).randbytes(PAGE))
    memory.stores[COMPRESSED] = store
    twin = memory.clone()
    for m in (memory, twin):
        m.start_sampling()
    frames = evictable(memory, twin, state=COMPRESSED)
    assert send(COMPRESSED, frames, memory, twin) == 3
    assert evictable(memory, twin, state=COMPRESSED) == []
    assert evictable(memory, twin) == frames_of(memory, 0), "swap takes it"
    twin.read(0, 1)
    twin.collect_accessed()
    assert evictable(memory, twin, state=COMPRESSED) == [], "one of them has not used it since"
    assert memory.close() + twin.close() == 1
    assert store.pages == 0
    store.close()


def test_a_page_that_is_lost_is_lost_for_each(store, memory):
    twin = memory.clone()
    send(SWAPPED, evictable(memory, twin), memory, twin)
    store.broken = set(store.contents)
    for m in (memory, twin):
        with pytest.raises(PageLost, match="guest physical address 0x1000 is lost: fake store"):
            m.read(PAGE, 1)
    twin.write(PAGE, bytes(PAGE))
    assert twin.read(PAGE, 1) == b"\0"


def test_engines_hear_before_a_frame_is_free(pool, memory):
    heard = []

    class Ears:
        def changed(self, frame, offset, length):
            heard.append((frame, offset, length))

    pool.users = Ears()
    twin = memory.clone()
    frame = frames_of(memory, 1)[0]
    pool.fetched[frame] = 1
    revoked = []
    memory.on_revoke = lambda: revoked.append(("memory", int(pool.references[frame])))
    twin.on_revoke = lambda: revoked.append(("twin", int(pool.references[frame])))
    send(SWAPPED, [frame], memory, twin)
    assert heard == [(frame, 0, PAGE)]
    assert revoked == [("memory", 2), ("twin", 2)]
