"""The host's end of connections as callbacks in the guest's own thread.

A guest on the virtual clock that talks to such a service does so in every run alike: no other thread has a part in it.
"""

from collections.abc import Callable

from emuvisor.devices.virtio.vsock.buffer import Buffer
from emuvisor.devices.virtio.vsock.connection import Connection
from emuvisor.devices.virtio.vsock.packet import SHUTDOWN_BOTH, SHUTDOWN_SEND

__all__ = ["Channel", "Handler", "Service", "ServiceEnd"]


class Channel:
    """What a handler has of its connection. `port` is the host's port, `guest_port` the guest's."""

    def __init__(self, end: "ServiceEnd", port: int, guest_port: int) -> None:
        self._end = end
        self.port = port
        self.guest_port = guest_port

    def write(self, data: bytes) -> None:
        """Send `data` (one message, on a sequenced-packet socket); after `close` and to a guest that takes no more it
        goes nowhere. It is kept until the guest takes it; while a window's worth waits, `received` is not called.
        """
        self._end.write(data)

    def close(self) -> None:
        """Send what was written, then end the connection."""
        self._end.shutdown(SHUTDOWN_BOTH)

    def finish(self) -> None:
        """Send what was written, then tell the guest that no more comes; `received` goes on."""
        self._end.shutdown(SHUTDOWN_SEND)


class Handler:
    """One connection to a service; subclass it. Everything is called in the guest's thread, and what it raises is the
    guest's end, as with any device."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def received(self, data: bytes) -> None:
        """The guest sent `data`: some bytes of its stream, or a message."""

    def finished(self) -> None:
        """The guest sends no more. By default the connection ends when all that was written has been sent."""
        self.channel.close()

    def closed(self, error: OSError | None) -> None:
        """The connection is gone, by `error` or because both sides wanted it."""


class Service:
    """A port that `VsockHost.serve` opened: each connection gets a handler of its own, made by `factory`."""

    def __init__(
        self,
        port: int,
        factory: Callable[[Channel], Handler],
        *,
        messages: bool,
        window: int,
        on_close: Callable[[], None],
    ) -> None:
        self.port = port
        self._factory = factory
        self._messages = messages
        self._window = window
        self._on_close = on_close

    def offer(self, guest_port: int) -> "ServiceEnd":
        """The guest wants to connect, in its own thread."""
        return ServiceEnd(self.port, guest_port, self._factory, messages=self._messages, window=self._window)

    def close(self) -> None:
        """Accept no more connections; those that are open stay. More than once is allowed."""
        self._on_close()


class ServiceEnd:
    """An `Endpoint` that calls a handler. The guest gets credit for what the handler has seen, and the handler sees no
    more while a window's worth of its answers waits: an echo costs two windows, whatever the guest does."""

    def __init__(
        self,
        port: int,
        guest_port: int,
        factory: Callable[[Channel], Handler],
        *,
        messages: bool,
        window: int,
    ) -> None:
        self._window = window
        self._messages = messages
        self._inbox = Buffer(messages=messages)
        self._outbox = Buffer(messages=messages)
        self._connection: Connection | None = None
        self._ended = False
        self._mute = False
        """Nothing more can be written."""
        self._channel = Channel(self, port, guest_port)
        self._factory = factory
        self._handler: Handler

    # ---- for the handler ----

    def write(self, data: bytes) -> None:
        """Put `data` into the outbox."""
        if data and not self._mute:
            self._outbox.put(data, end=True)
            self._wake()

    def shutdown(self, flags: int) -> None:
        """Nothing more is written, and with SHUTDOWN_RECEIVE nothing read."""
        self._mute = True
        if self._connection is not None:
            self._connection.shutdown(flags)

    def _wake(self) -> None:
        if self._connection is not None:
            self._connection.wake()

    def _work(self) -> None:
        """Show the handler what has come, as long as there is room for its answers."""
        while self._inbox.readable and len(self._outbox) < self._window:
            data, _ = self._inbox.take(self._inbox.next_length())
            if self._connection is not None:
                self._connection.consumed(len(data))
            self._handler.received(data)
        if self._ended and not self._inbox.readable:
            self._ended = False
            self._handler.finished()

    # ---- for the connection ----

    @property
    def pending(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._outbox)

    def attach(self, connection: Connection) -> None:
        """This is the connection."""
        self._connection = connection

    def take(self, limit: int) -> tuple[bytes, bool]:
        """Bytes to be sent; there is room for others, so the handler sees more."""
        taken = self._outbox.take(limit)
        self._work()
        return taken

    def on_connected(self) -> None:
        """The connection is there, so the handler may use it."""
        self._handler = self._factory(self._channel)

    def on_received(self, data: bytes, end: bool) -> None:
        """Bytes from the guest."""
        self._inbox.put(data, end)
        self._work()

    def on_finished(self) -> None:
        """The guest sends no more."""
        self._ended = True
        self._work()

    def on_hung_up(self) -> None:
        """The guest takes no more."""
        self._mute = True
        self._outbox.clear()
        self._work()

    def on_closed(self, error: OSError | None) -> None:
        """The connection is gone; what came before that is still seen."""
        self._connection = None
        self.on_hung_up()
        self._handler.closed(error)
