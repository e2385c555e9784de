"""Packed virtqueues: virtio 1.2, section 2.8.

    descriptor area   a ring of size descriptors of 16 bytes: address u64, length u32, buffer ID u16, flags u16
    driver area       the driver's event suppression: place u16, flags u16
    device area       the device's event suppression, likewise

Both sides go around the one ring and keep a wrap counter, a bit that turns over with each round. A descriptor is
available when its AVAIL flag equals the device's counter and its USED flag does not; it is used when both equal the
driver's. The device writes one used descriptor for a whole chain, and skips as many as the chain had.
"""

from struct import Struct
from typing import ClassVar

from emuvisor.bus.saved import Fields, Flag, Number
from emuvisor.devices.virtio.chain import Chain, Part
from emuvisor.devices.virtio.queue import (
    DESCRIPTOR_INDIRECT,
    DESCRIPTOR_NEXT,
    DESCRIPTOR_SIZE,
    DESCRIPTOR_WRITE,
    INDEX,
    MAX_QUEUE_SIZE,
    PAGE_MASK,
    Area,
    BrokenQueue,
    VirtQueue,
)
from emuvisor.units import PAGE_SHIFT

__all__ = ["PackedQueue"]

DESCRIPTOR = Struct("<QIHH")
USED_DESCRIPTOR = Struct("<IH")
"""Of a used descriptor the device writes the length and the buffer ID, and then the flags."""
LENGTH = 8
FLAGS = 14
"""Offsets in a descriptor."""
AVAIL = 1 << 7
USED = 1 << 15
STATES = AVAIL | USED

EVENT = Struct("<HH")
EVENT_FLAGS = 2
EVENTS_DISABLE = 1
EVENTS_AT = 2
"""Flags of an event suppression structure: section 2.8.10."""
PLACE_MASK = 0x7FFF
WRAP_SHIFT = 15


class PackedQueue(VirtQueue):
    """A queue with one ring of descriptors, which both sides write."""

    kind = "packed-queue"
    alignments = (16, 4, 4)
    counters: ClassVar[Fields] = Fields(
        {
            "next_available": Number(MAX_QUEUE_SIZE - 1),
            "available_wrap": Flag(),
            "next_used": Number(MAX_QUEUE_SIZE - 1),
            "used_wrap": Flag(),
            "unsignalled": Number(MAX_QUEUE_SIZE),
        }
    )

    def reset(self) -> None:
        """Both sides begin at descriptor 0, with wrap counters of 1."""
        super().reset()
        self.next_available = 0
        """Descriptor that is taken next."""
        self.available_wrap = True
        self.next_used = 0
        self.used_wrap = True
        self.taken = 0
        """Descriptors of the ring that chains in flight have."""
        self.unsignalled = 0
        """Descriptors used since the driver was last told, or found not to care; at most the ring's size."""

    def _check_saved(self) -> None:
        super()._check_saved()
        self.taken = sum([chain.descriptors for chain in self._in_flight.values()])
        if max(self.next_available, self.next_used) >= self.size or self.taken > self.size:
            raise BrokenQueue(f"{self}: counters beyond its size of {self.size}")

    def _locate(self) -> None:
        memory = self.memory
        self._ring = Area(memory, self.descriptor_area, DESCRIPTOR_SIZE * self.size)
        self._driver_event = Area(memory, self.driver_area, EVENT.size).place(0)
        self._device_event = Area(memory, self.device_area, EVENT.size).place(0)

    def _place(self, index: int) -> int:
        """Where descriptor `index` lies in the host's memory."""
        x = self._ring.base + DESCRIPTOR_SIZE * index
        return self._ring.places[x >> PAGE_SHIFT] + (x & PAGE_MASK)

    @property
    def _more(self) -> bool:
        """Section 2.8.1."""
        if self.taken == self.size:  # what is there has been taken already
            return False
        (flags,) = INDEX.unpack_from(self.memory.host, self._place(self.next_available) + FLAGS)
        return bool(flags & STATES == (AVAIL if self.available_wrap else USED))

    def _next(self) -> Chain | None:
        if not self._more:
            if self.event_idx:  # tell me of the next one: section 2.8.10
                wrap = self.available_wrap << WRAP_SHIFT
                EVENT.pack_into(self.memory.host, self._device_event, self.next_available | wrap, EVENTS_AT)
                self.memory.wrote(self._device_event, EVENT.size)
            return None
        chain = self._chain()
        following = self.next_available + chain.descriptors
        if following >= self.size:
            following -= self.size
            self.available_wrap = not self.available_wrap
        self.next_available = following
        self.taken += chain.descriptors
        return chain

    def _chain(self) -> Chain:
        """The descriptors from `next_available` on, to the first without NEXT: sections 2.8.6 to 2.8.8."""
        readable: list[Part] = []
        writable: list[Part] = []
        host = self.memory.host
        index, count = self.next_available, 0
        while True:
            if count >= self.size - self.taken:
                raise BrokenQueue(f"{self}: a chain of more descriptors than there are")
            address, length, buffer_id, flags = DESCRIPTOR.unpack_from(host, self._place(index))
            count += 1
            index = index + 1 if index + 1 < self.size else 0
            if flags & DESCRIPTOR_INDIRECT:
                if flags & DESCRIPTOR_NEXT or count > 1:
                    raise BrokenQueue(f"{self}: an indirect table that is not alone")
                for gpa, size, _, table_flags in DESCRIPTOR.iter_unpack(self._table(address, length)):
                    if table_flags & DESCRIPTOR_INDIRECT:
                        raise BrokenQueue(f"{self}: an indirect table inside another")
                    self._add(readable, writable, gpa, size, table_flags)
            else:
                self._add(readable, writable, address, length, flags)
            if not flags & DESCRIPTOR_NEXT:
                break
        readable_length = sum([size for _, size in readable])
        writable_length = sum([size for _, size in writable])
        if readable_length + writable_length > self.max_chain_bytes:
            raise BrokenQueue(f"{self}: a chain of {readable_length + writable_length} bytes")
        return Chain(self.memory, buffer_id, count, readable, writable, readable_length, writable_length)

    def _add(self, readable: list[Part], writable: list[Part], gpa: int, size: int, flags: int) -> None:
        """One buffer more."""
        if not size:
            raise BrokenQueue(f"{self}: a buffer of no bytes")
        if flags & DESCRIPTOR_WRITE:
            writable.append((gpa, size))
        elif writable:
            raise BrokenQueue(f"{self}: a readable buffer behind a writable one")
        else:
            readable.append((gpa, size))

    def _use(self, chain: Chain, written: int) -> None:
        """Section 2.8.1: the flags are what the driver looks at, they are written last."""
        host, place = self.memory.host, self._place(self.next_used)
        USED_DESCRIPTOR.pack_into(host, place + LENGTH, written, chain.head)
        INDEX.pack_into(host, place + FLAGS, STATES if self.used_wrap else 0)
        self.memory.wrote(place, DESCRIPTOR_SIZE)
        following = self.next_used + chain.descriptors
        if following >= self.size:
            following -= self.size
            self.used_wrap = not self.used_wrap
        self.next_used = following
        self.taken -= chain.descriptors
        self.unsignalled = min(self.unsignalled + chain.descriptors, self.size)

    def _wants_interrupt(self) -> bool:
        """Section 2.8.10: always, never, or when a certain descriptor was used."""
        count, self.unsignalled = self.unsignalled, 0
        if not count:
            return False
        event, flags = EVENT.unpack_from(self.memory.host, self._driver_event)
        if flags != EVENTS_AT or not self.event_idx:
            return bool(flags != EVENTS_DISABLE)
        awaited, wrap = event & PLACE_MASK, bool(event >> WRAP_SHIFT)
        if wrap != self.used_wrap:  # in the round before
            awaited -= self.size
        return bool(self.next_used - count <= awaited < self.next_used)
