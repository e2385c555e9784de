"""The pages of open snapshots as a `PageStore`: restored guests take them by stage-2 faults."""

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from emuvisor.errors import PageLost, UsageError
from emuvisor.memory.store import SlotOwners
from emuvisor.store.snapshot import Snapshot

__all__ = ["LazyPages"]

MAX_PAGES = 1 << 24
"""Numbers that a stage-2 entry can hold."""


@dataclass(slots=True)
class _Attached:
    """A snapshot whose slot n has number `first` + n here."""

    first: int
    snapshot: Snapshot
    owned: int
    """Pages that still have an owner."""

    @property
    def end(self) -> int:
        return self.first + len(self.snapshot.frames)


class LazyPages:
    """A `PageStore` of what is in snapshots already; it takes no pages.

    A guest is restored by `attach`, and owns all its pages here until it has each one in a frame or is gone. When the
    last one of a snapshot has no owner, that snapshot is closed.
    """

    name = "snapshots"

    def __init__(self) -> None:
        self._attached: list[_Attached] = []
        """By `first`."""
        self._owners = SlotOwners()
        self._gone: set[int] = set()
        """Numbers of attached snapshots without an owner."""
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
            self._attached.insert(place, _Attached(first, snapshot, count))
            return first

    def _find(self, slot: int) -> _Attached:
        place = bisect_right(self._attached, slot, key=lambda attached: attached.first) - 1
        if place < 0 or slot >= self._attached[place].end or slot in self._gone:
            raise PageLost(f"no snapshot has a page {slot}")
        return self._attached[place]

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
        with self._lock:
            self._owners.share(slots)

    def free(self, slots: Sequence[int]) -> None:
        """See `PageStore`. Raises PageLost for a slot without an owner."""
        with self._lock:
            for slot in self._owners.free(slots):
                attached = self._find(slot)
                self._gone.add(slot)
                attached.owned -= 1
                if not attached.owned:
                    self._attached.remove(attached)
                    self._gone.difference_update(range(attached.first, attached.end))
                    attached.snapshot.close()

    def close(self) -> None:
        """Close all snapshots."""
        with self._lock:
            for attached in self._attached:
                attached.snapshot.close()
            self._attached.clear()
            self._gone.clear()
