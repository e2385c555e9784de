"""The pages of open snapshots as a `PageStore`: restored guests take them by stage-2 faults."""

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import PageLost, UsageError
from emuvisor.store.packs import UNKNOWN_PAGE, Packs, Places
from emuvisor.store.snapshot import Snapshot

__all__ = ["LazyPages"]

MAX_PAGES = 1 << 24
"""Numbers that a stage-2 entry can hold."""
Slots = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Attached:
    """A snapshot whose slot n has number `first` + n here."""

    first: int
    snapshot: Snapshot
    owners: NDArray[np.uint32]
    """Of each page."""
    owned: int
    """Pages that still have an owner."""

    @property
    def end(self) -> int:
        return self.first + len(self.owners)


class LazyPages:
    """A `PageStore` of what is in snapshots already; it takes no pages.

    A guest is restored by `attach`, and owns all its pages here until it has each one in a frame or is gone. When the
    last one of a snapshot has no owner, that snapshot is closed.
    """

    name = "snapshots"

    def __init__(self) -> None:
        self._attached: list[_Attached] = []
        """By `first`."""
        self._loaded = 0
        self._lost = 0
        self._lock = threading.Lock()

    def attach(self, snapshot: Snapshot) -> int:
        """Take `snapshot` over, and own each of its pages once; returns the number of its slot 0.

        Raises UsageError when there are not so many numbers left, and for one without pages.
        """
        count = len(snapshot.frames)
        with self._lock:
            if not count:
                raise UsageError(f"snapshot {snapshot.metadata.name!r} has no pages")
            first = place = 0
            for other in self._attached:
                if other.first - first >= count:
                    break
                first = other.end
                place += 1
            if first + count > MAX_PAGES:
                raise UsageError(
                    f"snapshot {snapshot.metadata.name!r} has {count} pages; restored guests can wait for {MAX_PAGES}"
                )
            self._attached.insert(place, _Attached(first, snapshot, np.ones(count, np.uint32), count))
            return first

    def _find(self, slot: int) -> _Attached:
        place = bisect_right(self._attached, slot, key=lambda attached: attached.first) - 1
        attached = self._attached[place] if place >= 0 else None
        if attached is None or slot >= attached.end or not attached.owners[slot - attached.first]:
            raise PageLost(f"no snapshot has a page {slot}")
        return attached

    def _by_snapshot(self, slots: Slots) -> list[tuple[_Attached, NDArray[np.intp]]]:
        """Each snapshot that some of `slots` are of, with where in `slots` they are. Raises PageLost when one of them
        has no owner."""
        found = []
        for attached in self._attached:
            at = np.flatnonzero((slots >= attached.first) & (slots < attached.end))
            unowned = attached.owners[slots[at] - attached.first] == 0
            if unowned.any():
                raise PageLost(f"no snapshot has a page {slots[at][unowned][0]}")
            if len(at):
                found.append((attached, at))
        if sum(len(at) for _, at in found) < len(slots):
            raise PageLost("no snapshot has some of the pages")
        return found

    @property
    def pages(self) -> int:
        """Pages that have an owner."""
        with self._lock:
            return sum(attached.owned for attached in self._attached)

    @property
    def used_bytes(self) -> int:
        """What the pages of the snapshots take of the disk. They would be there anyway."""
        with self._lock:
            return sum(attached.snapshot.metadata.bytes for attached in self._attached)

    @property
    def limit_bytes(self) -> int:
        """As `used_bytes`: it takes nothing more."""
        return self.used_bytes

    @property
    def statistics(self) -> dict[str, int]:
        """Pages `loaded` and `lost` since it was made, and snapshots `attached`."""
        with self._lock:
            return {"loaded": self._loaded, "lost": self._lost, "attached": len(self._attached)}

    def store(self, pages: Sequence[memoryview]) -> list[int | None]:
        """Takes none of them; see `PageStore`."""
        return [None] * len(pages)

    def load(self, slot: int, into: memoryview) -> None:
        """See `PageStore`."""
        try:
            with self._lock:
                attached = self._find(slot)
            attached.snapshot.read(slot - attached.first, into)
        except PageLost:
            with self._lock:
                self._lost += 1
            raise
        with self._lock:
            self._loaded += 1

    def share(self, slots: Sequence[int]) -> None:
        """See `PageStore`."""
        numbers = np.asarray(slots, np.int64)
        with self._lock:
            for attached, at in self._by_snapshot(numbers):
                np.add.at(attached.owners, numbers[at] - attached.first, np.uint32(1))

    def free(self, slots: Sequence[int]) -> None:
        """See `PageStore`. Raises PageLost for a slot without an owner."""
        with self._lock:
            if len(slots) == 1:  # a guest has touched it: no arrays for that
                attached = self._find(slots[0])
                index = slots[0] - attached.first
                attached.owners[index] -= 1
                self._forget(attached, int(not attached.owners[index]))
                return
            numbers = np.asarray(slots, np.int64)
            for attached, at in self._by_snapshot(numbers):
                freed = numbers[at] - attached.first
                np.subtract.at(attached.owners, freed, np.uint32(1))
                self._forget(attached, int(np.count_nonzero(attached.owners[np.unique(freed)] == 0)))

    def _forget(self, attached: _Attached, pages: int) -> None:
        """So many pages have no owner any more."""
        attached.owned -= pages
        if not attached.owned:
            self._attached.remove(attached)
            attached.snapshot.close()

    def places(self, slots: NDArray[np.integer], packs: Packs) -> Places:
        """Where in `packs` the pages are; `UNKNOWN_PAGE` for those that are in another store's. Raises PageLost."""
        found = np.full(len(slots), UNKNOWN_PAGE, np.int64)
        numbers = slots.astype(np.int64)
        with self._lock:
            for attached, at in self._by_snapshot(numbers):
                if attached.snapshot.packs is packs:
                    found[at] = attached.snapshot.places[numbers[at] - attached.first]
        return found

    def close(self) -> None:
        """Close all snapshots."""
        with self._lock:
            for attached in self._attached:
                attached.snapshot.close()
            self._attached.clear()
