"""What guests print, on its way to standard output."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TextIO

from emuvisor.units import MIB

__all__ = ["LinePrefixer", "Outlet", "Screen"]

OUTLET_LIMIT = MIB
LINE_LIMIT = 1000
"""Bytes of a line; a longer one is broken, so that a guest that never ends a line costs no memory."""

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = (36, 32, 33, 35, 34, 31)  # ANSI foregrounds: cyan, green, yellow, magenta, blue, red


class Outlet:
    """Bytes from the pCPU threads for the main thread. `wake`, set by the taker, says that there are some.

    When `limit` bytes wait, the guests wait: a slow reader slows them down and loses nothing.
    """

    def __init__(self, limit: int = OUTLET_LIMIT) -> None:
        self.wake: Callable[[], None] = _nothing
        self._limit: float = limit
        self._open = True
        self._waiting = bytearray()
        self._changed = threading.Condition()

    def put(self, data: bytes) -> None:
        """Append `data`; waits for room. Nothing happens when the outlet is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._limit)
            if not self._open or not data:
                return
            if not self._waiting:
                self.wake()
            self._waiting += data

    def take(self) -> bytes:
        """All that waits."""
        with self._changed:
            data = bytes(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        return data

    def close(self) -> None:
        """Nobody takes any more: nobody waits, and `wake` is not called again."""
        with self._changed:
            self._open = False
            self._limit = inf
            self._changed.notify_all()

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """No guest waits for room inside: needed to take one off its pCPU from the thread that makes room."""
        with self._changed:
            limit, self._limit = self._limit, inf
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._limit = limit


class LinePrefixer:
    """Turns console output into whole lines `prefix` + text, without control characters and escape sequences:
    one guest must not clear the others' screen."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LINE_LIMIT:
            lines.append(self._rest[:LINE_LIMIT])
            self._rest = self._rest[LINE_LIMIT:]
        return b"".join(map(self._line, lines))

    def finish(self) -> bytes:
        """The last line, if it was not ended."""
        rest, self._rest = self._rest, b""
        return self._line(rest) if rest else b""

    def _line(self, line: bytes) -> bytes:
        text = _ESCAPE_SEQUENCE.sub("", line.decode(errors="replace"))
        return f"{self._prefix}{_CONTROL.sub('', text)}\n".encode()


class Screen:
    """Shows the consoles of the guests `names` on `stream`: one as it is, several line by line with prefixes.

    Without a stream it shows nothing. `by_lines` shows a single guest line by line, too, without a prefix. `listener`
    gives what a guest's console is connected to; `show` writes what has come, in the caller's thread.
    """

    def __init__(self, stream: TextIO | None, names: Sequence[str], *, by_lines: bool = False) -> None:
        self._stream = stream
        self.elsewhere: Callable[[bytes], object] | None = None
        """Takes everything in place of the stream."""
        self._prefixers: dict[str, LinePrefixer] = {}
        self.outlet = Outlet()
        if stream is not None and len(names) > 1:
            coloured = stream.isatty() and "NO_COLOR" not in os.environ
            width = max(map(len, names))
            for number, name in enumerate(names):
                prefix = f"{name:{width}} | "
                if coloured:
                    prefix = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{prefix}\x1b[0m"
                self._prefixers[name] = LinePrefixer(prefix)
        elif stream is not None and by_lines:
            self._prefixers = {name: LinePrefixer("") for name in names}

    def listener(self, name: str) -> Callable[[bytes], None] | None:
        """Where guest `name` prints to; None for nowhere."""
        if self._stream is None:
            return None
        if not self._prefixers:
            return self.outlet.put
        prefixer = self._prefixers[name]
        return lambda data: self.outlet.put(prefixer.feed(data))

    def finish(self, name: str) -> None:
        """Guest `name` prints no more; show what is left."""
        data = self.outlet.take()
        if name in self._prefixers:
            data += self._prefixers[name].finish()
        self._write(data)

    def show(self) -> bool:
        """Write what has come; whether there was anything."""
        data = self.outlet.take()
        self._write(data)
        return bool(data)

    def _write(self, data: bytes) -> None:
        if data and self.elsewhere is not None:
            self.elsewhere(data)
        elif data and self._stream is not None:
            self._stream.buffer.write(data)
            self._stream.buffer.flush()


def _nothing() -> None:
    pass
