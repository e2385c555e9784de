"""A chip's registers as plain data and back, checked field by field.

A chip lists its registers once, as a `Fields` mapping from attribute name to the values allowed in it;
`save_fields` and `load_fields` do the rest.
"""

import reprlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Protocol

from emuvisor.bus.clock import Timer
from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.irq import InterruptLine
from emuvisor.errors import SnapshotError

__all__ = [
    "OPTIONAL_TIME",
    "TIME",
    "Data",
    "Deadline",
    "Fields",
    "Flag",
    "InputLevel",
    "Kind",
    "LineLevel",
    "Number",
    "Numbers",
    "load_fields",
    "save_fields",
    "saved_part",
]


class Kind(Protocol):
    """The values that a saved field may have."""

    def accepts(self, value: Any) -> bool:
        """Whether `value` is one of them."""
        ...

    def __str__(self) -> str:
        """The allowed values in words, for messages."""
        ...


class Fields(dict[str, Kind]):
    """Attribute name to the values that it may have; one at least. Made once for each kind of chip."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        super().__init__(kinds)
        names = [*self] if len(self) > 1 else [*self, *self]  # one alone would not give a tuple
        self.present: Callable[[object], tuple[Any, ...]] = attrgetter(*names)
        """All these attributes of a chip."""
        self.saved: Callable[[SavedState], tuple[Any, ...]] = itemgetter(*names)
        """All these fields of a saved state, in the same order. Raises KeyError where one is missing."""


@dataclass(frozen=True, slots=True)
class Number:
    """An integer from `minimum` to `maximum`; `optional` allows None."""

    maximum: int
    minimum: int = 0
    optional: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether `value` is in range."""
        if value is None:
            return self.optional
        return type(value) is int and self.minimum <= value <= self.maximum

    def __str__(self) -> str:
        return f"an integer from {self.minimum} to {self.maximum}" + (" or None" if self.optional else "")


TIME = Number(maximum=2**63 - 1, minimum=-(2**63))
"""A time of the guest's clock in nanoseconds, or in a chip's own ticks; it may lie before power-on."""

OPTIONAL_TIME = Number(maximum=2**63 - 1, minimum=-(2**63), optional=True)
"""A time, or None for never."""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or False."""

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a bool."""
        return type(value) is bool

    def __str__(self) -> str:
        return "True or False"


@dataclass(frozen=True, slots=True)
class Data:
    """Between `minimum` and `maximum` bytes (a bytearray is saved as bytes)."""

    maximum: int
    minimum: int = 0

    def accepts(self, value: Any) -> bool:
        """Whether `value` is bytes of an allowed length."""
        return type(value) is bytes and self.minimum <= len(value) <= self.maximum

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum} bytes"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of at most `length` integers from 0 to `maximum`."""

    length: int
    maximum: int

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a list."""
        if type(value) is not list or len(value) > self.length:
            return False
        return all(type(item) is int and 0 <= item <= self.maximum for item in value)

    def __str__(self) -> str:
        return f"a list of at most {self.length} integers from 0 to {self.maximum}"


_CONTAINERS = frozenset((bytearray, deque, list))


def save_fields(chip: object, device: str, version: int, fields: Fields) -> SavedState:
    """The attributes of `chip` named in `fields`, as plain data under the names of `device` and `version`."""
    state: SavedState = {"device": device, "version": version}
    for field, kind in fields.items():
        value = getattr(chip, field)
        if type(value) in _CONTAINERS:
            value = bytes(value) if type(kind) is Data else list(value)
        state[field] = value
    return state


def load_fields(chip: object, state: SavedState, device: str, version: int, fields: Fields) -> None:
    """Set the attributes of `chip` named in `fields` from `state`, which `save_fields` made.

    Containers are refilled, not replaced; what equals its value already is left alone, as most fields do when a
    guest is put back to where it was a moment ago. Raises SnapshotError for a state of another device, a
    newer version, and a field that is missing or has a value that is not allowed.
    """
    if state.get("device") != device or state.get("version") != version:
        check_saved(state, device, version)  # an older version is fine
    try:
        values = fields.saved(state)
    except KeyError as error:
        raise SnapshotError(f"{device}: the saved state has no field {error}") from None
    if fields.present(chip) == values:  # most often, and quicker than one by one
        return
    for (field, kind), value in zip(fields.items(), values, strict=False):
        present = getattr(chip, field)  # now: what drives a line may have changed it
        if value is present or (value == present and type(value) is type(present)):
            continue
        if not kind.accepts(value):
            raise SnapshotError(f"{device}: saved field {field!r} is {reprlib.repr(value)}; expected {kind}")
        if type(present) is bytearray:
            present[:] = value  # in place: a new one of a display's size costs more than copying it
        elif type(present) in _CONTAINERS:
            present.clear()
            present.extend(value)
        else:
            setattr(chip, field, value)


def saved_part(state: SavedState, device: str, field: str) -> SavedState:
    """The saved state of a part of `device`, kept under `field`. Raises SnapshotError without one."""
    part = state.get(field)
    if not isinstance(part, dict):
        raise SnapshotError(
            f"{device}: saved field {field!r} is {reprlib.repr(part)}; expected a saved state"
        )
    return part


class LineLevel:
    """A saved field: the level of the interrupt line that the chip keeps as attribute `line`. Setting it drives it."""

    def __init__(self, line: str) -> None:
        self._line = line

    def __get__(self, chip: Any, _class: type) -> bool:
        line: InterruptLine = getattr(chip, self._line)
        return line.level

    def __set__(self, chip: Any, level: bool) -> None:
        getattr(chip, self._line).set(level)


class InputLevel:
    """A saved field: the level of the input that the chip keeps as attribute `line`. Setting it only notes what its
    driver does."""

    def __init__(self, line: str) -> None:
        self._line = line

    def __get__(self, chip: Any, _class: type) -> bool:
        line: InterruptLine = getattr(chip, self._line)
        return line.level

    def __set__(self, chip: Any, level: bool) -> None:
        getattr(chip, self._line).level = level


class Deadline:
    """A saved field: when the timer is due that the chip keeps as attribute `timer`, or None. Setting it arms or
    cancels it."""

    def __init__(self, timer: str) -> None:
        self._timer = timer

    def __get__(self, chip: Any, _class: type) -> int | None:
        timer: Timer = getattr(chip, self._timer)
        return timer.deadline_ns

    def __set__(self, chip: Any, deadline_ns: int | None) -> None:
        timer: Timer = getattr(chip, self._timer)
        if deadline_ns is None:
            timer.cancel()
        else:
            timer.arm(deadline_ns)
