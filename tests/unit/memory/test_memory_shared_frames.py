"""Pages that hold the same and so show one frame; the zero frame; pages in the balloon; which pages are used."""

import numpy as np
import pytest
from page_merging import PageRef, merge

from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.reclaim import COMPARED_PAGES
from emuvisor.units import MIB, PAGE_SIZE

PAGE = PAGE_SIZE


@pytest.fixture
def pool():
    return FramePool(32 * PAGE)


@pytest.fixture
def memory(pool):
    return GuestMemory(pool, [(0, 8 * PAGE)])


@pytest.fixture
def other(pool):
    return GuestMemory(pool, [(MIB, 8 * PAGE)])


def census(memory):
    return {state: count for state, count in memory.census().items() if count}


def place(memory, page):
    return int(memory.slots[0].entries[page]) & 0xFF_FFFF


# ---- the zero frame ----


def test_pages_of_zeros_share_one_frame_that_nobody_pays_for(pool, memory):
    memory.write(0, b"\1" * (5 * PAGE))
    memory.write(PAGE, bytes(2 * PAGE))
    memory.write(4 * PAGE, bytes(PAGE - 1))
    assert memory.share_zero(0, np.arange(8)) == 2
    assert pool.used == 3
    assert census(memory) == {"absent": 3, "resident": 3, "zero": 2}
    assert memory.read(PAGE, 2 * PAGE) == bytes(2 * PAGE)
    assert memory.share_zero(0, np.arange(8)) == 0
    memory.write(PAGE + 1, b"\0\0")
    assert pool.used == 3, "zeros change nothing"
    memory.write(PAGE + 1, b"x")
    assert memory.fault(2, True)
    assert (pool.used, memory.read(PAGE, 3)) == (5, b"\0x\0")
    assert pool.references[pool.zero_frame] == 0
    assert not pool.frames[pool.zero_frame].any()


def test_any_number_of_owners(pool, memory):
    memory.fault(0, True)
    memory.share_zero(0, np.array([0]))
    twins = [memory.clone() for _ in range(5)]
    assert pool.references[pool.zero_frame] == 0
    assert memory.discard(0, PAGE) == 0
    assert [twin.close() for twin in twins] == [0] * 5
    assert pool.used == 0


def test_zeros_in_rom_and_in_regions(pool, memory):
    memory.add_rom(0, bytes(PAGE))
    region = memory.add_region(2 * PAGE)
    region.write(0, b"x" + bytes(PAGE))
    region.write(0, b"\0")
    assert memory.share_zero(0, np.array([0])) == 1
    assert memory.share_zero(1, np.array([0, 1])) == 1
    assert census(memory) == {"absent": 8, "rom": 1, "zero": 1}
    memory.change_rom(5, b"flash")
    region.write(3, b"video")
    assert memory.read(0, 11) == bytes(5) + b"flash" + b"\0"
    assert region.read(0, 9) == bytes(3) + b"video" + b"\0"


# ---- frames with the same content ----


def test_two_guests_pages_become_one(pool, memory, other):
    memory.write(0, b"same" * 1024)
    other.write(MIB + PAGE, b"same" * 1024)
    revoked = []
    memory.on_revoke = lambda: revoked.append(("memory", pool.free))
    other.on_revoke = lambda: revoked.append(("other", pool.free))
    known = memory.place(0, True)
    assert merge(PageRef(memory, 0, 0), PageRef(other, 0, 1))
    assert revoked == [("memory", 30), ("other", 30)], "both before the frame was free"
    assert pool.used == 1
    assert (place(memory, 0), place(other, 1)) == (known // PAGE, known // PAGE)
    assert (census(memory)["shared"], census(other)["shared"]) == (1, 1)
    memory.write(1, b"!")
    assert (memory.read(0, 4), other.read(MIB + PAGE, 4)) == (b"s!me", b"same")
    assert not merge(PageRef(memory, 0, 0), PageRef(other, 0, 1)), "not the same any more"
    assert pool.references[place(other, 1)] == 1


def test_pages_that_cannot_be_merged(pool, memory):
    memory.write(0, b"\1" * PAGE)
    page, absent = PageRef(memory, 0, 0), PageRef(memory, 0, 1)
    assert not merge(page, page)
    assert not merge(page, absent)
    assert not merge(absent, page)
    memory.write(2 * PAGE, b"\1" * PAGE)
    assert merge(page, PageRef(memory, 0, 2))
    assert not merge(page, PageRef(memory, 0, 2)), "it is done"
    assert memory.discard(0, 3 * PAGE) == 1
    assert pool.used == 0


def test_rom_stays_rom(pool, memory):
    memory.add_rom(0, b"\1" * PAGE)
    memory.write(PAGE, b"\1" * PAGE)
    rom, ram = PageRef(memory, 0, 0), PageRef(memory, 0, 1)
    assert merge(ram, rom)
    assert census(memory) == {"absent": 6, "shared": 1, "rom": 1}
    memory.write(2 * PAGE, b"\1" * PAGE)
    assert merge(rom, PageRef(memory, 0, 2))
    assert pool.used == 1
    memory.change_rom(0, b"\2")
    assert (memory.read(0, 1), memory.read(PAGE, 1), memory.read(2 * PAGE, 1)) == (b"\2", b"\1", b"\1")


def test_only_frames_that_nobody_writes_are_taken(pool, memory, other):
    for gpa in (0, PAGE, 2 * PAGE):
        memory.write(gpa, b"\1" * PAGE)
    other.write(MIB, b"\1" * PAGE)
    frames = np.full(3, place(other, 0), np.uint32)
    assert not memory.share_frames(0, np.arange(3), frames).any(), "its owner could write it where it is"
    twin = other.clone()
    memory.write(PAGE, b"\2")
    assert memory.share_frames(0, np.arange(3), frames).tolist() == [True, False, True]
    assert pool.references[place(other, 0)] == 4
    assert pool.used == 2
    twin.close()
    other.close()
    assert pool.references[place(memory, 0)] == 2


def test_many_at_once():
    pool = FramePool(4 * MIB)
    count = COMPARED_PAGES + 44
    memory = GuestMemory(pool, [(0, count * PAGE)])
    for page in range(count):
        memory.write(page * PAGE, b"\1" if page else b"\1\0")
    memory.write((count - 1) * PAGE, b"\2")
    twin = GuestMemory(pool, [(0, PAGE)])
    twin.write(0, b"\1")
    shared = twin.clone()
    done = memory.share_frames(0, np.arange(count), np.full(count, place(shared, 0), np.uint32))
    assert done.tolist() == [True] * (count - 1) + [False]
    assert pool.used == 2


# ---- the balloon ----


def test_pages_in_the_balloon(pool, memory):
    memory.write(0, b"\1" * (2 * PAGE))
    memory.add_rom(2 * PAGE, b"rom")
    assert memory.inflate(np.array([1, 3, 2, 1, 99, -1])) == 1
    assert census(memory) == {"absent": 4, "resident": 1, "rom": 1, "ballooned": 2}
    assert memory.read(PAGE, PAGE) == bytes(PAGE)
    memory.write(PAGE, bytes(PAGE))
    assert census(memory)["ballooned"] == 2, "reading and zeros leave it there"
    memory.discard(0, 8 * PAGE)
    assert census(memory)["ballooned"] == 2
    memory.write(PAGE, b"lie")
    assert memory.fault(3, False), "a guest that uses a page all the same gets a frame"
    assert census(memory) == {"absent": 5, "resident": 2, "rom": 1}


def test_pages_out_of_the_balloon(pool, memory):
    memory.inflate(np.arange(8))
    memory.deflate(np.array([2, 2, -1, 99]))
    assert census(memory) == {"absent": 1, "ballooned": 7}
    memory.fault(0, True)
    memory.deflate(np.array([0]))
    assert census(memory) == {"resident": 1, "absent": 1, "ballooned": 6}
    memory.empty_balloon()
    assert census(memory) == {"resident": 1, "absent": 7}
    memory.inflate(np.arange(8))
    memory.reset()
    assert census(memory) == {"absent": 8}


# ---- which pages are used ----


def test_a_sample(memory):
    memory.start_sampling()
    assert memory.collect_accessed() == 0
    memory.read(0, 1)
    assert memory.collect_accessed() == 0, "a page that has no frame is none to take"
    memory.write(0, b"x")
    memory.write(PAGE, b"\1" * (2 * PAGE))
    memory.place(3, True)
    memory.views(4 * PAGE, 1, write=True)
    assert memory.collect_accessed() == 5
    memory.read(0, 1)
    memory.read(0, 1)
    memory.read(PAGE, 1)
    assert memory.collect_accessed() == 2
    assert memory.slots[0].age is not None
    assert memory.slots[0].age.tolist() == [0, 0, 1, 1, 1, 4, 4, 4]
    memory.stop_sampling()
    memory.read(0, 1)
    assert memory.collect_accessed() == 0
    assert memory.slots[0].age is None


def test_ages_end_somewhere(memory):
    memory.write(0, b"x")
    memory.start_sampling()
    for _ in range(300):
        memory.collect_accessed()
    assert memory.slots[0].age.tolist() == [255] * 8


def test_slots_that_come_while_sampling(memory):
    news = []
    memory.on_sampling = lambda number, accessed: news.append((number, accessed is not None))
    memory.start_sampling()
    region = memory.add_region(PAGE)
    region.write(0, b"x")
    assert memory.slots[1].accessed.tolist() == [1]
    assert memory.collect_accessed() == 0, "devices' memory is not the guest's"
    memory.stop_sampling()
    assert news == [(0, True), (1, True), (0, False), (1, False)]


def test_states_by_name():
    assert [state.name.lower() for state in FrameState] == [
        "absent", "resident", "shared", "rom", "hole", "ballooned", "compressed", "swapped",
        "saved", "remote",
    ]  # fmt: skip
