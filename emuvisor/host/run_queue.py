"""Round robin: who runs next on which pCPU.

Each pCPU has a queue. A guest comes back to the queue of the pCPU that ran it, whose engine has its code
translated. A pCPU whose queue is empty, or much shorter than another, takes over a guest that waits there: none is
idle while a guest waits, and no guest gets more turns than others for having been alone on its pCPU. A guest whose own
pCPU is about to take it is not taken over: two that wake each other in turns would lose their engines' TLBs.
"""

from collections import deque
from collections.abc import Set as AbstractSet

__all__ = ["RunQueue"]


class RunQueue:
    """Names waiting for `pcpus` processors."""

    def __init__(self, pcpus: int) -> None:
        self._queues: list[deque[str]] = [deque() for _ in range(pcpus)]

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def add(self, name: str, pcpu: int | None = None) -> int:
        """`name` waits, behind the others of `pcpu`; without one, where the fewest wait. Returns whose queue it is."""
        if pcpu is None:
            lengths = [len(queue) for queue in self._queues]
            pcpu = lengths.index(min(lengths))
        self._queues[pcpu].append(name)
        return pcpu

    def remove(self, name: str) -> None:
        """`name` waits no more."""
        for queue in self._queues:
            if name in queue:
                queue.remove(name)

    def pick(self, pcpu: int, coming: AbstractSet[int] = frozenset()) -> str | None:
        """Who runs now on `pcpu`, taken from its queue, or from the longest one when that is longer by two or more;
        None when nobody waits. Each pCPU in `coming` will pick in a moment: the first of its queue does not count."""
        lengths = [
            len(queue) - (number in coming and number != pcpu) for number, queue in enumerate(self._queues)
        ]
        own, longest = lengths[pcpu], max(lengths)
        chosen = pcpu if own and longest <= own + 1 else lengths.index(longest)
        return self._queues[chosen].popleft() if lengths[chosen] > 0 else None
