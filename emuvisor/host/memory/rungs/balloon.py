"""Ballooning: the guest itself chooses what it can do without."""

from collections.abc import Mapping, Sequence

from emuvisor.host.memory.entitlement import explain
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Balloon, Instruction
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import GuestUse, HostUse

__all__ = ["BalloonRung"]


class BalloonRung(Rung):
    """Sets targets for balloons; none is larger than the part `most` of its guest's size.

    A guest chooses freely what it puts into its balloon, and pages that it never touched gain nothing. To have it give
    N frames, the target is therefore N pages beyond all that it does not use: what it can still use is then N less
    than what it uses now.
    """

    name = "balloon"
    state = HostState.SOFT

    def __init__(self, most: float = 0.65) -> None:
        self.most = most

    def _largest(self, guest: GuestUse) -> int:
        """The largest target for a guest: its reservation stays usable."""
        size = guest.contract.frames
        return max(0, min(int(size * self.most), size - guest.floor))

    def _least(self, guest: GuestUse) -> int:
        """The target below which a guest could use more than its limit."""
        limit = guest.contract.limit_frames
        if limit is None or not guest.balloon or guest.balloon_verdict:
            return 0
        return max(0, min(guest.contract.frames - limit, self._largest(guest)))

    def reach(self, _use: HostUse, guest: GuestUse, /) -> int:
        """What a live and honest balloon has not taken yet. A guest that does not run cannot answer."""
        if not guest.balloon or guest.balloon_verdict or not guest.runs:
            return 0
        return max(0, min(guest.giveable, self._largest(guest) - guest.ballooned - guest.absent))

    def ask(self, use: HostUse, debts: Mapping[str, int]) -> Sequence[Instruction]:
        """Larger targets for those who owe."""
        instructions: list[Instruction] = []
        for guest in use.guests:
            debt = debts.get(guest.name, 0)
            frames = min(debt, self.reach(use, guest)) if debt else 0
            if frames > 0:
                target = max(guest.ballooned + guest.absent + frames, guest.balloon_target)
                formula, numbers = explain(guest, use.tax)
                instructions.append(
                    Balloon(
                        rung=self.name,
                        guest=guest.name,
                        target=min(target, self._largest(guest)),
                        frames=frames,
                        why=f"gives {frames} frames: {formula}",
                        numbers=numbers,
                    )
                )
            elif guest.balloon_target < self._least(guest):
                instructions.append(self._at_limit(guest))
        return instructions

    def relax(self, use: HostUse, spare: int) -> Sequence[Instruction]:
        """Smaller targets, in proportion to what each balloon holds. While frames could become short, no more than
        half of what is spare at a time: what guests do with it is seen before more is given."""
        instructions: list[Instruction] = []
        held = {guest.name: max(0, guest.balloon_target - self._least(guest)) for guest in use.guests}
        total = sum(held.values())
        back = min(total, spare // 2 if use.tight else total)
        for guest in use.guests:
            frames = -(-held[guest.name] * back // total) if total else 0
            if frames > 0:
                instructions.append(
                    Balloon(
                        rung=self.name,
                        guest=guest.name,
                        target=guest.balloon_target - frames,
                        frames=-frames,
                        why=f"gets {frames} frames back: {spare} are spare, balloons are to hold {total}",
                        numbers={"spare": spare, "ballooned": total},
                    )
                )
        return instructions

    def _at_limit(self, guest: GuestUse) -> Balloon:
        """A guest that knows of its limit does not run into it."""
        least = self._least(guest)
        limit = guest.contract.limit_frames or 0
        return Balloon(
            rung=self.name,
            guest=guest.name,
            target=least,
            why=f"may use {limit} of its {guest.contract.frames} frames: its limit",
            numbers={"limit": limit, "size": guest.contract.frames},
        )
