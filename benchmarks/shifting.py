"""A shifting mix of guests on a simulated host: the static equal split against the autopilot, seed by seed.

Six guests share two pCPUs, memory for six average working sets, and a disk. Each goes from phase to phase: idle,
computing, serving requests, reading; its working set changes with it. "web" serves requests or is idle; "db" has
reservations. A `Split` is what an autopilot begins with, and is held against.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp, log
from statistics import fmean, stdev

from benchmarks.simulated_host import DISK_BYTES, Load, Phase, SimulatedGuest, SimulatedHost, arrivals
from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.autopilot import Autopilot
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.view import HostCounters, MemoryState, between
from emuvisor.host.scheduler.claim import WHOLE, CpuClaim
from emuvisor.units import NS_PER_MS, NS_PER_S, PAGE_SIZE

__all__ = ["FAVOURED", "OBJECTIVES", "Gain", "Outcome", "Split", "fly", "gain", "make_host"]

PCPUS = 2
GUESTS = ("web", "db", "c", "d", "e", "f")
FAVOURED = "web"
OBJECTIVES = ("throughput", "fairness", f"latency:{FAVOURED}")
PERIOD_NS = 100 * NS_PER_MS
LENGTH_NS = 8 * NS_PER_S
PHASE_NS = (1_500 * NS_PER_MS, 4_000 * NS_PER_MS)
POOL_PAGES = 1024 * len(GUESTS)
PAGES = (256, 1536)
RESERVED_PART, RESERVED_PAGES = 25.0, 512
LATE_NS = 40 * NS_PER_MS
"""Two periods of a reservation: in any time it may come so late (docs/scheduling.md)."""


class Split(StrEnum):
    """What six tenants are given who pay the same: equal weights, memory limits and disk limits, and beside that"""

    CAPPED = "equal caps"
    """Each has its part of the pCPUs, and never more."""
    PINNED = "pinned"
    """Each has a pCPU that it shares with two others."""
    OPEN = "no caps"
    """Nothing: as good as a work-conserving scheduler is without an autopilot."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed came to. All three are better when they are higher."""

    throughput: float
    """Seconds of useful work."""
    fairness: float
    """Harmonic mean of the speedups of all guests in all phases in which they did something."""
    speed: float
    """Mean response time of the favoured guest, in the inverse: requests per second if they came one by one."""
    changes: int
    broken: tuple[str, ...]
    """Reservations that were not kept, and sums that were exceeded."""

    def value(self, objective: str) -> float:
        return {"throughput": self.throughput, "fairness": self.fairness}.get(objective, self.speed)


@dataclass(frozen=True, slots=True)
class Gain:
    """Ratios less 1: the geometric mean over seeds, its 95 % confidence interval (normal: there are tens of them), and
    the worst seed."""

    mean: float
    low: float
    high: float
    worst: float


def _phases(rng: random.Random, name: str, length_ns: int) -> list[Phase]:
    phases: list[Phase] = []
    now = 0
    while now < length_ns:
        end = now + rng.randint(*PHASE_NS)
        if end + PHASE_NS[0] // 2 > length_ns:  # or else the last one would be too short to say anything
            end = length_ns
        loads = (Load.REQUESTS, Load.REQUESTS, Load.IDLE) if name == FAVOURED else tuple(Load)
        load = rng.choice(loads)
        pages = 64 if load is Load.IDLE else rng.randint(*PAGES)
        phase = Phase(load, now, end, pages)
        if load is Load.REQUESTS:
            takes_ns, part = rng.uniform(1, 6) * NS_PER_MS, rng.uniform(0.05, 0.15)
            phase.arrivals.extend(arrivals(rng, now, phase.end_ns, takes_ns, part))
        phases.append(phase)
        now = end
    return phases


def make_host(seed: int, split: Split, length_ns: int = LENGTH_NS) -> SimulatedHost:
    """The mix of `seed`, for so long."""
    rng = random.Random(seed)
    cap = WHOLE * PCPUS / len(GUESTS) if split is Split.CAPPED else None
    guests = []
    for number, name in enumerate(GUESTS):
        reserved = name == "db"
        share = POOL_PAGES // len(GUESTS) * PAGE_SIZE
        memory = MemoryState(
            size=POOL_PAGES * PAGE_SIZE,
            reservation=RESERVED_PAGES * PAGE_SIZE if reserved else 0,
            limit=share,
            shares=1000,
            resident=0,
            out=0,
            active=None,
        )
        affinity = frozenset({number % PCPUS}) if split is Split.PINNED else None
        claim = CpuClaim(cap=cap, reservation=RESERVED_PART if reserved else 0.0, affinity=affinity)
        disk = Rate(DISK_BYTES // len(GUESTS))
        guests.append(SimulatedGuest(name, _phases(rng, name, length_ns), claim, memory, disk))
    return SimulatedHost(PCPUS, guests)


def fly(
    seed: int,
    objective: str | None,
    constraints: Constraints | None = None,
    split: Split = Split.CAPPED,
    length_ns: int = LENGTH_NS,
) -> Outcome:
    """Run the mix of `seed`: with the autopilot, or without for an `objective` of None."""
    host = make_host(seed, split, length_ns)
    pilot = Autopilot(host)
    if objective is not None:
        pilot.engage(objective, constraints, PERIOD_NS / NS_PER_S)
        pilot.step()
    broken: list[str] = []
    before = host.look()
    for period in range(1, length_ns // PERIOD_NS + 1):
        host.run(period * PERIOD_NS)
        now = host.look()
        broken += _broken(before, now)
        before = now
        pilot.step()
    phases = [phase for guest in host.guests.values() for phase in guest.phases]
    speedups = [phase.speedup for phase in phases if phase.speedup is not None]
    responses = host.guests[FAVOURED].responses_ns
    return Outcome(
        throughput=sum(phase.useful_ns for phase in phases) / NS_PER_S,
        fairness=len(speedups) / sum(1 / max(speedup, 1e-3) for speedup in speedups),
        speed=NS_PER_S / fmean(responses) if responses else 0.0,
        changes=len(pilot.log),
        broken=tuple(broken + host.warnings),
    )


def _broken(before: HostCounters, now: HostCounters) -> list[str]:
    """What was promised and not kept in the period between two looks."""
    view = between(before, now)
    assert view is not None
    broken = []
    for guest in view.guests:
        reservation = guest.cpu.reservation / WHOLE
        always = guest.cpu_demand_ns >= 0.99 * view.period_ns
        if always and guest.used_ns < reservation * (view.period_ns - LATE_NS):
            broken.append(f"{guest.name} got {guest.used_ns} ns at {now.now_ns}")
        assert guest.memory.limit is not None
        if guest.memory.limit < guest.memory.reservation:
            broken.append(f"{guest.name} may have {guest.memory.limit} bytes at {now.now_ns}")
    limits = sum(guest.memory.limit or 0 for guest in view.guests)
    if limits > POOL_PAGES * PAGE_SIZE:
        broken.append(f"{limits} bytes of memory were given away at {now.now_ns}")
    rates = sum(rate.limit.per_second for guest in view.guests for rate in guest.rates)
    if rates > DISK_BYTES:
        broken.append(f"{rates} bytes a second of the disk were given away at {now.now_ns}")
    return broken


def gain(outcomes: Sequence[Outcome], base: Sequence[Outcome], objective: str) -> Gain:
    """Of `outcomes` over `base`, which have the same seeds in the same order; seeds without a figure are left out."""
    pairs = [
        (ours.value(objective), theirs.value(objective)) for ours, theirs in zip(outcomes, base, strict=True)
    ]
    logs = [log(ours / theirs) for ours, theirs in pairs if ours and theirs]
    middle, half = fmean(logs), 1.96 * stdev(logs) / len(logs) ** 0.5
    return Gain(exp(middle) - 1, exp(middle - half) - 1, exp(middle + half) - 1, exp(min(logs)) - 1)
