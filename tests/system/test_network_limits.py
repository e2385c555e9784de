"""Debian's network cards keep their limits: rate and burst, bytes and packets, in both directions.

On a virtual clock and a wire of the test's own, so that the numbers are the same every time; and between two guests on
a network of the host's.
"""

from collections.abc import Iterator

import pytest
from guests import BOOTED, command
from network_guests import boot, create, serve_sums, set_address

from emuvisor.bus.ethernet import Offload, Station
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.devices.limits import NicLimits, Rate
from emuvisor.host import Host
from emuvisor.images.cache import Image
from emuvisor.machine.config import GuestConfig, KernelConfig, NicConfig
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.net.config import NetworkConfig
from emuvisor.units import KIB, MIB, NS_PER_S

pytestmark = pytest.mark.system

TOLERANCE = 0.02
SECONDS = 5
SLICE = 2_000_000
SLICES = 20_000
MAC, PEER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
FIRST, SECOND = "192.0.2.1", "192.0.2.2"
HEADERS = 14 + 20 + 8
"""Bytes of Ethernet, IPv4 and ICMP in front of a payload."""
PAYLOAD = 1000
FRAME = HEADERS + PAYLOAD
BYTES = Rate(100 * FRAME, 50 * FRAME)
PACKETS = Rate(200, 100)


class Wire:
    """The other end of the card, in the guest's thread: notes what the guest sends and when; sends as it is told."""

    up = True
    mtu = 1500

    def __init__(self) -> None:
        self.machine: Machine
        self.sent: list[tuple[int, int]] = []
        """Time and bytes of each frame that the guest sent."""

    def attach(self, station: Station) -> None:
        self.station = station

    def send(self, frame: bytes, offload: Offload | None = None) -> None:
        self.sent.append((self.machine.clock.now_ns(), len(frame)))

    def flood(self, frames_per_s: int, seconds: int) -> None:
        """Send the guest so many frames from now on."""
        clock = self.machine.clock
        frame = bytes.fromhex((MAC + PEER_MAC).replace(":", "")) + b"\x88\xb5" + bytes(FRAME - 14)
        gap = NS_PER_S // frames_per_s
        end = clock.now_ns() + seconds * NS_PER_S

        def one(deadline_ns: int) -> None:
            self.station.receive(frame, None)
            if deadline_ns + gap < end:
                timer.arm(deadline_ns + gap)

        timer = clock.timer(one, "flood")
        timer.arm(clock.now_ns())


class Lab:
    """A Debian guest on the virtual clock, run in this thread; its card is on `wire`."""

    def __init__(self, image: Image) -> None:
        config = GuestConfig(
            clock="host",
            memory=128 * MIB,
            nics=(NicConfig("lab", mac=MAC),),
            kernel=KernelConfig(image.path / "vmlinuz", image.initrd, image.append),
        )
        # A network takes the host's time, but this one is in the guest's thread.
        object.__setattr__(config, "clock", "virtual")
        pool = FramePool(192 * MIB)
        self.wire = Wire()
        self.machine = self.wire.machine = Machine(config, pool, [self.wire])
        self.pcpu = Pcpu(pool, self.machine.model)
        self.machine.boot()
        self.wait(BOOTED)
        assert self.machine.virtio is not None
        (self.card,) = self.machine.virtio.nics

    def wait(self, text: str) -> None:
        found: list[None] = []
        self.machine.console.watch(text, lambda: found.append(None))
        for _ in range(SLICES):
            activity = self.machine.run_slice(self.pcpu, SLICE)
            if found:
                return
            assert activity.readiness is Readiness.RUNNABLE, (activity, self.machine.console.text[-2000:])
        pytest.fail(f"no {text!r}\n{self.machine.console.text[-2000:]}")

    def command(self, line: str) -> str:
        self.machine.console.feed(f"echo '<be''gin>'; {line}; echo '<e''nd>'\n".encode())
        self.wait("<end>")
        return (
            self.machine.console.text.replace("\r", "")
            .rpartition("<begin>\n")[2]
            .partition("<end>")[0]
            .strip()
        )

    def limit(self, **rates: Rate) -> None:
        """These limits and no others, with full buckets."""
        throttle, now = self.card.meter.throttle, self.machine.clock.now_ns()
        throttle.change(NicLimits(), now)
        throttle.change(NicLimits(**rates), now)

    def received(self) -> list[int]:
        """What the guest's driver has counted: packets and bytes."""
        path = "/sys/class/net/eth0/statistics/rx_"
        return [int(number) for number in self.command(f"cat {path}packets {path}bytes").split()]


@pytest.fixture(scope="module")
def lab(debian: Image) -> Iterator[Lab]:
    lab = Lab(debian)
    lab.command(f"ip link set eth0 up; ip addr add {FIRST}/24 dev eth0; arp -s {SECOND} {PEER_MAC}")
    yield lab
    lab.machine.close()


def ping(count: int) -> str:
    """Send many frames, a thousand in a second; nobody answers."""
    return f"ping -s {PAYLOAD} -i 0.001 -c {count} {SECOND} >/dev/null 2>&1"


def cost(limit: Rate, frames: int, size: int) -> int:
    """What so many frames take of a limit."""
    return frames * size if limit is BYTES else frames


def check_rate(wire: Wire, limit: Rate) -> int:
    """What the guest sent never passes the limit, and behind the first second is at most TOLERANCE below it; returns
    for how long it sent, in nanoseconds."""
    times = [at for at, size in wire.sent if size == FRAME]
    for number, at in enumerate(times, 1):
        allowed = limit.capacity + limit.per_second * (at - times[0]) / NS_PER_S
        assert cost(limit, number, FRAME) <= allowed + 1
        if at > times[0] + NS_PER_S:  # by then the burst is used up
            assert cost(limit, number, FRAME) >= (1 - TOLERANCE) * allowed, number
    return times[-1] - times[0]


@pytest.mark.parametrize(("name", "limit"), [("out_bytes", BYTES), ("out_packets", PACKETS)])
def test_what_the_guest_sends(lab: Lab, name: str, limit: Rate) -> None:
    lab.limit(**{name: limit})
    lab.wire.sent.clear()
    # It ends when the card's queue, and the one in front of it, are full.
    lab.command(f"while :; do {ping(1000)}; done & sleep {SECONDS}; kill $!; killall ping")
    sent = check_rate(lab.wire, limit)
    assert sent > 0.95 * SECONDS * NS_PER_S
    throttled = lab.card.meter.as_dict()["throttled"]
    assert throttled["count"] >= limit.per_second * SECONDS // (FRAME if limit is BYTES else 1)


@pytest.mark.parametrize(("name", "limit"), [("in_bytes", BYTES), ("in_packets", PACKETS)])
def test_what_comes_in(lab: Lab, name: str, limit: Rate) -> None:
    lab.limit(**{name: limit})
    before = lab.received()
    dropped = lab.card.dropped.get("over the card's limit", 0)
    lab.wire.flood(3 * PACKETS.per_second, SECONDS)
    # What still waits at the end of the flood comes when there are tokens for it.
    lab.command(f"sleep {SECONDS - 0.2}")
    packets, size = (after - was for after, was in zip(lab.received(), before, strict=True))
    assert size == packets * FRAME
    expected = limit.capacity + limit.per_second * (SECONDS - 0.2)
    assert cost(limit, packets, FRAME) == pytest.approx(expected, rel=TOLERANCE)
    assert lab.card.dropped["over the card's limit"] > dropped
    lab.command(f"sleep {2 * SECONDS}")


def test_limits_of_several_kinds_and_none(lab: Lab) -> None:
    """The one that is reached first counts; lifted, all passes."""
    few = Rate(20, 1)
    lab.limit(out_bytes=Rate(10 * BYTES.per_second), out_packets=few)
    lab.wire.sent.clear()
    lab.command(ping(100) + "& sleep 4; kill $!")
    assert check_rate(lab.wire, few) > 3.9 * NS_PER_S
    lab.limit()
    lab.command("sleep 10")
    lab.wire.sent.clear()
    lab.command(ping(100) + "& sleep 0.5; kill $!")
    assert sum(size == FRAME for _, size in lab.wire.sent) == 100


def test_two_guests_on_a_network(debian: Image) -> None:
    """TCP finds the rate, in either direction, and another one while it runs; on a host whose clock is virtual, so that
    it does not matter what else the machine does."""
    rate, size = 512 * KIB, 2 * MIB
    with Host(512 * MIB, pcpus=2, clock="virtual") as host:
        host.add_network(NetworkConfig("lan"))
        first, second = (
            create(host, debian, name, NicConfig("lan"), clock="virtual") for name in ("first", "second")
        )
        boot(first, second)
        set_address(first, FIRST)
        set_address(second, SECOND)
        serve_sums(second)
        now = "cut -d' ' -f1 /proc/uptime"
        send = f"{now}; dd if=/dev/zero bs=64k count={size >> 16} 2>/dev/null | nc {SECOND} 5001 > /dev/null; {now}"

        def took() -> float:
            start, end = command(first, send).split()
            return float(end) - float(start)

        for guest, name in ((first, "out_bytes"), (second, "in_bytes")):
            guest.set_nic_limits(0, **{name: Rate(rate, 64 * KIB)})
            least = (size - 64 * KIB) / rate
            slow = took()
            assert least * (1 - TOLERANCE) < slow < 2 * least, name
            guest.set_nic_limits(0, **{name: Rate(8 * rate, 64 * KIB)})
            assert took() < least, name
            guest.set_nic_limits(0, **{name: None})
        (nic,) = first.statistics().nics
        assert nic["latency"]["throttled"]["count"] > 0
        assert second.statistics().nics[0]["latency"]["received"]["count"] > size // 65536
