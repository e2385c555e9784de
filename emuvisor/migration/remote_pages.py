"""Post-copy at the target: pages that are still at the source, as a `PageStore`."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import MigrationError, PageLost
from emuvisor.machine.machine import Machine, present_machine
from emuvisor.memory.stage2 import MAX_FRAMES
from emuvisor.memory.store import SlotOwners
from emuvisor.units import PAGE_SIZE

__all__ = ["RemoteGuest", "RemotePages"]


@dataclass(slots=True)
class RemoteGuest:
    """A guest of which pages are missing. What comes waits here, outside the pool, until it is wanted."""

    missing: NDArray[np.bool_]
    """By page, whether it is still at the source."""
    demand: Callable[[int], None]
    """Asks the source for a page; does nothing while there is no line."""
    first: int = 0
    """Its page n has number `first` + n."""
    arrived: dict[int, bytes] = field(default_factory=dict)
    owned: int = 0
    broken: str = ""
    """Why nothing comes at present."""
    lost: str = ""
    """Why nothing will come any more."""
    demanded: set[int] = field(default_factory=set)
    stalled: set[Machine] = field(default_factory=set)
    """Who could not go on without a page while there was no line: the guest, and clones that were made of it."""

    @property
    def end(self) -> int:
        """One more than its last number."""
        return self.first + len(self.missing)


class RemotePages:
    """The pages of guests that have come here without them; it takes no pages. Any number of guests at a time."""

    name = "the other side of a migration"

    def __init__(self) -> None:
        self._guests: list[RemoteGuest] = []
        """By `first`."""
        self._owners = SlotOwners()
        self._gone: set[int] = set()
        """Numbers without an owner of guests that still have some."""
        self._changed = threading.Condition()
        self._loaded = self._lost = 0

    def attach(self, guest: RemoteGuest) -> None:
        """Give numbers to the pages of `guest`; each that is missing has one owner. Raises MigrationError when there
        are not so many left."""
        count = len(guest.missing)
        with self._changed:
            first = place = 0
            for other in self._guests:
                if other.first - first >= count:
                    break
                first = other.end
                place += 1
            if first + count > MAX_FRAMES:
                raise MigrationError(
                    f"migration: the guest has {count} pages; guests that wait for theirs can have {MAX_FRAMES}"
                )
            guest.first = first
            guest.owned = int(np.count_nonzero(guest.missing))
            self._gone.update((first + np.flatnonzero(~guest.missing)).tolist())
            self._guests.insert(place, guest)

    def arrive(self, guest: RemoteGuest, page: int, content: bytes) -> None:
        """A page has come; one that was not missing is ignored."""
        with self._changed:
            if 0 <= page < len(guest.missing) and guest.missing[page]:
                guest.missing[page] = False
                guest.demanded.discard(page)
                if guest.first + page not in self._gone:
                    guest.arrived[page] = content
                self._changed.notify_all()

    def set_line(self, guest: RemoteGuest, *, broken: str = "", lost: str = "") -> None:
        """Why nothing comes now, or never will; neither: the line is back."""
        with self._changed:
            guest.broken, guest.lost = broken, lost
            guest.demanded.clear()
            self._changed.notify_all()

    def _find(self, slot: int) -> RemoteGuest:
        place = bisect_right(self._guests, slot, key=lambda guest: guest.first) - 1
        if place < 0 or slot >= self._guests[place].end or slot in self._gone:
            raise PageLost(f"no migration has a page {slot}")
        return self._guests[place]

    @property
    def pages(self) -> int:
        """Pages that have an owner."""
        with self._changed:
            return sum(guest.owned for guest in self._guests)

    @property
    def used_bytes(self) -> int:
        """What has come and waits."""
        with self._changed:
            return sum(len(guest.arrived) for guest in self._guests) * PAGE_SIZE

    @property
    def limit_bytes(self) -> int:
        """As `used_bytes`: it takes nothing more."""
        return self.used_bytes

    @property
    def statistics(self) -> dict[str, int]:
        """Pages `loaded` and `lost` since it was made, and guests `attached`."""
        with self._changed:
            return {"loaded": self._loaded, "lost": self._lost, "attached": len(self._guests)}

    def store(self, pages: Sequence[memoryview]) -> list[int | None]:
        """Takes none of them; see `PageStore`."""
        return [None] * len(pages)

    def load(self, slot: int, into: memoryview) -> None:
        """Put the page `into` memory; see `PageStore`. One that is still to come is asked for.

        A guest's slice waits for it, but not when it is to end: whoever wants the guest off its pCPU need not wait for
        the source. Anybody else, who may have locks that others wait for, does not wait either. They get MemoryError,
        and try again. While there is no line, a slice ends with the guest suspended.
        """
        machine = present_machine()
        if machine is not None:
            machine.on_stop = self._wake
        try:
            while (demand := self._attempt(slot, into, machine)) is not None:
                demand()  # without the lock: the other side may be slow to take it
        finally:
            if machine is not None:
                machine.on_stop = None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _attempt(self, slot: int, into: memoryview, machine: Machine | None) -> Callable[[], None] | None:
        """Wait for the page and put it `into` memory; returns what is to be done before that. Raises as `load`."""
        with self._changed:
            guest = self._find(slot)
            page = slot - guest.first
            while page not in guest.arrived:
                if guest.lost:
                    self._lost += 1
                    raise PageLost(guest.lost)
                if guest.broken:
                    if machine is not None:
                        guest.stalled.add(machine)
                        machine.suspend(guest.broken)
                    raise MemoryError(guest.broken)
                if page not in guest.demanded:
                    guest.demanded.add(page)
                    return partial(guest.demand, page)
                if machine is None or machine.is_stopping:
                    raise MemoryError("it is still at the other side of a migration")
                self._changed.wait()
            into[:] = guest.arrived[page]
            self._loaded += 1
        return None

    def share(self, slots: Sequence[int]) -> None:
        """See `PageStore`."""
        with self._changed:
            self._owners.share(slots)

    def free(self, slots: Sequence[int]) -> None:
        """See `PageStore`. Raises PageLost for a slot without an owner."""
        with self._changed:
            for slot in self._owners.free(slots):
                guest = self._find(slot)
                guest.arrived.pop(slot - guest.first, None)
                self._gone.add(slot)
                guest.owned -= 1
                if not guest.owned and (guest.lost or not guest.missing.any()):
                    self._detach(guest)

    def _detach(self, guest: RemoteGuest) -> None:
        if guest in self._guests:
            self._guests.remove(guest)
            self._gone.difference_update(range(guest.first, guest.end))

    def release(self, guest: RemoteGuest) -> None:
        """Everything has come, or nothing will: forget a guest of which nobody owns a page."""
        with self._changed:
            if not guest.owned:
                self._detach(guest)
