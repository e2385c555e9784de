"""What takes long: it runs in a thread of its own, and can be asked how far it is."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

from emuvisor.daemon.faults import NotFound, TooManyRequests, plain
from emuvisor.errors import EmuvisorError

__all__ = ["Operation", "Operations", "Report"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a request began. `result` is what the method of the same name of `Manager` returned."""

    id: str
    kind: str
    guest: str
    state: Literal["running", "done", "failed"]
    started: float
    """In seconds since 1970."""
    ended: float | None = None
    done: int = 0
    total: int = 0
    """Pages or bytes of which `done` are done; 0 when nobody knows."""
    note: str = ""
    """Where one listens that waits for a guest."""
    result: Any = None
    error: str = ""
    error_kind: str = ""


class Report(Protocol):
    """Takes what an operation says of itself while it runs."""

    def progress(self, done: int, total: int) -> None:
        """So much is done, of so much."""
        ...

    def note(self, text: str) -> None:
        """What those who ask should know."""
        ...


class Operations:
    """Runs at most `running` at a time, and keeps the last `kept` that have ended. `on_change` hears of each one's
    beginning and end, in whichever thread."""

    def __init__(self, running: int, kept: int, on_change: Callable[[], object] = lambda: None) -> None:
        self._most = running
        self._kept = kept
        self._on_change = on_change
        self._changed = threading.Condition()
        self._known: dict[str, Operation] = {}
        self._running = 0
        self._busy: set[str] = set()
        """Those that do something."""
        self._closed = False

    def start(
        self, kind: str, guest: str, work: Callable[[Report], Any], *, waits: bool = False
    ) -> Operation:
        """Begin `work`, which is given a way to tell how far it is. One that `waits` for others most of the time is
        left alone at the end.

        Raises TooManyRequests when as many run as may, or the daemon ends.
        """
        with self._changed:
            if self._closed:
                raise TooManyRequests("the daemon ends")
            if self._running >= self._most:
                raise TooManyRequests(f"{self._running} operations run already; try again")
            operation = Operation(secrets.token_hex(8), kind, guest, "running", time.time())
            thread = threading.Thread(
                target=self._run, args=(operation, work), name=f"{kind} {guest}", daemon=True
            )
            try:
                thread.start()  # which waits for the lock
            except RuntimeError:
                raise TooManyRequests("the host gives no thread for it") from None
            self._running += 1
            if not waits:
                self._busy.add(operation.id)
            self._known[operation.id] = operation
            self._forget_old()
        self._on_change()
        return operation

    def _run(self, operation: Operation, work: Callable[[Report], Any]) -> None:
        with self._changed:
            pass
        try:
            result = work(_Report(partial(self._change, operation.id)))
        except Exception as error:
            if not isinstance(error, EmuvisorError | MemoryError):
                _log.exception("%s of guest %s failed", operation.kind, operation.guest)
            said = plain(error)
            outcome = {"state": "failed", "error": said["error"], "error_kind": said["kind"]}
        else:
            outcome = {"state": "done", "result": result}
        with self._changed:
            self._running -= 1
            self._busy.discard(operation.id)
            self._change(operation.id, ended=time.time(), **outcome)
        self._on_change()

    def _change(self, uid: str, **changes: Any) -> None:
        with self._changed:
            self._known[uid] = replace(self._known[uid], **changes)
            self._changed.notify_all()

    def _forget_old(self) -> None:
        ended = [uid for uid, operation in self._known.items() if operation.state != "running"]
        for uid in ended[: len(ended) - self._kept]:
            del self._known[uid]

    def all(self) -> list[Operation]:
        """All that are known, the oldest first."""
        with self._changed:
            return list(self._known.values())

    def get(self, uid: str) -> Operation:
        """One as it is now. Raises NotFound."""
        with self._changed:
            if uid not in self._known:
                raise NotFound(f"there is no operation {uid!r}; it may be long ago")
            return self._known[uid]

    def close(self, timeout_s: float) -> bool:
        """Begin no more, and wait for those that do something. False when `timeout_s` passed first."""
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: not self._busy, timeout_s)


class _Report:
    def __init__(self, change: Callable[..., None]) -> None:
        self._change = change

    def progress(self, done: int, total: int) -> None:
        self._change(done=done, total=total)

    def note(self, text: str) -> None:
        self._change(note=text)
