"""Going round the guests in search of pages to share, a slice at a time."""

from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING

from emuvisor.host.memory.managed import ManagedGuest, ManagedHost

if TYPE_CHECKING:
    from emuvisor.memory import GuestMemory
    from emuvisor.memory.sharing import Findings, PageSharing

__all__ = ["Scanner"]

SLICE_PAGES = 512
"""Pages looked at in one step; those that look alike are compared and shared with their guests off their pCPUs."""


class Scanner:
    """Scans the guests of `host` in turn; it goes on where it stopped. Only guests of one tenant (`tenants` by guest's
    name; "" for all others) share more than zeros."""

    def __init__(self, host: ManagedHost, tenants: Mapping[str, str]) -> None:
        self._host = host
        self._tenants = tenants
        self._sharing: PageSharing | None = None
        """Made for the first scan, so that a host that never scans does without it."""
        self._names: dict[GuestMemory, str] = {}
        self._last = ""
        """The guest that was scanned last."""

    def scan(self, pages: int) -> dict[str, int]:
        """Look at about `pages` pages; returns the frames that guests gave by it, by name."""
        guests = sorted(self._host.all_guests(), key=lambda guest: (guest.name <= self._last, guest.name))
        sharing = self._joined(guests)
        gained: dict[str, int] = {}
        share = -(-pages // max(1, len(guests)))
        for guest in guests:
            if pages <= 0:
                break
            freed = self._scan_guest(sharing, guest, min(share, pages))
            pages -= share
            self._last = guest.name
            if freed:
                gained[guest.name] = freed
        return gained

    def _joined(self, guests: list[ManagedGuest]) -> "PageSharing":
        """With just these `guests`."""
        if self._sharing is None:
            made: PageSharing = import_module("emuvisor.memory.sharing").PageSharing(self._host.pool)
            self._sharing = made
        names = {guest.memory: guest.name for guest in guests}
        for memory in self._names.keys() - names.keys():
            self._sharing.forget(memory)
        for memory in names.keys() - self._names.keys():
            self._sharing.join(memory, self._tenants.get(names[memory], ""))
        self._names = names
        return self._sharing

    def _scan_guest(self, sharing: "PageSharing", guest: ManagedGuest, pages: int) -> int:
        freed = 0
        while pages > 0:
            findings = sharing.find(guest.memory, min(pages, SLICE_PAGES))
            if not findings.scanned:
                break
            freed += self._share(sharing, findings)
            pages -= findings.scanned
        return freed

    def _share(self, sharing: "PageSharing", findings: "Findings") -> int:
        with ExitStack() as held:
            for memory in findings.guests:
                if not held.enter_context(self._host.held(self._names[memory])):
                    return 0
            result = sharing.share(findings)
        return result.zero + result.shared
