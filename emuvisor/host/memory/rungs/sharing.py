"""Sharing: pages of zeros, and pages that are there already."""

from collections.abc import Mapping, Sequence

from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Instruction, ScanSharing
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import HostUse

__all__ = ["SharingRung"]


WORTH = 0.01
"""Frames gained for each page looked at, from which on looking is worth the full rate."""
LEAST_PART = 32
"""Where nothing is found, this part of the full rate is left: what guests hold can become equal."""


class SharingRung(Rung):
    """Looks at `pages_per_s` pages a second while frames are short, and at `idle_pages_per_s` while they are not but
    could become so. Where looking gains little it looks less: a host that is short of frames for long has been looked
    through."""

    name = "sharing"
    state = HostState.HIGH

    def __init__(self, pages_per_s: int = 20_000, idle_pages_per_s: int = 1_000) -> None:
        self.pages_per_s = pages_per_s
        self.idle_pages_per_s = idle_pages_per_s

    def ask(self, use: HostUse, _debts: Mapping[str, int], /) -> Sequence[Instruction]:
        """A scan of one period's pages. What it gains is not known before."""
        if not use.tight:
            return ()
        short = use.short(HostState.HIGH)
        rate = self.idle_pages_per_s
        if short:
            worth = max(1 / LEAST_PART, min(1.0, use.scan_yield / WORTH))
            rate = max(rate, int(self.pages_per_s * worth))
        pages = int(rate * use.period_s)
        if not pages:
            return ()
        why = f"scans {pages} pages: " + (
            f"{short} frames are missing" if short else "the guests could take more than is free"
        )
        return [ScanSharing(rung=self.name, guest="", pages=pages, why=why, numbers={"short": short})]
