"""A way to a guest's console while it runs; there can be several at a time."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["MAX_WAITING", "SCREENFUL", "ConsoleAttachment"]

SCREENFUL = 4096
"""Bytes of what was printed before with which an attachment begins."""
MAX_WAITING = 1 << 20
"""Bytes that wait for one who does not read; then the oldest are lost, and the guest goes on."""


class ConsoleAttachment:
    """Begins with the `history` of what was printed; `send` takes what is typed, `on_close` hears that it ended.

    One thread reads; others may write and close. Guests call `printed`.
    """

    def __init__(
        self, history: bytes, send: Callable[[bytes], None], on_close: Callable[["ConsoleAttachment"], None]
    ) -> None:
        self._waiting = bytearray(history[-SCREENFUL:])
        self._send = send
        self._on_close = on_close
        self._changed = threading.Condition()
        self._ended = False
        self.lost = 0
        """Bytes that were printed and not read in time."""

    def printed(self, data: bytes) -> None:
        """The guest printed `data`."""
        with self._changed:
            self._waiting += data
            excess = len(self._waiting) - MAX_WAITING
            if excess > 0:
                self.lost += excess
                del self._waiting[:excess]
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will come: the guest is off. What waits can be read still."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(self, timeout_s: float | None = None) -> bytes:
        """What was printed since the last call, as soon as there is something; nothing when `timeout_s` passed or
        `at_end`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout_s)
            data = bytes(self._waiting)
            self._waiting.clear()
            return data

    @property
    def at_end(self) -> bool:
        """The guest is off, or this was closed, and all is read."""
        with self._changed:
            return self._ended and not self._waiting

    def write(self, data: bytes) -> None:
        """Type `data`. Nothing happens when the guest is off. Raises StateError when it has not taken what was typed
        before."""
        if not self._ended:
            self._send(data)

    def close(self) -> None:
        """Leave the console; the guest goes on. Closing it twice does no harm."""
        self.end()
        self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
