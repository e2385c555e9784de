"""A device's memory: read and written by offset, shown to the guest where it is placed."""

import re

import numpy as np
import pytest

from emuvisor.errors import GuestAddressError, OutOfFrames, UsageError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.memory.slot import MAX_SLOTS
from emuvisor.units import GIB, MIB, PAGE_SIZE

PAGE = PAGE_SIZE


def exactly(text):
    return f"^{re.escape(text)}$"


@pytest.fixture
def pool():
    return FramePool(64 * PAGE)


@pytest.fixture
def memory(pool):
    return GuestMemory(pool, [(0, 16 * PAGE), (MIB, 16 * PAGE)])


def test_it_is_thin_and_nowhere_at_first(pool, memory):
    region = memory.add_region(16 * MIB)
    assert (region.length, region.gpa, pool.used, memory.size) == (16 * MIB, None, 0, 32 * PAGE)
    assert region.read(5, 100) == bytes(100)
    region.write(3 * PAGE - 1, b"ab")
    assert region.read(3 * PAGE - 2, 4) == b"\0ab\0"
    assert (pool.used, memory.census()["resident"], memory.written_pages()) == (2, 2, [])


def test_a_snapshot_is_a_copy_of_all_bytes(memory):
    region = memory.add_region(4 * PAGE)
    region.write(PAGE + 1, b"x")
    snapshot = region.snapshot()
    region.write(PAGE + 1, b"y")
    assert snapshot.dtype == np.uint8
    assert snapshot.tobytes() == bytes(PAGE + 1) + b"x" + bytes(3 * PAGE - 2)


def test_the_guest_sees_it_where_it_is_placed(memory):
    region = memory.add_region(2 * PAGE)
    region.write(PAGE, b"pixels")
    for gpa in (GIB, 2 * MIB, (1 << 64) - 2 * PAGE, GIB):
        region.place(gpa)
        assert region.gpa == gpa
        assert memory.read(gpa + PAGE, 6) == b"pixels"
    memory.write(GIB, b"\1" * (2 * PAGE))
    assert region.read(0, 2 * PAGE) == b"\1" * (2 * PAGE)
    region.place(None)
    assert region.gpa is None
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x40000000 is not memory")):
        memory.read(GIB, 1)


def test_ram_and_rom_win_and_holes_do_not(memory):
    region = memory.add_region(8 * PAGE)
    region.write(0, b"R" * (8 * PAGE))
    memory.add_rom(14 * PAGE, b"rom")
    memory.add_hole(15 * PAGE, PAGE)
    region.place(12 * PAGE)
    assert memory.read(12 * PAGE, 1) == b"\0"
    assert memory.read(14 * PAGE, 3) == b"rom"
    assert memory.read(15 * PAGE, 2 * PAGE) == b"R" * (2 * PAGE)
    memory.write(15 * PAGE, b"w")
    assert region.read(3 * PAGE, 2) == b"wR"


def test_a_rom_that_comes_later_wins_too(memory):
    region = memory.add_region(PAGE)
    region.place(GIB)
    memory.add_rom(GIB, b"rom")
    assert memory.read(GIB, 3) == b"rom"
    memory.add_rom(GIB, b"again")
    assert memory.read(GIB, 5) == b"again"


def test_of_two_regions_the_first_wins(memory):
    first, second = memory.add_region(PAGE), memory.add_region(2 * PAGE)
    first.write(0, b"first")
    second.write(0, b"second")
    second.place(GIB)
    first.place(GIB)
    assert memory.read(GIB, 6) == b"first\0"
    first.place(None)
    assert memory.read(GIB, 6) == b"second"


def test_a_long_write_does_not_go_on_below_ram(memory):
    """Untouched pages are written many at a time, but not past the place where RAM lies over the region."""
    region = memory.add_region(4 * PAGE)
    region.place(MIB - 2 * PAGE)
    memory.write(MIB - 2 * PAGE, b"\1" * (4 * PAGE))
    assert memory.read(MIB, 2 * PAGE) == b"\1" * (2 * PAGE)
    assert region.read(2 * PAGE, 2 * PAGE) == bytes(2 * PAGE)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (2 * PAGE, 1), (2 * PAGE - 1, 2), (0, 1 << 40)])
def test_accesses_outside_are_refused(memory, offset, length):
    region = memory.add_region(2 * PAGE)
    message = f"{length} bytes at offset {offset:#x} are not inside a region of 0x2000"
    with pytest.raises(GuestAddressError, match=exactly(message)):
        region.read(offset, length)
    if length < MIB:
        with pytest.raises(GuestAddressError, match=exactly(message)):
            region.write(offset, bytes(length))


@pytest.mark.parametrize("length", [0, -PAGE, 1, PAGE + 1])
def test_odd_lengths(memory, length):
    with pytest.raises(
        UsageError, match=exactly(f"a region of {length} bytes is impossible; it has whole pages of 4 KiB")
    ):
        memory.add_region(length)


@pytest.mark.parametrize("gpa", [1, PAGE - 1, -PAGE, 1 << 64])
def test_odd_places(memory, gpa):
    with pytest.raises(
        UsageError, match=exactly(f"a region cannot be placed at {gpa:#x}: that is not a page's address")
    ):
        memory.add_region(PAGE).place(gpa)


def test_too_many_slots(memory):
    for _ in range(MAX_SLOTS - len(memory.slots)):
        memory.add_region(PAGE)
    with pytest.raises(
        UsageError, match=exactly("a guest has at most 32 blocks of memory, ROMs and regions together")
    ):
        memory.add_region(PAGE)


def test_the_cpu_hears_of_moves_only(memory):
    heard = []
    memory.on_move = lambda number, first: heard.append((number, first))
    region = memory.add_region(PAGE)
    region.place(GIB)
    region.place(GIB)
    region.place(None)
    region.place(None)
    assert heard == [(2, GIB // PAGE), (2, 1 << 52)]


def test_translated_code_in_it_is_dropped(pool, memory):
    told = []

    class Users:
        def changed(self, frame, offset, length):
            told.append((frame, offset, length))

    pool.users = Users()
    region = memory.add_region(PAGE)
    region.write(0, b"x")
    frame = int(memory.slots[2].entries[0]) & 0xFFFFFF
    pool.fetched[frame] = 1
    region.write(5, b"abc")
    assert told == [(frame, 5, 3)]


def test_the_pool_runs_out(pool, memory):
    region = memory.add_region(65 * PAGE)
    message = "no frame for page 64 of a device's memory: the pool's 64 are taken"
    with pytest.raises(OutOfFrames, match=exactly(message)):
        region.write(0, b"\1" * (65 * PAGE))
    assert region.read(63 * PAGE, 2 * PAGE) == b"\1" * PAGE + bytes(PAGE)
    memory.close()
    assert pool.used == 0


def test_reset_forgets_its_content_and_not_its_place(pool, memory):
    region = memory.add_region(PAGE)
    region.place(GIB)
    region.write(0, b"x")
    memory.reset()
    assert (region.gpa, region.read(0, 1), pool.used) == (GIB, b"\0", 0)


def test_a_clone_has_its_own(pool, memory):
    first, second = memory.add_region(PAGE), memory.add_region(2 * PAGE)
    second.place(GIB)
    second.write(PAGE, b"one")
    twin = memory.clone()
    assert [region.gpa for region in twin.regions] == [None, GIB]
    assert twin.read(GIB + PAGE, 3) == b"one"
    assert pool.used == 1
    twin.regions[1].write(PAGE, b"two")
    second.place(2 * GIB)
    assert (memory.read(2 * GIB + PAGE, 3), twin.read(GIB + PAGE, 3)) == (b"one", b"two")
    first.write(0, b"f")
    assert twin.regions[0].read(0, 1) == b"\0"
    assert memory.close() + twin.close() == 3
    assert pool.used == 0


def test_it_has_a_dirty_log_of_its_own(memory):
    region = memory.add_region(4 * PAGE)
    region.write(0, b"before")
    assert region.collect_log().tolist() == []
    memory.start_log()
    region.place(GIB)
    region.write(PAGE, b"a")
    memory.write(GIB + 3 * PAGE, b"b")
    memory.write(0, b"c")
    late = memory.add_region(PAGE)
    late.write(0, b"d")
    assert memory.collect_log().tolist() == [0]
    assert region.collect_log().tolist() == [1, 3]
    assert region.collect_log().tolist() == []
    assert late.collect_log().tolist() == [0]
    memory.stop_log()
    region.write(0, b"e")
    assert region.collect_log().tolist() == []
