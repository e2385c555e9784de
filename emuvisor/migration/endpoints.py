"""Where the other side is: "HOST:PORT", "[IPv6]:PORT", or the path of a Unix socket."""

import socket
from pathlib import Path

from emuvisor.errors import MigrationError, UsageError
from emuvisor.migration.channel import LineLost
from emuvisor.serving import listen_tcp

__all__ = ["Gone", "address_of", "connect", "listen"]

CONNECT_S = 10.0
_BACKLOG = 8


class Gone(LineLost):
    """Nobody listens there: the process that did is gone."""


def parse(address: str) -> tuple[str, int] | Path:
    """The host and port, or the path, that `address` says. Raises UsageError."""
    if address.startswith("/"):
        return Path(address)
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise UsageError(f"{address!r} is no address; write HOST:PORT or the path of a socket")
    return host.removeprefix("[").removesuffix("]"), int(port)


def connect(address: str, timeout_s: float = CONNECT_S) -> socket.socket:
    """A connection to `address`. Raises Gone when nobody listens there, LineLost when it cannot be reached."""
    place = parse(address)
    try:
        if isinstance(place, Path):
            return _connect_unix(place, timeout_s)
        sock = socket.create_connection(place, timeout_s)
    except (ConnectionRefusedError, FileNotFoundError):
        raise Gone(f"nobody listens at {address}") from None
    except OSError as error:
        raise LineLost(f"{address} cannot be reached: {error.strerror or error}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def listen(address: str) -> socket.socket:
    """A socket that listens at `address`; port 0 is any that is free. Raises MigrationError."""
    place = parse(address)
    try:
        if not isinstance(place, Path):
            return listen_tcp(*place, _BACKLOG)
        place.unlink(missing_ok=True)
        return _listen_unix(place)
    except OSError as error:
        raise MigrationError(f"migration: cannot listen at {address}: {error.strerror or error}") from None


def _connect_unix(path: Path, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _listen_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> str:
    """What others connect to, to reach listening `sock`."""
    name = sock.getsockname()
    if isinstance(name, str):
        return name
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
