"""What split and packed virtqueues have in common: virtio 1.2, section 2.6.

A queue reads and writes its rings in the host's memory, at places that it finds out once and keeps until the memory's
`epoch` changes. The driver's bytes are not to be trusted: whatever no honest driver writes raises BrokenQueue, and one
chain never has more descriptors than the ring or an indirect table of `MAX_TABLE`, or more than `max_chain_bytes`
bytes.
"""

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import cache
from struct import Struct
from typing import Any, ClassVar

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Flag, Kind, Number, Numbers, load_fields, save_fields
from emuvisor.devices.virtio.chain import Chain, Part
from emuvisor.errors import GuestAddressError, SnapshotError
from emuvisor.memory import DmaMemory
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = [
    "DESCRIPTOR_INDIRECT",
    "DESCRIPTOR_NEXT",
    "DESCRIPTOR_SIZE",
    "DESCRIPTOR_WRITE",
    "INDEX",
    "MAX_QUEUE_SIZE",
    "MAX_TABLE",
    "PAGE_MASK",
    "TABLE_PLACES",
    "Area",
    "BrokenQueue",
    "VirtQueue",
]

MAX_QUEUE_SIZE = 1024
"""Descriptors that a ring of ours has at most."""
MAX_TABLE = 1024
"""Descriptors that an indirect table may have. Drivers make longer chains with one than the ring has descriptors."""

PAGE_MASK = PAGE_SIZE - 1

DESCRIPTOR_SIZE = 16
DESCRIPTOR_NEXT = 1
DESCRIPTOR_WRITE = 2
DESCRIPTOR_INDIRECT = 4
INDEX = Struct("<H")

TABLE_PLACES = tuple(range(0, MAX_TABLE * DESCRIPTOR_SIZE, PAGE_SIZE))
"""An indirect table that was read, as the places of an Area."""


CHAIN_FIELDS = 3
"""Of a saved chain, before its parts: head, descriptors, number of readable parts."""
_CHAIN = Numbers(CHAIN_FIELDS + 2 * 2 * MAX_TABLE, (1 << 64) - 1)


class BrokenQueue(Exception):
    """The driver wrote into a ring what no honest driver writes; the message says what."""


class Area:
    """One of the three parts of a ring. Byte `offset` lies at `places[x >> PAGE_SHIFT] + (x & PAGE_MASK)` of the host's
    memory, where x is `base + offset`: its pages need not be neighbours."""

    __slots__ = ("base", "places")

    def __init__(self, memory: DmaMemory, gpa: int, length: int) -> None:
        self.base = gpa & PAGE_MASK
        first, last = gpa >> PAGE_SHIFT, (gpa + length - 1) >> PAGE_SHIFT
        self.places = [memory.place(gfn, True) for gfn in range(first, last + 1)]

    def place(self, offset: int) -> int:
        """Where byte `offset` lies in the host's memory."""
        x = self.base + offset
        return self.places[x >> PAGE_SHIFT] + (x & PAGE_MASK)


class VirtQueue(ABC):
    """A live queue. The transport sets the registers, `ready` last; the device takes chains by `pop`, and gives each
    back by `push`; `notify` after a batch interrupts the driver if it wants to hear of it.

    `interrupt` is called with `index`. `indirect` and `event_idx` say whether these features were negotiated.
    """

    kind: ClassVar[str]
    alignments: ClassVar[tuple[int, int, int]]
    """Of the descriptor, driver and device areas."""
    counters: ClassVar[Fields]
    """Saved attributes of the kind's own."""

    def __init__(
        self,
        index: int,
        max_size: int,
        *,
        memory: DmaMemory,
        interrupt: Callable[[int], None],
        indirect: bool,
        event_idx: bool,
        max_chain_bytes: int,
    ) -> None:
        self.index = index
        self.max_size = max_size
        self.memory = memory
        self.indirect = indirect
        self.event_idx = event_idx
        self.max_chain_bytes = max_chain_bytes
        self._interrupt = interrupt
        self.reset()

    def reset(self) -> None:
        """As before the driver configured it: section 2.6.1. What is in flight is forgotten."""
        self.size = self.max_size
        self.ready = False
        self.live = False
        """The device may use it: it is ready, and DRIVER_OK is set."""
        self.descriptor_area = 0
        self.driver_area = 0
        self.device_area = 0
        self._in_flight: dict[int, Chain] = {}
        self._again: deque[Chain] = deque()
        """Popped and taken back: what the next pops return."""
        self._epoch = -1

    # ---- what the kinds implement; called while the rings can be reached ----

    @abstractmethod
    def _locate(self) -> None:
        """Find out where the rings are. Raises GuestAddressError where there is no RAM, OutOfFrames."""

    @abstractmethod
    def _next(self) -> Chain | None:
        """The next chain that the driver made available; asks to be notified of more without one."""

    @abstractmethod
    def _use(self, chain: Chain, written: int) -> None:
        """Return the chain to the driver."""

    @abstractmethod
    def _wants_interrupt(self) -> bool:
        """Whether the driver wants to hear of what was used since this was last asked."""

    @property
    @abstractmethod
    def _more(self) -> bool:
        """Whether the driver has made more available than was taken."""

    # ---- for devices ----

    def _reachable(self) -> bool:
        """Whether the rings can be used now. Raises BrokenQueue when they are not in RAM, OutOfFrames."""
        if not self.live:
            return False
        try:
            self._locate()
        except GuestAddressError as error:
            raise BrokenQueue(f"{self}: a ring is not in RAM: {error}") from None
        self._epoch = self.memory.epoch
        return True

    def pop(self) -> Chain | None:
        """The next available chain; None without one. Raises BrokenQueue, OutOfFrames.

        The rings have their frames from here on: a push before the guest runs again cannot fail for want of one.
        """
        if self.memory.epoch != self._epoch and not self._reachable():
            return None
        if self._again:
            return self._again.popleft()
        chain = self._next()
        if chain is not None:
            if chain.head in self._in_flight:
                raise BrokenQueue(f"{self}: chain {chain.head} was made available twice")
            self._in_flight[chain.head] = chain
        return chain

    def unpop(self, chain: Chain) -> None:
        """The chain that was popped last goes back; the next pop returns it again."""
        self._again.appendleft(chain)

    def push(self, chain: Chain, written: int) -> None:
        """The chain was used; `written` bytes from the start of its writable part have been written.

        Nothing happens when the queue was reset since. Raises BrokenQueue, OutOfFrames, and then nothing happened.
        """
        if self._in_flight.get(chain.head) is not chain:
            return
        if self.memory.epoch != self._epoch and not self._reachable():
            return
        del self._in_flight[chain.head]
        self._use(chain, written)

    def notify(self) -> None:
        """Interrupt the driver if it wants to hear of what was pushed. Raises BrokenQueue, OutOfFrames."""
        if self.memory.epoch != self._epoch and not self._reachable():
            return
        if self._wants_interrupt():
            self._interrupt(self.index)

    @property
    def available(self) -> bool:
        """Whether `pop` has something to return. Raises BrokenQueue, OutOfFrames."""
        if self._again:
            return self.live
        if self.memory.epoch != self._epoch and not self._reachable():
            return False
        return self._more

    @property
    def returned(self) -> bool:
        """Whether chains wait that were taken before."""
        return bool(self._again)

    def __str__(self) -> str:
        return f"queue {self.index}"

    # ---- for the device's base class ----

    def start(self, live: bool) -> None:
        """Whether the device may use it now, if it is ready."""
        self.live = live and self.ready
        self._epoch = -1

    def check(self) -> None:
        """Raises BrokenQueue for registers with which it cannot be enabled: sections 2.6, 2.7, 2.8."""
        if not 1 <= self.size <= self.max_size:
            raise BrokenQueue(f"{self}: size {self.size}; 1 to {self.max_size}")
        areas = (self.descriptor_area, self.driver_area, self.device_area)
        for gpa, alignment in zip(areas, self.alignments, strict=True):
            if gpa % alignment:
                raise BrokenQueue(f"{self}: a ring at {gpa:#x}, which is not a multiple of {alignment}")

    # ---- chains ----

    def _table(self, gpa: int, length: int) -> bytes:
        """A copy of an indirect table, which the driver cannot change any more: sections 2.7.5.3 and 2.8.8."""
        if not self.indirect:
            raise BrokenQueue(f"{self}: an indirect descriptor without the feature")
        if not length or length % DESCRIPTOR_SIZE or length > MAX_TABLE * DESCRIPTOR_SIZE:
            raise BrokenQueue(f"{self}: an indirect table of {length} bytes")
        try:
            return self.memory.read(gpa, length)
        except GuestAddressError as error:
            raise BrokenQueue(f"{self}: an indirect table is not in memory: {error}") from None

    # ---- saved state ----

    def save(self) -> SavedState:
        """Registers, counters and the chains in flight, oldest first, as plain data."""
        chains = []
        for chain in self._in_flight.values():
            parts = itertools.chain.from_iterable(chain.readable + chain.writable)
            chains.append([chain.head, chain.descriptors, len(chain.readable), *parts])
        return save_fields(self, self.kind, 1, _fields_of(type(self))) | {"in_flight": chains}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Chains that were in flight are popped again first. Raises SnapshotError."""
        self.reset()
        load_fields(self, state, self.kind, 1, _fields_of(type(self)))
        saved = state.get("in_flight")
        if not isinstance(saved, list) or len(saved) > self.max_size:
            raise SnapshotError(f"{self.kind}: saved field 'in_flight' is not a list of chains")
        chains = [self._saved_chain(chain) for chain in saved]
        self._in_flight = {chain.head: chain for chain in chains}
        self._again.extend(chains)
        try:
            self._check_saved()
        except BrokenQueue as error:
            raise SnapshotError(f"{self.kind}: saved state of no queue: {error}") from None

    def _check_saved(self) -> None:
        """Raises BrokenQueue for registers and counters that do not fit each other."""
        if self.ready:
            self.check()

    def _saved_chain(self, saved: Any) -> Chain:
        """One chain of a saved state. Raises SnapshotError."""
        if not _CHAIN.accepts(saved) or len(saved) < CHAIN_FIELDS or (len(saved) - CHAIN_FIELDS) % 2:
            raise SnapshotError(f"{self.kind}: saved field 'in_flight' holds what is no chain")
        head, descriptors, readable_count, *numbers = saved
        parts: list[Part] = list(zip(numbers[::2], numbers[1::2], strict=True))
        readable, writable = parts[:readable_count], parts[readable_count:]
        lengths = [sum([size for _, size in half]) for half in (readable, writable)]
        if sum(lengths) > self.max_chain_bytes:
            raise SnapshotError(f"{self.kind}: saved field 'in_flight' holds a chain of {sum(lengths)} bytes")
        return Chain(self.memory, head, descriptors, readable, writable, lengths[0], lengths[1])


@cache
def _fields_of(kind: type[VirtQueue]) -> Fields:
    """The saved fields of a kind of queue."""
    address = Number((1 << 64) - 1)
    fields: dict[str, Kind] = {
        "size": Number(0xFFFF),
        "ready": Flag(),
        "descriptor_area": address,
        "driver_area": address,
        "device_area": address,
    }
    return Fields({**fields, **kind.counters})
