"""Pausing: the last resort. It gains no frame; it says why a guest cannot go on."""

from collections.abc import Mapping, Sequence

from emuvisor.host.memory.entitlement import price
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Instruction, Pause, Resume
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import GuestUse, HostUse
from emuvisor.units import PAGE_SIZE, format_size

__all__ = ["PauseRung"]


class PauseRung(Rung):
    """Pauses a guest that waits for a frame when no other rung can gain one, the weakest claim first, one in a
    period. When there are frames again, guests go on, the strongest claim first, one in a period."""

    name = "pause"
    state = HostState.LOW

    def ask(self, use: HostUse, _debts: Mapping[str, int], /) -> Sequence[Instruction]:
        """What no rung before this one gains comes from nowhere."""
        hungry = [guest for guest in use.guests if guest.starved and not guest.paused]
        full = [guest for guest in hungry if guest.over_limit and guest.name not in use.gains]
        if full:
            guest = self._by_claim(use, full)[0]
            limit = format_size((guest.contract.limit_frames or 0) * PAGE_SIZE)
            return [
                Pause(
                    rung=self.name,
                    guest=guest.name,
                    why=f"no memory: it holds its limit of {limit}, and none of that can be sent away",
                    numbers={"resident": guest.resident, "limit": guest.contract.limit_frames or 0},
                )
            ]
        # A guest within its reservation has a frame waiting for it.
        poor = [guest for guest in hungry if guest.lacks]
        needed = use.lacks
        if use.state < self.state:
            return ()
        if not poor or use.available + use.expected >= needed:
            return self._last_frames(use)
        guest = self._by_claim(use, poor)[0]
        return [
            Pause(
                rung=self.name,
                guest=guest.name,
                why=(
                    f"no memory: {max(0, use.available)} of the host's {use.frames} frames are available, "
                    f"{use.expected} more can be gained, and {needed} are needed at once"
                    f"{''.join(f'; {trouble}' for trouble in use.troubles)}"
                ),
                numbers={"available": use.available, "expected": use.expected, "needed": needed},
            )
        ]

    def _last_frames(self, use: HostUse) -> Sequence[Instruction]:
        """When nobody can go on, the strongest goes on with the frames that there are: it may be about to end."""
        if any(guest.runs or guest.starved for guest in use.guests):
            return ()
        why = f"goes on with the {use.available} frames that are left: all others are paused, too"
        return self._resume(use, use.available, why)

    def relax(self, use: HostUse, spare: int) -> Sequence[Instruction]:
        """One guest goes on."""
        return self._resume(use, spare, f"goes on: {spare} frames are spare") or self._last_frames(use)

    def _resume(self, use: HostUse, spare: int, why: str) -> Sequence[Instruction]:
        """The strongest of the guests that can go on with `spare` frames."""
        waiting = [
            guest
            for guest in use.guests
            if guest.paused and guest.needed <= max(spare, guest.promised) and guest.growth >= guest.needed
        ]
        if not waiting:
            return ()
        guest = self._by_claim(use, waiting)[-1]
        return [Resume(rung=self.name, guest=guest.name, why=why, numbers={"spare": spare})]

    def _by_claim(self, use: HostUse, guests: Sequence[GuestUse]) -> list[GuestUse]:
        """`guests`, the weakest claim to memory first."""
        return sorted(guests, key=lambda guest: (guest.contract.priority, price(guest, use.tax), guest.name))
