"""One change of one of a guest's knobs, and its inverse."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from emuvisor.devices.limits import Rate
from emuvisor.host.scheduler.claim import WHOLE
from emuvisor.units import PAGE_SIZE, format_size

__all__ = ["Knob", "Move", "Target", "Tunable", "Value", "as_text", "set_value"]

Value: TypeAlias = "int | float | frozenset[int] | Rate | None"
"""How a knob is set; None: without a bound."""


class Knob(StrEnum):
    """What of a guest can be changed, by the names that people write."""

    WEIGHT = "weight"
    CAP = "cap"
    """Percent of a pCPU."""
    LATENCY = "latency"
    """Microseconds that it runs at a time."""
    AFFINITY = "affinity"
    MEMORY_LIMIT = "memory-limit"
    """Bytes. The memory manager brings a guest under it by its balloon first."""
    MEMORY_SHARES = "memory-shares"
    DISK_LIMIT = "disk-limit"
    NIC_LIMIT = "nic-limit"


@dataclass(frozen=True, slots=True)
class Target:
    """A knob of a guest; for a disk or card its number, and which of its limits."""

    guest: str
    knob: Knob
    number: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.knob} {self.number} {self.name}" if self.name else self.knob


@dataclass(frozen=True, slots=True)
class Move:
    """`target` goes from `before` to `after`, because of `why`, with the numbers that say so."""

    target: Target
    before: Value
    after: Value
    why: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def inverse(self, why: str) -> "Move":
        """The way back."""
        return Move(self.target, self.after, self.before, why)


class Tunable(Protocol):
    """The part of a guest that has the knobs. All raise UsageError for what cannot be."""

    def set_cpu(
        self,
        *,
        weight: int | None = None,
        cap: float | None = None,
        latency_us: int | None = None,
        affinity: Collection[int] | None = None,
    ) -> None:
        """Change its claim to pCPUs; a cap of 100 and an empty affinity are none."""
        ...

    def set_memory(self, *, limit: int | None = None, shares: int | None = None) -> None:
        """Change its claim to memory; a limit of its size is none."""
        ...

    def set_disk_limits(self, disk: int | str, **changes: Rate | int | str | None) -> None:
        """Change limits of a disk."""
        ...

    def set_nic_limits(self, nic: int, **changes: Rate | int | str | None) -> None:
        """Change limits of a network card."""
        ...


def set_value(guest: Tunable, target: Target, value: Value, size: int) -> None:
    """Set `target` of `guest`, which has `size` bytes of memory, to `value`. Raises UsageError, also where the guest is
    gone, and then nothing has changed."""
    match target.knob, value:
        case Knob.WEIGHT, int():
            guest.set_cpu(weight=value)
        case Knob.CAP, int() | float() | None:
            guest.set_cpu(cap=WHOLE if value is None else value)
        case Knob.LATENCY, int():
            guest.set_cpu(latency_us=value)
        case Knob.AFFINITY, frozenset() | None:
            guest.set_cpu(affinity=value or ())
        case Knob.MEMORY_LIMIT, int() | None:
            guest.set_memory(limit=size if value is None else max(PAGE_SIZE, value))
        case Knob.MEMORY_SHARES, int():
            guest.set_memory(shares=value)
        case Knob.DISK_LIMIT, Rate() | None:
            guest.set_disk_limits(target.number, **{target.name: value})
        case Knob.NIC_LIMIT, Rate() | None:
            guest.set_nic_limits(target.number, **{target.name: value})
        case _:
            raise TypeError(f"{target} cannot be {value!r}")


def as_text(target: Target, value: Value) -> str:
    """`value` for people."""
    match target.knob, value:
        case Knob.AFFINITY, frozenset():
            return "pCPU " + "+".join(map(str, sorted(value)))
        case Knob.AFFINITY, None:
            return "all pCPUs"
        case _, None:
            return "none"
        case Knob.CAP, int() | float():
            return f"{value:g} %"
        case Knob.LATENCY, int():
            return f"{value} us"
        case Knob.MEMORY_LIMIT, int():
            return format_size(value)
        case _, Rate():
            return _rate_text(target.name, value)
    return str(value)


def _rate_text(name: str, rate: Rate) -> str:
    amount = format_size(rate.per_second) if name.endswith("bytes") else str(rate.per_second)
    return f"{amount}/s"
