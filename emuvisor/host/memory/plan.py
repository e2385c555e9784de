"""The decision: from what the host and its guests use to what is to be done. A pure function.

1. How much is missing: `HostUse.short`, the way back to the state HIGH, as far as there are idle frames. In HARD and
   LOW the first part of it, the way back to SOFT, has to come at once.
2. Who gives it: `who_gives`. This makes debts. What guests wait for and nobody can give has to come from frames that
   they share.
3. How: the rungs in their order, each with the debts that those before it left.
4. What each guest may take until the next plan.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from emuvisor.host.memory.entitlement import price, who_gives
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.instructions import Allow, Balloon, Instruction, SendAway
from emuvisor.host.memory.rungs.base import Rung
from emuvisor.host.memory.use import COMMON, GuestUse, HostUse

__all__ = ["plan"]

BATCH = 256
"""Taking fewer frames at a time costs more than having them for a while."""
_ROUNDS = 4
"""How often debts are divided anew because a store was full before all were paid."""


def plan(use: HostUse, rungs: Sequence[Rung]) -> list[Instruction]:
    """What is to be done now, in this order, by the ladder `rungs`; `use` comes from `observe`."""
    most = {guest.name: _reach(use, rungs, guest) for guest in use.guests}
    wanted = _wanted(use)
    for _ in range(_ROUNDS):
        debts = who_gives(use.guests, wanted, most, use.tax)
        climb = _Climb(use, rungs, debts)
        unpaid = {name: debt for name, debt in climb.debts.items() if name != COMMON}
        if not unpaid:
            break
        for name, debt in unpaid.items():
            most[name] = debts[name] - debt
    return [*climb.instructions, *_bounds(use)]


def _wanted(use: HostUse) -> int:
    """Frames that guests are to give: the way back to HIGH, as far as they have idle ones. What is in use is taken in
    LOW only, and for guests that are paused, and little more of it than brings the host back to HARD: taken earlier, it
    would come back at once."""
    if use.state == HostState.HIGH:
        return 0
    idle = sum(guest.idle for guest in use.guests)
    missing = max(0, use.waited_for - use.available)
    least = max(BATCH, use.short(HostState.HARD)) if use.state == HostState.LOW else 0
    return min(max(missing, use.short(HostState.HIGH)), max(missing, least, idle))


def _from_common(use: HostUse, debts: Mapping[str, int]) -> int:
    """Frames that are to come from those that guests share: what somebody waits for, when all that can be had of their
    own does not do; then all that leads out of LOW."""
    gained = sum(debts.values())
    missing = use.waited_for - use.available - gained
    return min(use.common, max(missing, use.short(HostState.HARD) - gained)) if missing > 0 else 0


def _acts(use: HostUse, rung: Rung) -> bool:
    return use.state >= rung.state


def _reach(use: HostUse, rungs: Iterable[Rung], guest: GuestUse) -> int:
    """Frames that the ladder can get out of `guest` now; when it is over its limit, every rung can be used."""
    return sum(rung.reach(use, guest) for rung in rungs if guest.over_limit or _acts(use, rung))


class _Climb:
    """One way up the ladder: `instructions`, and what is left of `debts`."""

    def __init__(self, use: HostUse, rungs: Sequence[Rung], debts: Mapping[str, int]) -> None:
        self.instructions: list[Instruction] = []
        self.debts = dict(debts)
        self._use = use
        self._guests = {guest.name: guest for guest in use.guests}
        self._taken = dict.fromkeys(self._guests, 0)
        self._gains: dict[str, int] = {}
        self._urgent = self._find_urgent(rungs)
        common = _from_common(use, debts)
        if common:
            self.debts[COMMON] = common
        self._over = {guest.name: guest.over_limit for guest in use.guests if guest.over_limit}
        for rung in rungs:
            acts = _acts(use, rung)
            self._add(rung.ask(self._use, self._due(rung, acts)))
            if not acts:
                self._add(rung.relax(self._use, use.spare(HostState(rung.state - 1))))
            self._use = replace(use, gains=dict(self._gains))

    def _find_urgent(self, rungs: Iterable[Rung]) -> Mapping[str, int]:
        """Debts that cannot wait until a guest gets round to it, as far as prompt rungs can gain them."""
        if self._use.state < HostState.HARD:
            return {}
        prompt = [rung for rung in rungs if rung.prompt and _acts(self._use, rung)]
        most = {
            name: min(debt, sum(rung.reach(self._use, self._guests[name]) for rung in prompt))
            for name, debt in self.debts.items()
        }
        debts = who_gives(self._use.guests, self._use.short(HostState.SOFT), most, self._use.tax)
        urgent: dict[str, int] = {}
        for rung in prompt:
            left = {name: debt - urgent.get(name, 0) for name, debt in debts.items()}
            for instruction in rung.ask(self._use, left):
                name = instruction.guest
                urgent[name] = min(debts.get(name, 0), urgent.get(name, 0) + instruction.frames)
        return urgent

    def _due(self, rung: Rung, acts: bool) -> dict[str, int]:
        """The debts that are this rung's business."""
        due = (
            self.debts
            if acts
            else {name: min(debt, self._over.get(name, 0)) for name, debt in self.debts.items()}
        )
        if not rung.prompt:
            due = {name: debt - self._urgent.get(name, 0) for name, debt in due.items()}
        return {name: debt for name, debt in due.items() if debt > 0}

    def _add(self, instructions: Iterable[Instruction]) -> None:
        for asked in instructions:
            instruction = self._trimmed(asked)
            if isinstance(instruction, SendAway) and not instruction.pages:
                continue
            self.instructions.append(instruction)
            if instruction.frames <= 0:
                continue
            name = instruction.guest
            self._gains[name] = self._gains.get(name, 0) + instruction.frames
            left = self.debts.pop(name, 0) - instruction.frames
            if left > 0:
                self.debts[name] = left

    def _trimmed(self, instruction: Instruction) -> Instruction:
        """`instruction` without what would break a reservation, whoever's rung asked for it."""
        guest = self._guests.get(instruction.guest)
        if guest is None:
            return instruction
        left = guest.giveable - self._taken[guest.name]
        if isinstance(instruction, SendAway):
            pages = min(instruction.pages, left)
            self._taken[guest.name] += pages
            return replace(instruction, pages=pages, frames=min(instruction.frames, pages))
        if isinstance(instruction, Balloon):
            frames = min(instruction.frames, left)
            self._taken[guest.name] += max(0, frames)
            largest = max(0, guest.contract.frames - guest.contract.reserved_frames)
            return replace(instruction, target=min(instruction.target, largest), frames=frames)
        return instruction


def _bounds(use: HostUse) -> list[Instruction]:
    """What each guest may take until the next plan, where that matters: so that it stays below its limit, and so that
    frames that others were promised are there when they want them."""
    promised = use.promised if use.tight else 0
    available = free = max(0, use.available)
    common: dict[str, int] = {}
    if promised:
        hungry = _by_claim(use, [guest for guest in use.guests if guest.starved])
        for guest in hungry:  # less than what it cannot go on without is of no use to it
            common[guest.name] = guest.lacks if guest.lacks <= available else 0
            available -= common[guest.name]
        half = -(-available // 2) if hungry else 0
        _divide(use, hungry, half, common)
        _divide(use, use.guests, available - half, common)
    bounds: list[Instruction] = []
    for guest in use.guests:
        limit = guest.contract.limit_frames
        may_take = None if promised == 0 else guest.promised + common[guest.name]
        why = f"may take {may_take} frames: {free} are available, {guest.promised} promised to it"
        if limit is not None and (may_take is not None or limit < guest.contract.frames + guest.extra):
            room = max(0, limit - guest.resident)
            if may_take is None or room < may_take:
                may_take = room
                why = f"may take {room} frames: it holds {guest.resident}, and its limit is {limit}"
        if may_take is not None:
            bounds.append(Allow(rung="bounds", guest=guest.name, may_take=may_take, why=why))
        elif guest.bounded:
            why = "may take what it wants: nobody was promised it"
            bounds.append(Allow(rung="bounds", guest=guest.name, may_take=None, why=why))
    return bounds


def _divide(use: HostUse, guests: Sequence[GuestUse], frames: int, into: dict[str, int]) -> None:
    """Divide `frames` evenly among `guests`; those with the strongest claim get what cannot be divided."""
    if not guests:
        return
    each, rest = divmod(frames, len(guests))
    for number, guest in enumerate(_by_claim(use, guests)):
        into[guest.name] = into.get(guest.name, 0) + each + (number < rest)


def _by_claim(use: HostUse, guests: Iterable[GuestUse]) -> list[GuestUse]:
    """`guests`, the strongest claim to memory first."""
    return sorted(guests, key=lambda guest: (-guest.contract.priority, -price(guest, use.tax), guest.name))
