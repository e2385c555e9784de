"""Guests that the same pCPUs may run, and where they wait."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from emuvisor.host.scheduler.entity import Entity

__all__ = ["Affinity", "Entry", "WaitQueue"]

Entry: TypeAlias = "tuple[int, float, int, Entity]"
"""Rank, key, ticket: the least is first. An entry is void when the guest has another ticket."""

SLACK = 64
"""Void entries that are never worth the while of cleaning up."""


class WaitQueue:
    """Guests with the same home and affinity that wait, and void entries."""

    __slots__ = ("affinity", "heap", "home")

    def __init__(self, affinity: Affinity, home: int) -> None:
        self.affinity = affinity
        self.home = home
        self.heap: list[Entry] = []

    def push(self, entity: Entity) -> None:
        """`entity` waits; what it had in any queue is void."""
        heap = self.heap
        if len(heap) > 2 * self.affinity.guests + SLACK:
            heap[:] = [entry for entry in heap if entry[2] == entry[3].ticket]
            heapify(heap)
        heappush(heap, (entity.rank, entity.key, entity.ticket, entity))

    def first(self) -> Entry | None:
        """The entry of the guest whose turn is next."""
        heap = self.heap
        while heap:
            entry = heap[0]
            if entry[2] == entry[3].ticket:
                return entry
            heappop(heap)
        return None


class Affinity:
    """A set of pCPUs that some guests are bound to, with a wait queue for each as their home."""

    __slots__ = ("allowed", "guests", "offset", "pcpus", "queues")

    def __init__(self, allowed: frozenset[int]) -> None:
        self.allowed = allowed
        self.pcpus = tuple(sorted(allowed))
        self.guests = 0
        """How many have it."""
        self.offset: float = 0
        """What their keys are more when they are compared with keys of other affinities."""
        self.queues = {home: WaitQueue(self, home) for home in self.pcpus}
