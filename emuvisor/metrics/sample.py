"""All counters of a host and its guests at one moment."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emuvisor.host.autopilot.view import GuestCounters
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.host.statistics import GuestStatistics

if TYPE_CHECKING:
    from emuvisor.host import Guest, Host

__all__ = ["CpuTimes", "GuestSample", "HostSample", "take_sample"]


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """What became of a guest's time, in nanoseconds of the host since the guest was made. They overlap."""

    used: int
    """On a pCPU."""
    ready: int
    """It could have run, and waited for a pCPU."""
    throttled: int
    """It could have run, and its cap or limit forbade it."""
    stolen: int
    """Both of these: what a guest on the host's clock is told as steal time."""

    @classmethod
    def of(cls, statistics: GuestStatistics) -> "CpuTimes":
        """The times in `statistics`."""
        return cls(
            used=statistics.cpu_ns,
            ready=statistics.waited_ns,
            throttled=statistics.throttled_ns,
            stolen=statistics.stolen_ns,
        )


@dataclass(frozen=True, slots=True)
class GuestSample:
    """One guest. `weight` and `cap` (percent of a pCPU; None: none) are its claim to the processor."""

    statistics: GuestStatistics
    memory: GuestMemoryStatistics
    weight: int
    cap: float | None

    @property
    def name(self) -> str:
        """The guest's."""
        return self.statistics.name

    @property
    def faults_ns(self) -> int:
        """How long its pCPUs waited for pages that the host had compressed or swapped, by what one takes on average."""
        return GuestCounters.fault_cost_ns(self.memory.decompressed, self.memory.swapped_in)

    @property
    def limited_ns(self) -> int:
        """How long its disks and cards waited for their limits."""
        devices = [*self.statistics.disks, *self.statistics.nics]
        histograms = [device.get("latency", {}).get("throttled") for device in devices]
        return sum(histogram["total_ns"] for histogram in histograms if histogram)


@dataclass(frozen=True, slots=True)
class HostSample:
    """A host with its guests, at `time` (seconds since 1970) and at `clock_ns` on a clock that is never set back."""

    time: float
    clock_ns: int
    pcpus: int
    memory: HostMemoryStatistics
    guests: tuple[GuestSample, ...]


def take_sample(host: "Host") -> HostSample:
    """What `host` and its guests have done until now. Guests whose boot image is being loaded are left out."""
    guests = tuple(_guest_sample(guest) for guest in host.all_guests())
    return HostSample(time.time(), time.monotonic_ns(), host.pcpus, host.memory.statistics(), guests)


def _guest_sample(guest: "Guest") -> GuestSample:
    claim = guest.cpu_claim
    return GuestSample(guest.statistics(), guest.memory_statistics(), claim.weight, claim.cap)
