"""What could be changed about memory, disks and network cards: limits are lent, and come back.

Limits of one kind that guests have of the same thing are parts of a pool: of the host's memory, of a file system, of a
network. What people gave each guest is its weight in the pool. A guest that lacks something borrows from those that do
not use theirs, and who wants its own back gets it: weighted max-min fairness again. The sum stays what it was.

A guest that has no limit of its memory takes part with its shares: they say who gives when the memory manager takes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.entitlement import Due, divide
from emuvisor.host.autopilot.moves import Knob, Move, Target, Value, as_text
from emuvisor.host.autopilot.objective import Objective
from emuvisor.host.autopilot.trial import Need, Proposal
from emuvisor.host.autopilot.view import GuestView, HostView, RateView
from emuvisor.units import PAGE_SIZE

__all__ = ["pool_proposals"]

MUCH = 0.05
"""Part of the time that a guest's work took: losing that is worth a change."""
KEPT = 4
"""Nobody lends so much that less than this part of its own is left, or else nothing could be seen of its wanting it
back."""
HEADROOM = 1.25
"""What a guest is left beyond what it uses, so that it can want more."""
ACTIVE_HEADROOM = 1.1
"""Beyond its working set."""
GROWTH = 2.0
"""What a guest is thought to want, of a rate that it uses up."""
USED_UP = 0.8
"""Part of a limit: the guest could use more than that."""
SMALL = 0.05
"""Part of a limit that is not worth a change."""
FAVOUR = 8.0
"""How much more the favoured guest's part counts."""
SHARES_STEP = 1.5


@dataclass(frozen=True, slots=True)
class _Part:
    """A guest's limit in a pool."""

    guest: str
    target: Target
    value: Value
    limit: float
    need: float
    """What it could use."""
    least: float
    most: float
    loss_ns: int
    weight: float
    """What it had at the start."""
    lacks: bool
    """It loses much for want of more."""


def pool_proposals(
    view: HostView,
    guests: Sequence[GuestView],
    objective: Objective,
    constraints: Constraints,
    starts: Mapping[Target, Value],
) -> Iterator[Proposal]:
    """What `guests`, those of `view` that may be touched, could get of memory, disks and networks, as in cpu_rules."""
    pools: dict[str, list[_Part]] = {}
    for guest in guests:
        if guest.memory.limit is not None:
            pools.setdefault("memory", []).append(_memory_part(guest, constraints, starts))
        else:
            yield from _shares(view, guest, constraints, starts)
        for rate in guest.rates:
            part = _rate_part(guest, rate, constraints, starts)
            pools.setdefault(f"{rate.pool} {rate.name}", []).append(part)
    for name, parts in pools.items():
        if len(parts) > 1:
            yield from _lend(name, parts, view, objective, constraints.changes)


def _memory_part(guest: GuestView, constraints: Constraints, starts: Mapping[Target, Value]) -> _Part:
    memory = guest.memory
    assert memory.limit is not None
    target = Target(guest.name, Knob.MEMORY_LIMIT)
    start = starts.get(target, memory.limit)
    assert isinstance(start, int)
    least, most = constraints.span(guest.name, Knob.MEMORY_LIMIT, start)
    lacks = _much(guest.fault_ns, guest)
    need: float = memory.resident
    if memory.active is not None:
        need = min(need, ACTIVE_HEADROOM * memory.active)
    if lacks:
        need = max(need, memory.resident + memory.out)
    return _Part(
        guest=guest.name,
        target=target,
        value=memory.limit,
        limit=memory.limit,
        need=min(need, memory.size),
        least=max(least, memory.reservation, start / KEPT),
        most=min(most, memory.size),
        loss_ns=guest.fault_ns,
        weight=start,
        lacks=lacks,
    )


def _rate_part(
    guest: GuestView, rate: RateView, constraints: Constraints, starts: Mapping[Target, Value]
) -> _Part:
    target = Target(guest.name, rate.knob, rate.number, rate.name)
    start = starts.get(target, rate.limit)
    assert isinstance(start, Rate)
    least, most = constraints.span(guest.name, rate.knob, start.per_second)
    limit = rate.limit.per_second
    bound = rate.used >= USED_UP * limit and rate.waited_ns > 0
    return _Part(
        guest=guest.name,
        target=target,
        value=rate.limit,
        limit=limit,
        need=max(GROWTH * limit, start.per_second) if bound else HEADROOM * rate.used,
        least=max(least, start.per_second / KEPT),
        most=most,
        loss_ns=rate.waited_ns,
        weight=start.per_second,
        lacks=bound and _much(rate.waited_ns, guest),
    )


def _much(loss_ns: int, guest: GuestView) -> bool:
    return loss_ns >= MUCH * guest.wanted_ns > 0


def _lend(
    pool: str, parts: Sequence[_Part], view: HostView, objective: Objective, changes: int
) -> Iterator[Proposal]:
    """For each guest that lacks something, the one that loses most first: what the others can spare."""
    total = sum(part.limit for part in parts)
    dues = [
        Due(
            weight=part.weight * (FAVOUR if objective.favours(part.guest) else 1),
            demand=max(part.least, min(part.need, part.most)),
            floor=part.least,
        )
        for part in parts
    ]
    due = divide(total, dues)
    # What nobody wants stays with everybody, in the proportions of the start.
    left, weight = max(0.0, total - sum(due)), sum(part.weight for part in parts)
    keeps = [given + left * part.weight / weight for given, part in zip(due, parts, strict=True)]
    limits = [part.limit for part in parts]
    for number in sorted(range(len(parts)), key=lambda number: (-parts[number].loss_ns, parts[number].guest)):
        taker = parts[number]
        wanted = min(keeps[number], taker.most) - limits[number]
        if not taker.lacks or wanted < SMALL * taker.limit:
            continue
        givers = sorted(
            (other for other in range(len(parts)) if other != number),
            key=lambda other: (keeps[other] - limits[other], parts[other].guest),
        )
        moves: list[Move] = []
        gained = 0.0
        for other in givers[: changes - 1]:
            giver = parts[other]
            gift = min(limits[other] - keeps[other], wanted - gained)
            if gift < SMALL * giver.limit:
                continue
            after = _rounded(giver, limits[other] - gift)
            gained += limits[other] - _amount(after)
            limits[other] = _amount(after)
            text = (
                f"{taker.guest} loses {view.percent(taker.loss_ns):.0f} % of the time for want of {pool}, and "
                f"this guest uses {as_text(giver.target, _rounded(giver, giver.need))} at most"
            )
            moves.append(Move(giver.target, giver.value, after, text, {"need": giver.need, "gift": gift}))
        if not moves:
            continue
        after = _rounded(taker, limits[number] + gained)
        limits[number] = _amount(after)
        text = (
            f"it loses {view.percent(taker.loss_ns):.0f} % of the time for want of {pool}; "
            f"{', '.join(move.target.guest for move in moves)} can spare some"
        )
        numbers = {"lost": view.percent(taker.loss_ns), "need": taker.need, "gained": gained}
        moves.append(Move(taker.target, taker.value, after, text, numbers))
        # Who wants its own back gets it at once, and for good.
        own = taker.limit < taker.weight
        yield Proposal(Need(taker.guest, pool), tuple(moves), taker.loss_ns, tried=not own)


def _rounded(part: _Part, amount: float) -> int | Rate:
    """`amount` as a value of the same kind, not more of it."""
    if isinstance(part.value, Rate):
        return replace(part.value, per_second=max(1, int(amount)))
    return int(amount) // PAGE_SIZE * PAGE_SIZE


def _amount(value: int | Rate) -> int:
    return value.per_second if isinstance(value, Rate) else value


def _shares(
    view: HostView, guest: GuestView, constraints: Constraints, starts: Mapping[Target, Value]
) -> Iterator[Proposal]:
    """More memory shares for who brings pages back all the time."""
    target = Target(guest.name, Knob.MEMORY_SHARES)
    start = starts.get(target, guest.memory.shares)
    assert isinstance(start, int)
    _, most = constraints.span(guest.name, Knob.MEMORY_SHARES, start)
    after = int(min(most, SHARES_STEP * guest.memory.shares))
    if guest.fault_ns < MUCH * view.period_ns or after <= guest.memory.shares:
        return
    lost = view.percent(guest.fault_ns)
    why = f"it loses {lost:.0f} % of the time for pages that were taken from it"
    move = Move(target, guest.memory.shares, after, why, {"lost": lost})
    yield Proposal(Need(guest.name, "memory"), (move,), guest.fault_ns)
