"""Whether two guests' memories are laid out alike, so that pages of the one can stand for pages of the other."""

from typing import TYPE_CHECKING, NamedTuple

from emuvisor.errors import SnapshotError
from emuvisor.units import PAGE_SHIFT, format_size

if TYPE_CHECKING:
    from emuvisor.memory.guest import GuestMemory

__all__ = ["check_alike"]

_MEMORY = "memory"


class _Part(NamedTuple):
    """A part of the layout; `gpa` is None for what moves about."""

    kind: str
    gpa: int | None
    length: int

    def __str__(self) -> str:
        place = "" if self.gpa is None else f" at {self.gpa:#x}"
        return f"{self.kind} of {format_size(self.length)}{place}"


def check_alike(memory: "GuestMemory", other: "GuestMemory") -> None:
    """Raises SnapshotError unless both are of one pool and have the same parts, but for ROMs at the end that only one
    of them has: they come when a guest boots."""
    if other.pool is not memory.pool:
        raise SnapshotError("memory: the two guests are not of the same host")
    common = min(len(memory.slots), len(other.slots))
    mine, theirs = _slots(memory), _slots(other)
    late = mine[common:] + theirs[common:]
    mine, theirs = mine[:common] + _others(memory), theirs[:common] + _others(other)
    if mine != theirs or any(part.kind != _MEMORY for part in late):
        lacking = next((part for part in mine if part not in theirs), "none")
        strange = next((part for part in theirs + late if part not in mine), "none")
        raise SnapshotError(f"memory: this guest has {lacking} where the other one has {strange}")


def _slots(memory: "GuestMemory") -> list[_Part]:
    return [
        _Part("a device's memory", None, len(slot.entries) << PAGE_SHIFT)
        if slot.movable
        else _Part(_MEMORY, slot.first << PAGE_SHIFT, len(slot.entries) << PAGE_SHIFT)
        for slot in memory.slots
    ]


def _others(memory: "GuestMemory") -> list[_Part]:
    shadows = [_Part("shadow RAM", shadow.base, shadow.length) for shadow in memory.shadows]
    pluggable = [
        _Part(f"RAM that is plugged by {format_size(ram.block_size)}", ram.gpa, ram.length)
        for ram in memory.pluggable
    ]
    return [*shadows, *pluggable]
