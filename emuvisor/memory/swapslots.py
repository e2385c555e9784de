"""Which pages of a swap file are taken, and which hold what nobody needs any more."""

from collections.abc import Iterable

import numpy as np

__all__ = ["SwapSlots"]


class SwapSlots:
    """`count` slots, two bytes each. Given out as runs, so that pages stored together lie together."""

    def __init__(self, count: int) -> None:
        self._taken = bytearray(count)
        self._dirty = bytearray(count)
        """1 for free slots whose old content still has its space in the file."""
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
            start = self._find(length)
            if start >= 0:
                run = range(start, start + length)
                self._taken[start : run.stop] = b"\1" * length
                self.free -= length
                self.clean(run)
                self._next = run.stop
                return run
            length //= 2
        return range(0)

    def _find(self, length: int) -> int:
        """The first run of `length` free slots from where the last search ended, or from the start; -1 for none."""
        start = self._taken.find(bytes(length), self._next)
        return start if start >= 0 else self._taken.find(bytes(length))

    def release(self, slots: Iterable[int]) -> None:
        """Make `slots` free and dirty. Raises KeyError for one that is free."""
        for slot in slots:
            if not self.holds(slot):
                raise KeyError(slot)
            self._taken[slot] = 0
            self._dirty[slot] = 1
            self.free += 1
            self.dirty += 1

    def clean(self, run: range) -> None:
        """The slots of `run` are not dirty."""
        self.dirty -= self._dirty.count(1, run.start, run.stop)
        self._dirty[run.start : run.stop] = bytes(len(run))

    def dirty_runs(self, least: int) -> list[range]:
        """Runs of at least `least` dirty slots, ascending."""
        steps = np.diff(np.frombuffer(self._dirty, np.int8), prepend=np.int8(0), append=np.int8(0))
        starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        long = stops - starts >= least
        return [range(*ends) for ends in zip(starts[long].tolist(), stops[long].tolist(), strict=True)]
