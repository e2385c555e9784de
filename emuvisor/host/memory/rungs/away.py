"""Compression and swapping: pages are put into a store, whether the guest likes it or not."""

from collections.abc import Mapping, Sequence

from emuvisor.host.memory.entitlement import explain
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Instruction, SendAway
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import COMMON, GuestUse, HostUse

__all__ = ["CompressionRung", "StoreRung", "SwapRung"]

LEAST_YIELD = 0.1
"""A store that gains less than this for each page sent is not used."""


class StoreRung(Rung):
    """Sends pages to the store named `store`."""

    store: str
    prompt = True

    def reach(self, use: HostUse, guest: GuestUse) -> int:
        """What the store has room for and, by its record, gains."""
        return self._gains(min(guest.giveable, use.room.get(self.store, 0)), guest.yields)

    def _gains(self, pages: int, yields: Mapping[str, float]) -> int:
        """Frames that sending `pages` gains, by the store's record."""
        gain = yields.get(self.store, 1.0)
        return 0 if gain < LEAST_YIELD else int(pages * gain)

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:
        """Pages of those who owe, until the store is full; last those that are nobody's. Where it is known to refuse
        some, more are sent."""
        instructions: list[Instruction] = []
        room = use.room.get(self.store, 0)
        for guest in use.guests:
            debt = debts.get(guest.name, 0)
            pages, frames = self._pages_for(debt, min(guest.giveable, room), guest.yields)
            if not pages:
                continue
            room -= pages
            why, numbers = explain(guest, use.tax)
            if guest.balloon_verdict:
                why += f"; {guest.balloon_verdict}"
            instructions.append(self._send_away(guest.name, pages, frames, why, numbers))
        left = min(use.common - use.gains.get(COMMON, 0), room)
        pages, frames = self._pages_for(debts.get(COMMON, 0), left, use.common_yields)
        if pages:
            why = (
                f"{use.waited_for} frames are waited for, {max(0, use.available)} available, and guests have no more "
                f"to give than these, which they share"
            )
            numbers = {"waited_for": use.waited_for, "available": use.available, "shared": use.common}
            instructions.append(self._send_away(COMMON, pages, frames, why, numbers))
        return instructions

    def _pages_for(self, debt: int, most: int, yields: Mapping[str, float]) -> tuple[int, int]:
        """How many pages, `most` at most, pay `debt` or a part of it; and how many frames that is."""
        owed = min(debt, self._gains(most, yields))
        if owed <= 0:
            return 0, 0
        gain = yields.get(self.store, 1.0)
        pages = min(-int(-owed // gain), most)
        return pages, min(int(pages * gain), owed)

    def _send_away(
        self, name: str, pages: int, frames: int, why: str, numbers: Mapping[str, float]
    ) -> SendAway:
        return SendAway(
            rung=self.name,
            guest=name,
            store=self.store,
            pages=pages,
            frames=frames,
            why=f"gives {frames} frames: {why}" if name else f"{frames} frames: {why}",
            numbers=numbers,
        )


class CompressionRung(StoreRung):
    """Compresses pages into a pool of the host's memory that has a limit of its own."""

    name = "compression"
    store = "compressed"
    state = HostState.SOFT


class SwapRung(StoreRung):
    """Writes pages to a file of the host."""

    name = "swap"
    store = "swap"
    state = HostState.HARD
