"""A set of a disk's clusters."""

from collections.abc import Iterator

import numpy as np

from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE

__all__ = ["ClusterMap"]


class ClusterMap:
    """A set of those clusters of `CLUSTER_SIZE` bytes that a disk of `size` bytes has; the last may be shorter.

    It takes a byte for each cluster of the disk, and nothing as long as it is empty. One thread changes it at a time;
    others may look meanwhile.
    """

    __slots__ = ("_flags", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._flags = bytearray()

    def __bool__(self) -> bool:
        return 1 in self._flags

    def __len__(self) -> int:
        return self._flags.count(1)

    def add(self, start: int, end: int) -> None:
        """Add the clusters that have any of the bytes from `start` up to `end`."""
        if not self._flags:
            self._flags = bytearray(-(-self.size // CLUSTER_SIZE))
        first, last = start // CLUSTER_SIZE, -(-end // CLUSTER_SIZE)
        self._flags[first:last] = b"\1" * (last - first)

    def remove(self, start: int, end: int) -> None:
        """Take out the clusters from byte `start` up to `end`, whole clusters or the disk's end."""
        first, last = start // CLUSTER_SIZE, -(-end // CLUSTER_SIZE)
        if self._flags:
            self._flags[first:last] = bytes(last - first)

    def update(self, other: "ClusterMap") -> None:
        """Add those of `other`, of a disk of the same size."""
        if not self._flags:
            self._flags = bytearray(other._flags)
        elif other._flags:
            mine = np.frombuffer(self._flags, np.uint8)
            np.bitwise_or(mine, np.frombuffer(other._flags, np.uint8), out=mine)

    def clear(self) -> None:
        """Take all out."""
        self._flags = bytearray()

    def run(self, start: int, end: int) -> tuple[int, bool]:
        """Where the bytes from `start` on, `end` at the most, stop being in the set or stop being outside of it; and
        whether they are in it."""
        flags = self._flags
        if not flags:
            return end, False
        first = start // CLUSTER_SIZE
        inside = flags[first]
        change = flags.find(1 - inside, first, -(-end // CLUSTER_SIZE))
        return (end if change < 0 else min(end, change * CLUSTER_SIZE)), bool(inside)

    def runs(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The byte ranges between `start` and `end` that are in the set, in order."""
        position, end = start, self.size if end is None else end
        while position < end:
            stop, inside = self.run(position, end)
            if inside:
                yield position, stop
            position = stop

    def take(self, position: int, most: int) -> list[tuple[int, int]]:
        """Take out clusters from byte `position` (a cluster's first) on, `most` bytes together or a cluster if that is
        more; returns their byte ranges."""
        taken = []
        left = max(CLUSTER_SIZE, most - most % CLUSTER_SIZE)
        for start, end in self.runs(position):
            stop = min(end, start + left)
            taken.append((start, stop))
            left -= stop - start + -stop % CLUSTER_SIZE
            if left <= 0:
                break
        for start, end in taken:
            self.remove(start, end)
        return taken

    @property
    def bytes(self) -> int:
        """Bytes of the disk in its clusters."""
        last_is_in = bool(self._flags) and self._flags[-1]
        return len(self) * CLUSTER_SIZE - (-self.size % CLUSTER_SIZE if last_is_in else 0)
