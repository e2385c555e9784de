"""What guests printed, on the disk, bounded."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from emuvisor.errors import HostError
from emuvisor.manager.records import LogPart
from emuvisor.store.files import HostFiles, host_errors
from emuvisor.units import MIB

__all__ = ["ConsoleLog", "LogWriter"]

MAX_BYTES = 4 * MIB
"""A file that is longer becomes the old one; there are two at most."""
MAX_WAITING = MIB
"""Bytes on their way to the disk; a guest that prints faster loses the oldest."""
MAX_PART = MIB
FLUSH_S = 0.2
"""How long what was printed may be in memory only."""


class ConsoleLog:
    """The log in `folder`: console.log, and console.old.log with what came before. Any thread."""

    def __init__(self, folder: Path, files: HostFiles, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / "console.log"
        self.old_path = folder / "console.old.log"
        self._files = files
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self.on_waiting: Callable[[], None] | None = None
        """Hears that there is something to write, in the thread that prints."""
        self._writing = threading.Lock()
        """Whoever has it uses the files."""
        self._end = _size(self.path) + _size(self.old_path)
        """Bytes that the log has had, as far as they are known of."""

    def printed(self, data: bytes) -> None:
        """The guest printed `data`; it is written later."""
        with self._lock:
            first = not self._waiting
            self._waiting += data
            excess = len(self._waiting) - MAX_WAITING
            if excess > 0:
                del self._waiting[:excess]
        if first and self.on_waiting is not None:
            self.on_waiting()

    @property
    def waits(self) -> bool:
        """Whether something is not on the disk yet."""
        return bool(self._waiting)

    def flush(self) -> None:
        """Write what waits. Raises HostError."""
        with self._writing, host_errors(self.path):
            with self._lock:
                data = bytes(self._waiting)
                self._waiting.clear()
            if not data:
                return
            if _size(self.path) + len(data) > self._max_bytes and self.path.exists():
                self._files.rename(self.path, self.old_path)
            self._files.append(self.path, data)
            self._end += len(data)

    def read(self, tail_bytes: int | None = None) -> bytes:
        """All that is kept, or the last `tail_bytes` of it. Raises HostError."""
        self.flush()
        with self._writing, host_errors(self.path):
            kept = self._kept()
        return kept if tail_bytes is None else kept[max(0, len(kept) - max(0, tail_bytes)) :]

    def after(self, position: int) -> LogPart:
        """What came behind byte `position` of all that the log has had, as far as it is kept. Raises HostError."""
        self.flush()
        with self._writing, host_errors(self.path):
            kept, end = self._kept(), self._end
        start = max(0, min(position, end) - (end - len(kept)))
        data = kept[start : start + MAX_PART]
        return LogPart(end - len(kept) + start + len(data), data)

    def _kept(self) -> bytes:
        kept = b""
        for path in (self.old_path, self.path):
            with suppress(FileNotFoundError):
                kept += path.read_bytes()
        return kept


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class LogWriter:
    """Writes the logs in a thread of its own soon after something was printed."""

    def __init__(self) -> None:
        self._logs: list[ConsoleLog] = []
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console logs", daemon=True)
        self._thread.start()

    def add(self, log: ConsoleLog) -> None:
        """Write it from now on."""
        log.on_waiting = self._wanted.set
        with self._lock:
            self._logs.append(log)

    def remove(self, log: ConsoleLog) -> None:
        """Write what waits, and no more."""
        with self._lock:
            if log in self._logs:
                self._logs.remove(log)
        with suppress(HostError):  # a folder that is gone, a disk that is full: the guest ended all the same
            log.flush()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._closed.set()
        self._wanted.set()
        self._thread.join()
        for log in tuple(self._logs):
            self.remove(log)

    def _run(self) -> None:
        while not self._closed.wait(FLUSH_S):  # which is how long it rests after each time
            self._wanted.wait()
            self._wanted.clear()
            with self._lock:
                logs = [log for log in self._logs if log.waits]
            for log in logs:
                with suppress(HostError):
                    log.flush()
