"""A guest's console at the other end of a WebSocket."""

import json
import socket
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from emuvisor.daemon.faults import error_of
from emuvisor.daemon.transport import Transport, with_query
from emuvisor.errors import HostError

__all__ = ["RemoteConsole", "connect_console"]

MAX_MESSAGE = 1 << 20
MAX_TYPED = 32 << 10
"""Half of what the daemon takes at once."""
OPEN_S = 30.0


class RemoteConsole:
    """As `emuvisor.manager.ConsoleAttachment`. One thread reads; others may write and close."""

    def __init__(self, connection: ClientConnection, closing: ExitStack) -> None:
        self._connection = connection
        self._closing = closing
        self._ended = False

    def read(self, timeout_s: float | None = None) -> bytes:
        """What was printed since the last call, as soon as there is something; nothing when `timeout_s` passed or
        `at_end`."""
        try:
            data = self._connection.recv(timeout_s)
        except TimeoutError:
            return b""
        except ConnectionClosed:
            self._ended = True
            return b""
        return data if isinstance(data, bytes) else data.encode()

    @property
    def at_end(self) -> bool:
        """The guest is off, the daemon is gone or this was closed, and all is read."""
        return self._ended

    def write(self, data: bytes) -> None:
        """Type `data`. Nothing happens when the guest is off."""
        with suppress(ConnectionClosed):
            for start in range(0, len(data), MAX_TYPED):
                self._connection.send(data[start : start + MAX_TYPED])

    def close(self) -> None:
        """Leave the console; the guest goes on. Closing it twice does no harm."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect_console(transport: Transport, path: str, port: str | None) -> RemoteConsole:
    """The console at `path` of the API. Raises what the daemon says, and HostError when it is not there."""
    address = transport.address
    host = f"[{address.host}]" if ":" in address.host else address.host
    where = f"{host}:{address.port}" if address.port else host
    uri = ("ws" if transport.tls is None else "wss") + "://" + where + with_query(path, {"port": port})
    with transport.errors(), ExitStack() as undo:
        sock: socket.socket | None = None
        if address.path is not None:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(str(address.path))
        try:
            connection = undo.enter_context(
                connect(
                    uri,
                    sock=sock,
                    ssl=transport.tls,
                    proxy=None,
                    additional_headers=transport.headers,
                    compression=None,
                    open_timeout=OPEN_S,
                    max_size=MAX_MESSAGE,
                )
            )
        except InvalidStatus as error:
            raise _refusal(error.response.body) from None
        except InvalidHandshake as error:
            raise HostError(f"the daemon at {address.text}: {error}") from None
        return RemoteConsole(connection, undo.pop_all())


def _refusal(body: bytes | bytearray | None) -> Exception:
    try:
        return error_of(json.loads(body or b""))
    except ValueError:
        return error_of(body)
