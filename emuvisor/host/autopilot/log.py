"""The log that explains every change, also as lines of JSON."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from emuvisor.errors import UsageError

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


class AutopilotLog:
    """The latest entries, and who hears of new ones. Listeners are called in the autopilot's thread; one that raises an
    exception hears no more, and `on_failure` is told."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        self.listeners: list[Callable[[Entry], None]] = []
        self._on_failure = on_failure
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.added = 0
        """Entries since the beginning, which is the number of the last one."""

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Note one more."""
        self._entries.append(entry)
        self.added = entry.number
        for listener in tuple(self.listeners):
            try:
                listener(entry)
            except Exception as error:
                with suppress(ValueError):  # it has gone by itself
                    self.listeners.remove(listener)
                self._on_failure(
                    f"a listener of the autopilot's log is dropped: {type(error).__name__}: {error}"
                )


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
