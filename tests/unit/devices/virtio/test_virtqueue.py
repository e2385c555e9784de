"""Both kinds of virtqueue through a driver: chains in and out, events, and random traffic against a model."""

import pytest
from driver import RING_IDS, RINGS, RINGS_AT, RINGS_SIZE, Driver
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.virtio import mmio
from emuvisor.devices.virtio.chain import Chain, cut
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

every_ring = pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)


class Echo(VirtioDevice):
    """Answers what it is asked; with `hold`, not before `answer`."""

    device_id = 42

    def __init__(self, *sizes: int, hold: bool = False) -> None:
        super().__init__(name="echo", queue_sizes=sizes or (64,))
        self.hold = hold
        self.held: list[Chain] = []

    def notified(self, index: int) -> None:
        self.serve(self.queues[index], self._take)

    def _take(self, chain: Chain) -> int | None:
        if self.hold:
            self.held.append(chain)
            return None
        return chain.write(chain.read())

    def answer(self, place: int) -> None:
        chain = self.held.pop(place)
        queue = self.queues[0]
        queue.push(chain, chain.write(chain.read()))
        queue.notify()


@every_ring
def test_requests_around_the_ring(ring: dict[str, bool]) -> None:
    driver = Driver(Echo(8), **ring)
    for i in range(40):
        question = [bytes([i]) * 3, b"\x55" * i]
        assert driver.request(0, question, [5, 100]) == b"".join(question)
    assert driver.interrupts == 40


@every_ring
def test_a_batch_is_one_interrupt(ring: dict[str, bool]) -> None:
    driver = Driver(Echo(), **ring)
    tokens = [driver.add(0, b"%d" % i, [8]) for i in range(20)]
    driver.kick(0)
    assert driver.interrupts == 1
    assert driver.used(0) == [(token, b"%d" % i) for i, token in enumerate(tokens)]
    driver.kick(0)
    assert driver.interrupts == 1, "nothing new"


@every_ring
def test_the_driver_may_not_want_interrupts(ring: dict[str, bool]) -> None:
    driver = Driver(Echo(), **ring)
    driver.ask_for_interrupt(0, False)
    driver.add(0, b"a", [1])
    driver.kick(0)
    assert (driver.interrupts, len(driver.used(0))) == (0, 1)
    driver.ask_for_interrupt(0, True)
    driver.add(0, b"b", [1])
    driver.kick(0)
    assert driver.interrupts == 1


@pytest.mark.parametrize("packed", [False, True])
def test_the_driver_waits_for_a_certain_one(packed: bool) -> None:
    driver = Driver(Echo(16), packed)
    for turn in range(10):
        driver.ask_for_interrupt(0, after=2)
        for i in range(3):
            driver.add(0, b"x", [1])
            driver.kick(0)
            assert driver.interrupts == turn + (i == 2)
        assert len(driver.used(0)) == 3


@every_ring
def test_the_device_asks_to_be_told_of_the_next(ring: dict[str, bool]) -> None:
    driver = Driver(Echo(8), **ring)
    driver.kick(0)
    for _ in range(20):
        driver.add(0, b"x", [1])
        assert driver.wants_kick(0)
        driver.kick(0)
        driver.used(0)


@every_ring
def test_answers_out_of_order(ring: dict[str, bool]) -> None:
    device = Echo(8, hold=True)
    driver = Driver(device, **ring)
    for _ in range(6):
        first, second = (driver.add(0, text, [8]) for text in (b"first", b"second"))
        driver.kick(0)
        device.answer(1)
        assert driver.used(0) == [(second, b"second")]
        device.answer(0)
        assert driver.used(0) == [(first, b"first")]


@every_ring
def test_a_chain_goes_back_and_comes_again(ring: dict[str, bool]) -> None:
    device = Echo(hold=True)
    driver = Driver(device, **ring)
    for text in (b"a", b"b"):
        driver.add(0, text, [1])
    queue = device.queues[0]
    first, second = queue.pop(), queue.pop()
    assert first is not None
    assert second is not None
    assert not queue.available
    queue.unpop(second)
    queue.unpop(first)
    assert queue.available
    assert queue.pop() is first
    assert queue.pop() is second
    assert queue.pop() is None


@every_ring
def test_a_chain_of_before_a_reset_is_not_answered(ring: dict[str, bool]) -> None:
    device = Echo(8, hold=True)
    driver = Driver(device, **ring)
    driver.add(0, b"old", [8])
    driver.kick(0)
    (old,) = device.held
    driver.set(mmio.QUEUE_RESET, 1)
    driver.enable(0)
    new = driver.add(0, b"new", [8])
    driver.kick(0)
    device.queues[0].push(old, 3)
    device.answer(1)
    assert driver.used(0) == [(new, b"new")]


def test_a_chain_is_read_and_written_in_pieces() -> None:
    device = Echo(hold=True)
    driver = Driver(device)
    token = driver.add(0, [b"abc", b"defgh"], [2, 4])
    driver.kick(0)
    (chain,) = device.held
    assert (chain.readable_length, chain.writable_length) == (8, 6)
    assert chain.read(2, 3) == b"cde"
    assert chain.read(7, 9) == b"h"
    assert chain.read(8) == chain.read(0, 0) == b""
    assert [bytes(v) for v in chain.readable_views(1)] == [b"bc", b"defgh"]
    assert [bytes(v) for v in chain.readable_views(3, 2)] == [b"de"]
    assert chain.write(b"123456789", 1) == 5
    assert chain.write(b"x", 6) == 0
    (view,) = chain.writable_views(0, 1)
    view[:] = b"0"
    device.queues[0].push(chain, 6)
    assert driver.used(0) == [(token, b"012345")]


@given(st.lists(st.integers(1, 9), max_size=5), st.integers(0, 50), st.none() | st.integers(0, 50))
def test_cutting_is_slicing(sizes: list[int], offset: int, length: int | None) -> None:
    parts = [(100 * i, size) for i, size in enumerate(sizes)]
    flat = [gpa + i for gpa, size in parts for i in range(size)]
    expected = flat[offset:] if length is None else flat[offset : offset + length]
    assert [gpa + i for gpa, size in cut(parts, offset, length) for i in range(size)] == expected


@pytest.mark.parametrize("packed", [False, True])
def test_rings_whose_pages_are_no_neighbours(packed: bool) -> None:
    """With 1024 descriptors, elements of a used ring lie across pages, too."""
    memory = GuestMemory(FramePool(64 * MIB), [(0, 64 * MIB)])
    for gpa in range(RINGS_AT + RINGS_SIZE - PAGE_SIZE, RINGS_AT - PAGE_SIZE, -PAGE_SIZE):
        memory.place(gpa // PAGE_SIZE, True)
    device = Echo(1024)
    driver = Driver(device, packed, memory, indirect=False)
    for _ in range(5):
        tokens = [driver.add(0, b"%d" % i, [4]) for i in range(250)]
        driver.kick(0)
        assert driver.used(0) == [(token, b"%d" % i) for i, token in enumerate(tokens)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_clone_and_its_original_use_their_rings_apart(packed: bool) -> None:
    device = Echo(8)
    driver = Driver(device, packed)
    for _ in range(5):
        driver.request(0, b"common", [6])
    twin_memory = driver.memory.clone()
    before = twin_memory.read(RINGS_AT, RINGS_SIZE)
    assert driver.request(0, b"original", [8]) == b"original"
    assert twin_memory.read(RINGS_AT, RINGS_SIZE) == before


def test_used_elements_are_in_the_dirty_log_in_each_round() -> None:
    driver = Driver(Echo(8))
    driver.memory.start_log()
    for _ in range(2):
        driver.add(0, b"x", [1])
        driver.memory.collect_log()
        driver.kick(0)
        used = driver.rings[0].device_area // PAGE_SIZE
        assert used in driver.memory.collect_log().tolist()


class Ears:
    def __init__(self) -> None:
        self.frames: set[int] = set()

    def changed(self, frame: int, offset: int, length: int, /) -> None:
        self.frames.add(frame)


@pytest.mark.parametrize("packed", [False, True])
def test_code_where_a_ring_is_now_is_forgotten(packed: bool) -> None:
    driver = Driver(Echo(8), packed)
    ring = driver.rings[0]
    area = ring.descriptors if packed else ring.device_area
    frame = driver.memory.place(area // PAGE_SIZE, True) // PAGE_SIZE
    driver.add(0, b"x", [1])
    driver.memory.pool.fetched[frame] = 1
    driver.memory.pool.users = ears = Ears()
    driver.kick(0)
    assert ears.frames == {frame}


TRAFFIC = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.binary(min_size=1, max_size=40), max_size=3),
            st.lists(st.integers(1, 40), min_size=1, max_size=3),
        ),
        st.tuples(st.just("kick"), st.just([]), st.just([])),
        st.tuples(st.just("answer"), st.just([]), st.lists(st.integers(0, 9), min_size=1, max_size=1)),
        st.tuples(st.just("collect"), st.just([]), st.just([])),
    ),
    max_size=60,
)


@every_ring
@settings(max_examples=50, deadline=None)
@given(traffic=TRAFFIC)
def test_any_traffic_against_a_model(
    ring: dict[str, bool], traffic: list[tuple[str, list[bytes], list[int]]]
) -> None:
    device = Echo(8, hold=True)
    driver = Driver(device, **ring)
    room, available, held, answered = 8, [], [], []
    for action, out, numbers in traffic:
        cost = 1 if driver.indirect else len(out) + len(numbers)
        if action == "add" and cost <= room:
            room -= cost
            answer = b"".join(out)[: sum(numbers)]
            available.append((driver.add(0, out, numbers), answer, cost))
        elif action == "kick":
            driver.kick(0)
            held, available = held + available, []
        elif action == "answer" and held:
            place = numbers[0] % len(held)
            device.answer(place)
            answered.append(held.pop(place))
        elif action == "collect":
            assert driver.used(0) == [(token, answer) for token, answer, _ in answered]
            room += sum(cost for *_, cost in answered)
            answered = []
    assert device.failure is None
