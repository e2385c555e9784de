"""Where the metrics endpoint listens."""

import re
import socket
from dataclasses import dataclass

from emuvisor.errors import HostError, UsageError
from emuvisor.serving import listen_tcp

__all__ = ["Address", "listen", "parse_address"]

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535
BACKLOG = 16

_ADDRESS = re.compile(r"(?P<host>[^:\[\]]*|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP `host` and `port`; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address meant by "127.0.0.1:9100", "[::1]:9100" or ":9100", which is on loopback. Raises UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > MAX_PORT:
        raise UsageError(
            f"{text!r} is not an address for metrics; write 127.0.0.1:9100, or :9100 for the same"
        )
    return Address(match["host"].strip("[]") or LOOPBACK, int(match["port"]))


def listen(address: Address) -> tuple[socket.socket, Address]:
    """A listening socket, and the address that it got. Raises HostError."""
    try:
        listener = listen_tcp(address.host, address.port, BACKLOG)
    except OSError as error:
        raise HostError(f"metrics cannot be served on {address}: {error.strerror or error}") from None
    return listener, Address(address.host, listener.getsockname()[1])
