"""Round robin: everybody in turn, for the same time, whatever its weight."""

from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.scheduler.policy import Policy

__all__ = ["RoundRobin"]

TURN_NS = 5_000_000


class RoundRobin(Policy):
    """First come, first served, `turn_ns` at a time. Fair in turns: who sleeps in its turn gets less."""

    name = "round-robin"
    turn_ns = TURN_NS
    preemptive = False

    def changed(self, entity: Entity, before: CpuClaim | None) -> None:
        """It is moved to another pCPU only to be a turn earlier there."""
        if before is None:
            entity.distance = TURN_NS
