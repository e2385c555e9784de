"""The host's end of a connection as a blocking socket, for any thread."""

import errno
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from emuvisor.devices.virtio.vsock.buffer import Buffer
from emuvisor.devices.virtio.vsock.connection import Connection
from emuvisor.devices.virtio.vsock.packet import SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND

__all__ = ["Stream"]

_FLAGS = {
    socket.SHUT_RD: SHUTDOWN_RECEIVE,
    socket.SHUT_WR: SHUTDOWN_SEND,
    socket.SHUT_RDWR: SHUTDOWN_BOTH,
}


class Stream:
    """A connected socket: `send`, `recv`, `shutdown`, `close` and time-outs behave as Python's sockets do.

    Any thread may use it but the guest's own, which would wait for itself. A sequenced-packet socket (`messages`)
    keeps messages apart: each `send` is one, each `recv` returns one, and what does not fit `recv` is lost.
    At most `window` bytes wait in each direction. `port` is the host's port, `guest_port` the guest's.

    The methods that begin with `on_`, `attach`, `take` and `pending` are the connection's: see `Endpoint`.
    """

    def __init__(
        self,
        *,
        port: int,
        guest_port: int,
        messages: bool,
        window: int,
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self.port = port
        self.guest_port = guest_port
        self._messages = messages
        self._window = window
        self._call_soon = call_soon
        self._timeout: float | None = None
        self._changed = threading.Condition()
        self._inbox = Buffer(messages=messages)
        self._outbox = Buffer(messages=messages)
        self._connection: Connection | None = None
        self._connected = False
        self._ended = False
        """The guest sends no more."""
        self._broken = False
        """The guest takes no more, or this end sends no more."""
        self._gone = False
        """The connection has ended, by `_error` if there is one."""
        self._closed = False
        """By `close`."""
        self._error: OSError | None = None
        # What the guest's thread has to be told: it takes all of it at once.
        self._told_soon = False
        self._consumed = 0
        self._shutdown = 0

    # ---- for programs ----

    def settimeout(self, seconds: float | None) -> None:
        """How long `send` and `recv` wait before they raise TimeoutError; None for ever."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What `settimeout` set."""
        return self._timeout

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send some of `data`, as much as there is room for, or one message; returns how many bytes.

        Raises TimeoutError, BrokenPipeError when the guest takes no more or this end was shut down, the connection's
        error, and OSError for a closed socket or (EMSGSIZE) a message that is larger than the window.
        """
        view = memoryview(data).cast("B")
        if self._messages and len(view) > self._window:
            raise OSError(
                errno.EMSGSIZE, f"a message has at most {self._window} bytes; this one has {len(view)}"
            )
        with self._changed:
            self._wait(lambda: self._cannot_send() or self._room(len(view)), self._timeout)
            self._raise_closed()
            if self._cannot_send():
                raise self._error or BrokenPipeError(errno.EPIPE, "the connection takes no more data")
            sent = view[: self._window - len(self._outbox)]
            if sent:
                self._outbox.put(sent, end=True)
        self._tell()
        return len(sent)

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; raises as `send`. The time-out counts anew for each part."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest) :]

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes, as soon as there are any, or one message; b"" when the guest sends no more.

        Raises TimeoutError, the connection's error, OSError for a closed socket, ValueError for a negative size.
        """
        if size < 0:
            raise ValueError(f"recv takes no size of {size} bytes")
        with self._changed:
            self._wait(self._can_receive, self._timeout)
            self._raise_closed()
            if not self._inbox.readable:
                if self._error is not None:
                    raise self._error
                return b""
            wanted = self._inbox.next_length() if self._messages else size
            data, _ = self._inbox.take(wanted)
            self._consumed += len(data)
        self._tell()
        return data[:size]

    def shutdown(self, how: int) -> None:
        """Receive (SHUT_RD), send (SHUT_WR) or do neither (SHUT_RDWR) any more; what was sent still arrives.

        Raises OSError for a closed socket, ValueError for anything else than these three.
        """
        if how not in _FLAGS:
            raise ValueError(f"shutdown takes SHUT_RD, SHUT_WR or SHUT_RDWR, not {how!r}")
        with self._changed:
            self._raise_closed()
            self._shut(_FLAGS[how])
        self._tell()

    def close(self) -> None:
        """Neither send nor receive any more; what was sent still arrives. More than once is allowed."""
        with self._changed:
            self._closed = True
            self._shut(SHUTDOWN_BOTH)
            self._inbox.clear()
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def wait_connected(self, seconds: float | None) -> None:
        """Return when the guest has accepted. Raises TimeoutError after `seconds`, ConnectionRefusedError."""
        with self._changed:
            self._wait(lambda: self._connected or self._gone, seconds)
        if self._error is not None:
            raise self._error

    def _wait(self, ready: Callable[[], bool], seconds: float | None) -> None:
        if not self._changed.wait_for(ready, seconds):
            raise TimeoutError("timed out")

    def _can_receive(self) -> bool:
        return self._inbox.readable or self._ended or self._gone or self._closed

    def _raise_closed(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the socket is closed")

    def _cannot_send(self) -> bool:
        return self._broken or self._gone or self._closed

    def _room(self, size: int) -> bool:
        room = self._window - len(self._outbox)
        return room >= (size if self._messages else min(size, 1))

    def _shut(self, flags: int) -> None:
        self._shutdown |= flags
        self._ended |= bool(flags & SHUTDOWN_RECEIVE)
        self._broken |= bool(flags & SHUTDOWN_SEND)
        self._changed.notify_all()

    def _tell(self) -> None:
        """Have the guest's thread look at what has changed here. Not under the lock: who runs guests has its own."""
        with self._changed:
            if self._told_soon or self._gone:
                return
            self._told_soon = True
        self._call_soon(self._look)

    def _look(self) -> None:
        """In the guest's thread: pass on what has changed."""
        with self._changed:
            self._told_soon = False
            consumed, self._consumed = self._consumed, 0
            shutdown = self._shutdown
            aborted = self._closed and not self._connected
            connection = self._connection
        if connection is None:
            return
        if aborted:
            connection.abort()
            return
        if consumed:
            connection.consumed(consumed)
        if shutdown:
            connection.shutdown(shutdown)
        connection.wake()

    # ---- for the connection, in the guest's thread ----

    @property
    def pending(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._outbox)

    def attach(self, connection: Connection) -> None:
        """This is the connection."""
        self._connection = connection

    def take(self, limit: int) -> tuple[bytes, bool]:
        """Bytes to be sent; there is room for others."""
        with self._changed:
            taken = self._outbox.take(limit)
            self._changed.notify_all()
            return taken

    def on_connected(self) -> None:
        """The guest has accepted."""
        with self._changed:
            self._connected = True
            self._changed.notify_all()

    def on_received(self, data: bytes, end: bool) -> None:
        """Bytes from the guest."""
        with self._changed:
            self._inbox.put(data, end)
            self._changed.notify_all()

    def on_finished(self) -> None:
        """The guest sends no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def on_hung_up(self) -> None:
        """The guest takes no more: what waits will never be sent."""
        with self._changed:
            self._broken = True
            self._outbox.clear()
            self._changed.notify_all()

    def on_closed(self, error: OSError | None) -> None:
        """The connection is gone."""
        with self._changed:
            self._gone = True
            self._error = error
            self._connection = None
            self._changed.notify_all()
