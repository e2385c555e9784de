"""Virtio disks and network cards keep to their limits: requests wait in flight, frames are policed."""

import errno
from struct import pack

import pytest
from driver import Driver
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_fakes import FakeDisk

from emuvisor.bus.ethernet import Offload, Station
from emuvisor.devices.limits import DiskLimits, NicLimits, Rate
from emuvisor.devices.storage.meter import DiskMeter
from emuvisor.devices.virtio.blk import Blk
from emuvisor.devices.virtio.blk import RequestType as Type
from emuvisor.devices.virtio.net import Net
from emuvisor.devices.virtio.net.device import MAX_FRAME, CardDrop
from emuvisor.devices.virtio.net.meter import MIN_QUEUE_FRAMES
from emuvisor.devices.virtio.net.steering import Steering
from emuvisor.errors import OutOfFrames, SnapshotError
from emuvisor.units import KIB, NS_PER_MS, NS_PER_S

SECTORS = 4096
FULL = OSError(errno.ENOSPC, "No space left on device")


class LimitedDisk(Driver):
    """A disk with limits on a clock that stands still until `run`."""

    def __init__(self, limits: DiskLimits, queues: int = 1, **options: bool) -> None:
        self.disk = FakeDisk(SECTORS)
        self.queues = queues
        self.limits = limits
        super().__init__(self.new_device(), **options)

    def new_device(self) -> Blk:
        return Blk(self.disk, name="blk0", serial="S", queues=self.queues, meter=DiskMeter(self.limits))

    def ask(self, kind: Type, size: int = 0, queue: int = 0) -> int:
        """Make a request without waiting for it; returns its token."""
        out, back = (bytes(size), 0) if kind == Type.OUT else (b"", size)
        token = self.add(queue, [pack("<IIQ", kind, 0, 0), out], [back, 1])
        self.kick(queue)
        return token

    def done(self, queue: int = 0) -> list[int]:
        return [token for token, _ in self.used(queue)]

    def run(self, until_ns: int) -> None:
        """Let the time pass, timer by timer."""
        while (deadline := self.clock.next_deadline_ns()) is not None and deadline <= until_ns:
            self.clock.skip(deadline - self.clock.now_ns())
            self.clock.fire_due()
        self.clock.skip(until_ns - self.clock.now_ns())


@pytest.mark.parametrize("packed", [False, True])
def test_a_read_waits_in_flight_for_its_tokens(packed: bool) -> None:
    driver = LimitedDisk(DiskLimits(read_bytes=Rate(10 * KIB, KIB)), packed=packed)
    first, second = driver.ask(Type.IN, KIB), driver.ask(Type.IN, 512)
    assert driver.done() == [first]
    driver.run(50 * NS_PER_MS - 1)
    assert driver.done() == []
    driver.run(50 * NS_PER_MS)
    assert driver.interrupts == 2
    assert driver.done() == [second]
    meter = driver.device.meter
    assert (meter.read.count, meter.throttled.count) == (2, 1)
    assert meter.as_dict()["latency"]["throttled"]["max_ns"] == 50 * NS_PER_MS
    assert driver.clock.next_deadline_ns() is None


def test_one_direction_does_not_stop_the_other_nor_a_flush() -> None:
    driver = LimitedDisk(DiskLimits(read_iops=Rate(10, 1)))
    reads = [driver.ask(Type.IN, 512) for _ in range(3)]
    others = [driver.ask(Type.OUT, 512), driver.ask(Type.FLUSH), driver.ask(Type.GET_ID, 20)]
    assert driver.done() == [reads[0], *others]
    driver.run(NS_PER_S)
    assert driver.done() == reads[1:]


def test_a_total_lets_nobody_overtake() -> None:
    driver = LimitedDisk(DiskLimits(total_bytes=Rate(10 * KIB, KIB)), queues=2)
    large = [driver.ask(Type.OUT, 8 * KIB), driver.ask(Type.OUT, 8 * KIB)]
    small = [driver.ask(Type.IN, 512, queue=1) for _ in range(3)]
    assert (driver.done(), driver.done(1)) == (large[:1], [])
    driver.run(800 * NS_PER_MS - 1)
    assert (driver.done(), driver.done(1)) == ([], [])
    driver.run(800 * NS_PER_MS)  # the debt is paid and the bucket full
    assert (driver.done(), driver.done(1)) == (large[1:], [])
    driver.run(2 * NS_PER_S)
    assert driver.done(1) == small


def test_zeroes_count_as_what_they_are_and_a_discard_as_an_operation() -> None:
    driver = LimitedDisk(DiskLimits(write_bytes=Rate(KIB, KIB), write_iops=Rate(1, 10)))
    for kind, sectors in ((Type.WRITE_ZEROES, 4), (Type.DISCARD, 4), (Type.WRITE_ZEROES, 1 << 31)):
        driver.add(0, [pack("<IIQ", kind, 0, 0), pack("<QII", 0, sectors, 0)], [1])
    driver.kick(0)
    assert [answer for _, answer in driver.used(0)] == [b"\0"]
    driver.run(NS_PER_S)  # a discard has no bytes, but waits for the debt
    assert [answer for _, answer in driver.used(0)] == [b"\0"]
    driver.run(2 * NS_PER_S - 1)
    assert driver.used(0) == []
    driver.run(2 * NS_PER_S)
    assert [answer for _, answer in driver.used(0)] == [b"\1"]


def test_a_request_that_is_longer_than_the_disk_costs_no_more_than_the_disk() -> None:
    driver = LimitedDisk(DiskLimits(read_bytes=Rate(SECTORS * 512, KIB)))
    header, data = driver.buffer(pack("<IIQ", Type.IN, 0, 0)), driver.buffer(256 * KIB)
    first = driver.add_parts(0, [header], [*[data] * 100, driver.buffer(1)])  # 25 MiB of a disk of 2 MiB
    driver.kick(0)
    assert driver.done() == [first]
    assert driver.device.statistics.errors == 1
    second = driver.ask(Type.IN, KIB)
    driver.run(NS_PER_S - 1)
    assert driver.done() == []
    driver.run(NS_PER_S)
    assert driver.done() == [second]


def test_limits_change_while_requests_wait() -> None:
    driver = LimitedDisk(DiskLimits(read_bytes=Rate(1, 512)))
    tokens = [driver.ask(Type.IN, 512) for _ in range(4)]
    assert driver.done() == tokens[:1]
    throttle = driver.device.meter.throttle
    throttle.change(DiskLimits(read_bytes=Rate(512, 512)), 0)
    driver.run(NS_PER_S)
    assert driver.done() == tokens[1:2]
    throttle.change(DiskLimits(), NS_PER_S)
    driver.run(NS_PER_S)
    assert driver.done() == tokens[2:]
    assert driver.done() == []
    last = driver.ask(Type.IN, 512)
    assert driver.done() == [last]


def test_waiting_requests_are_saved_with_the_tokens() -> None:
    driver = LimitedDisk(DiskLimits(read_bytes=Rate(KIB, 512)))
    tokens = [driver.ask(Type.IN, 512) for _ in range(3)]
    driver.run(250 * NS_PER_MS)
    driver.take_over(driver.new_device())
    driver.run(500 * NS_PER_MS - 1)
    assert driver.done() == tokens[:1]
    driver.run(500 * NS_PER_MS)
    assert driver.done() == tokens[1:2]
    driver.run(NS_PER_S)
    assert driver.done() == tokens[2:]
    state = driver.device.save()
    del state["type"]["tokens"]
    with pytest.raises(SnapshotError) as error:
        driver.device.load(state)
    assert str(error.value) == "virtio-blk: saved field 'tokens' is None; expected a saved state"


def test_resets_forget_what_waits() -> None:
    driver = LimitedDisk(DiskLimits(read_iops=Rate(1, 1)), queues=2)
    tokens = [driver.ask(Type.IN, 512, queue=queue) for queue in (0, 0, 1, 1)]
    assert driver.done() == tokens[:1]
    driver.device.reset_queue(0)
    driver.run(NS_PER_S)
    assert driver.done(1) == tokens[2:3]
    driver.setup()
    assert driver.clock.next_deadline_ns() is None
    driver.run(9 * NS_PER_S)
    assert driver.disk.bytes == FakeDisk(SECTORS).bytes
    assert driver.device.meter.read.count == 2


def test_a_host_that_is_full_costs_no_tokens_twice() -> None:
    driver = LimitedDisk(DiskLimits(write_iops=Rate(1, 1)))
    driver.disk.full = FULL
    tokens = [driver.ask(Type.OUT, 512), driver.ask(Type.OUT, 512)]
    assert len(driver.suspensions) == 2  # for the first one, which each notification tries again
    driver.disk.full = None
    driver.run_timers()
    assert driver.done() == tokens[:1]
    driver.disk.full = FULL
    driver.clock.skip(NS_PER_S)
    driver.clock.fire_due()  # it has its turn, and the host is full again
    assert (driver.done(), len(driver.suspensions)) == ([], 3)
    driver.disk.full = None
    driver.run_timers()
    assert driver.done() == tokens[1:]


def test_a_want_of_frames_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = LimitedDisk(DiskLimits(read_iops=Rate(1, 1)))
    tokens = [driver.ask(Type.IN, 512) for _ in range(3)]
    assert driver.done() == tokens[:1]
    with monkeypatch.context() as patch:

        def starve(*_: object) -> None:
            raise OutOfFrames("none")

        patch.setattr(driver.disk, "read_into", starve)
        driver.clock.skip(NS_PER_S)
        with pytest.raises(OutOfFrames):
            driver.clock.fire_due()
    driver.run_timers()
    assert driver.done() == tokens[1:2]
    driver.run(2 * NS_PER_S)
    assert driver.done() == tokens[2:]


def test_without_memory_the_request_waits_for_the_driver() -> None:
    driver = LimitedDisk(DiskLimits(read_iops=Rate(1, 1)))
    tokens = [driver.ask(Type.IN, 512), driver.ask(Type.IN, 512)]
    driver.device.queues[0].live = False
    driver.run(NS_PER_S)
    driver.device.queues[0].live = True
    assert driver.done() == tokens[:1]
    driver.kick(0)
    driver.run(2 * NS_PER_S)
    assert driver.done() == tokens[1:]


def test_lifting_a_limit_does_not_do_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.devices.virtio.throttled.BYTES_PER_TURN", KIB)
    driver = LimitedDisk(DiskLimits(read_iops=Rate(1, 1)))
    tokens = [driver.ask(Type.IN, 512) for _ in range(6)]
    driver.device.meter.throttle.change(DiskLimits(), 0)
    for wanted in (tokens[:3], tokens[3:5], tokens[5:]):
        driver.clock.fire_due()
        assert driver.done() == wanted


@settings(max_examples=25)
@given(
    st.integers(20 * KIB, 200 * KIB),
    st.integers(1, 8 * KIB),
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 12)), min_size=4, max_size=30),
)
def test_any_pattern_of_reads_keeps_the_rate_and_the_burst(
    rate: int, burst: int, pattern: list[tuple[int, int]]
) -> None:
    driver = LimitedDisk(DiskLimits(read_bytes=Rate(rate, burst)))
    sizes: dict[int, int] = {}
    passed = now = 0
    for pause_ms, sectors in pattern:
        now += pause_ms * NS_PER_MS
        driver.run(now)
        sizes[driver.ask(Type.IN, sectors * 512)] = sectors * 512
        passed += sum(sizes[token] for token in driver.done())
        # Two requests may exceed a full bucket: the one that made the debt, and none before it is paid.
        assert passed * NS_PER_S <= (burst + max(sizes.values())) * NS_PER_S + rate * now
    total, busy_since = sum(sizes.values()), now
    while passed < total:
        deadline = driver.clock.next_deadline_ns()
        assert deadline is not None
        now = deadline
        driver.run(now)
        passed += sum(sizes[token] for token in driver.done())
    # From the moment when all was asked for, the rest comes as fast as the rate allows.
    assert (now - busy_since) * rate <= (total + burst) * NS_PER_S * 1.001


# ---- network cards ----

MAC = bytes.fromhex("525400000001")
RX, TX = 0, 1
FRAME = MAC + bytes.fromhex("525400000002") + b"\x88\xb5" + bytes(986)


class FakeLink:
    def __init__(self) -> None:
        self.up = True
        self.mtu = 1500
        self.sent: list[bytes] = []
        self.station: Station

    def attach(self, station: Station) -> None:
        self.station = station

    def send(self, frame: bytes, offload: Offload | None = None) -> None:
        self.sent.append(frame)


class LimitedCard(LimitedDisk):
    def __init__(self, limits: NicLimits, pairs: int = 1) -> None:
        self.link = FakeLink()
        self.net = Net(
            name="net0",
            mac=MAC,
            link=self.link,
            queue_pairs=pairs,
            limits=limits,
            call_soon=lambda function: function(),
        )
        Driver.__init__(self, self.net)

    def send(self, queue: int = TX) -> None:
        self.add(queue, [bytes(12), FRAME])
        self.kick(queue)

    def arrive(self, frame: bytes = FRAME) -> bool:
        return self.link.station.receive(frame, None)

    def buffers(self, count: int, queue: int = RX) -> None:
        for _ in range(count):
            self.add(queue, in_sizes=[2000])
        self.kick(queue)


def test_what_the_guest_sends_waits_in_its_queue() -> None:
    card = LimitedCard(NicLimits(out_bytes=Rate(10_000, 2000)))
    for _ in range(5):
        card.send()
    assert (len(card.link.sent), len(card.used(TX))) == (2, 2)
    card.run(100 * NS_PER_MS)
    assert (len(card.link.sent), len(card.used(TX))) == (3, 1)
    card.run(NS_PER_S)
    assert len(card.link.sent) == 5
    latency = card.net.meter.as_dict()
    assert (latency["sent"]["count"], latency["throttled"]["count"]) == (5, 3)
    assert latency["throttled"]["max_ns"] == 300 * NS_PER_MS


def test_a_frame_that_is_longer_than_any_costs_no_more_than_the_longest() -> None:
    card = LimitedCard(NicLimits(out_bytes=Rate(10 * MAX_FRAME, MAX_FRAME)))
    card.add_parts(TX, [card.buffer(64 * KIB)] * 16, [])
    card.kick(TX)
    assert card.net.dropped == {CardDrop.BAD_LENGTH: 1}
    card.send()
    card.run(NS_PER_S // 10)
    assert len(card.link.sent) == 1


def test_what_comes_in_waits_and_is_dropped_when_it_is_too_much() -> None:
    card = LimitedCard(NicLimits(in_packets=Rate(10, 1)))
    card.buffers(200)
    taken = [card.arrive() for _ in range(MIN_QUEUE_FRAMES + 4)]
    assert taken == [True] * (MIN_QUEUE_FRAMES + 1) + [False] * 3
    assert card.net.dropped == {CardDrop.LIMITED: 3}
    assert len(card.used(RX)) == 1
    card.run(NS_PER_S)
    assert len(card.used(RX)) == 10
    card.run(60 * NS_PER_S)
    assert len(card.used(RX)) == MIN_QUEUE_FRAMES - 10
    assert card.net.meter.received.count == MIN_QUEUE_FRAMES + 1
    assert card.clock.next_deadline_ns() is None
    assert card.arrive()
    assert len(card.used(RX)) == 1


def test_bytes_that_come_in_are_bounded_too() -> None:
    card = LimitedCard(NicLimits(in_bytes=Rate(10_000, 1000)))
    card.buffers(200)
    taken = sum(card.arrive() for _ in range(200))
    assert taken == 1 + 128 * KIB // 1000
    assert card.net.dropped == {CardDrop.LIMITED: 200 - taken}


def test_frames_without_a_buffer_cost_no_tokens() -> None:
    card = LimitedCard(NicLimits(in_packets=Rate(1, 1)))
    assert card.arrive()
    card.run(NS_PER_S)
    card.buffers(1)
    assert len(card.used(RX)) == 1


def test_limits_of_a_card_change_while_frames_wait() -> None:
    card = LimitedCard(NicLimits(in_packets=Rate(1, 1), out_packets=Rate(1, 1)))
    card.buffers(20)
    for _ in range(4):
        card.arrive()
        card.send()
    assert (len(card.used(RX)), len(card.link.sent)) == (1, 1)
    card.net.meter.throttle.change(NicLimits(), 0)
    card.run_timers()
    assert (len(card.used(RX)), len(card.link.sent)) == (3, 4)
    assert all(card.arrive() for _ in range(16))


class ByLastByte(Steering):
    def pair_for(self, frame: bytes) -> int:
        return frame[-1] & 1


def test_pairs_take_turns() -> None:
    card = LimitedCard(NicLimits(in_bytes=Rate(10_000, 1000)), pairs=2)
    card.net.set_pairs(2)
    for queue in (0, 2):
        card.buffers(50, queue)
    card.net._inbox.steering = ByLastByte()
    for number in range(20):  # long ones for pair 0, short ones for pair 1
        card.arrive(FRAME[:-1] + b"\0" if number % 2 else FRAME[:99] + b"\1")
    card.run(NS_PER_S // 2)
    long, short = len(card.used(0)), len(card.used(2))
    assert min(long, short) >= 4, (long, short)
    card.run(2 * NS_PER_S)
    assert (long + len(card.used(0)), short + len(card.used(2))) == (10, 10)


def test_a_card_is_saved_while_it_waits() -> None:
    limits = NicLimits(out_packets=Rate(1, 1), in_packets=Rate(1, 1))
    card = LimitedCard(limits)
    card.buffers(4)
    for _ in range(2):
        card.send()
        card.arrive()
    again = Net(name="net0", mac=MAC, link=card.link, limits=limits, call_soon=lambda function: function())
    card.take_over(again)
    card.run(NS_PER_S - 1)
    assert len(card.link.sent) == 1
    card.run(NS_PER_S)
    assert len(card.link.sent) == 2
    card.device.reset_queue(TX)
    card.setup()
    assert card.clock.next_deadline_ns() is None
