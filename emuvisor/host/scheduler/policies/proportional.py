"""Proportional share: a guest gets time in proportion to its weight, exactly in the long run.

Each guest has a virtual time that runs faster the less it weighs; whoever's turn would *end* earliest in virtual
time is first. With turns of one length that is stride scheduling (Waldspurger and Weihl, 1995), which divides time
exactly. A guest that asks for shorter turns (its latency) ends them earlier, so it is sooner in its turn, and gets no
more: the virtual deadline of EEVDF (Stoica and Abdel-Wahab, 1995), which Linux has had since 6.6. What is left out of
that is the test whether a guest is *eligible*, which needs a second ordering: without it a guest can be ahead of its
share by what the others are behind, a turn each.

What a guest did not use is lost to it, and what it got beside its share is not held against it:

- who slept comes back at the virtual time that its pCPUs have reached, less a usual turn;
- who is worth more than a pCPU is always behind, and is kept within two turns and a twentieth of a second;
- who runs by its reservation gets ahead, and is kept within a fifth of a second of its time;
- who is bound to crowded pCPUs falls behind others that are not; what is more than the `lag` of both is forgiven.

There is one order for all pCPUs, so that three equal guests on two get two thirds of a pCPU each. Virtual times are
whole numbers: they do not drift, however long the host is up.
"""

from collections import defaultdict

from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.entity import SHARED, Entity
from emuvisor.host.scheduler.policy import Policy

__all__ = ["ProportionalShare"]

SCALE = 1_000_000
"""Virtual time of a nanosecond on a pCPU, times the weight."""
DISTANCE_NS = 5_000_000
"""A turn of a usual guest: less is not worth another engine's cold translations."""
WAKE_NS = 5_000_000
"""Of its own time."""
LAG_NS = 50_000_000
"""Of a guest's own time, beside two turns: more than others' caps and reservations, which come in periods, take from it
at a time."""
LEAD_NS = 200_000_000
"""More than any guest can be ahead by turns alone, or else a reservation would be given beside a share, not in it."""


class ProportionalShare(Policy):
    """`entity.virtual` is its virtual time, to which the offset of its affinity is added when it is compared."""

    name = "proportional"

    def __init__(self) -> None:
        self._reached: defaultdict[int, float] = defaultdict(int)
        """The latest virtual time of what each pCPU has run."""

    def key(self, entity: Entity) -> float:
        """When its turn ends."""
        return entity.virtual + entity.rest_ns * SCALE // entity.claim.weight

    def woke(self, entity: Entity) -> None:
        """What it did not use is lost, but for what makes it the next one."""
        entity.virtual = max(entity.virtual, self._now(entity) - WAKE_NS * SCALE // entity.claim.weight)

    def picked(self, entity: Entity) -> None:
        """Its pCPU has come to its virtual time."""
        if entity.rank == SHARED:
            virtual = entity.virtual + entity.affinity.offset
            self._reached[entity.pcpu] = max(self._reached[entity.pcpu], virtual)

    def ran(self, entity: Entity, ran_ns: int) -> None:
        """Its virtual time goes on."""
        virtual = entity.virtual + ran_ns * SCALE // entity.claim.weight
        now = self._now(entity)
        if virtual < now - entity.lag:
            virtual = now - entity.lag
        elif entity.rank < SHARED:
            virtual = min(virtual, max(entity.virtual, now + LEAD_NS * SCALE // entity.claim.weight))
        entity.virtual = virtual

    def changed(self, entity: Entity, before: CpuClaim | None) -> None:
        """What it is ahead or behind was by another weight; between other pCPUs it means nothing."""
        weight = entity.claim.weight
        now = self._now(entity)
        if before is None or before.affinity != entity.claim.affinity:
            entity.virtual = now
        else:
            entity.virtual = now + (entity.virtual - now) * before.weight // weight
        entity.distance = DISTANCE_NS * SCALE // weight
        entity.lag = (2 * entity.slice_ns + LAG_NS) * SCALE // weight

    def _now(self, entity: Entity) -> float:
        return max(map(self._reached.__getitem__, entity.affinity.pcpus)) - entity.affinity.offset
