"""The memory device: blocks in and out, what is refused, resets, and request streams against a set of blocks."""

import struct

import pytest
from driver import RAM, RING_IDS, RINGS, Driver
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.virtio.features import Feature, mask_of
from emuvisor.devices.virtio.mem import BLOCKS_PER_TURN, Mem
from emuvisor.errors import GuestAddressError, OutOfFrames, SnapshotError, UsageError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import GIB, MIB, PAGE_SIZE

QUEUE = 0
PLUG, UNPLUG, UNPLUG_ALL, STATE = range(4)
ACK, NACK, BUSY, ERROR = range(4)
PLUGGED, UNPLUGGED, MIXED = range(3)
BLOCK = 2 * MIB
BASE = 4 * GIB
BLOCKS = 16
LIMIT = 12
"""Blocks that can be requested: the region is rounded up."""


def make(ring=None, requested=LIMIT, blocks=BLOCKS, limit=LIMIT, block=BLOCK, **more):
    memory = GuestMemory(FramePool(RAM), [(0, RAM)])
    ram = memory.add_pluggable(BASE, blocks * block, block)
    device = Mem(name="mem", ram=ram, limit=limit * block)
    device.requested = requested * block
    return Driver(device, memory=memory, **(ring or {}), **more)


@pytest.fixture
def driver():
    return make()


def ask(driver, kind, first=0, count=1, base=BASE):
    """Type and state of the answer."""
    request = struct.pack("<H6xQH6x", kind, base + first * BLOCK, count)
    return struct.unpack("<H6xH", driver.request(QUEUE, request, [10]))


def plugged(driver):
    ram = driver.memory.pluggable[0]
    return set(ram.plugged(0, ram.blocks).nonzero()[0].tolist())


def config(driver):
    """block_size, node_id, addr, region_size, usable_region_size, plugged_size, requested_size."""
    return struct.unpack("<QH6xQQQQQ", driver.config(0, 56))


def reachable(driver, gpa):
    try:
        driver.memory.read(gpa, 1)
    except GuestAddressError:
        return False
    return True


# ---- in and out ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_in_and_out(ring):
    driver = make(ring)
    assert config(driver) == (BLOCK, 0, BASE, BLOCKS * BLOCK, BLOCKS * BLOCK, 0, LIMIT * BLOCK)
    assert not reachable(driver, BASE)
    assert ask(driver, PLUG, 1, 3) == (ACK, 0)
    assert plugged(driver) == {1, 2, 3}
    assert config(driver)[5] == 3 * BLOCK == driver.device.plugged_size
    used = driver.memory.pool.used
    driver.memory.write(BASE + BLOCK, b"x" * 3 * PAGE_SIZE)
    assert driver.memory.pool.used == used + 3
    assert ask(driver, UNPLUG, 1) == (ACK, 0)
    assert driver.memory.pool.used == used
    assert not reachable(driver, BASE + BLOCK)
    assert reachable(driver, BASE + 2 * BLOCK)
    assert ask(driver, UNPLUG_ALL) == (ACK, 0)
    assert plugged(driver) == set()
    assert ask(driver, UNPLUG_ALL) == (ACK, 0)
    assert not driver.needs_reset


def test_state(driver):
    ask(driver, PLUG, 4, 4)
    for first, count, state in [
        (4, 4, PLUGGED),
        (5, 1, PLUGGED),
        (0, 4, UNPLUGGED),
        (3, 2, MIXED),
        (0, 16, MIXED),
    ]:
        assert ask(driver, STATE, first, count) == (ACK, state)


def test_nothing_survives_in_an_unplugged_block(driver):
    ask(driver, PLUG)
    driver.memory.write(BASE, b"secret" * 2000)
    ask(driver, UNPLUG)
    ask(driver, PLUG)
    assert driver.memory.read(BASE, BLOCK) == bytes(BLOCK)


def test_no_more_is_plugged_than_was_asked_for():
    driver = make(requested=3)
    assert ask(driver, PLUG, 0, 4) == (NACK, 0)
    assert ask(driver, PLUG, 0, 2) == (ACK, 0)
    assert ask(driver, PLUG, 8, 2) == (NACK, 0)
    assert ask(driver, PLUG, 8, 1) == (ACK, 0)
    driver.device.requested_size = 0
    assert plugged(driver) == {0, 1, 8}
    assert ask(driver, UNPLUG, 8) == (ACK, 0)
    assert ask(driver, PLUG, 8) == (NACK, 0)


@pytest.mark.parametrize(
    ("kind", "first", "count", "base"),
    [
        (PLUG, 0, 0, BASE),
        (PLUG, 0, 1, BASE + PAGE_SIZE),
        (PLUG, -1, 1, BASE),
        (PLUG, BLOCKS, 1, BASE),
        (PLUG, BLOCKS - 1, 2, BASE),
        (PLUG, 0, 0xFFFF, BASE),
        (PLUG, 0, 1, 0),
        (PLUG, 0, 1, (1 << 64) - BLOCK),
        (PLUG, 1, 2, BASE),  # one of them is there
        (UNPLUG, 0, 1, BASE),
        (UNPLUG, 2, 2, BASE),
        (STATE, 0, 0, BASE),
        (STATE, 0, 1, BASE - BLOCK),
        (4, 0, 1, BASE),
        (0xFFFF, 0, 1, BASE),
    ],
)
def test_wrong_requests_change_nothing(driver, kind, first, count, base):
    ask(driver, PLUG, 2)
    assert ask(driver, kind, first, count, base) == (ERROR, 0)
    assert plugged(driver) == {2}
    assert not driver.needs_reset


def test_short_requests_and_answers(driver):
    assert driver.request(QUEUE, struct.pack("<H6xQ", PLUG, BASE), [10]) == struct.pack("<H6xH", ERROR, 0)
    assert driver.request(QUEUE, struct.pack("<H6xQH6x", PLUG, BASE, 1), [2]) == struct.pack("<H", ACK)
    assert driver.request(QUEUE, struct.pack("<H6xQH6x", PLUG, BASE + BLOCK, 1)) == b""
    assert plugged(driver) == {0, 1}


def test_an_answer_into_the_block_that_goes(driver):
    ask(driver, PLUG)
    gpa, length = driver.buffer(struct.pack("<H6xQH6x", UNPLUG, BASE, 1))
    driver.add_parts(QUEUE, [(gpa, length)], [(BASE, 10)])
    used = driver.memory.pool.used
    driver.kick(QUEUE)
    assert driver.needs_reset
    assert driver.device.failure == "guest physical address 0x100000000 is not RAM"
    assert (plugged(driver), driver.memory.pool.used) == (set(), used)


def test_a_device_that_writes_to_an_unplugged_block_meets_no_memory(driver):
    gpa, length = driver.buffer(struct.pack("<H6xQH6x", PLUG, BASE, 1))
    driver.add_parts(QUEUE, [(gpa, length)], [(BASE + BLOCK, 10)])
    driver.kick(QUEUE)
    assert driver.needs_reset
    assert plugged(driver) == set()


def test_a_request_is_served_once_though_frames_run_out():
    driver = make(event_idx=False, indirect=False)
    memory = driver.memory
    ask(driver, STATE)
    gpa, length = driver.buffer(struct.pack("<H6xQH6x", PLUG, BASE, 1))
    answer = 48 * MIB
    driver.add_parts(QUEUE, [(gpa, length)], [(answer, 10)])
    memory.take_limit = memory.frames_taken
    with pytest.raises(
        OutOfFrames, match=r"^no frame for guest physical address 0x3000000: its guest may take no more$"
    ):
        driver.kick(QUEUE)
    # Now the rings need frames of their own again, too; there is one, which would be enough for the answer.
    twin = memory.clone()
    memory.take_limit = memory.frames_taken + 1
    with pytest.raises(OutOfFrames, match=r"its guest may take no more$"):
        driver.run_timers()
    assert plugged(driver) == set()
    memory.take_limit = None
    assert not twin.pluggable[0].plugged_size
    driver.run_timers()
    assert memory.read(answer, 10) == struct.pack("<H6xH", ACK, 0)
    assert plugged(driver) == {0}


def test_a_turn_has_an_end():
    blocks = BLOCKS_PER_TURN
    driver = make(blocks=blocks, requested=blocks, limit=blocks, block=PAGE_SIZE)
    requests = [struct.pack("<H6xQH6x", kind, BASE, blocks) for kind in (PLUG, UNPLUG) * 3]
    for request in requests:
        driver.add(QUEUE, request, [10])
    driver.kick(QUEUE)
    assert len(driver.used(QUEUE)) == 1
    assert driver.run_timers() >= 5
    assert [answer for _, answer in driver.used(QUEUE)] == [struct.pack("<H6xH", ACK, 0)] * 5
    ask(driver, PLUG, 0, blocks)
    driver.add(QUEUE, struct.pack("<H22x", UNPLUG_ALL), [10])
    driver.add(QUEUE, struct.pack("<H6xQH6x", STATE, BASE, 1), [10])
    driver.kick(QUEUE)
    assert len(driver.used(QUEUE)) == 1


# ---- the host's wish, negotiation, resets, saved state ----


def test_the_wish_is_told(driver):
    driver.device.requested = 0
    generation = driver.device.generation
    driver.device.requested_size = 5 * BLOCK
    assert (driver.interrupts, config(driver)[6]) == (1, 5 * BLOCK)
    assert driver.device.requested_size == 5 * BLOCK
    assert driver.device.generation != generation


@pytest.mark.parametrize("size", [-BLOCK, PAGE_SIZE, (LIMIT + 1) * BLOCK])
def test_impossible_wishes(driver, size):
    with pytest.raises(UsageError) as error:
        driver.device.requested_size = size
    assert str(error.value) == f"mem: {size} bytes cannot be plugged; it is a multiple of 2 MiB up to 24 MiB"
    assert driver.device.requested == LIMIT * BLOCK


def test_drivers_that_may_read_unplugged_memory_are_refused():
    driver = make(setup=False)
    assert not driver.negotiate(mask_of(Feature.VERSION_1))
    assert driver.negotiate(mask_of(Feature.VERSION_1, 1))


def test_a_device_reset_leaves_the_blocks_and_that_of_the_machine_does_not(driver):
    ask(driver, PLUG, 0, 2)
    driver.memory.write(BASE, b"kept")
    driver.setup()
    assert plugged(driver) == {0, 1}
    assert driver.memory.read(BASE, 4) == b"kept"
    driver.memory.reset()
    driver.mmio.reset()
    assert plugged(driver) == set()
    assert driver.device.requested_size == LIMIT * BLOCK
    assert not reachable(driver, BASE)


def test_a_restored_device_has_the_same_blocks():
    saved, restored = make(requested=5), make()
    ask(saved, PLUG, 3, 2)
    ask(restored, PLUG, 4, 2)
    restored.memory.write(BASE + 4 * BLOCK, b"kept")
    restored.device.load_device(saved.device.save_device())
    assert plugged(restored) == {3, 4}
    assert restored.memory.read(BASE + 4 * BLOCK, 4) == b"kept"
    assert restored.device.requested_size == 5 * BLOCK


def test_a_state_of_another_size(driver):
    state = driver.device.save_device()
    state["plugged"] = bytes(3)
    with pytest.raises(SnapshotError) as error:
        driver.device.load_device(state)
    assert str(error.value) == "virtio-mem: saved field 'plugged' has 3 bytes; this guest has 16 blocks"


# ---- streams of requests ----

wild = st.integers(0, (1 << 64) - 1)
kinds = st.integers(0, 5)
places = st.integers(-2, BLOCKS + 1)
counts = st.integers(0, BLOCKS + 2)
steps = st.one_of(
    st.tuples(st.just("ask"), kinds, places, counts),
    st.tuples(st.just("wish"), st.integers(0, LIMIT)),
    st.tuples(st.just("write"), st.integers(0, BLOCKS - 1), st.integers(1, 255)),
    st.tuples(st.just("reset")),
)


class Model:
    """The plugged blocks, each with the byte at its beginning."""

    def __init__(self):
        self.blocks = {}
        self.requested = LIMIT

    def ask(self, kind, first, count):
        asked = range(first, first + count)
        if kind == UNPLUG_ALL:
            self.blocks.clear()
            return ACK, 0
        if kind > STATE or not asked or asked[0] < 0 or asked[-1] >= BLOCKS:
            return ERROR, 0
        there = sum(block in self.blocks for block in asked)
        if kind == STATE:
            return ACK, {0: UNPLUGGED, count: PLUGGED}.get(there, MIXED)
        if there != (0 if kind == PLUG else count):
            return ERROR, 0
        if kind == PLUG and len(self.blocks) + count > self.requested:
            return NACK, 0
        for block in asked:
            if kind == PLUG:
                self.blocks[block] = 0
            else:
                del self.blocks[block]
        return ACK, 0


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25))
def test_any_stream_of_requests(stream):
    driver, model = make(), Model()
    for action, *values in stream:
        if action == "ask":
            assert ask(driver, *values) == model.ask(*values)
        elif action == "wish":
            model.requested = values[0]
            driver.device.requested_size = values[0] * BLOCK
        elif action == "write":
            block, fill = values
            if block in model.blocks:
                driver.memory.write(BASE + block * BLOCK, bytes([fill]))
                model.blocks[block] = fill
            else:
                assert not reachable(driver, BASE + block * BLOCK)
        else:
            driver.setup()
        assert plugged(driver) == set(model.blocks)
        assert driver.device.plugged_size == len(model.blocks) * BLOCK
    for block, fill in model.blocks.items():
        assert driver.memory.read(BASE + block * BLOCK, 2) == bytes([fill, 0])
    assert driver.memory.census()["hole"] == (BLOCKS - len(model.blocks)) * BLOCK // PAGE_SIZE


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=40), max_size=4),
    st.lists(st.tuples(wild | st.integers(0, RAM), st.integers(0, 64)), max_size=4),
)
def test_wild_requests(readable, writable):
    driver = make()
    driver.add_parts(QUEUE, [driver.buffer(piece) for piece in [b"\0", *readable]], writable)
    driver.kick(QUEUE)
    driver.setup()
    ask(driver, UNPLUG_ALL)
    assert ask(driver, STATE, 0, BLOCKS) == (ACK, UNPLUGGED)
