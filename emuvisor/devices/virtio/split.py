"""Split virtqueues: virtio 1.2, section 2.7.

    descriptor area   size descriptors of 16 bytes: address u64, length u32, flags u16, next u16
    driver area       the available ring: flags u16, idx u16, size heads u16, used_event u16
    device area       the used ring: flags u16, idx u16, size elements (head u32, written u32), avail_event u16

The driver puts heads of chains into the available ring and counts idx up; the device returns them in the used ring
and counts its idx up. Indices count modulo 2^16; an entry's place is its number modulo the queue's size.
"""

from collections.abc import Sequence
from struct import Struct
from typing import ClassVar

from emuvisor.bus.saved import Fields, Number
from emuvisor.devices.virtio.chain import Chain, Part
from emuvisor.devices.virtio.queue import (
    DESCRIPTOR_INDIRECT,
    DESCRIPTOR_NEXT,
    DESCRIPTOR_SIZE,
    DESCRIPTOR_WRITE,
    INDEX,
    PAGE_MASK,
    TABLE_PLACES,
    Area,
    BrokenQueue,
    VirtQueue,
)
from emuvisor.memory import DmaMemory
from emuvisor.units import PAGE_SHIFT

__all__ = ["SplitQueue"]

DESCRIPTOR = Struct("<QIHH")
USED_ELEMENT = Struct("<II")
WORD = Struct("<I")
WRAP = 0xFFFF

FLAGS = 0
IDX = 2
RING = 4
"""Offsets in the available and in the used ring."""
HEAD_SIZE = 2
USED_SIZE = 8
NO_INTERRUPT = 1
"""Flag of the available ring."""


class SplitQueue(VirtQueue):
    """A queue with a descriptor table, an available ring and a used ring."""

    kind = "split-queue"
    alignments = (16, 2, 4)
    counters: ClassVar[Fields] = Fields(
        {
            "next_available": Number(WRAP),
            "next_used": Number(WRAP),
            "signalled": Number(WRAP),
        }
    )

    def reset(self) -> None:
        """Both rings begin at entry 0."""
        super().reset()
        self.next_available = 0
        """Number of the entry of the available ring that is taken next."""
        self.next_used = 0
        self.signalled = 0
        """`next_used` when the driver was last told, or found not to care."""
        self._seen = 0
        """The available ring's idx when it was last read."""

    def check(self) -> None:
        """The size of a split queue is a power of two, too."""
        super().check()
        if self.size & (self.size - 1):
            raise BrokenQueue(f"{self}: size {self.size} is not a power of two")

    def _locate(self) -> None:
        memory, size = self.memory, self.size
        self._descriptors = Area(memory, self.descriptor_area, DESCRIPTOR_SIZE * size)
        self._available = Area(memory, self.driver_area, RING + HEAD_SIZE * size + INDEX.size)
        self._used = Area(memory, self.device_area, RING + USED_SIZE * size + INDEX.size)
        self._available_idx = self._available.place(IDX)
        self._used_idx = self._used.place(IDX)
        self._available_flags = self._available.place(FLAGS)
        self._used_event = self._available.place(RING + HEAD_SIZE * size)
        self._avail_event = self._used.place(RING + USED_SIZE * size)
        self._seen = self.next_available

    @property
    def _more(self) -> bool:
        """Section 2.7.6."""
        if self._seen == self.next_available:
            (self._seen,) = INDEX.unpack_from(self.memory.host, self._available_idx)
            count = self._seen - self.next_available & WRAP
            if count > self.size:
                raise BrokenQueue(f"{self}: {count} chains available; {self.size} descriptors")
        return self._seen != self.next_available

    def _next(self) -> Chain | None:
        memory = self.memory
        number = self.next_available
        if number == self._seen and not self._more:
            if self.event_idx:  # tell me of the next one: section 2.7.10
                INDEX.pack_into(memory.host, self._avail_event, number)
                memory.wrote(self._avail_event, INDEX.size)
            return None
        ring = self._available
        x = ring.base + RING + HEAD_SIZE * (number & self.size - 1)
        (head,) = INDEX.unpack_from(memory.host, ring.places[x >> PAGE_SHIFT] + (x & PAGE_MASK))
        chain = self._chain(memory, head)
        self.next_available = number + 1 & WRAP
        return chain

    def _chain(self, memory: DmaMemory, head: int) -> Chain:
        """Follow the descriptors from `head`: section 2.7.5."""
        readable: list[Part] = []
        writable: list[Part] = []
        readable_length = writable_length = 0
        table: memoryview | bytes = memory.host
        places: Sequence[int] = self._descriptors.places
        base = self._descriptors.base
        count, index = self.size, head
        nested = False
        left = count  # descriptors that the chain may still have: one that has more is a loop
        while True:
            if index >= count or not left:
                raise BrokenQueue(f"{self}: descriptor {index} of {count}, or a loop")
            x = base + DESCRIPTOR_SIZE * index
            address, length, flags, index = DESCRIPTOR.unpack_from(
                table, places[x >> PAGE_SHIFT] + (x & PAGE_MASK)
            )
            left -= 1
            if flags & DESCRIPTOR_INDIRECT:
                if nested or flags & DESCRIPTOR_NEXT:
                    raise BrokenQueue(f"{self}: an indirect table inside another, or one with a successor")
                table = self._table(address, length)
                places, base, nested = TABLE_PLACES, 0, True
                count, index = length // DESCRIPTOR_SIZE, 0
                left = count
                continue
            if not length:
                raise BrokenQueue(f"{self}: a buffer of no bytes")
            if flags & DESCRIPTOR_WRITE:
                writable.append((address, length))
                writable_length += length
            elif writable:
                raise BrokenQueue(f"{self}: a readable buffer behind a writable one")
            else:
                readable.append((address, length))
                readable_length += length
            if not flags & DESCRIPTOR_NEXT:
                break
        if readable_length + writable_length > self.max_chain_bytes:
            raise BrokenQueue(f"{self}: a chain of {readable_length + writable_length} bytes")
        return Chain(memory, head, 1, readable, writable, readable_length, writable_length)

    def _use(self, chain: Chain, written: int) -> None:
        """Section 2.7.8. The idx is what the driver looks at: it is written last."""
        host, ring, number = self.memory.host, self._used, self.next_used
        x = ring.base + RING + USED_SIZE * (number & self.size - 1)
        place = ring.places[x >> PAGE_SHIFT] + (x & PAGE_MASK)
        if x & PAGE_MASK <= PAGE_MASK + 1 - USED_SIZE:
            USED_ELEMENT.pack_into(host, place, chain.head, written)
        else:  # the element lies across two pages
            WORD.pack_into(host, place, chain.head)
            WORD.pack_into(host, ring.place(x + WORD.size - ring.base), written)
        self.next_used = number = number + 1 & WRAP
        INDEX.pack_into(host, self._used_idx, number)

    def _wants_interrupt(self) -> bool:
        """Section 2.7.7: by flag, or by the number of the used element that the driver waits for."""
        new, old = self.next_used, self.signalled
        if new == old:
            return False
        self.signalled = new
        memory = self.memory
        for place in self._used.places:
            memory.wrote(place, PAGE_MASK + 1)
        if self.event_idx:
            (event,) = INDEX.unpack_from(memory.host, self._used_event)
            return bool(new - event - 1 & WRAP < new - old & WRAP)
        (flags,) = INDEX.unpack_from(memory.host, self._available_flags)
        return not flags & NO_INTERRUPT
