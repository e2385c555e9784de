"""Where a QMP server listens: the texts of QEMU's option -qmp, and the sockets they mean."""

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from emuvisor.errors import HostError, UsageError
from emuvisor.serving import listen_tcp, listen_unix

__all__ = ["Address", "listen", "parse_address"]

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535
BACKLOG = 8

_WAITING = re.compile(r",((server|wait)=(on|off)|server|nowait)(?=,|$)")
"""What scripts say behind the address: here the socket is always a server's, and nobody waits for a client."""
_TCP = re.compile(r"(?P<host>[^:\[\]]*|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket at `path`, or a TCP `host`, on loopback, and `port`; port 0 is any that is free."""

    host: str = LOOPBACK
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address meant by "unix:/path", "/path" or "tcp:127.0.0.1:4444", also with QEMU's ",server=on,wait=off".

    TCP is for loopback only, as whoever reaches the port can do all that the user can. Raises UsageError.
    """
    place = _WAITING.sub("", text)
    if not place.startswith("tcp:"):
        path = place.removeprefix("unix:")
        if not path or "\0" in path:
            raise UsageError(f"{text!r} names no socket for QMP; write unix:/path or tcp:127.0.0.1:4444")
        return Address(path=Path(path))
    match = _TCP.fullmatch(place.removeprefix("tcp:"))
    if match is None or int(match["port"]) > MAX_PORT:
        raise UsageError(f"{text!r} is not an address for QMP; write unix:/path or tcp:127.0.0.1:4444")
    host = match["host"].strip("[]") or LOOPBACK
    if not _is_loopback(host):
        raise UsageError(f"{text!r}: QMP knows no passwords; TCP is for loopback only (127.0.0.1, ::1)")
    return Address(host, int(match["port"]))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(address: Address) -> tuple[socket.socket, Address]:
    """A listening socket and the address that it got. A Unix socket is its owner's alone. Raises HostError."""
    try:
        if address.path is not None:
            return listen_unix(address.path, BACKLOG), address
        listener = listen_tcp(address.host, address.port, BACKLOG)
        return listener, Address(address.host, listener.getsockname()[1])
    except OSError as error:
        raise HostError(f"QMP cannot listen on {address}: {error.strerror or error}") from None
