"""The host's sockets to one guest: listening, connecting, and services in the guest's thread."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from emuvisor.devices.virtio.vsock.connection import Endpoint
from emuvisor.devices.virtio.vsock.packet import TYPE_SEQPACKET, TYPE_STREAM
from emuvisor.devices.virtio.vsock.service import Channel, Handler, Service
from emuvisor.devices.virtio.vsock.stream import Stream
from emuvisor.errors import UsageError

__all__ = ["DEFAULT_BACKLOG", "MAX_PORT", "Listener", "VsockHost"]

MAX_PORT = 0xFFFF_FFFE
"""FFFFFFFFh is VMADDR_PORT_ANY."""
DEFAULT_BACKLOG = 64
"""Connections that wait for `accept`; the guest is refused more."""


class Listener:
    """A port that `VsockHost.listen` opened: the guest connects, `accept` returns what it connected to."""

    def __init__(
        self,
        port: int,
        make: Callable[[int], Stream],
        *,
        backlog: int,
        on_close: Callable[[], None],
    ) -> None:
        self.port = port
        self._make = make
        self._backlog = backlog
        self._on_close = on_close
        self._changed = threading.Condition()
        self._waiting: deque[Stream] = deque()
        self._closed = False

    def offer(self, guest_port: int) -> Stream | None:
        """The guest wants to connect, in its own thread; None when too many connections wait."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._backlog:
                return None
            stream = self._make(guest_port)
            self._waiting.append(stream)
            self._changed.notify()
            return stream

    def accept(self, timeout: float | None = None) -> Stream:
        """The next connection; waits `timeout` seconds for it, or for ever.

        Raises TimeoutError, ConnectionAbortedError when the listener is closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._closed, timeout):
                raise TimeoutError(f"nobody connected to vsock port {self.port} within {timeout} s")
            if self._closed:
                raise ConnectionAbortedError(f"the listener at vsock port {self.port} is closed")
            return self._waiting.popleft()

    def close(self) -> None:
        """Accept no more, and close what waits. More than once is allowed."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        self._on_close()
        for stream in waiting:
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class VsockHost:
    """The host's ports towards one guest. Every method may be called from any thread but the guest's own.

    Streams keep at most `window` bytes in each direction. Sequenced-packet sockets (`messages`) keep messages apart.
    """

    def __init__(
        self,
        *,
        call_soon: Callable[[Callable[[], None]], None],
        connect: Callable[[Stream, int], None],
        window: int,
    ) -> None:
        self._call_soon = call_soon
        self._connect = connect
        self._window = window
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], Listener | Service] = {}

    def listen(self, port: int, *, messages: bool = False, backlog: int = DEFAULT_BACKLOG) -> Listener:
        """Let the guest connect to `port`. Raises UsageError for a port that does not exist or is taken."""
        listener = Listener(
            port,
            lambda guest_port: self._stream(port, guest_port, messages),
            backlog=backlog,
            on_close=lambda: self._release(port, messages, listener),
        )
        self._claim(port, messages, listener)
        return listener

    def serve(self, port: int, factory: Callable[[Channel], Handler], *, messages: bool = False) -> Service:
        """Let the guest connect to `port`: `factory(channel)` makes a handler for each connection, and all of it runs
        in the guest's thread. Raises UsageError for a port that does not exist or is taken."""
        service = Service(
            port,
            factory,
            messages=messages,
            window=self._window,
            on_close=lambda: self._release(port, messages, service),
        )
        self._claim(port, messages, service)
        return service

    def connect(self, port: int, timeout: float | None = 10.0, *, messages: bool = False) -> Stream:
        """A connection to the guest's `port`.

        Raises ConnectionRefusedError when nobody listens there or the guest has no driver yet, TimeoutError when the
        guest does not answer within `timeout` seconds, UsageError for a port that does not exist.
        """
        _check(port)
        stream = self._stream(0, port, messages)
        self._call_soon(lambda: self._connect(stream, _kind(messages)))
        try:
            stream.wait_connected(timeout)
        except TimeoutError:
            stream.close()
            raise TimeoutError(f"the guest did not answer at vsock port {port} within {timeout} s") from None
        return stream

    def offer(self, kind: int, port: int, guest_port: int) -> Endpoint | None:
        """In the guest's thread: the guest wants to connect to `port`; None when nobody takes it."""
        with self._lock:
            found = self._open.get((kind, port))
        return None if found is None else found.offer(guest_port)

    def in_use(self, kind: int, port: int) -> bool:
        """Whether somebody listens at `port`."""
        return (kind, port) in self._open

    def _stream(self, port: int, guest_port: int, messages: bool) -> Stream:
        return Stream(
            port=port,
            guest_port=guest_port,
            messages=messages,
            window=self._window,
            call_soon=self._call_soon,
        )

    def _claim(self, port: int, messages: bool, owner: Listener | Service) -> None:
        _check(port)
        with self._lock:
            if (_kind(messages), port) in self._open:
                raise UsageError(f"vsock port {port} is already listened to")
            self._open[_kind(messages), port] = owner

    def _release(self, port: int, messages: bool, owner: Listener | Service) -> None:
        with self._lock:
            if self._open.get((_kind(messages), port)) is owner:
                del self._open[_kind(messages), port]


def _kind(messages: bool) -> int:
    return TYPE_SEQPACKET if messages else TYPE_STREAM


def _check(port: int) -> None:
    if not 0 <= port <= MAX_PORT:
        raise UsageError(f"vsock port {port} does not exist; ports are 0 to {MAX_PORT}")
