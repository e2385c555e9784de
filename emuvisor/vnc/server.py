"""A VNC server for one guest's screen.

It has a thread of its own with an event loop, in which all viewers are served. No viewer can hold up the guest: the
screen is taken when one is ready for an update, each has at most one update under way, and who takes nothing is
dropped.
"""

import asyncio
from collections.abc import Callable

from emuvisor.devices.display.screen import Screen
from emuvisor.errors import EmuvisorError, UsageError
from emuvisor.serving import BackgroundServer
from emuvisor.vnc.address import listen, parse_address
from emuvisor.vnc.frames import Frames
from emuvisor.vnc.rfb import ProtocolError
from emuvisor.vnc.session import Guest, Session

__all__ = ["VncServer"]

MAX_VIEWERS = 8
"""Who comes then is turned away."""
MAX_PASSWORD = 8
"""Bytes of a password that VNC's authentication looks at."""
SESSION_ENDS = (ProtocolError, EmuvisorError, OSError, EOFError, asyncio.CancelledError)
"""How sessions end; a time-out is an OSError, a viewer that hangs up an EOFError, and `close` cancels."""


class VncServer(BackgroundServer):
    """Serves a screen at `address` from the moment it is made until `close`; also a context manager.

    `address` is "127.0.0.1:5901", ":1" (display 1 on loopback), "[::1]:5901" or "unix:/path" (for its owner alone).
    `screen`, `key` and `pointer` are described in `session.Guest`; they are called in threads of this server, one call
    at a time for each viewer, and an EmuvisorError from them ends the session of that viewer. With a `password`
    viewers must know it.

    Raises UsageError for an address or password that cannot be used, HostError when it cannot listen.
    """

    def __init__(
        self,
        address: str,
        *,
        screen: Callable[[], Screen],
        key: Callable[[str, bool], None],
        pointer: Callable[[int, int, int], None],
        password: str | None = None,
        name: str = "emuvisor",
    ) -> None:
        self._password = None if password is None else _password_bytes(password)
        self._guest = Guest(name, screen, key, pointer)
        self._listener, self._address = listen(parse_address(address))
        super().__init__(f"vnc {self.address}")

    @property
    def address(self) -> str:
        """Where it listens, with the port that it got."""
        return str(self._address)

    @property
    def viewers(self) -> int:
        """How many are connected now."""
        return len(self._clients)

    def close(self) -> None:
        """Drop all viewers and stop listening."""
        was_open = self._thread.is_alive()
        super().close()
        if was_open and self._address.path is not None:
            self._address.path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        frames = Frames(self._guest.screen)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(reader, writer, frames)

        start = asyncio.start_server if self._address.path is None else asyncio.start_unix_server
        return await start(connected, sock=self._listener)

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: Frames
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._clients) < MAX_VIEWERS:
                self._clients.add(task)
                session = Session(reader, writer, guest=self._guest, frames=frames, password=self._password)
                await session.run()
        except SESSION_ENDS:
            pass  # the viewer's own affair
        finally:
            self._clients.discard(task)
            writer.transport.abort()  # what it has not taken by now is not worth waiting for


def _password_bytes(password: str) -> bytes:
    data = password.encode()
    if not 0 < len(data) <= MAX_PASSWORD:
        raise UsageError(
            f"a VNC password has 1 to {MAX_PASSWORD} bytes, this one has {len(data)}; the protocol uses no more"
        )
    return data
