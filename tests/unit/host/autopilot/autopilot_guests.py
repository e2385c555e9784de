"""Guests and a host in numbers, for the tests of the autopilot."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from emuvisor.devices.limits import Rate
from emuvisor.errors import UsageError
from emuvisor.host.autopilot.moves import Knob
from emuvisor.host.autopilot.view import (
    GuestCounters,
    GuestView,
    HostCounters,
    HostView,
    MemoryState,
    RateCounter,
    RateView,
)
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.units import MIB, NS_PER_S

PERCENT = NS_PER_S // 100
"""Of a period of a second."""


def memory(**fields: Any) -> MemoryState:
    usual = MemoryState(
        size=64 * MIB, reservation=0, limit=None, shares=1000, resident=8 * MIB, out=0, active=None
    )
    return replace(usual, **fields)


def guest(
    name: str = "a",
    *,
    used: float = 0,
    ready: float = 0,
    throttled: float = 0,
    faults: float = 0,
    io: float = 0,
    rates: tuple[RateView, ...] = (),
    deterministic: bool = False,
    mem: MemoryState | None = None,
    **claim: Any,
) -> GuestView:
    """Times are in percent of the period."""
    return GuestView(
        name=name,
        used_ns=int(used * PERCENT),
        ready_ns=int(ready * PERCENT),
        throttled_ns=int(throttled * PERCENT),
        fault_ns=int(faults * PERCENT),
        io_ns=int(io * PERCENT),
        cpu=CpuClaim(**claim),
        memory=mem or memory(),
        rates=rates,
        deterministic=deterministic,
    )


def disk(limit: int, used: float = 0, waited: float = 0, pool: str = "disk") -> RateView:
    """A disk's limit of bytes; `waited` in percent of the period."""
    return RateView(Knob.DISK_LIMIT, 0, "total_bytes", pool, Rate(limit), used, int(waited * PERCENT))


def view(*guests: GuestView, pcpus: int = 1) -> HostView:
    return HostView(NS_PER_S, pcpus, guests)


class FakeGuest:
    """Tunable; `counters` is what it did so far."""

    def __init__(self, counters: GuestCounters) -> None:
        self.counters = counters
        self.refuses = ""
        """What every change is refused with."""

    def _check(self) -> None:
        if self.refuses:
            raise UsageError(self.refuses)

    def set_cpu(
        self,
        *,
        weight: int | None = None,
        cap: float | None = None,
        latency_us: int | None = None,
        affinity: Collection[int] | None = None,
    ) -> None:
        self._check()
        cpu = self.counters.cpu
        cpu = replace(
            cpu,
            weight=weight or cpu.weight,
            cap=cpu.cap if cap is None else None if cap == 100 else cap,
            latency_us=latency_us or cpu.latency_us,
            affinity=cpu.affinity if affinity is None else frozenset(affinity) or None,
        )
        self.counters = replace(self.counters, cpu=cpu)

    def set_memory(self, *, limit: int | None = None, shares: int | None = None) -> None:
        self._check()
        state = self.counters.memory
        state = replace(state, limit=limit or state.limit, shares=shares or state.shares)
        self.counters = replace(self.counters, memory=state)

    def set_disk_limits(self, disk: int | str, **changes: Rate | int | str | None) -> None:
        self._check()
        ((name, rate),) = changes.items()
        rates = tuple(
            replace(r, limit=Rate.of(rate)) if (r.number, r.name) == (disk, name) else r
            for r in self.counters.rates
        )
        self.counters = replace(self.counters, rates=rates)

    def set_nic_limits(self, nic: int, **changes: Rate | int | str | None) -> None:
        self.set_disk_limits(nic, **changes)

    def goes_on(
        self, used: float = 0, ready: float = 0, throttled: float = 0, faults: float = 0, io: float = 0
    ) -> None:
        """A second passes, of which it did these percents."""
        was = self.counters
        self.counters = replace(
            was,
            used_ns=was.used_ns + int(used * PERCENT),
            ready_ns=was.ready_ns + int(ready * PERCENT),
            throttled_ns=was.throttled_ns + int(throttled * PERCENT),
            fault_ns=was.fault_ns + int(faults * PERCENT),
            rates=tuple(replace(r, waited_ns=r.waited_ns + int(io * PERCENT)) for r in was.rates),
        )


def fake_guest(name: str, rates: tuple[RateCounter, ...] = (), **claim: Any) -> FakeGuest:
    return FakeGuest(GuestCounters(name, 0, 0, 0, 0, CpuClaim(**claim), memory(), rates))


class FakeControls:
    """A host with `guests`, a second after each other look."""

    def __init__(self, *guests: FakeGuest, pcpus: int = 1) -> None:
        self.guests = {guest.counters.name: guest for guest in guests}
        self.pcpus = pcpus
        self.warnings: list[str] = []
        self.watchers = 0
        self.seconds = 0

    def look(self) -> HostCounters:
        guests = tuple(guest.counters for guest in self.guests.values())
        return HostCounters(self.seconds * NS_PER_S, self.pcpus, guests)

    def tunable(self, name: str) -> FakeGuest | None:
        return self.guests.get(name)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def watch(self) -> None:
        self.watchers += 1

    def unwatch(self) -> None:
        self.watchers -= 1
