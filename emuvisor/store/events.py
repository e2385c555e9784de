"""What happened to guests: a line of JSON for each event, in order."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emuvisor.store.files import HostFiles, host_errors
from emuvisor.units import MIB

__all__ = ["Event", "EventLog"]

MAX_BYTES = 16 * MIB
"""A log that is longer becomes the old one; there are two at most."""
TAIL = 64 * 1024
"""Bytes of its end among which the newest event is looked for."""


@dataclass(frozen=True, slots=True)
class Event:
    """`time` is in seconds since 1970; `kind` a word, such as "started"; `details` plain data that JSON can hold."""

    time: float
    guest: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


class EventLog:
    """The events in the file `path`, and older ones beside it. A line that a crash has cut is left out.

    One thread uses it at a time.
    """

    def __init__(self, path: Path, files: HostFiles, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.old_path = path.with_suffix(".old" + path.suffix)
        self._files = files
        self._max_bytes = max_bytes
        self._whole = False
        """The last line is known to have an end."""

    def append(self, event: Event) -> None:
        """Add `event`; it is on the disk when this returns. Raises HostError."""
        with host_errors(self.path):
            self._append(event)

    def _append(self, event: Event) -> None:
        line = json.dumps(
            {"time": event.time, "guest": event.guest, "event": event.kind, "details": dict(event.details)}
        )
        size = self.path.stat().st_size if self.path.exists() else 0
        if size > self._max_bytes:
            self._files.rename(self.path, self.old_path)
            size = 0
        start = b"" if self._whole or not size else b"\n"
        self._whole = False
        self._files.append(self.path, start + line.encode() + b"\n")
        self._files.sync(self.path)
        if not size:
            self._files.sync_folder(self.path.parent)
        self._whole = True

    def last(self) -> Event | None:
        """The newest event, without reading the others: among the last `TAIL` bytes. Raises OSError."""
        for path in (self.path, self.old_path):
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL))
                for line in reversed(file.read(TAIL).split(b"\n")):
                    if (event := _event(line)) is not None:
                        return event
        return None

    def __iter__(self) -> Iterator[Event]:
        """The events, oldest first."""
        for path in (self.old_path, self.path):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                continue
            for line in text.split(b"\n"):
                if (event := _event(line)) is not None:
                    yield event


def _event(line: bytes) -> Event | None:
    try:
        data = json.loads(line)
        event = Event(data["time"], data["guest"], data["event"], data["details"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    types = ((event.time, int | float), (event.guest, str), (event.kind, str), (event.details, dict))
    return event if all(isinstance(value, kind) for value, kind in types) else None
