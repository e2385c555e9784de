"""From two successive samples to rates: percent of a pCPU, and events and bytes per second."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from emuvisor.host.autopilot.score import BEST, part_of_use
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.metrics.sample import CpuTimes, GuestSample, HostSample
from emuvisor.units import NS_PER_S

__all__ = ["CpuRates", "DiskLatency", "DiskRates", "GuestRates", "HostRates", "NetworkRates", "rates"]

WHOLE = 100.0
"""Percent."""
VM_EXITS = ("port_read", "port_write", "mmio_read", "mmio_write", "cpuid", "halt")
"""Kinds of exits that go to Python; the other counters are events within the C core."""


@dataclass(frozen=True, slots=True)
class CpuRates:
    """Percent of one pCPU, as CpuTimes has them; 0 to 100, except `stolen`, which is the sum of two."""

    used: float = 0.0
    ready: float = 0.0
    throttled: float = 0.0
    stolen: float = 0.0


@dataclass(frozen=True, slots=True)
class DiskRates:
    """Requests and bytes per second of all hard disks."""

    reads: float = 0.0
    writes: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class DiskLatency:
    """Nanoseconds that 99 % of the requests since the guest was made took at most, on its slowest disk."""

    read_ns: int = 0
    write_ns: int = 0


@dataclass(frozen=True, slots=True)
class NetworkRates:
    """Frames and bytes per second of all network cards."""

    received_frames: float = 0.0
    sent_frames: float = 0.0
    received_bytes: float = 0.0
    sent_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class GuestRates:
    """What a guest did between two samples."""

    name: str
    state: str
    reason: str
    """Why it is in that state."""
    cpu: CpuRates
    code: float
    """Bytes of guest code per second."""
    exits: Mapping[str, float]
    """VM exits and other events per second, by kind."""
    disk: DiskRates
    disk_latency: DiskLatency
    network: NetworkRates
    memory: GuestMemoryStatistics
    weight: int
    cap: float | None
    score: float
    """How well it fares, 0 to 100: docs/autopilot.md."""
    last_line: str
    """On its console."""

    @property
    def vm_exits(self) -> float:
        """Exits to Python per second."""
        return sum(self.exits.get(kind, 0.0) for kind in VM_EXITS)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HostRates:
    """What a host did in `seconds` until `time` (seconds since 1970). `cpu` sums up its guests: percent of one pCPU
    again, so `used` is about 100 times `pcpus` at most."""

    time: float
    seconds: float
    pcpus: int
    cpu: CpuRates
    memory: HostMemoryStatistics
    guests: tuple[GuestRates, ...]

    @property
    def used(self) -> float:
        """Percent of all pCPUs, at most 100."""
        return min(WHOLE, self.cpu.used / self.pcpus)


def rates(before: HostSample | None, after: HostSample) -> HostRates:
    """What happened between two samples of one host. Without the first, or at the same moment, all rates are 0.

    A guest that was not there before began at 0, and so did one whose counters are lower now: it is another one with
    the same name.
    """
    seconds = 0.0 if before is None else max(0, after.clock_ns - before.clock_ns) / NS_PER_S
    known = {} if before is None else {guest.name: guest for guest in before.guests}
    guests = tuple(_guest(known.get(guest.name), guest, seconds) for guest in after.guests)
    total = CpuRates(
        used=sum(guest.cpu.used for guest in guests),
        ready=sum(guest.cpu.ready for guest in guests),
        throttled=sum(guest.cpu.throttled for guest in guests),
        stolen=sum(guest.cpu.stolen for guest in guests),
    )
    return HostRates(after.time, seconds, after.pcpus, total, after.memory, guests)


def _guest(before: GuestSample | None, after: GuestSample, seconds: float) -> GuestRates:
    now = after.statistics
    if before is not None and (
        before.statistics.retired > now.retired or before.statistics.slices > now.slices
    ):
        before = None
    was = None if before is None else before.statistics

    def rate(new: int, old: int) -> float:
        return max(0, new - old) / seconds if seconds else 0.0

    old_exits = {} if was is None else was.exits
    cpu = _cpu(None if was is None else CpuTimes.of(was), CpuTimes.of(now), seconds)
    return GuestRates(
        name=now.name,
        state=str(now.state),
        reason=now.reason,
        cpu=cpu,
        code=rate(now.retired, 0 if was is None else was.retired),
        exits={kind: rate(count, old_exits.get(kind, 0)) for kind, count in now.exits.items()},
        disk=DiskRates(
            **{
                key.name: rate(_sum(now.disks, key.name), 0 if was is None else _sum(was.disks, key.name))
                for key in fields(DiskRates)
            }
        ),
        disk_latency=DiskLatency(_slowest(now.disks, "read"), _slowest(now.disks, "write")),
        network=NetworkRates(
            **{
                key.name: rate(_sum(now.nics, key.name), 0 if was is None else _sum(was.nics, key.name))
                for key in fields(NetworkRates)
            }
        ),
        memory=after.memory,
        weight=after.weight,
        cap=after.cap,
        score=_score(cpu, before, after, seconds),
        last_line=now.last_line,
    )


def _cpu(before: CpuTimes | None, after: CpuTimes, seconds: float) -> CpuRates:
    def percent(new: int, old: int) -> float:
        return max(0, new - old) / NS_PER_S / seconds * WHOLE if seconds else 0.0

    was = before or CpuTimes(0, 0, 0, 0)
    return CpuRates(
        # Times are counted when a slice or a wait ends, which may have begun before the first sample.
        used=min(WHOLE, percent(after.used, was.used)),
        ready=min(WHOLE, percent(after.ready, was.ready)),
        throttled=min(WHOLE, percent(after.throttled, was.throttled)),
        stolen=percent(after.stolen, was.stolen),
    )


def _score(cpu: CpuRates, before: GuestSample | None, after: GuestSample, seconds: float) -> float:
    """As the autopilot's, from percents of a pCPU."""
    if before is None or not seconds:
        return BEST
    lost_ns = after.faults_ns - before.faults_ns, after.limited_ns - before.limited_ns
    faults, waited = (max(0, ns) / NS_PER_S / seconds * WHOLE for ns in lost_ns)
    faults = min(cpu.used, faults)
    return part_of_use(cpu.used - faults, cpu.ready + cpu.throttled + faults + min(WHOLE, waited))


def _slowest(disks: Sequence[Mapping[str, Any]], kind: str) -> int:
    return max((disk["latency"][kind]["p99_ns"] for disk in disks if "latency" in disk), default=0)


def _sum(devices: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(device[key] for device in devices)
