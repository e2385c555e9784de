"""Telling a network where a guest's cards are now."""

from collections.abc import Iterable
from typing import Protocol

__all__ = ["announce", "announcement"]

_BROADCAST = b"\xff" * 6
_RARP = 0x8035
_MIN_FRAME = 60
_ETHERNET, _IPV4, _REQUEST_REVERSE = 1, 0x0800, 3


class Cable(Protocol):
    """What a card is plugged into."""

    mac: bytes

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire."""
        ...


def announcement(mac: bytes) -> bytes:
    """A frame from `mac` to everybody: switches learn from it where the card is. It is a RARP request for its own
    address (RFC 903), as QEMU sends it, which no system answers unless somebody serves RARP."""
    head = _BROADCAST + mac + _RARP.to_bytes(2, "big")
    kind = b"".join(
        value.to_bytes(size, "big") for value, size in ((_ETHERNET, 2), (_IPV4, 2), (6, 1), (4, 1))
    )
    body = kind + _REQUEST_REVERSE.to_bytes(2, "big") + (mac + bytes(4)) * 2
    return (head + body).ljust(_MIN_FRAME, b"\0")


def announce(cables: Iterable[Cable]) -> None:
    """Say for each of `cables` that its card is here now."""
    for cable in cables:
        cable.send(announcement(cable.mac))
