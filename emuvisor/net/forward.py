"""Port forwards: a port of the host that leads into a guest."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

from emuvisor.errors import ConfigError

__all__ = ["ANY_PORT", "Forward"]

LOOPBACK = IPv4Address("127.0.0.1")
ANY_PORT = 0
MAX_PORT = 0xFFFF
PROTOCOLS = ("tcp", "udp")
SYNTAX = "PROTOCOL:[HOST-ADDRESS:]HOST-PORT:[GUEST:]GUEST-PORT"

_FIELD = r"(?:\[([^\[\]]*)\]|([^:\[\]]*))"
"""One field: an IPv6 address in brackets, or anything without colons."""
_FIELDS = re.compile(f"{_FIELD}(?::|$)")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Forward:
    """Whoever connects to `host_port` of `host_address` reaches `guest_port` of a guest.

    `protocol` is "tcp" or "udp". Host port 0 is any free one. `guest` is a guest's name or an address in the network;
    None is the network's first guest. From an IPv6 address of the host it goes to an IPv6 address of the guest,
    which for a guest that is named is the one that its MAC gives (EUI-64, RFC 4291, appendix A).

    Raises ConfigError naming the offender.
    """

    protocol: str
    host_port: int
    guest_port: int
    host_address: IPv4Address | IPv6Address = LOOPBACK
    guest: str | IPv4Address | IPv6Address | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"forward {self}: {self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if not ANY_PORT <= self.host_port <= MAX_PORT:
            raise ConfigError(f"forward {self}: host port {self.host_port} is outside 0 to {MAX_PORT}")
        if not 1 <= self.guest_port <= MAX_PORT:
            raise ConfigError(f"forward {self}: guest port {self.guest_port} is outside 1 to {MAX_PORT}")
        if (
            isinstance(self.guest, IPv4Address | IPv6Address)
            and self.guest.version != self.host_address.version
        ):
            raise ConfigError(
                f"forward {self}: leads from IPv{self.host_address.version} to IPv{self.guest.version}; "
                "both ends have to be of one kind"
            )

    def __str__(self) -> str:
        guest = "" if self.guest is None else f"{_text(self.guest)}:"
        return f"{self.protocol}:{_text(self.host_address)}:{self.host_port}:{guest}{self.guest_port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The forward that `text` means: PROTOCOL:[HOST-ADDRESS:]HOST-PORT:[GUEST:]GUEST-PORT.

        "tcp:8080:80", "udp:127.0.0.1:5353:53", "tcp:0:web:80", "tcp:[::1]:8080:80". Without an address of the host it
        is 127.0.0.1. Raises ConfigError.
        """
        protocol, *fields = _split(text)
        # What is a number where both an address and a port may be is the port.
        host = None if fields and _PORT.fullmatch(fields[0]) else fields.pop(0) if fields else None
        guest = fields.pop(1) if len(fields) == 3 else None
        if len(fields) != 2 or not all(_PORT.fullmatch(field) for field in fields):
            raise ConfigError(f"forward {text!r} is not of the form {SYNTAX}, such as tcp:8080:80")
        try:
            address = LOOPBACK if host is None else ip_address(host)
        except ValueError:
            raise ConfigError(f"forward {text!r}: {host!r} is no IP address of the host") from None
        return cls(
            protocol=protocol,
            host_address=address,
            host_port=int(fields[0]),
            guest=None if guest is None else _guest(guest, text),
            guest_port=int(fields[1]),
        )


def _split(text: str) -> list[str]:
    fields = []
    position = 0
    while position < len(text):
        match = _FIELDS.match(text, position)
        if match is None:
            raise ConfigError(f"forward {text!r} is not of the form {SYNTAX}, such as tcp:8080:80")
        fields.append(match[2] if match[1] is None else match[1])
        position = match.end()
    return fields or [""]


def _guest(text: str, forward: str) -> str | IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        if not text:
            raise ConfigError(f"forward {forward!r} names no guest") from None
        return text


def _text(end: str | IPv4Address | IPv6Address) -> str:
    return f"[{end}]" if isinstance(end, IPv6Address) else str(end)
