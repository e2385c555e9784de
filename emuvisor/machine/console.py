"""The host's side of a guest's serial port or virtio console port: what it printed, and what people type."""

import reprlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.errors import SnapshotError, StateError
from emuvisor.units import KIB, format_size

__all__ = ["MAX_TYPED", "Console", "Watch"]

_DEVICE = "console"
_VERSION = 1

HISTORY = 256 * 1024
"""Bytes of output that are kept; a guest that floods its console costs no more."""
MAX_TYPED = 64 * KIB
"""Bytes of input that wait for the guest; who types more has to wait, too. One longer text is taken when none waits."""


@dataclass(slots=True)
class Watch:
    """A text to look for in the output from byte `start` on; `callback` runs once, in the thread that runs the
    guest."""

    pattern: bytes
    callback: Callable[[], None]
    start: int = 0
    tail: bytes = b""
    """The end of what was searched, in which the text may have begun."""
    end: int | None = None
    """Behind which byte of the output it is, once it was found."""


class Console:
    """Output is kept (the last part of it), shown to `listeners` and searched for watched texts; input waits
    until the guest takes it."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[bytes], None]] = []
        self.written = 0
        """Bytes of output so far."""
        self.searched = 0
        """Where in the output `Guest.expect` starts to look."""
        self.on_input: Callable[[], object] | None = None
        """Hears that something was typed, in the thread that types."""
        self._history = bytearray()
        self._watches: list[Watch] = []
        self._input: deque[bytes] = deque()
        self._waiting = 0
        """Bytes of `_input`."""
        self._lock = threading.Lock()
        """Guards the output, its watches and `_waiting`: one thread runs the guest, others look, type and wait."""

    # ---- the guest's side ----

    def write(self, data: bytes) -> None:
        """The guest printed `data`."""
        with self._lock:
            self.written += len(data)
            self._history += data
            if len(self._history) > 2 * HISTORY:
                del self._history[:-HISTORY]
            found = self._search(data) if self._watches else []
        for listener in self.listeners:
            listener(data)
        for watch in found:
            watch.callback()

    def _search(self, data: bytes) -> list[Watch]:
        """Those whose text is there now; they are looked for no more."""
        found = []
        for watch in self._watches:
            text = watch.tail + data
            index = text.find(watch.pattern)
            if index >= 0:
                watch.end = self.written - len(text) + index + len(watch.pattern)
                found.append(watch)
            else:
                watch.tail = text[-(len(watch.pattern) - 1) :] if len(watch.pattern) > 1 else b""
        for watch in found:
            self._watches.remove(watch)
        return found

    def pump(self, receive: Callable[[bytes], int]) -> bool:
        """Offer waiting input to `receive`, which says how many bytes it took. True when some was taken."""
        taken = False
        while self._input:
            data = self._input.popleft()
            count = receive(data)
            taken |= count > 0
            with self._lock:
                self._waiting -= count
            if count < len(data):
                self._input.appendleft(data[count:])
                break
        return taken

    # ---- the host's side ----

    def feed(self, data: bytes) -> None:
        """Type `data`. Any thread. Raises StateError when `MAX_TYPED` bytes would wait; then none of it is typed."""
        if not data:
            return
        with self._lock:
            if self._waiting and self._waiting + len(data) > MAX_TYPED:
                raise StateError(
                    f"the guest has not taken {format_size(self._waiting)} that were typed; at most "
                    f"{format_size(MAX_TYPED)} wait for it"
                )
            self._waiting += len(data)
            self._input.append(data)
        if self.on_input is not None:
            self.on_input()

    @property
    def has_input(self) -> bool:
        """Whether typed input still waits."""
        return bool(self._input)

    def find(self, pattern: bytes, start: int) -> int | None:
        """Where the first `pattern` at or behind output byte `start` ends, if it is in the kept output."""
        with self._lock:
            first = self.written - len(self._history)
            index = self._history.find(pattern, max(0, start - first))
        return None if index < 0 else first + index + len(pattern)

    def watch(self, text: str | bytes, callback: Callable[[], None], start: int | None = None) -> Watch:
        """Call `callback` when `text` is printed from now on; the part of it that was printed behind output byte
        `start` counts."""
        pattern = text.encode() if isinstance(text, str) else text
        with self._lock:
            watch = Watch(pattern, callback, self.written if start is None else start)
            self._begin(watch)
            self._watches.append(watch)
        return watch

    def _begin(self, watch: Watch) -> None:
        """Look for the text in what follows, as if all since `watch.start` had been searched."""
        watch.start = min(watch.start, self.written)
        length = min(len(watch.pattern) - 1, self.written - watch.start, len(self._history))
        watch.tail = bytes(self._history[len(self._history) - length :])

    def watches(self, watch: Watch) -> bool:
        """Whether it is still looked for."""
        return watch in self._watches

    def unwatch(self, watch: Watch) -> None:
        """Look for it no more."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    # ---- saved state ----

    def save(self) -> SavedState:
        """What was printed, as far as it is kept, how far it was searched, and what waits to be typed."""
        return {
            "device": _DEVICE,
            "version": _VERSION,
            "written": self.written,
            "searched": self.searched,
            "history": bytes(self._history[-HISTORY:]),
            "input": b"".join(self._input),
        }

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave; who listens stays, and hears nothing of it, and texts that are looked for may
        have begun in it. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
        written, history, waiting = (state.get(field) for field in ("written", "history", "input"))
        if not isinstance(history, bytes) or not isinstance(waiting, bytes) or len(history) > HISTORY:
            raise SnapshotError(f"{_DEVICE}: what was printed and typed is not in the saved state")
        if type(written) is not int or written < len(history):
            raise SnapshotError(
                f"{_DEVICE}: saved field 'written' is {reprlib.repr(written)}; {len(history)} bytes are kept"
            )
        searched = state.get("searched")
        if type(searched) is not int or not 0 <= searched <= written:
            raise SnapshotError(
                f"{_DEVICE}: saved field 'searched' is {reprlib.repr(searched)}; {written} bytes were printed"
            )
        with self._lock:
            self.written = written
            self.searched = searched
            self._history[:] = history
            self._input.clear()
            self._waiting = len(waiting)
            if waiting:
                self._input.append(waiting)
            for watch in self._watches:
                self._begin(watch)

    @property
    def text(self) -> str:
        """The kept output as text; what is not UTF-8 shows as replacement characters."""
        return bytes(self._history[-HISTORY:]).decode(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line that is not empty, without control characters."""
        for line in reversed(bytes(self._history[-2000:]).decode(errors="replace").splitlines()):
            clean = "".join(c for c in line if c.isprintable()).strip()
            if clean:
                return clean
        return ""
