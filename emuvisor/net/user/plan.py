"""Who has which address in a network with a user uplink."""

import threading
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from emuvisor.errors import ConfigError
from emuvisor.net.frames import MAC_LENGTH

__all__ = ["Plan", "slaac_address"]

GATEWAY, NAMESERVER, FIRST_GUEST = 2, 3, 15
"""Numbers in the subnet; those that QEMU made customary."""
MAX_GUESTS = 1024
"""What a wide subnet gives out at most."""
LINK_LOCAL = IPv6Network("fe80::/64")
EUI64_MIDDLE = b"\xff\xfe"
UNIVERSAL_LOCAL_BIT = 0x02
"""Inverted on the way from a MAC to an interface identifier."""


class Plan:
    """The addresses of `subnet` (a /27 or wider) and `subnet6` (a /64). Thread-safe.

    Each MAC keeps the address that it first got, for as long as the network exists; they are given out in order, so
    that the network's first guest has number 15. A name's address can be asked for before there is such a guest.
    """

    def __init__(self, subnet: IPv4Network, subnet6: IPv6Network | None) -> None:
        self.subnet = subnet
        self.subnet6 = subnet6
        self.gateway = subnet[GATEWAY]
        self.nameserver = subnet[NAMESERVER]
        self.gateway6 = None if subnet6 is None else subnet6[GATEWAY]
        self.nameserver6 = None if subnet6 is None else subnet6[NAMESERVER]
        self.first_guest = subnet[FIRST_GUEST]
        self._size = min(MAX_GUESTS, subnet.num_addresses - FIRST_GUEST - 1)
        self._lock = threading.Lock()
        self._by_mac: dict[bytes, IPv4Address] = {}
        self._by_name: dict[str, IPv4Address] = {}
        self._macs: dict[IPv4Address | IPv6Address, bytes] = {}
        self._given = 0

    @property
    def routers(self) -> list[IPv4Address | IPv6Address]:
        """The addresses that the uplink answers for itself; IPv6's have link-local ones beside them."""
        local = () if self.subnet6 is None else (LINK_LOCAL[GATEWAY], LINK_LOCAL[NAMESERVER])
        own = (self.gateway, self.nameserver, self.gateway6, self.nameserver6, *local)
        return [address for address in own if address is not None]

    def join(self, name: str, mac: bytes) -> IPv4Address:
        """The address of the guest `name`'s card with `mac`; the name stands for its first card's.

        Raises ConfigError when there are none left.
        """
        with self._lock:
            address = self._by_mac.get(mac)
            if address is None:
                promised = self._by_name.get(name)
                address = promised if promised is not None and promised not in self._macs else self._next()
                if address is None:
                    raise self._full(name)
                self._assign(mac, address)
            self._by_name.setdefault(name, address)
            return address

    def leave(self, name: str, mac: bytes) -> None:
        """The guest `name` has no card with `mac` any more; the MAC's address stays its own."""
        with self._lock:
            if self._by_name.get(name) == self._by_mac.get(mac):
                self._by_name.pop(name, None)

    def lease(self, mac: bytes, *, strangers: bool) -> IPv4Address | None:
        """The address of `mac`; one that nobody announced gets one only if `strangers` may, and there is one left."""
        with self._lock:
            address = self._by_mac.get(mac)
            if address is None and strangers:
                address = self._next()
                if address is not None:
                    self._assign(mac, address)
            return address

    def alias(self, mac: bytes, other: bytes) -> None:
        """The card with `mac`, which has joined, may go by `other`, too: both have its address."""
        with self._lock:
            self._by_mac.setdefault(other, self._by_mac[mac])

    def reserve(self, name: str) -> IPv4Address:
        """The address that the guest `name` has or will have. Raises ConfigError when there are none left."""
        with self._lock:
            address = self._by_name.get(name) or self._next()
            if address is None:
                raise self._full(name)
            self._by_name[name] = address
            return address

    def names(self) -> dict[str, IPv4Address]:
        """The address of each name."""
        with self._lock:
            return dict(self._by_name)

    def name_of(self, address: IPv4Address) -> str | None:
        """The guest that has `address`."""
        with self._lock:
            return next((name for name, held in self._by_name.items() if held == address), None)

    def mac_of(self, address: IPv4Address | IPv6Address) -> bytes | None:
        """Whose address it is."""
        return self._macs.get(address)

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """The IPv6 address that the MAC behind `address` makes for itself."""
        mac = self._macs.get(address)
        return None if mac is None or self.subnet6 is None else slaac_address(self.subnet6, mac)

    def _full(self, name: str) -> ConfigError:
        return ConfigError(f"network: subnet {self.subnet} has no address left for {name}")

    def _assign(self, mac: bytes, address: IPv4Address) -> None:
        self._by_mac[mac] = address
        self._macs[address] = mac
        if self.subnet6 is not None:
            self._macs[slaac_address(self.subnet6, mac)] = mac

    def _next(self) -> IPv4Address | None:
        if self._given == self._size:
            return None
        address = self.subnet[FIRST_GUEST + self._given]
        self._given += 1
        return address


def slaac_address(subnet: IPv6Network, mac: bytes) -> IPv6Address:
    """What stateless configuration makes of a 6-byte MAC in a /64 (RFC 4862; EUI-64 of RFC 4291, appendix A)."""
    half = MAC_LENGTH // 2
    identifier = bytes((mac[0] ^ UNIVERSAL_LOCAL_BIT,)) + mac[1:half] + EUI64_MIDDLE + mac[half:]
    return subnet[int.from_bytes(identifier, "big")]
