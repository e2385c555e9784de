"""A recording of a host's memory over time: one JSON object a line, each with its "kind".

recording  the first line: version, when it began, seconds between two samples
sample     where the memory was at one moment: the host's statistics and each guest's
decision   what the memory manager did, and why
end        the recording was ended, rather than cut off
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_type_hints

from emuvisor.errors import UsageError
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.units import MIB

__all__ = ["End", "Header", "Item", "RecordingReader", "Sample", "decision_as_json", "decode", "encode"]

VERSION = 1
MAX_LINE = 4 * MIB
"""Bytes: thousands of guests. What is longer is no line of a recording."""
BLOCK = MIB
MAX_TEXT = 2000
MAX_NUMBER = 1 << 62
SIGNED = frozenset({"priority", "frames", "savings"})
"""Numbers that may be negative: compressed pages can take more than is saved."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Header:
    """The first line. `time` is in seconds since 1970; a sample is taken each `period_s`, and when a guest starts or
    stops."""

    time: float
    period_s: float
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Sample:
    """Where the memory was at `time` (seconds since 1970)."""

    time: float
    host: HostMemoryStatistics
    guests: tuple[GuestMemoryStatistics, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The recording was ended at `time` (seconds since 1970)."""

    time: float


Item = Header | Sample | Decision | End


def encode(item: Item) -> bytes:
    """The line for `item`, its end included. Numbers that JSON does not have become null."""
    line: dict[str, Any]
    match item:
        case Header():
            line = {
                "kind": "recording",
                "version": item.version,
                "time": item.time,
                "period_s": item.period_s,
            }
        case Sample():
            guests = [guest.as_dict() for guest in item.guests]
            line = {"kind": "sample", "time": item.time, "host": item.host.as_dict(), "guests": guests}
        case Decision():
            line = {"kind": "decision", **decision_as_json(item)}
        case End():
            line = {"kind": "end", "time": item.time}
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decision_as_json(decision: Decision) -> dict[str, Any]:
    """Its fields. Numbers that JSON does not have, such as an infinite price, are None."""
    numbers = {name: value if math.isfinite(value) else None for name, value in decision.numbers.items()}
    return decision.as_dict() | {"numbers": numbers}


def decode(line: bytes) -> Item:
    """What `line` says. Fields that this version does not know are passed over. Raises UsageError, which says what is
    wrong, but not where."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("is not JSON") from None
    if not isinstance(values, dict):
        raise UsageError("is not a JSON object")
    match values.get("kind"):
        case "recording":
            if values.get("version") != VERSION:
                raise UsageError(f"is a recording of a version other than {VERSION}")
            return _build(Header, values)
        case "sample":
            guests = values.get("guests")
            if not isinstance(guests, list):
                raise UsageError("'guests' is not a list")
            sample = Sample(
                time=_real(values.get("time"), "time"),
                host=_build(HostMemoryStatistics, values.get("host"), "host."),
                guests=tuple(
                    _build(GuestMemoryStatistics, guest, f"guests[{number}].")
                    for number, guest in enumerate(guests)
                ),
            )
            if not sample.host.pool:
                raise UsageError("'host.pool' is 0")
            if len({guest.name for guest in sample.guests}) < len(guests):
                raise UsageError("'guests' has a name twice")
            return sample
        case "decision":
            return _build(Decision, values)
        case "end":
            return _build(End, values)
    raise UsageError("has no 'kind' that is known")


_TYPES: Mapping[Any, dict[str, Any]] = {
    kind: get_type_hints(kind)
    for kind in (Header, End, Decision, HostMemoryStatistics, GuestMemoryStatistics)
}
"""The fields of each part of a line, and their types."""


def _build(kind: type[_T], values: object, place: str = "") -> _T:
    """A `kind` with its fields out of `values`, each of the field's type. `place` is where in the line they are."""
    if not isinstance(values, dict):
        raise UsageError(f"{place.removesuffix('.')!r} is not an object")
    found: dict[str, Any] = {}
    for name, hint in _TYPES[kind].items():
        found[name] = _CHECKS[hint](values.get(name), f"{place}{name}")
    return kind(**found)


def _whole(value: object, place: str) -> int:
    lowest = -MAX_NUMBER if place.rpartition(".")[2] in SIGNED else 0
    if type(value) is not int or not lowest <= value <= MAX_NUMBER:
        raise UsageError(f"{place!r} is not a whole number{'' if lowest else ' from 0 on'}")
    return value


def _whole_or_none(value: object, place: str) -> int | None:
    return None if value is None else _whole(value, place)


def _real(value: object, place: str) -> float:
    if type(value) not in (int, float):
        raise UsageError(f"{place!r} is not a number")
    assert isinstance(value, (int, float))
    if not 0 <= value <= MAX_NUMBER:
        raise UsageError(f"{place!r} is not a number from 0 on")
    return float(value)


def _text(value: object, place: str) -> str:
    """Without what would reach into a terminal."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise UsageError(f"{place!r} is not a text of at most {MAX_TEXT} characters")
    return "".join(c if c.isprintable() else "?" for c in value)


def _whole_numbers(value: object, place: str) -> dict[str, int]:
    if not isinstance(value, dict):
        raise UsageError(f"{place!r} is not an object")
    return {_text(k, place): _whole(v, place) for k, v in value.items()}


def _real_numbers(value: object, place: str) -> dict[str, float]:
    """Null is a number that JSON does not have."""
    if not isinstance(value, dict):
        raise UsageError(f"{place!r} is not an object")
    numbers = {}
    for name, number in value.items():
        if number is not None and type(number) not in (int, float):
            raise UsageError(f"{place!r} has something that is not a number")
        try:
            numbers[_text(name, place)] = math.nan if number is None else float(number)
        except OverflowError:
            raise UsageError(f"{place!r} has a number that is too large") from None
    return numbers


_CHECKS: Mapping[Any, Callable[[object, str], Any]] = {
    int: _whole,
    int | None: _whole_or_none,
    float: _real,
    str: _text,
    Mapping[str, int]: _whole_numbers,
    Mapping[str, float]: _real_numbers,
}


class RecordingReader:
    """Reads the recording at `path`, also while it is being written: `read` goes on where it stopped.

    Use it as a context manager. Everything raises UsageError, naming file and line, for a file that is no recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = 0
        """Number of the last line that was read."""
        self._rest = b""
        """The beginning of a line whose end is not there yet."""
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def cut_line(self) -> int | None:
        """The number of a last line whose end is not there; None when all is read."""
        return self._line + 1 if self._rest else None

    def read(self) -> Iterator[Item]:
        """What is there and was not read yet, whole lines only."""
        for line in self._lines():
            self._line += 1
            try:
                item = decode(line)
                if isinstance(item, Header) != (self._line == 1):
                    raise UsageError("is not where the beginning of a recording is")
            except UsageError as error:
                raise UsageError(f"{self._path}: line {self._line}: {error}") from None
            yield item

    def _lines(self) -> Iterator[bytes]:
        while True:
            try:
                block = self._file.read(BLOCK)
                if not block and self._file.seekable() and self._file.tell() > self._path.stat().st_size:
                    raise UsageError(f"{self._path}: was cut while it was read")
            except OSError as error:
                raise UsageError(f"{self._path}: cannot be read: {error.strerror}") from error
            if not block:
                return
            *lines, rest = block.split(b"\n")
            if lines:
                yield self._rest + lines[0]
                yield from lines[1:]
                self._rest = rest
            else:
                self._rest += rest
            if len(self._rest) > MAX_LINE:
                raise UsageError(f"{self._path}: line {self._line + 1}: is longer than {MAX_LINE} bytes")
