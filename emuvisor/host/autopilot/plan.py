"""The decision: from one period of a host to what is to be changed. A pure function.

1. What was changed before is judged once it has had `PATIENCE` periods: trial.py.
2. The rules say what could be changed, if the constraints allow it.
3. A need that has not been there for `STEADY` periods in succession is no need yet, and what was taken back is not
   tried again for `BAN` periods: hysteresis.
4. What costs most time comes first, as long as there are changes left in this period.

Several trials go on at a time, for different needs and knobs; whether the guest that each was made for fares better
tells them apart.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.cpu_rules import cpu_proposals
from emuvisor.host.autopilot.moves import Knob, Move, Target, Value
from emuvisor.host.autopilot.objective import Goal, Objective
from emuvisor.host.autopilot.pool_rules import pool_proposals
from emuvisor.host.autopilot.score import wants
from emuvisor.host.autopilot.trial import Need, Proposal, Trial, Verdict
from emuvisor.host.autopilot.view import GuestView, HostView, value_of

__all__ = ["Flight", "Plan", "plan"]

PATIENCE = 3
"""Periods until changes are judged."""
STEADY = 2
"""Periods in succession that a guest has to lack something."""
BAN = 10
"""Periods for which what was taken back is not tried again."""
REST = 20
"""Periods in which a guest wanted nothing, until its claim to pCPUs goes back to where it was."""
RESTORED = (Knob.WEIGHT, Knob.CAP, Knob.LATENCY)


@dataclass(frozen=True, slots=True)
class Flight:
    """What is remembered from one period to the next."""

    period: int = 0
    values: tuple[float, ...] = ()
    """The objective in the last periods."""
    starts: Mapping[Target, Value] = field(default_factory=dict)
    """How knobs were set that the autopilot has turned since."""
    left: Mapping[Target, Value] = field(default_factory=dict)
    """How it left them."""
    trials: tuple[Trial, ...] = ()
    lacking: Mapping[Need, int] = field(default_factory=dict)
    """For how many periods in succession."""
    resting: Mapping[str, int] = field(default_factory=dict)
    """For how many periods guests have wanted nothing."""
    banned: Mapping[Need | Target, int] = field(default_factory=dict)
    """What is not tried, until which period."""

    def turned(self, moves: Iterable[Move]) -> "Flight":
        """These have been carried out."""
        starts, left = dict(self.starts), dict(self.left)
        for move in moves:
            starts.setdefault(move.target, move.before)
            left[move.target] = move.after
            if starts[move.target] == move.after:
                del starts[move.target], left[move.target]
        return replace(self, starts=starts, left=left)

    def ban(self, what: Iterable[Need | Target]) -> "Flight":
        """These needs are left unmet, and these knobs alone, for a while."""
        until = self.period + BAN
        return replace(self, banned={**self.banned, **dict.fromkeys(what, until)})

    def without(self, proposal: Proposal) -> "Flight":
        """It could not be carried out."""
        undone = [move.inverse("") for move in reversed(proposal.moves)]
        trials = tuple(trial.without(proposal) for trial in self.trials)
        return replace(self, trials=trials).turned(undone).ban([proposal.need])


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: take some changes back, then make others. `flight` is what to remember when all of that is
    done."""

    flight: Flight
    taken_back: tuple[Verdict, ...] = ()
    proposals: tuple[Proposal, ...] = ()


def plan(view: HostView, flight: Flight, objective: Objective, constraints: Constraints) -> Plan:
    """What is to be done after the period `view`."""
    value = objective.value(view)
    flight = _noted(view, replace(flight, period=flight.period + 1))
    values = (*flight.values, value)[-PATIENCE:]
    flight, taken_back = _judged(view, replace(flight, values=values), value)
    if taken_back:
        return Plan(flight, taken_back)  # the view is of what is no more
    touchable = [guest for guest in view.guests if _may_touch(guest, constraints)]
    proposals = list(_proposals(view, touchable, flight, objective, constraints))
    lacking = {p.need: flight.lacking.get(p.need, 0) + 1 for p in proposals if p.tried}
    flight = replace(flight, lacking=lacking)
    chosen = tuple(_chosen(proposals, flight, constraints.changes))
    tried = tuple(proposal for proposal in chosen if proposal.tried)
    flight = flight.turned(move for proposal in chosen for move in proposal.moves)
    if tried:
        trial = Trial.begin(tried, sum(values) / len(values), view)
        flight = replace(flight, trials=(*flight.trials, trial))
    return Plan(flight, proposals=chosen)


def _judged(view: HostView, flight: Flight, value: float) -> tuple[Flight, tuple[Verdict, ...]]:
    """What is remembered after the trials that are over; and what they said. A change is not taken back when one of its
    knobs has been turned again since."""
    going: list[Trial] = []
    verdicts: list[Verdict] = []
    left = dict(flight.left)
    for trial in (trial.after(value, view) for trial in flight.trials):
        if trial.periods < PATIENCE:
            going.append(trial)
            continue
        for verdict in trial.judge():
            wanted = {move.target: move.after for move in verdict.proposal.moves}
            if wanted.items() <= left.items():
                verdicts.append(verdict)
                left = {target: value for target, value in left.items() if target not in wanted}
    undone = [move for verdict in verdicts for move in verdict.moves]
    flight = replace(flight, trials=tuple(going)).turned(undone)
    return flight.ban(verdict.proposal.need for verdict in verdicts), tuple(verdicts)


def _may_touch(guest: GuestView, constraints: Constraints) -> bool:
    return guest.name not in constraints.keep and (constraints.virtual_clock or not guest.deterministic)


def _noted(view: HostView, flight: Flight) -> Flight:
    """With what was seen. A knob that somebody else has turned starts where they put it; guests that are gone are
    forgotten."""
    guests = {guest.name: guest for guest in view.guests}
    kept = {
        target
        for target, value in flight.left.items()
        if target.guest in guests and value_of(guests[target.guest], target) == value
    }
    resting = {
        name: 0 if wants(view, guest) else flight.resting.get(name, 0) + 1 for name, guest in guests.items()
    }
    return replace(
        flight,
        starts={target: value for target, value in flight.starts.items() if target in kept},
        left={target: value for target, value in flight.left.items() if target in kept},
        resting=resting,
        banned={what: until for what, until in flight.banned.items() if until > flight.period},
    )


def _proposals(
    view: HostView,
    guests: list[GuestView],
    flight: Flight,
    objective: Objective,
    constraints: Constraints,
) -> Iterator[Proposal]:
    for rules in (cpu_proposals, pool_proposals):
        for proposal in rules(view, guests, objective, constraints, flight.starts):
            if (
                proposal.tried
                and objective.goal is Goal.LATENCY
                and not objective.favours(proposal.need.guest)
            ):
                continue  # what others gain is not the objective; what they lent they get back
            if all(move.target.knob in constraints.knobs for move in proposal.moves):
                yield proposal
    for guest in guests:
        if flight.resting.get(guest.name, 0) >= REST:
            yield from _restored(guest, flight)


def _restored(guest: GuestView, flight: Flight) -> Iterator[Proposal]:
    """What a guest was given of the pCPUs, and has no use for now."""
    moves = tuple(
        Move(target, flight.left[target], start, f"the guest has wanted nothing for {REST} periods")
        for target, start in flight.starts.items()
        if target.guest == guest.name and target.knob in RESTORED
    )
    if moves:
        yield Proposal(Need(guest.name, "rest"), moves, 0, tried=False)


def _chosen(proposals: Iterable[Proposal], flight: Flight, changes: int) -> Iterator[Proposal]:
    """The most urgent, as long as there are `changes` left; no knob is turned twice, or by two trials at once."""
    turned: set[Target] = set()
    needs = {proposal.need for trial in flight.trials for proposal in trial.proposals}
    busy = {move.target for trial in flight.trials for proposal in trial.proposals for move in proposal.moves}
    for proposal in sorted(proposals, key=lambda proposal: (proposal.tried, -proposal.loss_ns)):
        targets = {move.target for move in proposal.moves}
        if len(targets) > changes or targets & turned:
            continue
        if proposal.tried and (
            flight.lacking[proposal.need] < STEADY
            or proposal.need in needs
            or targets & busy
            or not flight.banned.keys().isdisjoint({proposal.need, *targets})
        ):
            continue
        changes -= len(targets)
        turned |= targets
        yield proposal
