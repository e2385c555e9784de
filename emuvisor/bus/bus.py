"""A bus owns all address ranges of one space and hands accesses to the device that claimed them."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from emuvisor.bus.device import Device
from emuvisor.errors import BusConflict, UsageError

__all__ = ["Bus", "Range"]

WIDTHS = (1, 2, 4, 8)
"""Bytes that one access may have."""

_CACHE_LIMIT = 4096
"""Entries per lookup cache; a guest that touches more addresses takes the slower way for the rest."""


class Range(NamedTuple):
    """`length` addresses from `start` of `device`; accesses wider than `width` bytes are split."""

    start: int
    length: int
    device: Device
    width: int

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.start + self.length


class Bus:
    """One address space (`size` bytes) of port or memory-mapped I/O.

    Ranges never overlap. Where nobody is home a read returns all ones and a write goes nowhere; both are
    counted, byte by byte. An access that leaves its range, or is wider than its device, is split into single
    bytes, the lowest address first.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.unclaimed_reads = 0
        self.unclaimed_writes = 0
        self._ranges: list[Range] = []
        self._starts: list[int] = []
        # (address, size) to the method and offset that serve it. Ports are a boot's hot path: one dict hit
        # instead of a search. Filled lazily, emptied when the ranges change.
        self._readers: dict[tuple[int, int], tuple[Callable[[int, int], int], int, int]] = {}
        self._writers: dict[tuple[int, int], tuple[Callable[[int, int, int], None], int, int]] = {}

    def attach(self, start: int, length: int, device: Device, width: int = 8) -> None:
        """Give `length` addresses from `start` to `device`, which takes accesses of up to `width` bytes.

        Raises BusConflict naming both owners on an overlap, UsageError outside the bus or for an odd width.
        """
        if width not in WIDTHS:
            raise UsageError(f"{device.name}: width is {width}; an access has 1, 2, 4 or 8 bytes")
        if length <= 0:
            raise UsageError(f"{device.name}: length is {length}; a range has at least one address")
        if start < 0 or start + length > self.size:
            raise UsageError(
                f"{device.name}: {start:#x}..{start + length - 1:#x} is outside the {self.name} bus "
                f"(0..{self.size - 1:#x})"
            )
        for other in self.overlapping(start, start + length):
            raise BusConflict(
                f"{device.name} at {start:#x}..{start + length - 1:#x} overlaps {other.device.name} "
                f"at {other.start:#x}..{other.end - 1:#x} on the {self.name} bus"
            )
        index = bisect_right(self._starts, start)
        self._ranges.insert(index, Range(start, length, device, width))
        self._starts.insert(index, start)
        self._forget_lookups()

    def detach(self, device: Device, start: int | None = None) -> None:
        """Take back every range of `device`, or only the one at `start`."""
        self._ranges = [
            r for r in self._ranges if r.device is not device or (start is not None and r.start != start)
        ]
        self._starts = [r.start for r in self._ranges]
        self._forget_lookups()

    def _forget_lookups(self) -> None:
        self._readers.clear()
        self._writers.clear()

    def __iter__(self) -> Iterator[Range]:
        """The ranges by ascending address."""
        return iter(self._ranges)

    def overlapping(self, start: int, end: int) -> Sequence[Range]:
        """The ranges that have some of the addresses from `start` to `end`, which is not one of them."""
        first, behind = bisect_right(self._starts, start), bisect_left(self._starts, end)
        if first and self._ranges[first - 1].end > start:
            first -= 1
        return self._ranges[first:behind]

    def find(self, address: int) -> Range | None:
        """The range that holds `address`."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            found = self._ranges[index]
            if address < found.end:
                return found
        return None

    def _owner(self, address: int, size: int) -> Range | None:
        """The range that takes the access whole."""
        found = self.find(address)
        if found is not None and address + size <= found.end and size <= found.width:
            return found
        return None

    def read(self, address: int, size: int) -> int:
        """What a guest's read of `size` bytes (1, 2, 4, 8) at `address` returns."""
        hit = self._readers.get((address, size))
        if hit is not None:
            read, offset, mask = hit
            return read(offset, size) & mask
        owner = self._owner(address, size)
        if owner is not None:
            hit = (owner.device.read, address - owner.start, (1 << 8 * size) - 1)
            if len(self._readers) < _CACHE_LIMIT:
                self._readers[address, size] = hit
            read, offset, mask = hit
            return read(offset, size) & mask
        if size > 1:
            return sum(self.read(address + i, 1) << 8 * i for i in range(size))
        self.unclaimed_reads += 1
        return 0xFF

    def write(self, address: int, value: int, size: int) -> None:
        """A guest's write of `size` bytes at `address`."""
        hit = self._writers.get((address, size))
        if hit is not None:
            write, offset, mask = hit
            write(offset, value & mask, size)
            return
        owner = self._owner(address, size)
        if owner is not None:
            hit = (owner.device.write, address - owner.start, (1 << 8 * size) - 1)
            if len(self._writers) < _CACHE_LIMIT:
                self._writers[address, size] = hit
            write, offset, mask = hit
            write(offset, value & mask, size)
        elif size > 1:
            for i in range(size):
                self.write(address + i, value >> 8 * i & 0xFF, 1)
        else:
            self.unclaimed_writes += 1
