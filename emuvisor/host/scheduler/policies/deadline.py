"""Real-time: guests get what they have reserved, by earliest deadline; who has reserved nothing gets what is left.

The reservations themselves (budget and period, earliest deadline first) are kept by the scheduler under every policy.
What this one adds is that there is nothing else: a guest beyond its reservation waits behind those that have none.
"""

from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.scheduler.policy import Policy

__all__ = ["Deadline"]

BACKGROUND = 10**18
"""Added to the keys of guests that have had what they reserved."""


class Deadline(Policy):
    """First come, first served, guests without a reservation before those that have had theirs."""

    name = "deadline"
    preemptive = False

    def key(self, entity: Entity) -> float:
        """By when it came."""
        return entity.queued_ns + (BACKGROUND if entity.claim.reservation else 0)
