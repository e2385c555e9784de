"""Connecting to the other side, and showing who one is."""

import socket
from collections.abc import Callable

from emuvisor.migration.channel import Channel
from emuvisor.migration.endpoints import connect
from emuvisor.migration.greeting import Hello, be_greeted
from emuvisor.migration.security import Security, secure

__all__ = ["Dial", "call"]

Dial = Callable[[str], socket.socket]
"""Makes a connection to an address, and raises as `endpoints.connect`."""


def call(
    address: str,
    security: Security,
    hello: Hello,
    key: bytes | None,
    *,
    role: str,
    timeout_s: float,
    dial: Dial = connect,
) -> Channel:
    """A line to whoever listens at `address`, who is greeted by `hello` as `role`, "source" or "target"; both sides
    show that they know `key`. Raises Gone, LineLost, and MigrationError when they do not come to terms."""
    sock = dial(address)
    try:
        channel = Channel(secure(sock, security, server=False), timeout_s)
    except BaseException:
        sock.close()
        raise
    try:
        be_greeted(channel, role, hello, key)
    except BaseException:
        channel.close()
        raise
    return channel
