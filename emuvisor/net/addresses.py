"""Which port of a network an IP address belongs to.

What somebody who knows says counts: the configuration, or the uplink when its DHCP server has given an address out.
A port that was given addresses of a family has those and no others.

Where nobody says anything, first come is first served: the first port that sends from an address has it, and from
then on no other may send from it. That lets guests configure themselves (static addresses, SLAAC, privacy addresses),
and still no guest takes an address that another one uses. A port keeps at most `CLAIMS_PER_PORT` such addresses and
loses its oldest for one more, so a guest that tries all addresses holds few of them, and loses those that are then
given to another. IPv6 link-local addresses are always had this way, because each guest makes its own.

Group, loopback and broadcast addresses are nobody's, and a network whose uplink knows its subnets leaves all other
addresses to the uplink. The unspecified address (0.0.0.0, ::) is everybody's: DHCP, ARP probes and duplicate address
detection send from it.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Generic, TypeVar

__all__ = ["CLAIMS_PER_PORT", "AddressBook"]

CLAIMS_PER_PORT = 16
_UNSPECIFIED = (bytes(4), bytes(16))

PortT = TypeVar("PortT")


class AddressBook(Generic[PortT]):
    """Who has which address. Thread-safe. With `subnets`, only addresses in them can be claimed."""

    def __init__(self, subnets: Sequence[IPv4Network | IPv6Network] | None = None) -> None:
        self._subnets = subnets
        self._lock = threading.Lock()
        self._owner: dict[bytes, PortT] = {}
        # Both have exactly the ports that are there: one that was removed meanwhile gets no address any more.
        self._claims: dict[PortT, OrderedDict[bytes, None]] = {}
        self._given: dict[PortT, OrderedDict[bytes, None]] = {}

    def add(self, port: PortT) -> None:
        """A new port, which has no address yet."""
        with self._lock:
            self._claims[port] = OrderedDict()
            self._given[port] = OrderedDict()

    def give(self, address: IPv4Address | IPv6Address, port: PortT) -> None:
        """`address` is `port`'s from now on, whoever had it before. A port keeps the last `CLAIMS_PER_PORT`."""
        packed = address.packed
        with self._lock:
            given = self._given.get(port)
            if given is None:
                return
            self._take(packed)
            given[packed] = None
            self._owner[packed] = port
            if len(given) > CLAIMS_PER_PORT:
                self._take(next(iter(given)))

    def may_send(self, packed: bytes, port: PortT) -> bool:
        """Whether `port` may send from the address with these 4 or 16 bytes; it claims an address that nobody has."""
        owner = self._owner.get(packed)
        if owner is not None:
            return owner is port
        if packed in _UNSPECIFIED:
            return True
        address = ip_address(packed)
        if not self._claimable(address):
            return False
        with self._lock:
            owner = self._owner.get(packed)
            if owner is not None:
                return owner is port
            claims = self._claims.get(port)
            if claims is None:
                return False
            local = isinstance(address, IPv6Address) and address.is_link_local
            if not local and any(len(other) == len(packed) for other in self._given[port]):
                return False
            if len(claims) == CLAIMS_PER_PORT:
                self._take(next(iter(claims)))
            claims[packed] = None
            self._owner[packed] = port
        return True

    def of(self, port: PortT) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses that `port` has: those given to it, then those that it claimed."""
        with self._lock:
            return tuple(
                ip_address(packed) for held in (self._given, self._claims) for packed in held.get(port, ())
            )

    def remove(self, port: PortT) -> None:
        """`port` has no addresses any more."""
        with self._lock:
            for held in (self._given, self._claims):
                for packed in held.pop(port, ()):
                    del self._owner[packed]

    def _claimable(self, address: IPv4Address | IPv6Address) -> bool:
        if address.is_multicast or address.is_loopback:
            return False
        if isinstance(address, IPv6Address) and address.is_link_local:
            return True
        if self._subnets is None:
            return address != IPv4Address("255.255.255.255")
        return any(address in subnet and address != subnet.broadcast_address for subnet in self._subnets)

    def _take(self, packed: bytes) -> None:
        """Take an address from whoever has it."""
        owner = self._owner.pop(packed, None)
        if owner is None:
            return
        for held in (self._given, self._claims):
            held[owner].pop(packed, None)
