"""Going round the guests in search of pages to share, a slice at a time."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING

from emuvisor.host.memory.managed import Account, ManagedGuest, ManagedHost

if TYPE_CHECKING:
    from emuvisor.memory import GuestMemory
    from emuvisor.memory.sharing import Findings, PageSharing

__all__ = ["Scanner"]

SLICE_PAGES = 512
"""Pages looked at in one step; those that look alike are compared and shared with their guests off their pCPUs."""


class Scanner:
    """Scans the guests of `host` in turn; it goes on where it stopped. Only guests of one tenant (`tenants` by guest's
    name; "" for all others) share more than zeros."""

    def __init__(
        self, host: ManagedHost, tenants: Mapping[str, str], account: Callable[[ManagedGuest], Account]
    ) -> None:
        self._host = host
        self._account = account
        self._tenants = tenants
        self._sharing: PageSharing | None = None
        """Made for the first scan, so that a host that never scans does without it."""
        self._names: dict[GuestMemory, str] = {}
        self._last = ""
        """The guest that was scanned last."""

    @property
    def cost(self) -> tuple[int, float]:
        """Pages that were looked at so far, and the CPU time in seconds that this and sharing them took."""
        if self._sharing is None:
            return 0, 0.0
        return self._sharing.statistics.scanned, self._sharing.statistics.seconds

    def scan(self, pages: int) -> tuple[int, dict[str, int]]:
        """Look at about `pages` pages; returns at how many, and the frames that guests gave by it, by name."""
        guests = sorted(self._host.all_guests(), key=lambda guest: (guest.name <= self._last, guest.name))
        sharing = self._joined(guests)
        gained: dict[str, int] = {}
        looked = 0
        share = -(-pages // max(1, len(guests)))
        for guest in guests:
            if pages <= 0:
                break
            scanned, freed = self._scan_guest(sharing, guest, min(share, pages))
            looked += scanned
            pages -= share
            self._last = guest.name
            if freed:
                gained[guest.name] = freed
        return looked, gained

    def _joined(self, guests: list[ManagedGuest]) -> "PageSharing":
        """With just these `guests`."""
        if self._sharing is None:
            made: PageSharing = import_module("emuvisor.memory.sharing").PageSharing(
                self._host.pool, clock=time.thread_time
            )
            self._sharing = made
        names = {guest.memory: guest.name for guest in guests}
        for memory in self._names.keys() - names.keys():
            self._sharing.forget(memory)
        for memory in names.keys() - self._names.keys():
            self._sharing.join(memory, self._tenants.get(names[memory], ""))
        self._names = names
        return self._sharing

    def _scan_guest(self, sharing: "PageSharing", guest: ManagedGuest, pages: int) -> tuple[int, int]:
        scanned = freed = 0
        account = self._account(guest)
        while scanned < pages:
            findings = sharing.find(guest.memory, min(pages - scanned, SLICE_PAGES))
            if not findings.scanned:
                break
            scanned += findings.scanned
            account.in_flight = findings.pages
            try:
                freed += self._share(sharing, findings)
            finally:
                account.in_flight = 0
        return scanned, freed

    def _share(self, sharing: "PageSharing", findings: "Findings") -> int:
        if not findings.pages:
            return 0
        with ExitStack() as held:
            for memory in findings.guests:
                if not held.enter_context(self._host.held(self._names[memory])):
                    return 0
            return sharing.share(findings).freed
