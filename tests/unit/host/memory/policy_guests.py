"""Guests and hosts as the memory policy sees them, with round numbers."""

from typing import Any

from emuvisor.host.memory import GuestUse, HostUse, MemoryContract
from emuvisor.units import PAGE_SIZE

POOL = 10_000
"""Frames. HIGH is regained at 675, SOFT entered below 400; 450 and 200; 225 and 100."""


def contract(
    size: int, reservation: int = 0, limit: int | None = None, shares: int = 1000, priority: int = 0
) -> MemoryContract:
    """A contract in frames."""
    return MemoryContract(
        size * PAGE_SIZE,
        reservation * PAGE_SIZE,
        None if limit is None else limit * PAGE_SIZE,
        shares,
        priority,
    )


def guest(name: str, resident: int, *, size: int = 8000, **fields: Any) -> GuestUse:
    """A guest with `resident` frames; what it does not use is absent."""
    terms = {key: fields.pop(key) for key in ("reservation", "limit", "shares", "priority") if key in fields}
    used = resident + sum(
        fields.get(key, 0) for key in ("shared", "zero", "ballooned", "compressed", "swapped")
    )
    fields.setdefault("absent", max(0, size - used))
    return GuestUse(name, contract(size, **terms), resident, **fields)


def host(*guests: GuestUse, free: int, frames: int = POOL, **fields: Any) -> HostUse:
    return HostUse(frames, free, guests, **fields)
