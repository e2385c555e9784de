"""A guest's memory: thin, shared, logged, and reached by address."""

import re

import pytest

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import GIB, MIB, PAGE_SIZE

PAGE = PAGE_SIZE


def exactly(text):
    return f"^{re.escape(text)}$"


@pytest.fixture
def pool():
    return FramePool(64 * PAGE)


@pytest.fixture
def memory(pool):
    """Sixteen pages at 0, sixteen at 1 MiB."""
    return GuestMemory(pool, [(0, 16 * PAGE), (MIB, 16 * PAGE)])


def census(memory):
    return {state: count for state, count in memory.census().items() if count}


# ---- thin provisioning ----


def test_untouched_memory_reads_as_zeros_and_costs_nothing(pool, memory):
    assert memory.read(0, 16 * PAGE) == bytes(16 * PAGE)
    assert pool.used == 0
    assert census(memory) == {"absent": 32}


def test_a_write_costs_the_pages_that_it_touches(pool, memory):
    memory.write(3 * PAGE - 1, b"ab")
    assert pool.used == 2
    assert memory.written_pages() == [2, 3]
    memory.write(3 * PAGE, b"c")
    assert pool.used == 2
    assert memory.read(3 * PAGE - 2, 4) == b"\0ac\0"
    assert census(memory) == {"absent": 30, "resident": 2}


def test_a_large_guest_costs_what_it_touched(pool):
    memory = GuestMemory(pool, [(0, 3 * GIB), (4 * GIB, 61 * GIB)])
    memory.write(60 * GIB - 3, b"123456")
    assert pool.used == 2
    assert memory.read(60 * GIB - 4, 8) == b"\x00123456\x00"
    assert memory.size == 64 * GIB


def test_a_write_of_nothing_takes_nothing(pool, memory):
    memory.write(0, b"")
    assert memory.read(5, 0) == b""
    assert pool.used == 0


@pytest.mark.parametrize("gpa", [0, 1, PAGE - 1, MIB + 5])
@pytest.mark.parametrize("length", [1, 7, PAGE, PAGE + 1, 3 * PAGE + 11])
def test_any_length_across_pages(memory, gpa, length):
    data = bytes(i * 7 % 251 for i in range(length))
    memory.write(gpa, data)
    assert memory.read(gpa, length) == data
    assert memory.read(gpa + length, 3) == bytes(3)


def test_views_and_bytearrays_can_be_written(memory):
    memory.write(0, bytearray(b"abc"))
    memory.write(3, memoryview(b"def"))
    assert memory.read(0, 6) == b"abcdef"


# ---- outside RAM ----


@pytest.mark.parametrize(
    ("gpa", "length", "offender"),
    [
        (16 * PAGE, 1, 16 * PAGE),
        (16 * PAGE - 1, 2, 16 * PAGE),
        (MIB - 1, 2, MIB - 1),
        (-1, 1, -1),
        (1 << 63, 1, 1 << 63),
    ],
)
def test_accesses_outside(memory, gpa, length, offender):
    with pytest.raises(
        GuestAddressError, match=exactly(f"guest physical address {offender:#x} is not memory")
    ):
        memory.read(gpa, length)
    with pytest.raises(GuestAddressError, match=exactly(f"guest physical address {offender:#x} is not RAM")):
        memory.write(gpa, bytes(length))


def test_a_hole(pool, memory):
    memory.write(4 * PAGE, b"\1" * (3 * PAGE))
    assert pool.used == 3
    memory.add_hole(5 * PAGE, PAGE)
    assert pool.used == 2, "its frame went back"
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x5000 is not memory")):
        memory.read(4 * PAGE, 3 * PAGE)
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x5000 is not RAM")):
        memory.write(5 * PAGE - 1, b"ab")
    assert memory.read(6 * PAGE, 4) == b"\1" * 4
    assert census(memory) == {"absent": 29, "resident": 2, "hole": 1}


@pytest.mark.parametrize(("gpa", "length"), [(15 * PAGE, 2 * PAGE), (MIB - PAGE, 2 * PAGE), (2 * MIB, PAGE)])
def test_a_hole_must_lie_in_one_block(memory, gpa, length):
    message = f"{gpa:#x}..{gpa + length - 1:#x} is not inside one block of the guest's memory"
    with pytest.raises(GuestAddressError, match=exactly(message)):
        memory.add_hole(gpa, length)


def test_rom(pool, memory):
    memory.add_rom(GIB, b"firmware" * 600)  # two pages, padded
    assert memory.read(GIB, 4800) == b"firmware" * 600
    assert memory.read(GIB + 4800, 2 * PAGE - 4800) == bytes(2 * PAGE - 4800)
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x40000000 is not RAM")):
        memory.write(GIB, b"x")
    assert pool.used == 2
    assert census(memory) == {"absent": 32, "rom": 2}


def test_rom_over_ram_and_again(pool, memory):
    memory.write(2 * PAGE, b"ram" * 10)
    for turn in (b"first", b"second"):
        memory.add_rom(2 * PAGE, turn)
        assert memory.read(2 * PAGE, 7) == turn.ljust(7, b"\0")
        assert pool.used == 1


def test_rom_that_does_not_fit_its_block_takes_no_frame(pool, memory):
    with pytest.raises(GuestAddressError):
        memory.add_rom(15 * PAGE, bytes(2 * PAGE))
    assert pool.used == memory.census()["rom"]
    memory.close()
    assert pool.used == 0


def test_rom_that_does_not_fit_the_pool(memory, pool):
    with pytest.raises(OutOfFrames, match=exactly("all 64 frames of the pool (256 KiB) are taken")):
        memory.add_rom(GIB, bytes(65 * PAGE))
    memory.close()
    assert pool.used == 0


# ---- reset and close ----


def test_reset_forgets_ram_and_keeps_rom(pool, memory):
    memory.add_rom(GIB, b"rom")
    memory.add_hole(0, PAGE)
    memory.write(PAGE, b"ram")
    memory.reset()
    assert memory.read(PAGE, 3) == bytes(3)
    assert memory.read(GIB, 3) == b"rom"
    assert census(memory) == {"hole": 1, "absent": 31, "rom": 1}
    assert pool.used == 1


def test_close_gives_everything_back(pool, memory):
    memory.add_rom(GIB, bytes(PAGE))
    memory.write(0, b"\1" * (5 * PAGE))
    assert memory.close() == 6
    assert pool.used == 0
    assert memory.close() == 0, "once"
    with pytest.raises(GuestAddressError):
        memory.read(0, 1)


def test_close_of_a_clone_frees_only_what_is_its_own(pool, memory):
    memory.write(0, b"x" * 4 * PAGE)
    twin = memory.clone()
    twin.write(0, b"y")
    assert pool.used == 5
    assert memory.close() == 1
    assert twin.read(0, 2 * PAGE) == b"y" + b"x" * (2 * PAGE - 1)
    assert twin.close() == 4
    assert pool.used == 0


# ---- copy on write ----


def test_a_clone_shares_until_someone_writes(pool, memory):
    memory.write(0, b"one")
    memory.write(MIB, b"two")
    twin = memory.clone()
    assert pool.used == 2
    assert census(memory) == census(twin) == {"absent": 30, "shared": 2}
    twin.write(1, b"W")
    assert (memory.read(0, 3), twin.read(0, 3)) == (b"one", b"oWe")
    memory.write(MIB, b"TWO")
    assert (memory.read(MIB, 3), twin.read(MIB, 3)) == (b"TWO", b"two")
    assert pool.used == 4
    assert twin.size == memory.size


def test_the_last_owner_keeps_the_frame(pool, memory):
    memory.write(0, b"one")
    twin = memory.clone()
    twin.write(0, b"two")
    assert pool.used == 2
    memory.write(0, b"ONE")
    assert pool.used == 2
    assert census(memory) == {"absent": 31, "resident": 1}


def test_clones_of_clones(pool, memory):
    memory.write(0, b"0")
    family = [memory]
    for i in range(1, 6):
        family.append(family[-1].clone())
        family[-1].write(0, b"%d" % i)
    assert [m.read(0, 1) for m in family] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert pool.used == 6
    for m in family[::2] + family[1::2]:
        m.close()
    assert pool.used == 0


def test_a_clone_has_rom_and_holes(pool, memory):
    memory.add_rom(GIB, b"rom")
    memory.add_hole(0, PAGE)
    twin = memory.clone()
    assert twin.read(GIB, 3) == b"rom"
    with pytest.raises(GuestAddressError):
        twin.read(0, 1)
    memory.close()
    assert twin.read(GIB, 3) == b"rom"
    twin.close()
    assert pool.used == 0


# ---- running out ----


def test_the_pool_runs_out_and_has_frames_again(pool, memory):
    hoard = GuestMemory(pool, [(0, 64 * PAGE)])
    hoard.write(0, b"\1" * (63 * PAGE))
    message = "no frame for guest physical address 0x1000: the pool's 64 are taken"
    with pytest.raises(OutOfFrames, match=exactly(message)):
        memory.write(0, b"x" * 2 * PAGE)
    assert memory.starved
    assert memory.read(0, 2) == b"xx", "what went before is there"
    hoard.reset()
    memory.write(PAGE, b"y")
    assert not memory.starved


def test_no_frame_for_a_copy(pool):
    memory = GuestMemory(pool, [(0, 64 * PAGE)])
    memory.write(0, b"\1" * (64 * PAGE))
    twin = memory.clone()
    with pytest.raises(
        OutOfFrames, match=exactly("no frame for guest physical address 0x0: the pool's 64 are taken")
    ):
        twin.write(0, b"x")
    assert memory.read(0, 1) == b"\1"
    twin.close()
    memory.write(0, b"x")
    assert memory.census()["resident"] == 1


def test_fault_answers_whether_the_page_can_be_used(pool, memory):
    assert memory.fault(0, False)
    assert memory.written_pages() == [0]
    assert not memory.fault(99, True), "a hole"


# ---- dirty log ----


def test_the_log_names_pages_written_since(memory):
    memory.write(0, b"before")
    memory.start_log()
    assert memory.collect_log().tolist() == []
    memory.write(3 * PAGE - 1, b"ab")
    memory.write(MIB, b"c")
    memory.read(7 * PAGE, 1)
    assert memory.collect_log().tolist() == [2, 3, MIB // PAGE]
    assert memory.collect_log().tolist() == []
    memory.write(0, b"x")
    assert memory.collect_log().tolist() == [0]
    memory.stop_log()
    memory.write(0, b"x")
    assert memory.collect_log().tolist() == []
    memory.start_log()
    assert memory.collect_log().tolist() == [], "a new log is empty"


def test_the_log_with_copy_on_write(memory):
    memory.write(0, b"ab")
    twin = memory.clone()
    memory.start_log()
    twin.start_log()
    memory.write(0, b"x")
    assert memory.collect_log().tolist() == [0]
    assert twin.collect_log().tolist() == []


def test_zeros_leave_an_untouched_page_absent(pool, memory):
    memory.write(0, bytes(2 * PAGE) + b"\1" + bytes(PAGE))
    assert (pool.used, memory.written_pages()) == (1, [2])
    memory.write(2 * PAGE, bytes(PAGE))  # a page that has a frame takes them
    assert (pool.used, memory.read(2 * PAGE, 1)) == (1, b"\0")


def test_many_untouched_pages_at_once(pool, memory):
    """Whole pages, zeros between them, a touched page in their midst, odd ends."""
    memory.write(5 * PAGE + 7, b"old")
    data = bytearray(b"\2" * (10 * PAGE + 100))
    data[2 * PAGE : 4 * PAGE] = bytes(2 * PAGE)
    memory.write(PAGE - 50, bytes(data))
    assert memory.read(PAGE - 50, len(data)) == bytes(data)
    assert memory.written_pages() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert pool.used == 11


def test_many_pages_into_a_pool_that_ends(pool):
    memory = GuestMemory(pool, [(0, 128 * PAGE)])
    with pytest.raises(
        OutOfFrames, match=exactly("no frame for guest physical address 0x40000: the pool's 64 are taken")
    ):
        memory.write(0, b"\1" * (128 * PAGE))
    assert memory.read(0, 64 * PAGE) == b"\1" * (64 * PAGE)
    assert (pool.used, pool.free) == (64, 0)


def test_many_frames_at_once(pool):
    pool.release(pool.take_many(40))
    frames = pool.take_many(64)
    assert sorted(frames.tolist()) == list(range(2, 66))
    assert not pool.frames[frames].any()
    with pytest.raises(OutOfFrames, match=exactly("all 64 frames of the pool (256 KiB) are taken")):
        pool.take_many(1)
    assert pool.release(frames) == 64
