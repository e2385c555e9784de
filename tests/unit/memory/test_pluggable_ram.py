"""Pluggable RAM: what plugging and unplugging do to frames, stores, logs, samples, sharing and clones."""

import numpy as np
import pytest
from fake_store import FakeStore
from page_merging import PageRef, merge

from emuvisor.errors import GuestAddressError, UsageError
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

RAM = 1 * MIB
BASE = 16 * MIB
BLOCK = 4 * PAGE_SIZE
BLOCKS = 8
FIRST = BASE // PAGE_SIZE


@pytest.fixture
def memory():
    memory = GuestMemory(FramePool(2 * MIB), [(0, RAM)])
    memory.add_pluggable(BASE, BLOCKS * BLOCK, BLOCK)
    return memory


def pages(*numbers):
    return np.array(numbers, np.int64)


def test_the_numbers(memory):
    ram = memory.pluggable[0]
    assert (ram.gpa, ram.length, ram.blocks, ram.block_size) == (BASE, BLOCKS * BLOCK, BLOCKS, BLOCK)
    assert memory.size == RAM + BLOCKS * BLOCK
    ram.plug(2, 3)
    assert ram.plugged(1, 5).tolist() == [False, True, True, True, False]
    assert ram.plugged_size == 3 * BLOCK


def test_an_unplugged_block_is_nowhere(memory):
    gone = r"^guest physical address 0x1000000 is not memory$"
    for access in (
        lambda: memory.read(BASE, 1),
        lambda: memory.views(BASE, 1, write=False),
    ):
        with pytest.raises(GuestAddressError, match=gone):
            access()
    with pytest.raises(GuestAddressError, match=r"^guest physical address 0x1000000 is not RAM$"):
        memory.write(BASE, b"x")
    assert not memory.fault(FIRST, True)
    assert not memory.ram_pages(pages(FIRST)).any()
    assert memory.inflate(pages(FIRST)) == memory.discard(BASE, BLOCK) == 0
    assert memory.census()["hole"] == BLOCKS * BLOCK // PAGE_SIZE
    assert memory.pool.used == 0


def test_plugged_memory_costs_nothing_until_it_is_touched(memory):
    ram = memory.pluggable[0]
    ram.plug(0, BLOCKS)
    assert memory.pool.used == 0
    assert memory.read(BASE, BLOCKS * BLOCK) == bytes(BLOCKS * BLOCK)
    assert memory.fault(FIRST + 5, True)
    assert memory.pool.used == 1
    assert ram.unplug(0, BLOCKS) == 1


def test_remembered_places_are_forgotten(memory):
    ram = memory.pluggable[0]
    ram.plug(0, 1)
    memory.write(BASE, b"x")
    place = memory.place(FIRST, True)
    epoch = memory.epoch
    ram.unplug(0, 1)
    assert memory.epoch != epoch
    ram.plug(0, 1)
    assert memory.host[place] == ord("x"), "the frame is dirty when the next owner takes it"
    assert memory.read(BASE, 1) == b"\0"
    assert memory.place(FIRST, True)
    assert memory.read(BASE, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_frames_slots_and_shares_go_back(memory):
    store = memory.stores[FrameState.SWAPPED] = FakeStore()
    ram = memory.pluggable[0]
    ram.plug(0, 2)
    for page in range(8):
        memory.write(BASE + page * PAGE_SIZE, bytes([page // 2 + 1]) * PAGE_SIZE)
    number = len(memory.slots) - 1
    assert memory.send_away(FrameState.SWAPPED, [(number, 1), (number, 6)]) == 2
    assert merge(PageRef(memory, number, 2), PageRef(memory, number, 3))
    memory.write(BASE + 4 * PAGE_SIZE, bytes(PAGE_SIZE))
    assert memory.share_zero(number, pages(4)) == 1
    memory.inflate(pages(FIRST + 7))
    twin = memory.clone()
    ram.unplug(0, 2)
    assert twin.read(BASE + PAGE_SIZE, 1) == b"\1"
    assert twin.read(BASE + 6 * PAGE_SIZE, 1) == b"\4"
    assert twin.pluggable[0].plugged_size == 2 * BLOCK
    twin.pluggable[0].unplug(0, 2)
    assert memory.pool.used == 0
    assert not store.pages


def test_a_clone_plugs_for_itself(memory):
    ram = memory.pluggable[0]
    ram.plug(1, 2)
    twin = memory.clone()
    twin.pluggable[0].plug(4, 1)
    ram.unplug(1, 1)
    assert ram.plugged(0, BLOCKS).nonzero()[0].tolist() == [2]
    assert twin.pluggable[0].plugged(0, BLOCKS).nonzero()[0].tolist() == [1, 2, 4]


def test_the_dirty_log_notes_what_is_plugged(memory):
    ram = memory.pluggable[0]
    memory.start_log()
    ram.plug(1, 1)
    assert memory.collect_log().tolist() == [FIRST + i for i in range(4, 8)]
    memory.write(BASE + BLOCK, b"x")
    ram.unplug(1, 1)
    assert memory.collect_log().tolist() == []


def test_samples_forget_what_is_unplugged(memory):
    ram = memory.pluggable[0]
    ram.plug(0, 1)
    memory.start_sampling()
    memory.write(BASE, b"x")
    ram.unplug(0, 1)
    assert memory.collect_accessed() == 0
    assert memory.evictable(10) == []


def test_a_reset_unplugs(memory):
    ram = memory.pluggable[0]
    ram.plug(0, 3)
    memory.write(BASE, b"x")
    memory.reset()
    assert (ram.plugged_size, memory.pool.used) == (0, 0)
    assert ram.unplug_all() == 0


@pytest.mark.parametrize(
    ("gpa", "length", "block", "message"),
    [
        (
            BASE + 1,
            BLOCK,
            BLOCK,
            "pluggable RAM of 16384 bytes in blocks of 16384 at 0x1000001 is impossible; it has whole pages and whole "
            "blocks",
        ),
        (
            BASE,
            BLOCK + PAGE_SIZE,
            BLOCK,
            "pluggable RAM of 20480 bytes in blocks of 16384 at 0x1000000 is impossible; it has whole pages and whole "
            "blocks",
        ),
        (RAM - BLOCK, BLOCK, BLOCK, "pluggable RAM at 0xfc000..0xfffff: there is memory already"),
    ],
)
def test_impossible_places(gpa, length, block, message):
    memory = GuestMemory(FramePool(2 * MIB), [(0, RAM)])
    with pytest.raises(UsageError) as error:
        memory.add_pluggable(gpa, length, block)
    assert str(error.value) == message
