"""Round robin: who runs next on which pCPU.

Each pCPU has a queue. A guest comes back to the queue of the pCPU that ran it, whose engine has its code
translated. A pCPU whose queue is empty, or much shorter than another, takes over a guest that waits there: none is
idle while a guest waits, and no guest gets more turns than others for having been alone on its pCPU.
"""

from collections import deque

__all__ = ["RunQueue"]


class RunQueue:
    """Names waiting for `pcpus` processors."""

    def __init__(self, pcpus: int) -> None:
        self._queues: list[deque[str]] = [deque() for _ in range(pcpus)]

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def add(self, name: str, pcpu: int | None = None) -> None:
        """`name` waits, behind the others of `pcpu`; without one, where the fewest wait."""
        queue = min(self._queues, key=len) if pcpu is None else self._queues[pcpu]
        queue.append(name)

    def remove(self, name: str) -> None:
        """`name` waits no more."""
        for queue in self._queues:
            if name in queue:
                queue.remove(name)

    def pick(self, pcpu: int) -> str | None:
        """Who runs now on `pcpu`, taken from its queue, or from the longest one when that is longer by two or more;
        None when nobody waits."""
        own, longest = self._queues[pcpu], max(self._queues, key=len)
        queue = own if own and len(longest) <= len(own) + 1 else longest
        return queue.popleft() if queue else None
