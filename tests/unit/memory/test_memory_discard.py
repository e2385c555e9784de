"""Pages that a guest gives back: absent again, zero to read, their frames free for others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import GIB, MIB, PAGE_SIZE

PAGE = PAGE_SIZE
BLOCK_PAGES = 16


class Ears:
    """Who watches the pool's frames: it may hold translated code of them."""

    def __init__(self):
        self.heard = []

    def changed(self, frame, offset, length):
        self.heard.append((frame, offset, length))


@pytest.fixture
def pool():
    return FramePool(64 * PAGE)


@pytest.fixture
def memory(pool):
    """Sixteen pages at 0, sixteen at 1 MiB."""
    return GuestMemory(pool, [(0, BLOCK_PAGES * PAGE), (MIB, BLOCK_PAGES * PAGE)])


def census(memory):
    return {state: count for state, count in memory.census().items() if count}


def test_whole_pages_inside_the_range_are_absent_again(pool, memory):
    memory.write(0, b"\1" * (6 * PAGE))
    assert memory.discard(PAGE + 1, 3 * PAGE) == 2, "pages 2 and 3; of 1 and 4 only a part was named"
    assert memory.written_pages() == [0, 1, 4, 5]
    assert pool.used == 4
    assert memory.read(2 * PAGE, 2 * PAGE) == bytes(2 * PAGE)
    assert memory.read(2 * PAGE - 1, 1) == memory.read(4 * PAGE, 1) == b"\1"


@pytest.mark.parametrize("length", [0, 1, PAGE - 1, -PAGE, -5 * PAGE])
def test_less_than_a_page_is_nothing(memory, length):
    memory.write(0, b"\1" * (2 * PAGE))
    assert memory.discard(0, length) == 0
    assert memory.written_pages() == [0, 1]


def test_pages_without_a_frame_cost_nothing(memory):
    memory.write(5 * PAGE, b"x")
    before = memory.epoch
    assert memory.discard(0, 5 * PAGE) == 0
    assert memory.epoch == before, "no engine has to flush"
    assert memory.discard(0, 16 * PAGE) == 1
    assert memory.epoch == before + 1


def test_a_range_across_blocks_and_beyond(pool, memory):
    memory.write(15 * PAGE, b"a")
    memory.write(MIB, b"b")
    assert memory.discard(0, 1 << 63) == 2
    assert pool.used == 0
    assert memory.discard(-MIB, 2 * MIB) == 0
    assert memory.discard(1 << 62, 1 << 62) == 0


def test_rom_and_holes_stay(memory):
    memory.write(0, b"\1" * (4 * PAGE))
    memory.add_rom(PAGE, b"rom")
    memory.add_hole(2 * PAGE, PAGE)
    assert memory.discard(0, 4 * PAGE) == 2
    assert memory.read(PAGE, 3) == b"rom"
    assert census(memory) == {"absent": 30, "rom": 1, "hole": 1}


def test_a_region_over_the_range_stays(memory):
    region = memory.add_region(PAGE)
    region.write(0, b"device")
    region.place(2 * MIB)
    assert memory.discard(2 * MIB, PAGE) == 0
    assert memory.inflate(np.array([2 * MIB // PAGE])) == 0
    assert region.read(0, 6) == b"device"


def test_a_shared_page_loses_one_owner(pool, memory):
    memory.write(0, b"both")
    twin = memory.clone()
    assert memory.discard(0, PAGE) == 0, "the clone still has it"
    assert memory.read(0, 4) == bytes(4)
    assert twin.read(0, 4) == b"both"
    assert twin.discard(0, PAGE) == 1
    assert pool.used == 0


def test_the_dirty_log_knows(memory):
    memory.write(0, b"\1" * (3 * PAGE))
    memory.start_log()
    memory.discard(PAGE, 3 * PAGE)
    assert memory.collect_log().tolist() == [1, 2], "page 3 was zero before"
    memory.write(2 * PAGE, b"x")
    memory.collect_log()
    memory.inflate(np.array([2]))
    assert memory.collect_log().tolist() == [2]


def test_engines_hear_that_rights_are_gone_and_code_has_changed(pool, memory):
    pool.users = ears = Ears()
    revoked = []
    memory.on_revoke = lambda: revoked.append(None)
    memory.write(0, b"\x90" * (2 * PAGE))
    frame = memory.place(1, False) // PAGE
    pool.fetched[frame] = 1
    memory.discard(0, 2 * PAGE)
    assert revoked == [None]
    assert ears.heard == [(frame, 0, PAGE)]


def test_what_a_device_knew_of_the_place_is_forgotten(pool, memory):
    memory.write(0, b"old")
    memory.discard(0, PAGE)
    other = GuestMemory(pool, [(0, PAGE)])
    other.write(0, b"new")
    assert memory.read(0, 3) == bytes(3)
    memory.write(0, b"!")
    assert other.read(0, 3) == b"new"


def test_a_page_takes_a_frame_again(pool, memory):
    memory.write(0, b"\1" * PAGE)
    memory.discard(0, PAGE)
    assert memory.fault(0, True)
    assert pool.used == 1
    assert memory.read(0, PAGE) == bytes(PAGE), "what it held before is gone"


def test_any_pages_in_any_order(pool, memory):
    memory.write(0, b"\1" * (4 * PAGE))
    memory.write(MIB, b"\1" * (2 * PAGE))
    wild = [3, 1, 1, MIB // PAGE + 1, 1 << 31, BLOCK_PAGES, -1, (1 << 63) - 1, 3]
    assert memory.inflate(np.array(wild)) == 3
    assert memory.written_pages() == [0, 2, MIB // PAGE]
    assert memory.inflate(np.zeros(0, np.int64)) == 0


def test_which_pages_are_ram(memory):
    memory.add_rom(PAGE, b"rom")
    memory.add_hole(2 * PAGE, PAGE)
    memory.write(3 * PAGE, b"x")
    pages = np.array([0, 1, 2, 3, BLOCK_PAGES, MIB // PAGE, MIB // PAGE + BLOCK_PAGES, 1 << 40, -5, 3])
    assert memory.ram_pages(pages).tolist() == [
        True, False, False, True, False, True, False, False, False, True,
    ]  # fmt: skip


def test_much_at_once(pool):
    memory = GuestMemory(FramePool(8 * MIB), [(0, 8 * GIB)])
    memory.write(GIB, b"\1" * (4 * MIB))
    assert memory.discard(0, 8 * GIB) == 1024
    assert memory.pool.used == 0


@settings(max_examples=60, deadline=None)
@given(
    written=st.sets(st.integers(0, BLOCK_PAGES - 1)),
    gpa=st.integers(-2 * PAGE, (BLOCK_PAGES + 2) * PAGE),
    length=st.integers(-PAGE, (BLOCK_PAGES + 4) * PAGE),
)
def test_as_a_page_by_page_model(written, gpa, length):
    pool = FramePool(64 * PAGE)
    memory = GuestMemory(pool, [(0, BLOCK_PAGES * PAGE)])
    for page in written:
        memory.write(page * PAGE, b"\1")
    gone = {page for page in written if gpa <= page * PAGE and (page + 1) * PAGE <= gpa + length}
    assert memory.discard(gpa, length) == len(gone)
    assert memory.written_pages() == sorted(written - gone)
    assert pool.used == len(written - gone)
