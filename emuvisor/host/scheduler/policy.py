"""What a scheduling policy decides: who is first in a queue, and for how long."""

from collections.abc import Collection, Iterable

from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.entity import Entity

__all__ = ["Policy"]


class Policy:
    """Orders the guests that wait; this one by when they came. Caps, limits, reservations and affinity are the
    scheduler's, whatever the policy.

    A policy keeps what it counts for a guest in `entity.virtual`; the scheduler keeps `key`'s answer in `entity.key`.
    """

    name = "first-come"
    """What people call it."""
    turn_ns: int | None = None
    """How long a guest runs at a time; None goes by its latency."""
    preemptive = True
    """Whether a guest that begins to wait can have another's pCPU."""
    period_ns: int | None = None
    """How often `account` is called while guests run or wait; None is never."""

    def key(self, entity: Entity) -> float:
        """The place of `entity` among those that wait: the least is first, equals go by when they were queued.

        `entity.queued_ns` is when it got in line for its turn, `entity.rest_ns` what it has of that.
        """
        return entity.queued_ns

    def preempts(self, key: float, running_key: float) -> bool:
        """Whether a guest that waits with `key` is to have the pCPU of one that runs with `running_key`."""
        return key < running_key

    def woke(self, entity: Entity) -> None:
        """It slept, and wants to run."""

    def picked(self, entity: Entity) -> None:
        """It runs on `entity.pcpu` now, by `entity.rank`."""

    def ran(self, entity: Entity, ran_ns: int) -> None:
        """It ran for `ran_ns`."""

    def changed(self, entity: Entity, before: CpuClaim | None) -> None:
        """It has a claim, the first (`before` is None) or another. May set `entity.distance`: what its key is more for
        pCPUs that are not its home; and `entity.lag`: how far its `virtual` may be behind those of guests with other
        affinities."""

    def removed(self, entity: Entity) -> None:
        """It is gone."""

    def account(self, active: Collection[Entity]) -> Iterable[Entity]:
        """A period is over; `active` run or wait. Answers whose key is another one now."""
        return active
