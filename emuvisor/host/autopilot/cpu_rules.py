"""What could be changed about pCPUs: caps, turns, weights, placement.

The scheduler is work-conserving and keeps to weights by itself; there is nothing to gain from repeating what it does.
What it cannot know is whether a cap is still meant as the load is now, that somebody waits for turns and not for time,
that what a guest is given goes into bringing its pages back, and that guests are pinned side by side while another pCPU
is idle.
"""

from collections.abc import Iterator, Mapping, Sequence

from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.entitlement import Due, divide
from emuvisor.host.autopilot.moves import Knob, Move, Target, Value
from emuvisor.host.autopilot.objective import Goal, Objective
from emuvisor.host.autopilot.score import BEST, fairness, score, wants
from emuvisor.host.autopilot.trial import Need, Proposal
from emuvisor.host.autopilot.view import GuestView, HostView, value_of
from emuvisor.host.scheduler.claim import WHOLE

__all__ = ["cpu_proposals", "entitlements"]

MUCH, LITTLE = 5.0, 1.0
"""Percent of a period: what is worth a change, and what is for the favoured guest."""
CONTENDED = 10.0
"""Percent of a pCPU that guests wait for: some are behind others."""
SPARE = 3.0
"""Percent of all pCPUs that are idle: there is something to have."""
WELL = 97.0
"""A score that needs no help."""
BEHIND = 0.75
"""Of the others' mean: a guest that fares badly."""
EFFICIENT, WASTEFUL = 0.9, 0.7
"""Parts of what a guest got that were of use to it."""
FREE = 80.0
"""Percent of its time that a pCPU is busy, at most, which another guest is to use."""


def entitlements(view: HostView) -> dict[str, float]:
    """Nanoseconds of pCPU that each guest is due in the period, by weight, of what it wants."""
    dues = [
        Due(
            weight=guest.cpu.weight,
            demand=min(view.period_ns, guest.cpu_demand_ns),
            floor=min(guest.cpu_demand_ns, guest.cpu.reservation / WHOLE * view.period_ns),
        )
        for guest in view.guests
    ]
    due = divide(view.capacity_ns, dues)
    return {guest.name: ns for guest, ns in zip(view.guests, due, strict=True)}


class _Rules:
    """One look at `view`; `guests` are those that may be touched."""

    def __init__(
        self,
        view: HostView,
        guests: Sequence[GuestView],
        objective: Objective,
        constraints: Constraints,
        starts: Mapping[Target, Value],
    ) -> None:
        self.view = view
        self.guests = guests
        self.objective = objective
        self.constraints = constraints
        self.starts = starts
        self._due = entitlements(view)
        self._weight = sum(guest.cpu.weight for guest in view.guests if wants(view, guest))
        """Of all that want something."""
        self._loads = self._busy()

    def all(self) -> Iterator[Proposal]:
        """What each rule proposes."""
        for guest in self.guests:
            yield from self._cap(guest)
            yield from self._turn(guest)
            yield from self._place(guest)
        yield from self._weights()

    def _number(self, guest: GuestView, knob: Knob) -> tuple[float, float, float]:
        """How the knob is, and its least and most."""
        target = Target(guest.name, knob)
        now = value_of(guest, target)
        start = self.starts.get(target, now)
        numbers = [WHOLE if value is None else value for value in (now, start)]
        assert isinstance(numbers[0], (int, float))
        assert isinstance(numbers[1], (int, float))
        return numbers[0], *self.constraints.span(guest.name, knob, numbers[1])

    def _percent(self, ns: float) -> float:
        return self.view.percent(ns)

    @property
    def _contended(self) -> bool:
        return self._percent(sum(guest.ready_ns for guest in self.view.guests)) > CONTENDED

    def _cap(self, guest: GuestView) -> Iterator[Proposal]:
        """It is throttled, and there is time to have, or it is due more."""
        lost = self._percent(guest.throttled_ns)
        favoured = self.objective.favours(guest.name)
        if guest.cpu.cap is None or lost < (LITTLE if favoured else MUCH):
            return
        idle = self._percent(self.view.idle_ns) / self.view.pcpus
        due, used = self._percent(self._due[guest.name]), self._percent(guest.used_ns)
        if idle < SPARE and used >= due - SPARE and not favoured:
            return
        now, _, most = self._number(guest, Knob.CAP)
        after = min(most, max(2 * now, round(due)))
        if after <= now:
            return
        why = (
            f"its cap of {now:g} % throttles it {lost:.0f} % of the time, while {idle:.0f} % of all pCPUs are idle "
            f"and it is due {due:.0f} % of one"
        )
        numbers = {"throttled": lost, "idle": idle, "due": due, "used": used}
        move = Move(
            Target(guest.name, Knob.CAP), guest.cpu.cap, None if after >= WHOLE else after, why, numbers
        )
        yield Proposal(Need(guest.name, "cap"), (move,), guest.throttled_ns)

    def _turn(self, guest: GuestView) -> Iterator[Proposal]:
        """It wants less than it is due, and waits all the same: not for time, but for its turn. Shorter ones come
        sooner."""
        if self.objective.goal is Goal.THROUGHPUT:
            return
        favoured = self.objective.favours(guest.name)
        ready, used = self._percent(guest.ready_ns), self._percent(guest.used_ns)
        waits = ready > (LITTLE if favoured else MUCH)
        due = self._percent(self._due[guest.name])
        if not waits or (used > 0.8 * self._fair(guest) and not favoured):
            return
        now, least, _ = self._number(guest, Knob.LATENCY)
        after = int(max(least, now / 2))
        if after >= now:
            return
        why = (
            f"it waits {ready:.0f} % of the time for its turn, and uses {used:.0f} %, less than it is due: "
            "shorter turns come sooner"
        )
        move = Move(
            Target(guest.name, Knob.LATENCY),
            guest.cpu.latency_us,
            after,
            why,
            {"ready": ready, "used": used, "due": due},
        )
        yield Proposal(Need(guest.name, "latency"), (move,), guest.ready_ns)

    def _fair(self, guest: GuestView) -> float:
        """Percent of a pCPU that it would be due, at least, if it always wanted to run."""
        return self._percent(self.view.capacity_ns * guest.cpu.weight / max(self._weight, guest.cpu.weight))

    def _place(self, guest: GuestView) -> Iterator[Proposal]:
        """It is pinned where others run, too, and another pCPU has time."""
        allowed = guest.cpu.affinity
        ready = self._percent(guest.ready_ns)
        if allowed is None or len(allowed) == self.view.pcpus or ready < CONTENDED:
            return
        loads = self._loads
        freest = min(set(range(self.view.pcpus)) - allowed, key=lambda pcpu: (loads[pcpu], pcpu))
        if loads[freest] > FREE:
            return
        wider = allowed | {freest}
        load = loads[freest]
        why = f"it waits {ready:.0f} % of the time where it is pinned, and pCPU {freest} is busy for {load:.0f} %"
        after = None if len(wider) == self.view.pcpus else wider
        numbers = {"ready": ready, "load": loads[freest]}
        move = Move(Target(guest.name, Knob.AFFINITY), allowed, after, why, numbers)
        yield Proposal(Need(guest.name, "affinity"), (move,), guest.ready_ns)

    def _busy(self) -> list[float]:
        """Percent that each pCPU is busy, about: guests are spread over those that they may use."""
        loads = [0.0] * self.view.pcpus
        for guest in self.view.guests:
            allowed = guest.cpu.affinity or range(self.view.pcpus)
            for pcpu in allowed:
                loads[pcpu] += self._percent(guest.used_ns) / len(allowed)
        return loads

    def _weights(self) -> Iterator[Proposal]:
        if not self._contended:
            return
        if self.objective.goal is Goal.THROUGHPUT:
            yield from self._wastes()
        elif self.objective.goal is Goal.FAIRNESS:
            worst = min(self.guests, key=score, default=None)
            if worst is not None and score(worst) < BEHIND * fairness(self.view):
                yield from self._more_weight(
                    worst, "it fares worst, against a mean of the scores of", fairness(self.view)
                )
        else:
            for guest in self.guests:
                if self.objective.favours(guest.name) and score(guest) < WELL:
                    yield from self._more_weight(guest, "its latency is the objective, of at most", BEST)

    def _more_weight(self, guest: GuestView, why: str, goal: float) -> Iterator[Proposal]:
        """Where it is mostly for want of a pCPU that it fares badly."""
        if guest.ready_ns < guest.lost_ns / 2 or self._percent(guest.ready_ns) < LITTLE:
            return
        now, _, most = self._number(guest, Knob.WEIGHT)
        after = int(min(most, 1.5 * now))
        if after <= now:
            return
        ready = self._percent(guest.ready_ns)
        text = f"its score is {score(guest):.0f}, and it waits {ready:.0f} % of the time: {why} {goal:.0f}"
        move = Move(
            Target(guest.name, Knob.WEIGHT),
            guest.cpu.weight,
            after,
            text,
            {"ready": ready, "score": score(guest)},
        )
        yield Proposal(Need(guest.name, "weight"), (move,), guest.ready_ns)

    def _wastes(self) -> Iterator[Proposal]:
        """What a guest gets goes into bringing its pages back, and others wait that would use it."""
        others = [guest for guest in self.view.guests if guest.useful_ns > EFFICIENT * guest.used_ns]
        waiting = self._percent(sum(other.ready_ns for other in others))
        if waiting < CONTENDED:
            return
        gainer = max(others, key=lambda other: (other.ready_ns, other.name))
        for guest in self.guests:
            if self._percent(guest.used_ns) < CONTENDED or guest.useful_ns > WASTEFUL * guest.used_ns:
                continue
            now, least, _ = self._number(guest, Knob.WEIGHT)
            after = int(max(least, now / 2))
            if after >= now:
                continue
            waste = WHOLE * guest.fault_ns / guest.used_ns
            why = (
                f"{waste:.0f} % of its time on a pCPU goes into bringing its pages back, and others that would use it "
                f"wait for {waiting:.0f} % of one"
            )
            numbers = {"waste": waste, "waiting": waiting}
            move = Move(Target(guest.name, Knob.WEIGHT), guest.cpu.weight, after, why, numbers)
            yield Proposal(Need(gainer.name, "weight"), (move,), guest.fault_ns)


def cpu_proposals(
    view: HostView,
    guests: Sequence[GuestView],
    objective: Objective,
    constraints: Constraints,
    starts: Mapping[Target, Value],
) -> Iterator[Proposal]:
    """What `guests`, those of `view` that may be touched, could get of the pCPUs. `starts` is how knobs were set before
    the autopilot turned them; what is not in it has not been turned."""
    yield from _Rules(view, guests, objective, constraints, starts).all()
