"""Which pages of a swap file are taken, and which hold what nobody needs any more."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["SwapSlots"]


class SwapSlots:
    """`count` slots, two bytes each. Given out as runs, so that pages stored together lie together.

    A slot that is free and has been written since its space was last given back is dirty: the disk still keeps it.
    """

    def __init__(self, count: int) -> None:
        self._taken = bytearray(count)
        self._written = bytearray(count)
        """1 for slots that have their space in the file."""
        self._next = 0
        """Where the next search begins: behind the last run, as a file written in one go is laid out."""
        self.free = count
        self.dirty = 0
        """How many are."""

    @property
    def taken(self) -> int:
        """Slots that were given out."""
        return len(self._taken) - self.free

    def holds(self, slot: int) -> bool:
        """Whether `slot` is taken. False for numbers that are no slot."""
        return 0 <= slot < len(self._taken) and bool(self._taken[slot])

    def take(self, count: int) -> range:
        """A run of at most `count` free slots, as long as one of half, a quarter ... of `count` can be had; empty when
        none is free."""
        length = min(count, self.free)
        while length:
            start = self._taken.find(bytes(length), self._next)
            if start < 0:
                start = self._taken.find(bytes(length))
            if start >= 0:
                run = self._take(start, length)
                self._next = run.stop
                return run
            length //= 2
        return range(0)

    def take_dirty(self, count: int) -> range:
        """As `take`, of dirty slots only: for these the disk has room even when it is full."""
        length = min(count, self.dirty)
        dirty = self._dirty_slots().tobytes() if length else b""
        while length:
            start = dirty.find(b"\1" * length)
            if start >= 0:
                return self._take(start, length)
            length //= 2
        return range(0)

    def _take(self, start: int, length: int) -> range:
        run = range(start, start + length)
        self._taken[start : run.stop] = b"\1" * length
        self.free -= length
        self.dirty -= self._written.count(1, start, run.stop)
        return run

    def fill(self, run: range) -> None:
        """Something was written to the slots of `run`, which are taken."""
        self._written[run.start : run.stop] = b"\1" * len(run)

    def release(self, slots: Iterable[int]) -> None:
        """Make `slots` free. Raises KeyError for one that is free."""
        for slot in slots:
            if not self.holds(slot):
                raise KeyError(slot)
            self._taken[slot] = 0
            self.free += 1
            self.dirty += self._written[slot]

    def clean(self, run: range) -> None:
        """The disk has taken the space of the slots of `run`, which are free."""
        self.dirty -= self._written.count(1, run.start, run.stop)
        self._written[run.start : run.stop] = bytes(len(run))

    def dirty_runs(self, least: int) -> list[range]:
        """Runs of at least `least` dirty slots, ascending."""
        steps = np.diff(self._dirty_slots().astype(np.int8), prepend=np.int8(0), append=np.int8(0))
        starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        long = stops - starts >= least
        return [range(*ends) for ends in zip(starts[long].tolist(), stops[long].tolist(), strict=True)]

    def _dirty_slots(self) -> NDArray[np.bool_]:
        """For each slot whether it is dirty."""
        dirty: NDArray[np.bool_] = np.frombuffer(self._written, np.uint8) > np.frombuffer(
            self._taken, np.uint8
        )
        return dirty
