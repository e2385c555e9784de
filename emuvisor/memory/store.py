"""Where pages go that have no frame: what a store of pages offers to the memory of guests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["PageStore", "SlotOwners"]


class PageStore(Protocol):
    """Keeps pages of 4 KiB under numbers from 0 to 2^24 - 1, for all guests of a host.

    Several threads use a store at a time. A number has one owner when `store` gives it out; clones share it.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def pages(self) -> int:
        """Pages that it keeps."""
        ...

    @property
    def used_bytes(self) -> int:
        """What they take of the host's memory or disk."""
        ...

    @property
    def limit_bytes(self) -> int:
        """What they may take at most."""
        ...

    @property
    def statistics(self) -> Mapping[str, int]:
        """Counts of its own, by names of its own."""
        ...

    def store(self, pages: Sequence[memoryview]) -> list[int | None]:
        """Keep the content of each of `pages`, 4096 bytes each; returns the numbers of those that were taken and None
        for those that were not: no room, an error of the disk, no memory for the work, or not worth it."""
        ...

    def load(self, slot: int, into: memoryview) -> None:
        """Put the page with number `slot` into the 4096 bytes of `into`, and go on keeping it.

        Raises PageLost, with the reason, when its content cannot be had; MemoryError when the host has no memory for
        the work, which can be tried again.
        """
        ...

    def share(self, slots: Sequence[int]) -> None:
        """One more owner of each of `slots`, for each time that it is named."""
        ...

    def free(self, slots: Sequence[int]) -> None:
        """One owner less of each of `slots`, for each time that it is named; without one, the page is forgotten."""
        ...


class SlotOwners:
    """How many owners a store's numbers have. One is the rule and takes no memory."""

    def __init__(self) -> None:
        self._more: Counter[int] = Counter()

    def share(self, slots: Sequence[int]) -> None:
        """One more owner of each of `slots`, for each time that it is named."""
        self._more.update(slots)

    def free(self, slots: Sequence[int]) -> list[int]:
        """One owner less of each of `slots`, for each time that it is named; returns those that have none left."""
        gone = []
        for slot in slots:
            if slot not in self._more:
                gone.append(slot)
            elif self._more[slot] == 1:
                del self._more[slot]
            else:
                self._more[slot] -= 1
        return gone
