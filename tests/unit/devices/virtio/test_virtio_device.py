"""VirtioDevice: status, negotiation, turns, what stops and resumes them, and saved state."""

import re
from typing import Any

import pytest
from driver import RING_IDS, RINGS, Driver

from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.device import SavedState
from emuvisor.devices.virtio import mmio
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import BYTES_PER_TURN, CHAINS_PER_TURN, Suspend, VirtioDevice
from emuvisor.devices.virtio.features import Feature, Status, mask_of
from emuvisor.errors import OutOfFrames, SnapshotError, UsageError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

OWN = mask_of(3, 5)
COMMON = mask_of(Feature.VERSION_1, Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.RING_RESET)
ONCE = Status.ACKNOWLEDGE | Status.DRIVER


class Echo(VirtioDevice):
    device_id = 42

    def __init__(self, *sizes: int) -> None:
        super().__init__(name="echo", queue_sizes=sizes or (1024, 16), features=OWN)
        self.log: list[Any] = []
        self.trouble: Exception | None = None
        self.hold = False
        self.value = b"\x01\x02\x03\x04"
        self.wanted = 1 << 30

    def config(self) -> bytes:
        return self.value

    def accepts(self, features: int) -> bool:
        return not features & 1 << 5 or bool(features & 1 << 3)

    def notified(self, index: int) -> None:
        self.log.append(("notified", index))
        self.serve(self.queues[index], self._answer, lambda: self.wanted > 0)

    def _answer(self, chain: Chain) -> int | None:
        if self.trouble is not None:
            raise self.trouble
        if self.hold:
            return None
        self.wanted -= 1
        return chain.write(chain.read())

    def activated(self) -> None:
        self.log.append("activated")

    def quiesced(self) -> None:
        self.log.append("quiesced")

    def queue_reset(self, index: int) -> None:
        self.log.append(("queue reset", index))

    def save_device(self) -> SavedState:
        return {"value": self.value}

    def load_device(self, state: SavedState) -> None:
        self.value = state["value"]


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


@pytest.mark.parametrize("size", [0, 3, 2048])
def test_queue_sizes(size: int) -> None:
    with pytest.raises(
        UsageError,
        match=exactly(f"echo: a queue of {size} descriptors; it has a power of two from 1 to 1024"),
    ):
        Echo(16, size)


# ---- section 3.1.1 ----


def test_initialization() -> None:
    device = Echo()
    driver = Driver(device)
    assert driver.offered() == COMMON | OWN
    assert driver.status == ONCE | Status.FEATURES_OK | Status.DRIVER_OK
    assert device.log == ["quiesced", "activated"]
    assert device.live
    assert (device.has(3), device.has(4), device.has(Feature.RING_PACKED)) == (True, False, False)


def test_packed_rings_are_offered_where_the_board_says_so() -> None:
    assert Driver(Echo(), packed=True).offered() == COMMON | OWN | 1 << Feature.RING_PACKED


@pytest.mark.parametrize(
    "wanted",
    [
        OWN,
        1 << Feature.VERSION_1 | 1 << 4,
        1 << Feature.VERSION_1 | 1 << Feature.RING_PACKED,
        1 << Feature.VERSION_1 | 1 << 5,
        1 << Feature.VERSION_1 | 1 << 63,
    ],
    ids=["legacy", "not offered", "packed", "not accepted", "the last bit"],
)
def test_features_that_are_refused(wanted: int) -> None:
    device = Echo()
    driver = Driver(device, setup=False)
    assert not driver.negotiate(wanted)
    assert device.negotiated == 0
    driver.driver_ok()
    assert driver.status == ONCE, "no DRIVER_OK without FEATURES_OK"
    assert not device.live
    assert driver.negotiate(), "it can choose again"


def test_features_are_fixed_by_features_ok() -> None:
    device = Echo()
    driver = Driver(device)
    before = device.negotiated
    driver.set(mmio.DRIVER_FEATURES_SEL, 0)
    driver.set(mmio.DRIVER_FEATURES, 0)
    driver.set(mmio.STATUS, driver.status)
    assert device.negotiated == before


def test_status_bits_are_not_cleared_one_by_one() -> None:
    driver = Driver(Echo())
    driver.set(mmio.STATUS, Status.ACKNOWLEDGE | Status.NEEDS_RESET | 0x30)
    assert driver.status == ONCE | Status.FEATURES_OK | Status.DRIVER_OK


def test_nothing_is_served_before_driver_ok() -> None:
    device = Echo()
    driver = Driver(device, setup=False)
    assert driver.negotiate()
    driver.set(mmio.QUEUE_SEL, 0)
    driver.set(mmio.QUEUE_READY, 1)
    driver.kick(0) if driver.rings else driver.set(mmio.QUEUE_NOTIFY, 0)
    assert device.queues[0].pop() is None
    assert not device.queues[0].available
    device.queues[0].notify()
    assert device.log == ["quiesced"]


def test_a_driver_that_has_failed_is_not_served() -> None:
    device = Echo()
    driver = Driver(device)
    driver.set(mmio.STATUS, driver.status | Status.FAILED)
    assert driver.request(0, b"x", [1]) is None
    device.config_changed()
    assert driver.interrupts == 0


def test_reset() -> None:
    device = Echo()
    driver = Driver(device)
    device.fail("for a test")
    driver.set(mmio.STATUS, 0)
    assert (driver.status, device.negotiated, device.failure, device.live) == (0, 0, None, False)
    assert device.log[-1] == "quiesced"
    driver.setup()
    assert driver.request(1, b"x", [1]) == b"x"


def test_a_device_that_has_failed_uses_nothing() -> None:
    device = Echo(8)
    driver = Driver(device)
    driver.add(0, b"a", [1])
    chain = device.queues[0].pop()
    assert chain is not None
    device.queues[0].unpop(chain)
    device.fail("for a test")
    device.queues[0].push(chain, 0)
    assert device.queues[0].pop() is None
    assert not device.queues[0].available
    assert driver.used(0) == []


def test_a_device_fails_once() -> None:
    device = Echo()
    driver = Driver(device)
    device.fail("the first reason")
    device.fail("the second")
    assert (device.failure, driver.interrupts) == ("the first reason", 1)


def test_a_device_that_fails_before_driver_ok_does_not_interrupt() -> None:
    device = Echo()
    driver = Driver(device, setup=False)
    driver.negotiate()
    device.fail("early")
    driver.driver_ok()
    assert driver.needs_reset
    assert driver.interrupts == 0
    assert not device.live


def test_configuration_changes() -> None:
    device = Echo()
    driver = Driver(device)
    before = driver.get(mmio.CONFIG_GENERATION)
    device.value = b"\x05\x06\x07\x08"
    device.config_changed()
    assert driver.get(mmio.CONFIG_GENERATION) == before + 1
    assert driver.get(mmio.INTERRUPT_STATUS) == mmio.CONFIG_CHANGE
    for _ in range(255):
        device.config_changed()
    assert driver.get(mmio.CONFIG_GENERATION) == before


def test_hooks_that_a_device_leaves_alone() -> None:
    class Plain(VirtioDevice):
        device_id = 42

    device = Plain(name="plain", queue_sizes=[4])
    driver = Driver(device)
    driver.set(mmio.CONFIG, 5)
    driver.kick(0)
    driver.set(mmio.QUEUE_RESET, 1)
    device.write_config(0, b"x")
    device.load(device.save())
    assert (driver.get(mmio.CONFIG), device.failure) == (0, None)


# ---- turns ----


def test_a_long_queue_is_served_in_turns() -> None:
    device = Echo()
    driver = Driver(device)
    for _ in range(CHAINS_PER_TURN + 10):
        driver.add(0, b"x", [1])
    driver.kick(0)
    assert len(driver.used(0)) == CHAINS_PER_TURN
    assert driver.clock.next_deadline_ns() == driver.clock.now_ns()
    assert driver.run_timers() == 1
    assert len(driver.used(0)) == 10


def test_a_full_turn_with_nothing_left_arms_no_timer() -> None:
    driver = Driver(Echo())
    for _ in range(CHAINS_PER_TURN):
        driver.add(0, b"x", [1])
    driver.kick(0)
    assert driver.run_timers() == 0


def test_much_data_is_served_in_turns() -> None:
    device = Echo()
    driver = Driver(device)
    gpa, length = driver.buffer(8 * MIB)
    for _ in range(BYTES_PER_TURN // length + 1):
        driver.add_parts(0, [(gpa, length)], [(gpa, 1)])
    driver.kick(0)
    assert len(driver.used(0)) == BYTES_PER_TURN // length
    driver.run_timers()
    assert len(driver.used(0)) == 1


def test_a_queue_that_the_host_fills() -> None:
    device = Echo()
    driver = Driver(device)
    device.wanted = 2
    for _ in range(3):
        driver.add(0, b"x", [1])
    driver.kick(0)
    assert len(driver.used(0)) == 2
    device.wanted = 1
    driver.kick(0)
    assert len(driver.used(0)) == 1


def test_several_queues_wait_for_their_turns() -> None:
    device = Echo(16, 16, 16)
    driver = Driver(device)
    for index in (2, 0):
        driver.add(index, b"x", [1])
        device.serve_later(index)
        device.serve_later(index)
    assert driver.run_timers() == 1
    assert device.log[2:] == [("notified", 2), ("notified", 0)]


def test_a_reset_forgets_what_waits() -> None:
    device = Echo(16, 16)
    driver = Driver(device)
    device.serve_later(0)
    device.serve_later(1)
    driver.set(mmio.QUEUE_SEL, 0)
    driver.set(mmio.QUEUE_RESET, 1)
    assert device.log[-1] == ("queue reset", 0)
    assert device.waiting == [1]
    driver.set(mmio.STATUS, 0)
    assert device.waiting == []
    assert driver.clock.next_deadline_ns() is None


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_suspended_chains_are_tried_again(ring: dict[str, bool]) -> None:
    device = Echo()
    driver = Driver(device, **ring)
    device.trouble = Suspend("the disk is full")
    tokens = [driver.add(0, text, [1]) for text in (b"a", b"b")]
    driver.kick(0)
    assert driver.suspensions == ["the disk is full"]
    assert driver.used(0) == []
    assert driver.clock.fire_due() == 1
    assert driver.suspensions == ["the disk is full"] * 2
    device.trouble = None
    driver.run_timers()
    assert driver.used(0) == list(zip(tokens, (b"a", b"b"), strict=True))


def test_what_was_done_before_a_suspension_is_told() -> None:
    device = Echo()
    driver = Driver(device)
    token = driver.add(0, b"a", [1])
    with device.guarded(device.queues[0]):
        chain = device.queues[0].pop()
        assert chain is not None
        device.queues[0].push(chain, 0)
        raise Suspend("the disk is full")
    assert (driver.interrupts, driver.suspensions) == (1, ["the disk is full"])
    assert driver.used(0) == [(token, b"")]


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_no_frame_for_an_answer(ring: dict[str, bool]) -> None:
    device = Echo(8)
    driver = Driver(device, **ring)
    device.trouble = OutOfFrames("all are taken")
    token = driver.add(0, b"a", [1])
    for attempt in (lambda: driver.kick(0), driver.run_timers):
        with pytest.raises(OutOfFrames, match=exactly("all are taken")):
            attempt()
        assert driver.clock.next_deadline_ns() == driver.clock.now_ns()
    device.trouble = None
    driver.run_timers()
    assert driver.used(0) == [(token, b"a")]


def test_one_queue_without_a_frame_does_not_cost_the_others_their_turn() -> None:
    device = Echo(8, 8)
    driver = Driver(device)
    device.serve_later(0)
    device.serve_later(1)
    token = driver.add(1, b"a", [1])
    driver.add(0, b"b", [1])
    device.trouble = OutOfFrames("all are taken")
    with pytest.raises(OutOfFrames):
        driver.run_timers()
    assert sorted(device.waiting) == [0, 1]
    device.trouble = None
    driver.run_timers()
    assert driver.used(1) == [(token, b"a")]


def test_no_frame_for_a_ring() -> None:
    """A clone's ring has to be copied before it can be written."""
    pool = FramePool(64 * MIB)
    memory = GuestMemory(pool, [(0, 64 * MIB)])
    device = Echo(8)
    driver = Driver(device, memory=memory)
    token = driver.add(0, b"a", [1])
    twin = memory.clone()
    hoard = pool.take_many(pool.free)
    for attempt in (lambda: driver.kick(0), driver.run_timers):
        with pytest.raises(OutOfFrames):
            attempt()
    pool.release(hoard)
    driver.run_timers()
    assert driver.used(0) == [(token, b"a")]
    assert twin.close() > 0


def test_no_frame_for_a_ring_when_the_driver_is_to_be_notified() -> None:
    device = Echo(8)
    driver = Driver(device)
    driver.request(0, b"first", [5])
    driver.add(0, b"a", [1])
    queue = device.queues[0]
    hoard = driver.memory.pool.take_many(driver.memory.pool.free)
    twin: list[GuestMemory] = []
    with pytest.raises(OutOfFrames), device.guarded(queue):  # noqa: PT012 - what is tested is its end
        chain = queue.pop()
        assert chain is not None
        queue.push(chain, 0)
        twin.append(driver.memory.clone())
    assert (len(twin), driver.interrupts) == (1, 1)
    driver.memory.pool.release(hoard)
    driver.run_timers()
    assert driver.interrupts == 2


def test_an_error_of_the_device_itself_is_no_guests_fault() -> None:
    device = Echo(8)
    driver = Driver(device)
    device.trouble = ZeroDivisionError("a bug")
    driver.add(0, b"a", [1])
    with pytest.raises(ZeroDivisionError):
        driver.kick(0)
    assert device.failure is None


def test_a_ring_that_has_gone_when_the_driver_is_to_be_notified() -> None:
    device = Echo(8)
    driver = Driver(device)
    driver.add(0, b"a", [1])
    queue = device.queues[0]
    with device.guarded(queue):
        chain = queue.pop()
        assert chain is not None
        queue.push(chain, 0)
        driver.memory.add_hole(driver.rings[0].device_area & -PAGE_SIZE, PAGE_SIZE)
    assert device.failure is not None
    queue.push(chain, 0)
    assert device.queues[0].pop() is None


# ---- saved state ----


def restored(driver: Driver, ring: dict[str, bool]) -> tuple[Echo, Driver]:
    """The guest in another host: same memory, a new device, what the driver knows stays."""
    state = driver.mmio.save()
    device = Echo(*driver.device.queue_sizes)
    twin = Driver(device, memory=driver.memory, clock=VirtualClock(), setup=False, **ring)
    twin.rings = driver.rings
    twin.mmio.load(state)
    return device, twin


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_a_restored_device_goes_on(ring: dict[str, bool]) -> None:
    driver = Driver(Echo(8), **ring)
    for i in range(13):
        driver.request(0, bytes([i]), [1])
    driver.device.config_changed()
    device, twin = restored(driver, ring)
    assert twin.status == driver.status
    assert twin.irq.level
    assert device.negotiated == driver.device.negotiated
    assert twin.get(mmio.CONFIG_GENERATION) == 1
    for i in range(13):
        assert twin.request(0, bytes([i]), [1]) == bytes([i])
    assert twin.mmio.save().keys() == driver.mmio.save().keys()


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_chains_in_flight_are_tried_again(ring: dict[str, bool]) -> None:
    """Also when a later one was answered first, by which a packed ring forgets the earlier one's descriptors."""
    device = Echo(8)
    driver = Driver(device, **ring)
    device.hold = True
    tokens = [driver.add(0, text, [1]) for text in (b"a", b"b", b"c")]
    driver.kick(0)
    queue = device.queues[0]
    second = list(queue._in_flight.values())[1]
    queue.push(second, second.write(b"B"))
    _, twin = restored(driver, ring)
    assert twin.run_timers() == 1
    assert twin.used(0) == [(tokens[1], b"B"), (tokens[0], b"a"), (tokens[2], b"c")]


def test_a_turn_that_was_to_come_comes() -> None:
    driver = Driver(Echo(8, 8))
    token = driver.add(1, b"a", [1])
    driver.device.serve_later(1)
    _, twin = restored(driver, {})
    twin.run_timers()
    assert twin.used(1) == [(token, b"a")]


def chain_state(driver: Driver) -> SavedState:
    driver.device.hold = True
    driver.add(0, b"a", [1])
    driver.kick(0)
    return driver.mmio.save()


@pytest.mark.parametrize(
    ("packed", "path", "value", "message"),
    [
        (False, ["chip", "waiting"], [2], "echo: saved field 'waiting' names queue 2; 1 queues"),
        (
            False,
            ["chip", "queues", "0", "in_flight"],
            5,
            "split-queue: saved field 'in_flight' is not a list of chains",
        ),
        (
            False,
            ["chip", "queues", "0", "in_flight"],
            [[0, 1]],
            "split-queue: saved field 'in_flight' holds what is no chain",
        ),
        (
            False,
            ["chip", "queues", "0", "in_flight"],
            [[0, 1, 1, 0, 1 << 40]],
            "split-queue: saved field 'in_flight' holds a chain of 1099511627776 bytes",
        ),
        (
            False,
            ["chip", "queues", "0", "size"],
            7,
            "split-queue: saved state of no queue: queue 0: size 7 is not a power of two",
        ),
        (
            True,
            ["chip", "queues", "0", "next_used"],
            8,
            "packed-queue: saved state of no queue: queue 0: counters beyond its size of 8",
        ),
        (
            True,
            ["chip", "queues", "0", "in_flight"],
            [[0, 9, 0]],
            "packed-queue: saved state of no queue: queue 0: counters beyond its size of 8",
        ),
        (False, ["chip", "type"], None, "echo: saved field 'type' is None; expected a saved state"),
        (
            False,
            ["queue_sel"],
            -1,
            "virtio-mmio: saved field 'queue_sel' is -1; expected an integer from 0 to 4294967295",
        ),
    ],
)
def test_states_that_are_none(packed: bool, path: list[str], value: Any, message: str) -> None:
    driver = Driver(Echo(8), packed)
    state = part = chain_state(driver)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    twin = Driver(Echo(8), packed)
    with pytest.raises(SnapshotError, match=exactly(message)):
        twin.mmio.load(state)
