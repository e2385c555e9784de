"""What a host and its guests did in one period, as plain data: all that the plan knows.

Counters only grow; a view is the difference of two looks at them. What a wait costs is counted when it ends, so one
that began before the period counts in it, at most as long as the period is.
"""

from dataclasses import dataclass

from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.moves import Knob, Target, Value
from emuvisor.host.scheduler.claim import WHOLE, CpuClaim
from emuvisor.units import PAGE_SIZE

__all__ = [
    "GuestCounters",
    "GuestView",
    "HostCounters",
    "HostView",
    "MemoryState",
    "RateCounter",
    "RateView",
    "between",
    "value_of",
]

SWAP_IN_NS = 12_000
DECOMPRESS_NS = 8_000
"""What it takes to bring a page back, from a fast disk's swap file and from compressed memory: docs/performance.md,
benchmark "memory". The guest's pCPU waits for it."""


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Where a guest's memory is, in bytes, and its claim to it."""

    size: int
    reservation: int
    limit: int | None
    shares: int
    resident: int
    """Of its own."""
    out: int
    """Compressed or swapped: it would take that much more if it touched all of it."""
    active: int | None
    """Its working set, estimated; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class RateCounter:
    """A limit of a disk or network card, and what has been done under it."""

    knob: Knob
    number: int
    """Which disk or card of the guest's."""
    name: str
    """Which limit: "read_bytes"."""
    pool: str
    """What it is a part of. Only limits of one pool are lent from guest to guest."""
    limit: Rate
    done: int
    """Bytes or operations."""
    waited_ns: int
    """How long requests waited for tokens, one after the other."""


@dataclass(frozen=True, slots=True)
class GuestCounters:
    """A guest until now. Times are in nanoseconds of the host since the guest was made."""

    name: str
    used_ns: int
    ready_ns: int
    throttled_ns: int
    fault_ns: int
    """Of `used_ns`, what bringing pages back took."""
    cpu: CpuClaim
    memory: MemoryState
    rates: tuple[RateCounter, ...] = ()
    deterministic: bool = False
    """It is on the virtual clock, and is to repeat exactly."""

    @staticmethod
    def fault_cost_ns(decompressed: int, swapped_in: int) -> int:
        """What it takes to bring so many bytes back."""
        return decompressed // PAGE_SIZE * DECOMPRESS_NS + swapped_in // PAGE_SIZE * SWAP_IN_NS


@dataclass(frozen=True, slots=True)
class HostCounters:
    """A host with its guests at `now_ns` of a clock that is never set back."""

    now_ns: int
    pcpus: int
    guests: tuple[GuestCounters, ...]


@dataclass(frozen=True, slots=True)
class RateView:
    """A limit of a disk or network card in one period; fields as in RateCounter, `used` per second."""

    knob: Knob
    number: int
    name: str
    pool: str
    limit: Rate
    used: float
    waited_ns: int


@dataclass(frozen=True, slots=True)
class GuestView:
    """A guest in one period. Times are in nanoseconds."""

    name: str
    used_ns: int
    ready_ns: int
    """It could have run, and waited for a pCPU."""
    throttled_ns: int
    """It could have run, and its cap or limit forbade it."""
    fault_ns: int
    """Of `used_ns`."""
    io_ns: int
    """Its disks and cards waited for tokens."""
    cpu: CpuClaim
    memory: MemoryState
    rates: tuple[RateView, ...] = ()
    deterministic: bool = False

    @property
    def useful_ns(self) -> int:
        """On a pCPU for its own good."""
        return self.used_ns - self.fault_ns

    @property
    def lost_ns(self) -> int:
        """What it would not have waited on a host of its own."""
        return self.ready_ns + self.throttled_ns + self.fault_ns + self.io_ns

    @property
    def wanted_ns(self) -> int:
        """Both: how long it took, all in all."""
        return self.useful_ns + self.lost_ns

    @property
    def cpu_demand_ns(self) -> int:
        """How long it wanted a pCPU."""
        return self.used_ns + self.ready_ns + self.throttled_ns


@dataclass(frozen=True, slots=True)
class HostView:
    """A host in one period."""

    period_ns: int
    pcpus: int
    guests: tuple[GuestView, ...]

    @property
    def capacity_ns(self) -> int:
        """Of all pCPUs."""
        return self.period_ns * self.pcpus

    @property
    def idle_ns(self) -> int:
        """What nobody used of it."""
        return max(0, self.capacity_ns - sum(guest.used_ns for guest in self.guests))

    def percent(self, ns: float) -> float:
        """Of one pCPU, or of the period."""
        return WHOLE * ns / self.period_ns

    def guest(self, name: str) -> GuestView | None:
        """The guest of that name."""
        return next((guest for guest in self.guests if guest.name == name), None)


def between(before: HostCounters, after: HostCounters) -> HostView | None:
    """What happened between two looks at a host; None when no time passed. Guests that were not there before, or are
    others with the same name, are left out."""
    period_ns = after.now_ns - before.now_ns
    if period_ns <= 0:
        return None
    known = {guest.name: guest for guest in before.guests}
    guests = []
    for guest in after.guests:
        was = known.get(guest.name)
        if was is not None and was.used_ns <= guest.used_ns and was.ready_ns <= guest.ready_ns:
            guests.append(_guest(was, guest, period_ns))
    return HostView(period_ns, after.pcpus, tuple(guests))


def _guest(was: GuestCounters, now: GuestCounters, period_ns: int) -> GuestView:
    def part(new: int, old: int) -> int:
        return min(period_ns, max(0, new - old))

    old = {(rate.knob, rate.number, rate.name): rate for rate in was.rates}
    rates = []
    for rate in now.rates:
        then = old.get((rate.knob, rate.number, rate.name))
        done = 0 if then is None else max(0, rate.done - then.done)
        waited_ns = 0 if then is None else part(rate.waited_ns, then.waited_ns)
        per_second = done * 1e9 / period_ns
        rates.append(
            RateView(rate.knob, rate.number, rate.name, rate.pool, rate.limit, per_second, waited_ns)
        )
    # A device has several limits, and one time for which it waited.
    devices: dict[tuple[Knob, int], int] = {}
    for rate_view in rates:
        device = (rate_view.knob, rate_view.number)
        devices[device] = max(devices.get(device, 0), rate_view.waited_ns)
    used_ns = part(now.used_ns, was.used_ns)
    return GuestView(
        name=now.name,
        used_ns=used_ns,
        ready_ns=part(now.ready_ns, was.ready_ns),
        throttled_ns=part(now.throttled_ns, was.throttled_ns),
        fault_ns=min(used_ns, part(now.fault_ns, was.fault_ns)),
        io_ns=min(period_ns, sum(devices.values())),
        cpu=now.cpu,
        memory=now.memory,
        rates=tuple(rates),
        deterministic=now.deterministic,
    )


def value_of(guest: GuestCounters | GuestView, target: Target) -> Value:
    """How `target`, which is one of this guest's, is set."""
    match target.knob:
        case Knob.WEIGHT:
            return guest.cpu.weight
        case Knob.CAP:
            return guest.cpu.cap
        case Knob.LATENCY:
            return guest.cpu.latency_us
        case Knob.AFFINITY:
            return guest.cpu.affinity
        case Knob.MEMORY_LIMIT:
            return guest.memory.limit
        case Knob.MEMORY_SHARES:
            return guest.memory.shares
        case Knob.DISK_LIMIT | Knob.NIC_LIMIT:
            place = (target.knob, target.number, target.name)
            return next((r.limit for r in guest.rates if (r.knob, r.number, r.name) == place), None)
