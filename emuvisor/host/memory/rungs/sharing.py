"""Sharing: pages of zeros, and pages that are there already."""

from collections.abc import Mapping, Sequence

from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Instruction, ScanSharing
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import HostUse

__all__ = ["SharingRung"]


class SharingRung(Rung):
    """Looks at `pages_per_s` pages a second while frames are short, and at `idle_pages_per_s` while they are not but
    could become so."""

    name = "sharing"
    state = HostState.HIGH

    def __init__(self, pages_per_s: int = 50_000, idle_pages_per_s: int = 1_000) -> None:
        self.pages_per_s = pages_per_s
        self.idle_pages_per_s = idle_pages_per_s

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:  # noqa: ARG002
        """A scan of one period's pages. What it gains is not known before."""
        if not use.tight:
            return ()
        short = use.short(HostState.HIGH)
        pages = int((self.pages_per_s if short else self.idle_pages_per_s) * use.period_s)
        if not pages:
            return ()
        why = f"scans {pages} pages: " + (
            f"{short} frames are missing" if short else "the guests could take more than is free"
        )
        return [ScanSharing(rung=self.name, guest="", pages=pages, why=why, numbers={"short": short})]
