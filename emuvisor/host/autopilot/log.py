"""The log that explains every change, also as lines of JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from emuvisor.errors import UsageError
from emuvisor.host.log import Log

__all__ = ["AutopilotLog", "Entry", "Kind", "decode", "encode"]

MAX_ENTRIES = 10_000
MAX_TEXT = 2_000
MAX_NUMBER = 1 << 62


class Kind(StrEnum):
    """What became of a change."""

    CHANGED = "changed"
    RECOMMENDED = "recommended"
    """By a dry run: nothing has changed."""
    TAKEN_BACK = "taken back"
    """It was not worth it."""
    REVERTED = "reverted"
    """Somebody asked for it."""
    REFUSED = "refused"
    """It could not be carried out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """At `time` (seconds since 1970) `knob` of `guest` went from `before` to `after`, because of `why`."""

    number: int
    """From 1."""
    time: float
    kind: Kind
    guest: str
    knob: str
    before: str
    after: str
    why: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Those of the rule, in percent of the period or in the knob's unit."""

    def __str__(self) -> str:
        return (
            f"{self.number}  {self.kind}: {self.guest}: {self.knob} {self.before} -> {self.after}: {self.why}"
        )


class AutopilotLog(Log[Entry]):
    """The latest entries. `added` is the number of the last one."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        super().__init__("the autopilot's log", MAX_ENTRIES, on_failure)


def encode(entry: Entry) -> str:
    """The line for `entry`, without its end."""
    return json.dumps(asdict(entry), separators=(",", ":"))


def decode(line: str) -> Entry:
    """What `line` says. Raises UsageError, which says what is wrong, but not where."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("is not JSON") from None
    if not isinstance(values, dict):
        raise UsageError("is not a JSON object")
    texts = {name: _text(values, name) for name in ("guest", "knob", "before", "after", "why")}
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in tuple(Kind):
        raise UsageError("has no 'kind' that is known")
    numbers = values.get("numbers")
    if not isinstance(numbers, dict):
        raise UsageError("'numbers' is not an object")
    return Entry(
        number=int(_number(values, "number")),
        time=_number(values, "time"),
        kind=Kind(kind),
        numbers={name: _number(numbers, name) for name in numbers},
        **texts,
    )


def _text(values: Mapping[str, Any], name: str) -> str:
    """Without what would reach into a terminal."""
    value = values.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise UsageError(f"{name!r} is not a text of at most {MAX_TEXT} characters")
    return "".join(c if c.isprintable() else "?" for c in value)


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_NUMBER:
        raise UsageError(f"{name!r} is not a number")
    return float(value)
