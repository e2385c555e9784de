"""Xen's credit scheduler: weights by credits that are handed out every 30 ms.

A guest pays a credit for each nanosecond that it runs. Every 30 ms the pCPUs' time is handed out as credits by
weight. Those with credits left are UNDER, the others OVER; UNDER goes first, within a rank everybody in turn. A guest
that wakes with credits left is in BOOST for its next turn, ahead of both: that is its low latency.

Credits are taken by time stamps. Xen took them from whoever ran at its 10 ms tick, so that a guest which slept over
each tick ran for nothing (Zhou, Goel, Desnoyers and Sundaram, *Scheduler Vulnerabilities and Attacks in Cloud
Computing*, 2011).

Source: L. Cherkasova, D. Gupta and A. Vahdat, *Comparison of the Three CPU Schedulers in Xen*, 2007.
"""

from collections.abc import Collection, Iterable

from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.scheduler.policy import Policy

__all__ = ["Credit"]

PERIOD_NS = 30_000_000
TURN_NS = 10_000_000
BOOST, UNDER, OVER = 0, 10**18, 2 * 10**18
"""Ranks, as parts of the key: the rest is when the guest got in line, in nanoseconds."""


class Credit(Policy):
    """`entity.virtual` is its credits in nanoseconds: at most a period's worth, however long it slept."""

    name = "credit"
    turn_ns = TURN_NS
    period_ns = PERIOD_NS

    def __init__(self) -> None:
        self._boosted: set[str] = set()

    def key(self, entity: Entity) -> float:
        """By rank, then by when it got in line."""
        if entity.virtual <= 0:
            return OVER + entity.queued_ns
        return (BOOST if entity.name in self._boosted else UNDER) + entity.queued_ns

    def preempts(self, key: float, running_key: float) -> bool:
        """When its rank is better."""
        return key < UNDER <= running_key or key < OVER <= running_key

    def woke(self, entity: Entity) -> None:
        """Ahead of all others once, if it has credits."""
        self._boosted.add(entity.name)

    def picked(self, entity: Entity) -> None:
        """It has had its boost."""
        self._boosted.discard(entity.name)

    def ran(self, entity: Entity, ran_ns: int) -> None:
        """It pays."""
        entity.virtual -= ran_ns

    def removed(self, entity: Entity) -> None:
        """Another of its name has no boost."""
        self._boosted.discard(entity.name)

    def account(self, active: Collection[Entity]) -> Iterable[Entity]:
        """Hand out by weight the time of a period that they can use. Another key have those whose debt is paid."""
        total = sum(entity.claim.weight for entity in active)
        # More than they can use would leave all of them with credits, and whoever sleeps most often always in BOOST.
        usable = set[int]().union(*{entity.affinity.allowed for entity in active})
        time_ns = PERIOD_NS * min(len(usable), len(active))
        for entity in active:
            before = entity.virtual
            earned = time_ns * entity.claim.weight // total
            entity.virtual = max(-PERIOD_NS, min(before + earned, PERIOD_NS))
            if before <= 0 < entity.virtual:
                yield entity
