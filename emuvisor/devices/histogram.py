"""A histogram of times with buckets that grow with the times: the same relative error everywhere.

Each power of two is cut into `SUB_BUCKETS` buckets of one width, as in G. Tene's HdrHistogram: a bucket's width is at
most an eighth of its values, and what it says of them, its middle, at most a sixteenth off.
"""

from dataclasses import dataclass

__all__ = ["Histogram", "LatencySummary"]

SUB_BITS = 3
SUB_BUCKETS = 1 << SUB_BITS
MAX_NS = (1 << 48) - 1
"""What lasts longer (three days) counts as this."""
BUCKETS = (MAX_NS.bit_length() - SUB_BITS + 1) * SUB_BUCKETS


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A distribution in a few numbers, all but `count` in nanoseconds; zeros before there was anything."""

    count: int
    total_ns: int
    """Of all of them; it never falls."""
    mean_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int


class Histogram:
    """Counts times in nanoseconds."""

    __slots__ = ("_counts", "_max")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._max = 0

    def record(self, ns: int) -> None:
        """Count `ns`, which is not negative. Called for each request, so that everything else is worked out later."""
        if ns > self._max:
            ns = min(ns, MAX_NS)
            self._max = ns
        if ns < SUB_BUCKETS:
            self._counts[ns] += 1
            return
        shift = ns.bit_length() - SUB_BITS - 1
        self._counts[(shift << SUB_BITS) + (ns >> shift)] += 1

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[int, int, int]]:
        """First time, last time and count of each bucket that has some, in order."""
        return [(*_bounds(index), count) for index, count in enumerate(self._counts) if count]

    def percentile(self, percent: float) -> int:
        """The time that `percent` of all, above 0 and at most 100, do not exceed; 0 when there are none."""
        wanted, seen = self.count * percent / 100, 0
        for first, last, count in self.buckets():
            seen += count
            if seen >= wanted:
                return min((first + last) // 2, self._max)
        return 0

    def summary(self) -> LatencySummary:
        """The numbers for people."""
        count = self.count
        total_ns = sum((first + last) // 2 * n for first, last, n in self.buckets())
        return LatencySummary(
            count=count,
            total_ns=total_ns,
            mean_ns=total_ns // count if count else 0,
            p50_ns=self.percentile(50),
            p90_ns=self.percentile(90),
            p99_ns=self.percentile(99),
            max_ns=self._max,
        )


def _bounds(index: int) -> tuple[int, int]:
    """The first and the last time in bucket `index`."""
    shift = max(0, (index >> SUB_BITS) - 1)
    first = index - (shift << SUB_BITS) << shift
    return first, first + (1 << shift) - 1
