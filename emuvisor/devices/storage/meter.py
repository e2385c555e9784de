"""What a disk may do, what it did, and how long that took; shared by all controllers that reach it."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from emuvisor.devices.histogram import Histogram
from emuvisor.devices.limits import DiskLimits, Throttle

__all__ = ["DiskMeter", "DiskStatistics"]


@dataclass(slots=True)
class DiskStatistics:
    """What a disk has done since the guest was made: requests by kind, bytes, and requests that failed."""

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    discards: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    errors: int = 0


class DiskMeter:
    """Limits and numbers of one disk.

    The histograms `read`, `write` and `flush` are of what a request took on the host; `throttled` of how long, by the
    guest's clock, requests waited that had to.
    """

    def __init__(self, limits: DiskLimits | None = None) -> None:
        self.throttle = Throttle(limits or DiskLimits())
        self.statistics = DiskStatistics()
        self.read = Histogram()
        self.write = Histogram()
        self.flush = Histogram()
        self.throttled = Histogram()

    def did_read(self, size: int, start_ns: int) -> None:
        """A read of `size` bytes that began at `start_ns` (time.perf_counter_ns) is done."""
        self.statistics.reads += 1
        self.statistics.read_bytes += size
        self.read.record(time.perf_counter_ns() - start_ns)

    def did_write(self, size: int, start_ns: int) -> None:
        """A write of `size` bytes that began at `start_ns` is done."""
        self.statistics.writes += 1
        self.statistics.written_bytes += size
        self.write.record(time.perf_counter_ns() - start_ns)

    def did_flush(self, start_ns: int) -> None:
        """A flush that began at `start_ns` is done."""
        self.statistics.flushes += 1
        self.flush.record(time.perf_counter_ns() - start_ns)

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        histograms = {
            name: asdict(getattr(self, name).summary()) for name in ("read", "write", "flush", "throttled")
        }
        return asdict(self.statistics) | {"latency": histograms}
