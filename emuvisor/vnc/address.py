"""Where a VNC server listens: texts that people write, and the sockets they mean."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from emuvisor.errors import HostError, UsageError
from emuvisor.serving import listen_tcp, listen_unix

__all__ = ["Address", "listen", "parse_address"]

LOOPBACK = "127.0.0.1"
FIRST_PORT = 5900
"""The port of display 0."""
MAX_PORT = 65535
BACKLOG = 8

_TCP = re.compile(r"(?P<host>[^:\[\]]*|\[[0-9A-Fa-f:.%a-z]+\]):(?P<number>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket at `path`, or a TCP `host` and `port`; port 0 is any that is free."""

    host: str = LOOPBACK
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address meant by ":1" (display 1 on loopback), "127.0.0.1:5901", "[::1]:5901" or "unix:/path".

    Raises UsageError.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise UsageError(f"{text!r} names no socket; write unix:/path")
        return Address(path=Path(path))
    match = _TCP.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not an address for VNC; write :1 (display 1), 127.0.0.1:5901 or unix:/path"
        )
    number = int(match["number"])
    port = number if match["host"] else FIRST_PORT + number
    if port > MAX_PORT:
        raise UsageError(f"{text!r}: there is no TCP port {port}; the last one is {MAX_PORT}")
    return Address(match["host"].strip("[]") or LOOPBACK, port)


def listen(address: Address) -> tuple[socket.socket, Address]:
    """A listening socket and the address that it got. Raises HostError.

    A Unix socket belongs to its owner alone, and takes the place of one where nobody listens any more.
    """
    try:
        if address.path is not None:
            return listen_unix(address.path, BACKLOG), address
        listener = listen_tcp(address.host, address.port, BACKLOG)
        return listener, Address(address.host, listener.getsockname()[1])
    except OSError as error:
        raise HostError(f"VNC cannot listen on {address}: {error.strerror or error}") from None
