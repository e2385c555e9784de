"""Memory that takes over what another one holds: going back to a clone of itself, and beginning as another's."""

import numpy as np
import pytest
from fake_store import FakeStore

from emuvisor.errors import SnapshotError
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.shared_frames import held_by
from emuvisor.units import PAGE_SIZE

RAM = 16
FRAMES = 64


@pytest.fixture
def pool():
    return FramePool(FRAMES * PAGE_SIZE)


@pytest.fixture
def memory(pool):
    memory = GuestMemory(pool, [(0, RAM * PAGE_SIZE)])
    memory.write(0, b"".join(bytes([n + 1]) * PAGE_SIZE for n in range(4)))
    return memory


def first_bytes(memory, count=RAM):
    return [memory.read(page * PAGE_SIZE, 1)[0] for page in range(count)]


def test_going_back_costs_the_pages_that_were_written(pool, memory):
    kept = memory.clone()
    for page in (1, 9):
        memory.write(page * PAGE_SIZE, b"new")
    assert pool.used == 6
    assert memory.take_over(kept) == 2
    assert first_bytes(memory) == first_bytes(kept) == [1, 2, 3, 4] + [0] * 12
    assert (pool.used, memory.census()["absent"]) == (4, 12)
    assert memory.take_over(kept) == 0


def test_both_copy_at_the_next_write(memory):
    kept = memory.clone()
    kept.write(2 * PAGE_SIZE, b"kept")
    memory.take_over(kept)
    memory.write(2 * PAGE_SIZE, b"mine")
    kept.write(3 * PAGE_SIZE, b"x")
    assert kept.read(2 * PAGE_SIZE, 4) == b"kept"
    assert memory.read(3 * PAGE_SIZE, 1) == b"\4"


def test_a_guest_that_goes_on_copies_what_was_taken_over(pool, memory):
    place = memory.place(1, True)
    new = GuestMemory(pool, [(0, RAM * PAGE_SIZE)])
    new.take_over(memory)
    assert memory.place(1, True) != place, "who wrote there without asking asks again"
    memory.write(PAGE_SIZE, b"mine")
    assert new.read(PAGE_SIZE, 1) == b"\2"


def test_whoever_watches_is_told(memory):
    kept = memory.clone()
    memory.write(PAGE_SIZE, b"new")
    memory.start_log()
    memory.start_sampling()
    epoch = memory.epoch
    assert memory.place(1, False) == memory.place(1, False) != 0
    memory.take_over(kept)
    assert memory.epoch > epoch
    assert memory.collect_log().tolist() == [1]
    assert memory.collect_accessed() == 1
    assert memory.read(PAGE_SIZE, 1) == b"\2"


def test_what_was_swapped_or_ballooned_meanwhile(memory):
    memory.stores[FrameState.SWAPPED] = store = FakeStore()
    memory.send_away(FrameState.SWAPPED, [(0, 3)])
    kept = memory.clone()
    assert kept.stores is memory.stores
    memory.write(0, b"new")
    memory.send_away(FrameState.SWAPPED, [(0, 0)])
    memory.inflate(np.array([1]))
    memory.read(3 * PAGE_SIZE, 1)  # comes back
    assert store.pages == 2
    assert memory.take_over(kept) == 3
    assert memory.census()["swapped"] == 1
    assert store.pages == 1, "what was swapped since is forgotten"
    assert first_bytes(memory, 4) == first_bytes(kept, 4) == [1, 2, 3, 4]
    kept.close()
    memory.close()
    assert store.pages == 0


def test_what_was_ballooned_is_ballooned_again(memory):
    memory.inflate(np.array([1]))
    kept = memory.clone()
    memory.deflate(np.array([1]))
    memory.write(PAGE_SIZE, b"used")
    assert memory.take_over(kept) == 1
    assert memory.census()["ballooned"] == 1


def test_pages_that_others_came_to_show(pool, memory):
    memory.write(0, bytes([2]) * PAGE_SIZE)  # as page 1
    kept = memory.clone()
    memory.share_frames(0, np.array([0]), memory.slots[0].entries[1:2] & np.uint32(0xFFFFFF))
    assert memory.take_over(kept) == 1
    memory.write(0, b"new")
    assert (memory.read(PAGE_SIZE, 1), kept.read(0, 1)) == (b"\2", b"\2")


def test_a_guest_that_has_not_booted_gets_the_rom(pool, memory):
    memory.add_rom(20 * PAGE_SIZE, b"rom")
    new = GuestMemory(pool, [(0, RAM * PAGE_SIZE)])
    slots = []
    new.on_slot = slots.append
    new.write(PAGE_SIZE, b"its own")
    assert new.take_over(memory) == 5
    assert new.read(20 * PAGE_SIZE, 3) == b"rom"
    assert slots == [new.slots[1]]
    assert first_bytes(new) == first_bytes(memory)


def test_rom_that_came_later_is_gone(memory):
    kept = memory.clone()
    memory.add_rom(20 * PAGE_SIZE, b"rom")
    memory.take_over(kept)
    assert memory.census()["rom"] == 0


def test_regions_shadows_and_plugged_blocks(pool, memory):
    region = memory.add_region(2 * PAGE_SIZE)
    ram = memory.add_pluggable(32 * PAGE_SIZE, 8 * PAGE_SIZE, 4 * PAGE_SIZE)
    shadow = memory.add_shadow(8 * PAGE_SIZE, 2 * PAGE_SIZE)
    shadow.load_rom(8 * PAGE_SIZE, b"rom")
    region.place(50 * PAGE_SIZE)
    region.write(PAGE_SIZE, b"picture")
    ram.plug(0, 1)
    memory.write(32 * PAGE_SIZE, b"plugged")
    kept = memory.clone()

    region.place(None)
    region.write(PAGE_SIZE, b"another")
    ram.unplug(0, 1)
    ram.plug(1, 1)
    shadow.set(8 * PAGE_SIZE, 2 * PAGE_SIZE, read_ram=True, write_ram=True)
    memory.write(8 * PAGE_SIZE, b"beneath")
    shadow.set(9 * PAGE_SIZE, PAGE_SIZE, read_ram=False, write_ram=True)
    memory.start_log()
    shadow.write(PAGE_SIZE, 1, 1)
    memory.collect_log()
    memory.take_over(kept)
    assert memory.collect_log().tolist() == [8, 9, *range(32, 40)]
    assert region.gpa == 50 * PAGE_SIZE
    assert memory.read(51 * PAGE_SIZE, 7) == b"picture"
    assert ram.plugged(0, 2).tolist() == [True, False]
    assert memory.read(32 * PAGE_SIZE, 7) == b"plugged"
    assert memory.read(8 * PAGE_SIZE, 3) == b"rom"
    shadow.set(8 * PAGE_SIZE, PAGE_SIZE, read_ram=True, write_ram=True)
    assert memory.read(8 * PAGE_SIZE, 7) == bytes(7)
    free = pool.free
    memory.close()
    kept.close()
    assert pool.free > free
    assert pool.used == 0


def test_pages_are_numbered_through(memory):
    memory.add_region(2 * PAGE_SIZE)
    memory.add_shadow(8 * PAGE_SIZE, 3 * PAGE_SIZE)
    assert [len(pages.entries) for pages in memory.sets] == [RAM, 2, 3]
    assert memory.page_count == RAM + 5
    assert memory.clone().page_count == memory.page_count


def other_ram(pool, memory):
    return GuestMemory(pool, [(0, 2 * RAM * PAGE_SIZE)])


def other_shadow(pool, memory):
    other = memory.clone()
    other.add_shadow(8 * PAGE_SIZE, 3 * PAGE_SIZE)
    return other


def other_region(pool, memory):
    other = memory.clone()
    other.add_region(2 * PAGE_SIZE)
    return other


def other_blocks(pool, memory):
    other = memory.clone()
    other.add_pluggable(32 * PAGE_SIZE, 8 * PAGE_SIZE, 4 * PAGE_SIZE)
    return other


def other_pool(pool, memory):
    return GuestMemory(FramePool(FRAMES * PAGE_SIZE), [(0, RAM * PAGE_SIZE)])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            other_ram,
            "this guest has memory of 64 KiB at 0x0 where the other one has memory of 128 KiB at 0x0",
        ),
        (other_shadow, "this guest has none where the other one has shadow RAM of 12 KiB at 0x8000"),
        (other_region, "this guest has none where the other one has a device's memory of 8 KiB"),
        (
            other_blocks,
            "this guest has none where the other one has RAM that is plugged by 16 KiB of 32 KiB at 0x20000",
        ),
        (other_pool, "the two guests are not of the same host"),
    ],
)
def test_another_layout(pool, memory, make, text):
    other = make(pool, memory)
    before = first_bytes(memory)
    with pytest.raises(SnapshotError) as caught:
        memory.take_over(other)
    assert str(caught.value) == f"memory: {text}"
    assert first_bytes(memory) == before


def test_frames_that_are_only_kept(memory):
    kept, again = memory.clone(), memory.clone()
    assert held_by([]) == held_by([kept, again]) == 0
    memory.write(0, b"new")
    memory.write(PAGE_SIZE, b"new")
    assert held_by([kept, again]) == 2
    assert held_by([kept]) == 0
    memory.share_zero(0, np.array([2]))
    assert held_by([kept, again]) == 2
