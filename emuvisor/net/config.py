"""A virtual network's configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from emuvisor.errors import ConfigError

if TYPE_CHECKING:
    from emuvisor.net.forward import Forward

__all__ = ["DEFAULT_MTU", "MAX_MTU", "MIN_MTU", "NetworkConfig"]

DEFAULT_SUBNET = IPv4Network("10.0.2.0/24")
DEFAULT_SUBNET6 = IPv6Network("fec0::/64")
DEFAULT_MTU = 1500
MIN_MTU = 576
"""What every IPv4 host must be able to take in one piece (RFC 791)."""
MIN_MTU_IPV6 = 1280
"""The least that IPv6 runs on (RFC 8200, section 5)."""
MAX_MTU = 65535
"""The longest IPv4 packet."""
WIDEST_SUBNET, NARROWEST_SUBNET = 8, 27
"""Prefix lengths: the uplink's own addresses and its DHCP pool have to fit in."""
PREFIX_LENGTH_6 = 64
"""What stateless address configuration needs (RFC 4862)."""
MAX_INTERFACE_NAME = 15
"""IFNAMSIZ of Linux, without the final zero."""

MAX_BOOT_FILE = 127
"""DHCP's field for it has 128 bytes (RFC 2131), of which older clients need one for a final zero."""

UPLINK_NONE = "none"
UPLINK_USER = "user"
TAP_PREFIX = "tap:"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INTERFACE = re.compile(rf"[^\s/:]{{1,{MAX_INTERFACE_NAME}}}")
_BOOT_FILE = re.compile(rf"[!-~]{{1,{MAX_BOOT_FILE}}}")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A virtual network: its switch and its way out.

    `uplink` is "none" (guests reach only each other), "user" (out through the host's sockets, without root) or
    "tap:NAME" (an interface of the host). `subnet` and `subnet6` are what a user uplink gives its guests; `subnet6`
    None is without IPv6. `anti_spoofing` holds each guest to its own addresses (`emuvisor.net.guard`). `mtu` is the
    longest IP packet in bytes.

    The others need a user uplink. `forwards` lead from the host into guests. `names` are answered by the uplink's DNS.
    `restrict` leaves guests DHCP, these names and the forwards, and no way out. With `host_loopback` they reach what
    listens on the host's loopback addresses, at the gateway's address (subnet + 2). `bootfile` is what DHCP tells them
    to boot from, a URL for iPXE.

    Raises ConfigError naming the key.
    """

    name: str
    uplink: str = UPLINK_NONE
    subnet: IPv4Network = DEFAULT_SUBNET
    subnet6: IPv6Network | None = DEFAULT_SUBNET6
    forwards: "tuple[Forward, ...]" = ()
    names: Mapping[str, IPv4Address | IPv6Address] = field(default_factory=dict)
    anti_spoofing: bool = True
    mtu: int = DEFAULT_MTU
    restrict: bool = False
    host_loopback: bool = False
    bootfile: str | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ConfigError(f"network.name: {self.name!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
        if not MIN_MTU <= self.mtu <= MAX_MTU:
            raise ConfigError(f"network.mtu: {self.mtu} is outside {MIN_MTU} to {MAX_MTU}")
        tap = self.tap
        if tap is None:
            if self.uplink not in (UPLINK_NONE, UPLINK_USER):
                raise ConfigError(f"network.uplink: {self.uplink!r} is not one of none, user, tap:NAME")
        elif _INTERFACE.fullmatch(tap) is None or tap in (".", ".."):
            raise ConfigError(
                f"network.uplink: {tap!r} is no name of an interface "
                f"(1 to {MAX_INTERFACE_NAME} characters without '/', ':' and spaces)"
            )
        self._check_subnets()
        if self.uplink == UPLINK_USER:
            self._check_names()
        else:
            for key in ("forwards", "names", "restrict", "host_loopback", "bootfile"):
                if getattr(self, key):
                    raise ConfigError(f"network.{key}: need uplink 'user'; this network's is {self.uplink!r}")

    @property
    def tap(self) -> str | None:
        """The host's interface that is the uplink."""
        return self.uplink.removeprefix(TAP_PREFIX) if self.uplink.startswith(TAP_PREFIX) else None

    def _check_subnets(self) -> None:
        if not WIDEST_SUBNET <= self.subnet.prefixlen <= NARROWEST_SUBNET:
            raise ConfigError(
                f"network.subnet: {self.subnet} has a prefix length outside {WIDEST_SUBNET} to {NARROWEST_SUBNET}"
            )
        if self.subnet6 is None:
            return
        if self.subnet6.prefixlen != PREFIX_LENGTH_6:
            raise ConfigError(f"network.subnet6: {self.subnet6} is not a /{PREFIX_LENGTH_6}")
        if self.uplink == UPLINK_USER and self.mtu < MIN_MTU_IPV6:
            raise ConfigError(
                f"network.mtu: {self.mtu} is too small for IPv6, which needs {MIN_MTU_IPV6}; "
                "set subnet6 to nothing"
            )

    def _check_names(self) -> None:
        for name in self.names:
            if _HOST_NAME.fullmatch(name) is None:
                raise ConfigError(f"network.names: {name!r} is no host name")
        if self.bootfile is not None and _BOOT_FILE.fullmatch(self.bootfile) is None:
            raise ConfigError(
                f"network.bootfile: {self.bootfile!r} is not 1 to {MAX_BOOT_FILE} characters of ASCII without spaces"
            )
