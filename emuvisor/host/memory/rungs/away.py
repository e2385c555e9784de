"""Compression and swapping: pages are put into a store, whether the guest likes it or not."""

from collections.abc import Mapping, Sequence

from emuvisor.host.memory.entitlement import explain
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Instruction, SendAway
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import GuestUse, HostUse

__all__ = ["CompressionRung", "StoreRung", "SwapRung"]

LEAST_YIELD = 0.1
"""A store that gains less than this for each page sent is not used."""


class StoreRung(Rung):
    """Sends pages to the store named `store`."""

    store: str
    prompt = True

    def reach(self, use: HostUse, guest: GuestUse) -> int:
        """What the store has room for and, by its record, gains."""
        gain = guest.yields.get(self.store, 1.0)
        if gain < LEAST_YIELD:
            return 0
        return int(min(guest.giveable, use.room.get(self.store, 0)) * gain)

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:
        """Pages of those who owe, until the store is full. Where it is known to refuse some, more are sent."""
        instructions = []
        room = use.room.get(self.store, 0)
        for guest in use.guests:
            debt = debts.get(guest.name, 0)
            owed = min(debt, self.reach(use, guest)) if debt else 0
            if owed <= 0 or room <= 0:
                continue
            gain = guest.yields.get(self.store, 1.0)
            pages = min(-int(-owed // gain), guest.giveable, room)
            frames = min(int(pages * gain), owed)
            room -= pages
            formula, numbers = explain(guest, use.tax)
            why = f"gives {frames} frames: {formula}"
            if guest.balloon_verdict:
                why += f"; {guest.balloon_verdict}"
            instructions.append(
                SendAway(
                    rung=self.name,
                    guest=guest.name,
                    store=self.store,
                    pages=pages,
                    frames=frames,
                    why=why,
                    numbers=numbers,
                )
            )
        return instructions


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
