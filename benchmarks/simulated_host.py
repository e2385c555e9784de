"""A host in virtual time, for the autopilot: the real scheduler and the real limits, with guests that are a model.

Source of the model of memory: a guest that has a part of its working set in memory runs 1 / (1 + MISS_COST * missing
part) as fast, which is within a tenth of what our own guests do with 1 to 2 times the host's memory and swap
(docs/performance.md, "overcommit": 61 % at 1.5 times, 46 % at 2 times).
"""

import random
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from heapq import heappop, heappush
from itertools import count

from emuvisor.devices.limits import READ, DiskLimits, Rate, Throttle
from emuvisor.errors import UsageError
from emuvisor.host.autopilot.moves import Knob
from emuvisor.host.autopilot.view import (
    SWAP_IN_NS,
    GuestCounters,
    HostCounters,
    MemoryState,
    RateCounter,
)
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.instructions import Added, Changed, Event, Left, Preempt, Run, Timer, Woke
from emuvisor.host.scheduler.policies.proportional import ProportionalShare
from emuvisor.units import NS_PER_MS, NS_PER_S, NS_PER_US, PAGE_SIZE

__all__ = ["Load", "Phase", "SimulatedGuest", "SimulatedHost"]

MISS_COST = 2.5
UNIT_NS = NS_PER_MS
"""What a guest with a disk does between two requests."""
REQUEST_BYTES = 1 << 16
DISK_BYTES = 1 << 26
"""That the disk does in a second, all guests together."""


class Load(StrEnum):
    IDLE = "idle"
    BATCH = "batch"
    """It computes all the time."""
    REQUESTS = "requests"
    """They come at random times, from outside, and each takes some time."""
    DISK = "disk"
    """It computes for a millisecond, reads, waits for that, and so on."""


@dataclass(slots=True)
class Phase:
    """What a guest does until `end_ns`, with a working set of `pages`."""

    load: Load
    start_ns: int
    end_ns: int
    pages: int
    arrivals: deque[tuple[int, float]] = field(default_factory=deque)
    """When requests come, and what they take."""
    useful_ns: float = 0.0
    service_ns: float = 0.0
    response_ns: float = 0.0
    """Of the requests that were served, what they took alone, and here."""

    @property
    def speedup(self) -> float | None:
        """How fast it was, as a part of how fast it is on a host of its own without limits; None: it did nothing."""
        length_ns = self.end_ns - self.start_ns
        match self.load:
            case Load.IDLE:
                return None
            case Load.REQUESTS:
                return self.service_ns / self.response_ns if self.response_ns else None
            case Load.BATCH:
                return self.useful_ns / length_ns
            case Load.DISK:
                cycle_ns = UNIT_NS + REQUEST_BYTES * NS_PER_S / DISK_BYTES
                return min(1.0, self.useful_ns / (length_ns * UNIT_NS / cycle_ns))


class SimulatedGuest:
    """A guest with `phases`; it is Tunable."""

    def __init__(
        self, name: str, phases: Sequence[Phase], claim: CpuClaim, memory: MemoryState, disk: Rate
    ) -> None:
        self.host: SimulatedHost
        self.name = name
        self.phases = phases
        self.claim = claim
        self.memory = memory
        self.throttle = Throttle(DiskLimits(total_bytes=disk))
        self.used_ns = 0
        self.fault_ns = 0.0
        self.responses_ns: list[int] = []
        self._number = 0
        self._hot = 0.0
        """Pages of its working set that are in memory."""
        self._queue: deque[list[float]] = deque()
        """Requests that have come: when, what they took, what is left."""
        self._left_ns: float = UNIT_NS
        self._read_bytes = self._io_ns = 0

    @property
    def phase(self) -> Phase:
        return self.phases[self._number]

    @property
    def limit(self) -> Rate:
        limits = self.throttle.limits
        assert isinstance(limits, DiskLimits)
        assert limits.total_bytes is not None
        return limits.total_bytes

    # ---- what it does ----

    def _slowdown(self) -> float:
        pages = self.phase.pages
        return 1 + MISS_COST * max(0.0, 1 - self._hot / pages)

    def _advance(self, now_ns: int) -> None:
        """To the phase that `now_ns` is in; requests that wait are served before."""
        phase = self.phase
        while phase.arrivals and phase.arrivals[0][0] <= now_ns:
            came_ns, takes_ns = phase.arrivals.popleft()
            self._queue.append([came_ns, takes_ns, takes_ns])
        if now_ns >= phase.end_ns and not self._queue and self._number + 1 < len(self.phases):
            self._number += 1
            self._hot = min(self._hot, self.phase.pages) / 2  # half of it is other pages
            self._advance(now_ns)

    def wants_ns(self, now_ns: int) -> int:
        """How long it would run from now on; 0: it sleeps."""
        self._advance(now_ns)
        phase = self.phase
        if phase.load is Load.BATCH:
            return max(0, phase.end_ns - now_ns)
        wanted = 0.0
        if phase.load is Load.REQUESTS:
            wanted = sum(request[2] for request in self._queue)
        elif phase.load is Load.DISK and now_ns < phase.end_ns:
            wanted = self._left_ns
        return int(wanted * self._slowdown())

    def ran(self, ran_ns: int, now_ns: int) -> None:
        self.used_ns += ran_ns
        useful_ns = ran_ns / self._slowdown()
        fault_ns = ran_ns - useful_ns
        self.fault_ns += fault_ns
        assert self.memory.limit is not None
        holds = min(self.memory.limit // PAGE_SIZE, self.phase.pages)
        self._hot = min(holds, self._hot + fault_ns / SWAP_IN_NS)
        self.phase.useful_ns += useful_ns
        if self.phase.load is Load.REQUESTS:
            self._serve(useful_ns, now_ns)
        elif self.phase.load is Load.DISK:
            self._left_ns -= useful_ns

    def _serve(self, useful_ns: float, now_ns: int) -> None:
        while self._queue:
            request = self._queue[0]
            request[2] -= useful_ns
            if request[2] > NS_PER_US:
                break
            useful_ns = max(0.0, -request[2])
            self._queue.popleft()
            self.phase.service_ns += request[1]
            self.phase.response_ns += max(request[1], now_ns - request[0])
            self.responses_ns.append(now_ns - int(request[0]))

    def sleeps_until(self, now_ns: int) -> int:
        """It has nothing to run for; when it has again."""
        phase = self.phase
        if phase.load is Load.REQUESTS and phase.arrivals:
            return phase.arrivals[0][0]
        if phase.load is Load.DISK and now_ns < phase.end_ns:
            until = self.throttle.when(READ, REQUEST_BYTES, now_ns)
            self.throttle.take(READ, REQUEST_BYTES, until)
            self._io_ns += until - now_ns
            self._read_bytes += REQUEST_BYTES
            self._left_ns = UNIT_NS
            return until + REQUEST_BYTES * NS_PER_S // DISK_BYTES
        return max(phase.end_ns, now_ns + NS_PER_MS)

    # ---- what the autopilot sees and does ----

    def counters(self) -> GuestCounters:
        entity = self.host.scheduler.entities[self.name]
        hot = int(self._hot) * PAGE_SIZE
        return GuestCounters(
            name=self.name,
            used_ns=self.used_ns,
            ready_ns=entity.waited_ns,
            throttled_ns=entity.throttled_ns,
            fault_ns=int(self.fault_ns),
            cpu=self.claim,
            memory=replace(
                self.memory,
                resident=hot,
                out=self.phase.pages * PAGE_SIZE - hot,
                active=min(hot, self.phase.pages * PAGE_SIZE),
            ),
            rates=(
                RateCounter(
                    Knob.DISK_LIMIT, 0, "total_bytes", "disk", self.limit, self._read_bytes, self._io_ns
                ),
            ),
        )

    def set_cpu(
        self,
        *,
        weight: int | None = None,
        cap: float | None = None,
        latency_us: int | None = None,
        affinity: Collection[int] | None = None,
    ) -> None:
        claim = self.claim
        self.claim = replace(
            claim,
            weight=weight or claim.weight,
            cap=cap or claim.cap,
            latency_us=latency_us or claim.latency_us,
            affinity=claim.affinity if affinity is None else frozenset(affinity) or None,
        )
        self.host.handle(Changed(self.name, self.claim))

    def set_memory(self, *, limit: int | None = None, shares: int | None = None) -> None:
        self.memory = replace(self.memory, limit=limit or self.memory.limit)
        assert self.memory.limit is not None
        self._hot = min(self._hot, self.memory.limit // PAGE_SIZE)

    def set_disk_limits(self, disk: int | str, **changes: Rate | int | str | None) -> None:
        self.throttle.change(self.throttle.limits.changed(changes), self.host.now_ns)

    def set_nic_limits(self, nic: int, **_changes: Rate | int | str | None) -> None:
        raise UsageError(f"guest {self.name!r} has no network card {nic}")


class SimulatedHost:
    """`run` until a time. It is the autopilot's Controls."""

    def __init__(self, pcpus: int, guests: Sequence[SimulatedGuest]) -> None:
        self.now_ns = 0
        self.pcpus = pcpus
        self.guests = {guest.name: guest for guest in guests}
        self.scheduler = Scheduler(pcpus, ProportionalShare())
        self.warnings: list[str] = []
        self._agenda: list[tuple[int, int, str, int]] = []
        """When, order, guest, pCPU that it then leaves or -1 when it wakes."""
        self._order = count()
        self._runs: list[tuple[int, int]] = [(0, -1)] * pcpus
        """For each pCPU: since when it runs its guest, and the entry of the agenda that ends it."""
        for guest in guests:
            guest.host = self
            self.handle(Added(guest.name, guest.claim))
            self._at(0, guest.name)

    def run(self, until_ns: int) -> None:
        while True:
            timer = self.scheduler.timer_ns
            due = self._agenda[0][0]
            if timer is not None and timer < min(due, until_ns):
                self.now_ns = max(self.now_ns, timer)
                self.handle(Timer())
            elif due < until_ns:
                self._next()
            else:
                break
        self.now_ns = until_ns

    def _at(self, when_ns: int, name: str, pcpu: int = -1) -> int:
        order = next(self._order)
        heappush(self._agenda, (when_ns, order, name, pcpu))
        return order

    def _next(self) -> None:
        when_ns, order, name, pcpu = heappop(self._agenda)
        self.now_ns = max(self.now_ns, when_ns)
        if pcpu >= 0:
            if self._runs[pcpu][1] == order:
                self._leave(pcpu, name)
        elif self.guests[name].wants_ns(self.now_ns):
            self.handle(Woke(name))
        else:
            self._at(max(self.now_ns + 1, self.guests[name].sleeps_until(self.now_ns)), name)

    def _leave(self, pcpu: int, name: str) -> None:
        guest = self.guests[name]
        ran_ns = self.now_ns - self._runs[pcpu][0]
        self._runs[pcpu] = (0, -1)
        guest.ran(ran_ns, self.now_ns)
        wants = guest.wants_ns(self.now_ns) > 0
        if not wants:
            self._at(max(self.now_ns + 1, guest.sleeps_until(self.now_ns)), name)
        self.handle(Left(pcpu, name, ran_ns, ran_ns, wants))

    def handle(self, event: Event) -> None:
        """Tell the scheduler, and do what it says."""
        preempts: list[Preempt] = []
        for instruction in self.scheduler.handle(self.now_ns, event):
            if isinstance(instruction, Run):
                wants_ns = self.guests[instruction.name].wants_ns(self.now_ns)
                end_ns = self.now_ns + max(1, min(instruction.slice_ns, wants_ns))
                order = self._at(end_ns, instruction.name, instruction.pcpu)
                self._runs[instruction.pcpu] = (self.now_ns, order)
            else:
                preempts.append(instruction)
        for preempt in preempts:
            self._leave(preempt.pcpu, preempt.name)

    # ---- for the autopilot ----

    def look(self) -> HostCounters:
        counters = tuple(guest.counters() for guest in self.guests.values())
        return HostCounters(self.now_ns, self.pcpus, counters)

    def tunable(self, name: str) -> SimulatedGuest | None:
        return self.guests.get(name)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def watch(self) -> None:
        """Working sets are known."""

    def unwatch(self) -> None:
        """They still are."""


def arrivals(
    rng: random.Random, start_ns: int, end_ns: int, takes_ns: float, part: float
) -> Iterator[tuple[int, float]]:
    """Requests as a Poisson process, each of about `takes_ns`, that keep a pCPU busy for `part` of the time."""
    now = float(start_ns)
    while True:
        now += rng.expovariate(part / takes_ns)
        if now >= end_ns:
            return
        yield int(now), max(float(NS_PER_US), rng.expovariate(1 / takes_ns))
