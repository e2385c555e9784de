"""Events in their order, on their way to the store and to those who listen."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from emuvisor.manager.records import EventRecord
from emuvisor.store import Store
from emuvisor.store.events import Event

__all__ = ["Journal"]

KEPT = 10_000
"""Events that are kept in memory; older ones are read from the store."""
_NUMBER = "number"
"""Where the store's details have an event's number."""


class Journal:
    """Events of `store`. `warn` hears what went wrong on the way.

    They are posted by any thread and under any lock, and written in a thread of the journal's own, so that a pCPU never
    waits for the disk.
    """

    def __init__(self, store: Store, warn: Callable[[str], None]) -> None:
        self.listeners: list[Callable[[EventRecord], None]] = []
        """Called with each event that is in the store, in order, in the journal's thread."""
        self._store = store
        self._warn = warn
        self._changed = threading.Condition()
        self._posted: deque[tuple[Event, Callable[[], None] | None]] = deque()
        self._busy = False
        self._closing = False
        self._recent: deque[EventRecord] = deque(maxlen=KEPT)
        self._first = 1
        """The number from which on all are in `_recent`."""
        last = store.last_event()
        self._number = 0 if last is None else _record(last).number
        self._first = self._number + 1
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def post(
        self,
        guest: str,
        kind: str,
        details: dict[str, Any] | None = None,
        *,
        at: float | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Something happened to `guest`, now or at `at`. `then` is called when it is in the store, before the
        listeners."""
        event = Event(time.time() if at is None else at, guest, kind, details or {})
        with self._changed:
            self._posted.append((event, then))
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when all that was posted is in the store and has been told to the listeners."""
        if threading.current_thread() is self._thread:  # a listener
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._posted and not self._busy)

    @property
    def last(self) -> int:
        """The number of the newest event in the store; 0 when there has been none."""
        return self._number

    def close(self) -> None:
        """Write what is left, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def events(self, after: int, guest: str | None, limit: int) -> list[EventRecord]:
        """The first `limit` events behind number `after`, of all guests or of one."""
        self.flush()
        with self._changed:
            recent = list(self._recent)
            first = max(self._first, self._number + 1 - len(recent))
        if after + 1 < first:
            recent = [_record(event) for event in self._store.events()]
        found = (r for r in recent if r.number > after and guest in (None, r.guest))
        return [record for record, _ in zip(found, range(limit), strict=False)]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._posted or self._closing)
                if not self._posted:
                    return
                event, then = self._posted.popleft()
                self._busy = True
            self._write(event, then)

    def _write(self, event: Event, then: Callable[[], None] | None) -> None:
        number = self._number + 1
        record = EventRecord(number, event.time, event.guest, event.kind, dict(event.details))
        try:
            numbered = Event(event.time, event.guest, event.kind, {**event.details, _NUMBER: number})
            self._store.add_event(numbered)
            if then is not None:
                then()
        except Exception as error:  # others wait for the thread
            self._warn(f"an event of guest {event.guest!r} is not in the store: {error}")
        with self._changed:
            self._number = number
            self._recent.append(record)
        for listener in tuple(self.listeners):
            try:
                listener(record)
            except Exception as error:  # the thread serves the others
                self._warn(f"a listener to events failed: {type(error).__name__}: {error}")


def _record(event: Event) -> EventRecord:
    details = dict(event.details)
    number = details.pop(_NUMBER, 0)
    return EventRecord(number if type(number) is int else 0, event.time, event.guest, event.kind, details)
