"""What servers for other programs have in common: a socket that listens, and a thread with an event loop."""

import asyncio
import socket
import stat
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["BackgroundServer", "listen_tcp", "listen_unix"]

OWNER_ONLY = 0o600


def listen_tcp(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket; port 0 is any that is free. Raises OSError."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError as error:  # a name that IDNA cannot have
        raise OSError(str(error)) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def listen_unix(path: Path, backlog: int) -> socket.socket:
    """A listening Unix socket, for its owner alone. It takes the place of one where nobody listens any more. Raises
    OSError."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(OWNER_ONLY)  # before anybody can connect
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Delete the socket at `path` if nobody listens there. What is no socket stays, and bind will say so."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


class BackgroundServer(ABC):
    """Serves in a thread of its own, called `name`, from the moment it is made until `close`; also a context manager.

    What `_listen` needs has to be there before this constructor is called.
    """

    def __init__(self, name: str) -> None:
        self._clients: set[asyncio.Task[None]] = set()
        """Whom it serves now."""
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Drop all clients and stop listening."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await self._listen()
        await self._closing.wait()
        server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    @abstractmethod
    async def _listen(self) -> asyncio.Server:
        """Begin to serve those who connect, whose tasks are in `_clients` for so long."""
