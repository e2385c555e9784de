"""A guest's virtio driver, written by hand, over real guest memory and the registers of VirtioMmio.

    driver = Driver(Echo())
    assert driver.request(0, b"ping", [16]) == b"ping"

`packed`, `indirect` and `event_idx` choose the features of the ring; `RINGS` are all combinations, for parametrizing.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack, unpack

from emuvisor.bus.clock import VirtualClock
from emuvisor.bus.irq import InterruptLine
from emuvisor.devices.virtio import mmio
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import Feature, Status, mask_of
from emuvisor.devices.virtio.mmio import MMIO_SIZE, VirtioMmio
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB

RAM = 64 * MIB
RINGS_AT = 0x10_0000
"""Each queue's rings take 64 KiB from here on."""
RINGS_SIZE = 0x1_0000
BUFFERS_AT = 0x80_0000
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
EVENTS_ON, EVENTS_OFF, EVENTS_AT = 0, 1, 2

RINGS = [
    {"packed": packed, "indirect": indirect, "event_idx": event_idx}
    for packed, indirect, event_idx in itertools.product((False, True), repeat=3)
]
RING_IDS = [
    f"{'packed' if r['packed'] else 'split'}{'-indirect' if r['indirect'] else ''}{'-event' if r['event_idx'] else ''}"
    for r in RINGS
]


@dataclass
class Request:
    """What is in flight: which buffers the device may write, and how many descriptors it took."""

    token: int
    writable: list[tuple[int, int]]
    descriptors: list[int]


@dataclass
class Ring:
    """The driver's half of a queue."""

    index: int
    size: int
    base: int
    free: list[int] = field(default_factory=list)
    in_flight: dict[int, Request] = field(default_factory=dict)
    kicked: int = 0
    available: int = 0
    """Split: idx of the available ring. Packed: the next slot to fill."""
    used: int = 0
    available_wrap: bool = True
    used_wrap: bool = True

    @property
    def descriptors(self) -> int:
        return self.base

    @property
    def driver_area(self) -> int:
        return self.base + 0x4000

    @property
    def device_area(self) -> int:
        return self.base + 0x6000


class Driver:
    """`features` are the device type's bits to take, all by default; `sizes` the queues' sizes, their maximum by
    default. `setup=False` leaves everything to the test.
    """

    def __init__(
        self,
        device: VirtioDevice,
        packed: bool = False,
        memory: GuestMemory | None = None,
        *,
        indirect: bool = True,
        event_idx: bool = True,
        features: int | None = None,
        sizes: Sequence[int] | None = None,
        clock: VirtualClock | None = None,
        setup: bool = True,
    ) -> None:
        self.packed = packed
        self.indirect = indirect
        self.event_idx = event_idx
        device.packed = packed
        self.memory = memory or GuestMemory(FramePool(RAM), [(0, RAM)])
        self.clock = clock or VirtualClock()
        self.interrupts = 0
        """Rising edges of the line. `request` and `used` acknowledge."""
        self.suspensions: list[str] = []
        self.irq = InterruptLine(self._interrupt)
        self._connect(device)
        self.rings: list[Ring] = []
        self._wanted = features
        self._sizes = sizes
        self._tokens = itertools.count()
        self._buffers = BUFFERS_AT
        if setup:
            self.setup()

    def _connect(self, device: VirtioDevice) -> None:
        self.device = device
        self.mmio = VirtioMmio(
            device=device,
            memory=self.memory,
            clock=self.clock,
            irq=self.irq,
            on_suspend=self.suspensions.append,
        )

    def take_over(self, device: VirtioDevice) -> None:
        """Go on with `device` in the place of the one that there was, from its saved state, with no timer but its."""
        state, now = self.device.save(), self.clock.now_ns()
        self.clock = VirtualClock()
        self.clock.skip(now)
        self._connect(device)
        device.load(state)

    def _interrupt(self, level: bool) -> None:
        self.interrupts += level

    # ---- registers ----

    def get(self, register: int) -> int:
        return self.mmio.read(register, 4)

    def set(self, register: int, value: int) -> None:
        self.mmio.write(register, value, 4)

    @property
    def status(self) -> Status:
        return Status(self.get(mmio.STATUS))

    @property
    def needs_reset(self) -> bool:
        return bool(self.status & Status.NEEDS_RESET)

    def config(self, offset: int, length: int) -> bytes:
        return bytes(self.mmio.read(mmio.CONFIG + offset + i, 1) for i in range(length))

    def write_config(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= MMIO_SIZE - mmio.CONFIG
        if len(data) in (1, 2, 4):
            self.mmio.write(mmio.CONFIG + offset, int.from_bytes(data, "little"), len(data))
        else:
            for i, byte in enumerate(data):
                self.mmio.write(mmio.CONFIG + offset + i, byte, 1)

    def offered(self) -> int:
        self.set(mmio.DEVICE_FEATURES_SEL, 0)
        low = self.get(mmio.DEVICE_FEATURES)
        self.set(mmio.DEVICE_FEATURES_SEL, 1)
        return low | self.get(mmio.DEVICE_FEATURES) << 32

    def wanted(self) -> int:
        wanted = mask_of(Feature.VERSION_1, Feature.RING_RESET)
        for bit, on in (
            (Feature.RING_PACKED, self.packed),
            (Feature.INDIRECT_DESC, self.indirect),
            (Feature.EVENT_IDX, self.event_idx),
        ):
            wanted |= on << bit
        own = self.offered() & ~mask_of(*Feature)
        return wanted | (own if self._wanted is None else own & self._wanted)

    def negotiate(self, wanted: int | None = None) -> bool:
        """Up to FEATURES_OK; whether the device took it."""
        wanted = self.wanted() if wanted is None else wanted
        self.set(mmio.STATUS, 0)
        self.set(mmio.STATUS, Status.ACKNOWLEDGE)
        self.set(mmio.STATUS, Status.ACKNOWLEDGE | Status.DRIVER)
        for half in (0, 1):
            self.set(mmio.DRIVER_FEATURES_SEL, half)
            self.set(mmio.DRIVER_FEATURES, wanted >> 32 * half & 0xFFFF_FFFF)
        self.set(mmio.STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        return bool(self.status & Status.FEATURES_OK)

    def setup(self) -> None:
        """The whole initialization: section 3.1.1."""
        assert self.negotiate(), "the device refuses the features"
        self.rings = []
        for index, maximum in enumerate(self.device.queue_sizes):
            size = self._sizes[index] if self._sizes is not None else maximum
            self.rings.append(Ring(index, size, RINGS_AT + RINGS_SIZE * index))
            self.enable(index)
        self.driver_ok()

    def driver_ok(self) -> None:
        self.set(mmio.STATUS, self.status | Status.DRIVER_OK)

    def enable(self, index: int) -> None:
        """Lay the queue's rings out, empty, and hand it to the device."""
        old = self.rings[index]
        ring = self.rings[index] = Ring(index, old.size, old.base, list(range(old.size)))
        self.memory.write(ring.base, bytes(RINGS_SIZE))
        self.set(mmio.QUEUE_SEL, index)
        self.set(mmio.QUEUE_NUM, ring.size)
        for register, gpa in (
            (mmio.QUEUE_DESC_LOW, ring.descriptors),
            (mmio.QUEUE_DRIVER_LOW, ring.driver_area),
            (mmio.QUEUE_DEVICE_LOW, ring.device_area),
        ):
            self.set(register, gpa & 0xFFFF_FFFF)
            self.set(register + 4, gpa >> 32)
        self.set(mmio.QUEUE_READY, 1)

    # ---- buffers ----

    def buffer(self, data_or_size: bytes | int) -> tuple[int, int]:
        """Address and length of a new buffer, holding the data."""
        data = data_or_size if isinstance(data_or_size, bytes) else bytes(data_or_size)
        gpa = self._buffers
        self._buffers += (len(data) + 63 & ~63) + 64
        if self._buffers > RAM:
            gpa, self._buffers = BUFFERS_AT, BUFFERS_AT + (len(data) + 63 & ~63) + 64
        self.memory.write(gpa, data)
        return gpa, len(data)

    # ---- requests ----

    def request(self, queue: int, out: bytes | Sequence[bytes], in_sizes: Sequence[int] = ()) -> bytes | None:
        """One request: what the device has written, or None when it has not answered."""
        token = self.add(queue, out, in_sizes)
        self.kick(queue)
        answers = dict(self.used(queue))
        return answers.get(token)

    def add(self, queue: int, out: bytes | Sequence[bytes] = (), in_sizes: Sequence[int] = ()) -> int:
        """Make a chain available without telling the device; returns its token. Empty buffers are left out."""
        pieces = [out] if isinstance(out, bytes) else out
        readable = [self.buffer(piece) for piece in pieces if piece]
        writable = [self.buffer(size) for size in in_sizes if size]
        return self.add_parts(queue, readable, writable)

    def add_parts(
        self, queue: int, readable: Sequence[tuple[int, int]], writable: Sequence[tuple[int, int]]
    ) -> int:
        """Make a chain of these (address, length) available."""
        ring, token = self.rings[queue], next(self._tokens)
        parts = [(gpa, length, 0) for gpa, length in readable] + [(gpa, n, WRITE) for gpa, n in writable]
        add = self._add_packed if self.packed else self._add_split
        add(ring, parts, Request(token, list(writable), []))
        return token

    def _add_split(self, ring: Ring, parts: list[tuple[int, int, int]], request: Request) -> None:
        if self.indirect:
            last = len(parts) - 1
            table = b"".join(
                pack("<QIHH", gpa, length, flags | (NEXT if i < last else 0), i + 1 if i < last else 0)
                for i, (gpa, length, flags) in enumerate(parts)
            )
            parts = [(*self.buffer(table), INDIRECT)]
        request.descriptors = [ring.free.pop(0) for _ in parts]
        for i, (gpa, length, flags) in enumerate(parts):
            more = i + 1 < len(parts)
            following = request.descriptors[i + 1] if more else 0
            self.memory.write(
                ring.descriptors + 16 * request.descriptors[i],
                pack("<QIHH", gpa, length, flags | (NEXT if more else 0), following),
            )
        head = request.descriptors[0]
        ring.in_flight[head] = request
        self.memory.write(ring.driver_area + 4 + 2 * (ring.available % ring.size), pack("<H", head))
        ring.available = ring.available + 1 & 0xFFFF
        self.memory.write(ring.driver_area + 2, pack("<H", ring.available))

    def _add_packed(self, ring: Ring, parts: list[tuple[int, int, int]], request: Request) -> None:
        if self.indirect:
            table = b"".join(pack("<QIHH", gpa, length, 0, flags) for gpa, length, flags in parts)
            parts = [(*self.buffer(table), INDIRECT)]
        buffer_id = ring.free.pop(0)
        assert len(ring.free) + 1 >= len(parts), "no room"
        request.descriptors = [buffer_id] + [ring.free.pop() for _ in parts[1:]]
        ring.in_flight[buffer_id] = request
        first: tuple[int, bytes] | None = None
        for i, (gpa, length, kind) in enumerate(parts):
            flags = kind | (NEXT if i + 1 < len(parts) else 0)
            flags |= AVAIL if ring.available_wrap else USED
            place = ring.descriptors + 16 * ring.available
            self.memory.write(place, pack("<QIH", gpa, length, buffer_id))
            if first is None:
                first = (place + 14, pack("<H", flags))
            else:
                self.memory.write(place + 14, pack("<H", flags))
            ring.available += 1
            if ring.available == ring.size:
                ring.available, ring.available_wrap = 0, not ring.available_wrap
        assert first is not None
        self.memory.write(*first)  # the first descriptor's flags last: the chain becomes available as a whole

    def kick(self, queue: int) -> None:
        """Notify the device, whether it wants to hear or not."""
        self.rings[queue].kicked = self.rings[queue].available
        self.set(mmio.QUEUE_NOTIFY, queue)

    def wants_kick(self, queue: int) -> bool:
        """Whether the device asks to be notified of what was added since the last kick."""
        ring = self.rings[queue]
        if self.packed:
            event, flags = unpack("<HH", self.memory.read(ring.device_area, 4))
            if flags != EVENTS_AT or not self.event_idx:
                return bool(flags == EVENTS_ON)
            new, old = ring.available, ring.kicked
            where, wrap = event & 0x7FFF, bool(event >> 15)
            if wrap != ring.available_wrap:
                where -= ring.size
            return (new - where - 1) & 0xFFFF < (new - old) & 0xFFFF
        if not self.event_idx:
            return not unpack("<H", self.memory.read(ring.device_area, 2))[0] & 1
        (event,) = unpack("<H", self.memory.read(ring.device_area + 4 + 8 * ring.size, 2))
        return bool((ring.available - event - 1) & 0xFFFF < (ring.available - ring.kicked) & 0xFFFF)

    def ask_for_interrupt(self, queue: int, wanted: bool = True, *, after: int = 0) -> None:
        """Whether the driver wants to be interrupted; with the event index, once `after` more are used."""
        ring = self.rings[queue]
        if self.packed:
            flags = EVENTS_ON if wanted else EVENTS_OFF
            place = wrap = 0
            if wanted and self.event_idx:
                flags, place, wrap = EVENTS_AT, ring.used + after, int(ring.used_wrap)
                if place >= ring.size:
                    place, wrap = place - ring.size, 1 - wrap
            self.memory.write(ring.driver_area, pack("<HH", place | wrap << 15, flags))
        elif self.event_idx:
            event = ring.used + after if wanted else ring.used - 1
            self.memory.write(ring.driver_area + 4 + 2 * ring.size, pack("<H", event & 0xFFFF))
        else:
            self.memory.write(ring.driver_area, pack("<H", 0 if wanted else 1))

    def used(self, queue: int) -> list[tuple[int, bytes]]:
        """What the device returned since the last call: token, and the bytes that it says it has written.

        Acknowledges the interrupt and asks for the next one.
        """
        self.set(mmio.INTERRUPT_ACK, self.get(mmio.INTERRUPT_STATUS))
        ring = self.rings[queue]
        answers = []
        while (element := self._next_used(ring)) is not None:
            head, written = element
            request = ring.in_flight.pop(head)
            if self.packed:
                skip = 1 if self.indirect else len(request.descriptors)
                ring.used += skip
                if ring.used >= ring.size:
                    ring.used, ring.used_wrap = ring.used - ring.size, not ring.used_wrap
            else:
                ring.used = ring.used + 1 & 0xFFFF
            ring.free += request.descriptors
            data = b"".join(self.memory.read(gpa, length) for gpa, length in request.writable)
            answers.append((request.token, data[:written]))
        if self.event_idx:
            self.ask_for_interrupt(queue)
        return answers

    def _next_used(self, ring: Ring) -> tuple[int, int] | None:
        if self.packed:
            _, written, buffer_id, flags = unpack(
                "<QIHH", self.memory.read(ring.descriptors + 16 * ring.used, 16)
            )
            available, used = bool(flags & AVAIL), bool(flags & USED)
            if available != used or used != ring.used_wrap:
                return None
            return buffer_id, written
        (idx,) = unpack("<H", self.memory.read(ring.device_area + 2, 2))
        if idx == ring.used:
            return None
        place = ring.device_area + 4 + 8 * (ring.used % ring.size)
        head, written = unpack("<II", self.memory.read(place, 8))
        return head, written

    # ---- time ----

    def run_timers(self) -> int:
        """Fire what is due now, until nothing is; returns how many fired."""
        fired = 0
        while (deadline := self.clock.next_deadline_ns()) is not None and deadline <= self.clock.now_ns():
            fired += self.clock.fire_due()
        return fired
