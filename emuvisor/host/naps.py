"""Idle guests, and when each is to be woken. Knows no clock and no thread."""

from heapq import heapify, heappop, heappush

__all__ = ["NEVER", "Naps"]

NEVER = 1 << 63
"""Later than any time."""
SLACK = 64
"""Void entries that are never worth the while of cleaning up."""

_Entry = tuple[int, int, str]
"""When a guest is to be woken, the number of its nap, its name. Void when the guest has no nap of that number."""


class Naps:
    """Guests that are idle, by *home*: the one of the `pcpus` pCPUs that is to run each when it wakes. Times are
    nanoseconds of any clock."""

    def __init__(self, pcpus: int) -> None:
        self._heaps: list[list[_Entry]] = [[] for _ in range(pcpus)]
        self._numbers: dict[str, int] = {}
        """The present nap of each guest that is idle."""
        self._count = 0

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def add(self, name: str, home: int, wake_ns: int | None) -> None:
        """`name` is idle until `wake_ns`; None: until it is cancelled."""
        self._count += 1
        self._numbers[name] = self._count
        if wake_ns is None:
            return
        heap = self._heaps[home]
        if len(heap) > 2 * len(self._numbers) + SLACK:  # a guest can have itself woken early for ever
            heap[:] = filter(self._counts, heap)
            heapify(heap)
        heappush(heap, (wake_ns, self._count, name))

    def cancel(self, name: str) -> None:
        """`name`, if it is idle, is not any more."""
        self._numbers.pop(name, None)

    def due_ns(self, home: int | None = None) -> int:
        """When the first of them is to be woken, of those with that home or of all; or NEVER."""
        heaps = self._heaps if home is None else self._heaps[home : home + 1]
        first = NEVER
        for heap in heaps:
            while heap and not self._counts(heap[0]):
                heappop(heap)
            if heap and heap[0][0] < first:
                first = heap[0][0]
        return first

    def take_due(self, now_ns: int) -> list[str]:
        """Those that are to be woken by `now_ns`, in the order of their times: they are idle no longer."""
        due: list[_Entry] = []
        for home, heap in enumerate(self._heaps):
            while self.due_ns(home) <= now_ns:
                due.append(heappop(heap))
        names = [name for _, _, name in sorted(due)]
        for name in names:
            self.cancel(name)
        return names

    def _counts(self, entry: _Entry) -> bool:
        return self._numbers.get(entry[2]) == entry[1]
