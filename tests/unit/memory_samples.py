"""Samples and decisions for tests of recordings and of what shows them."""

from typing import Any

from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import Sample
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.units import MIB


def guest(name: str = "a", **fields: Any) -> GuestMemoryStatistics:
    """A guest of 64 MiB with nothing in it but what `fields` say."""
    numbers: dict[str, Any] = {
        "configured": 64 * MIB,
        "reservation": 0,
        "limit": None,
        "shares": 1000,
        "priority": 0,
        "active": None,
    }
    for field in GuestMemoryStatistics.__slots__:
        numbers.setdefault(field, 0)
    return GuestMemoryStatistics(**(numbers | {"name": name} | fields))


def host(**fields: Any) -> HostMemoryStatistics:
    """A host of 96 MiB, all of it free."""
    numbers: dict[str, Any] = {"state": "high", "pool": 96 * MIB, "free": 96 * MIB, "savings": {}}
    for field in HostMemoryStatistics.__slots__:
        numbers.setdefault(field, 0)
    return HostMemoryStatistics(**(numbers | {"overcommit": 0.0} | fields))


def sample(time: float, *guests: GuestMemoryStatistics, **fields: Any) -> Sample:
    """`guests` on a host with `fields`."""
    return Sample(time, host(**fields), guests)


def decision(guest: str = "a", rung: str = "swap", frames: int = 100, **fields: Any) -> Decision:
    """One that needs no reasons."""
    return Decision(
        **({"time": 5.0, "why": "gives frames", "numbers": {}} | fields),
        guest=guest,
        rung=rung,
        frames=frames,
    )
