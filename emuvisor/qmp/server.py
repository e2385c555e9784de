"""The QMP socket of one guest."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from emuvisor.qmp.address import listen, parse_address
from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.events import GuestEvents
from emuvisor.qmp.messages import encode
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.session import Session
from emuvisor.qmp.target import Target
from emuvisor.serving import BackgroundServer

__all__ = ["MAX_CLIENTS", "QmpServer"]

MAX_CLIENTS = 8
"""Who comes then is turned away. QEMU has one at a time; here a script can look while another one waits for events."""
POLL_S = 0.5
"""How often the guest is looked at for what the host does not say."""


class QmpServer(BackgroundServer):
    """Serves `target` at `address` ("unix:/path", "tcp:127.0.0.1:4444") from the moment it is made until `close`; also
    a context manager. With `waits` commands wait until the guest has been switched on, by somebody else.

    Raises UsageError for an address that cannot be used, HostError when it cannot listen.
    """

    def __init__(self, target: Target, address: str, *, waits: bool = False) -> None:
        self._monitor = Monitor(target, self._publish)
        if not waits:
            self._monitor.ready.set()
        self._events = GuestEvents(self._monitor)
        self._sessions: set[Session] = set()
        self._listener, self._address = listen(parse_address(address))
        super().__init__(f"qmp {target.name}")
        with target.host.lock:
            target.host.listeners.append(self._events.heard)

    @property
    def address(self) -> str:
        """Where it listens, with the port that it got."""
        return str(self._address)

    def close(self) -> None:
        """Drop all clients and stop listening."""
        if not self._thread.is_alive():
            return
        self._monitor.ready.set()
        host = self._monitor.target.host
        with host.lock:
            host.listeners.remove(self._events.heard)
        super().close()
        if self._address.path is not None:
            self._address.path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        start = asyncio.start_server if self._address.path is None else asyncio.start_unix_server
        return await start(self._connected, sock=self._listener)

    def _poll(self) -> None:
        """Again and again while there is a client."""
        self._events.poll()
        if self._sessions:
            self._loop.call_later(POLL_S, self._poll)

    def _publish(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell all clients; any thread."""
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        timestamp = {"seconds": seconds, "microseconds": microseconds}
        message = {"timestamp": timestamp, "event": event} | ({"data": dict(data)} if data else {})
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, encode(message))

    def _tell(self, event: bytes) -> None:
        for session in self._sessions:
            session.tell(event)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        session = Session(reader, writer, self._monitor)
        try:
            if len(self._clients) < MAX_CLIENTS:
                self._clients.add(task)
                self._sessions.add(session)
                if len(self._sessions) == 1:
                    self._events.forget()
                    self._poll()
                await session.run()
        except (OSError, QmpError, asyncio.CancelledError):
            pass  # the client's own affair; QmpError: what it had asked for last fails when it has its answer
        finally:
            self._clients.discard(task)
            self._sessions.discard(session)
            writer.close()
