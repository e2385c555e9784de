"""What a guest may send to libslirp: a router's rules, and limits on what one guest can make the host hold.

libslirp hands whatever destination a packet names to the host's sockets, where some mean the host itself: 127.0.0.1 is
the host's loopback however the guest's packet got there, and so is 0.0.0.0. Nor does a router forward link-local
destinations (RFC 3927, section 2.7; RFC 4291, section 2.5.6), at which clouds keep their credentials. libslirp has no
limit on sockets. Fragments are not let in at all: the reassembly of libslirp 4.7 crashes on hostile ones, and with it
the whole host. Guests hardly send any, since TCP looks for the path's MTU.
"""

from collections import OrderedDict
from collections.abc import Sized
from enum import StrEnum

from emuvisor.net.frames import (
    ETHERNET_HEADER,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    MAC_LENGTH,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TCP_HEADER,
    UDP_HEADER,
    word,
)
from emuvisor.net.user.plan import Plan

__all__ = ["MAX_SOCKETS", "Egress", "Refusal"]

MAX_SOCKETS = 512
"""Connections, UDP flows and pings that exist at once: half of the file descriptors that a process commonly has."""

# IPv4 (RFC 791).
HEADER_WORDS, WORD = 0x0F, 4
IPV4_FRAGMENT = ETHERNET_HEADER + 6
FRAGMENT_MASK = 0x3FFF
"""More fragments, and the offset."""
IPV4_PROTOCOL = ETHERNET_HEADER + 9
IPV4_SOURCE = ETHERNET_HEADER + 12
IPV4_DESTINATION = ETHERNET_HEADER + 16
PROTOCOL_ICMP = 1
THIS_NETWORK, LOOPBACK_NETWORK = 0, 127
"""First bytes of addresses."""
FIRST_GROUP = 224
"""From this first byte on there are groups, reserved addresses and broadcast."""
LINK_LOCAL = bytes((169, 254))

# IPv6 (RFC 8200, RFC 4291).
IPV6_NEXT = ETHERNET_HEADER + 6
IPV6_SOURCE = ETHERNET_HEADER + 8
IPV6_DESTINATION = ETHERNET_HEADER + 24
GROUP6 = 0xFF
LINK_LOCAL6, LINK_LOCAL6_MASK = 0xFE80, 0xFFC0
IPV4_INSIDE = bytes(10)
"""What begins so is unspecified, loopback, or an IPv4 address in disguise."""
DHCP_SERVERS = bytes.fromhex("ff020000000000000000000000010002")
"""All DHCPv6 servers and relays (RFC 8415, section 7.1); libslirp tells the name server's address that way."""
PREFIX_BYTES = 8

TCP_FLAGS = 13
SYN, ACK = 0x02, 0x10


class Refusal(StrEnum):
    """Why a frame does not leave the network."""

    PROTOCOL = "a protocol that is not forwarded"
    MALFORMED = "headers that cannot be read"
    SOURCE = "source is no guest's address"
    DESTINATION = "destination is not forwarded to"
    SOCKETS = "too many connections"
    FRAGMENT = "fragments are not forwarded"


class Egress:
    """The rules for the network that `plan` describes. `sockets` are those that exist now."""

    def __init__(self, plan: Plan, sockets: Sized) -> None:
        self._network = int(plan.subnet.network_address)
        self._mask = int(plan.subnet.netmask)
        self._routers = {plan.gateway.packed, plan.nameserver.packed}
        self._prefix = None
        if plan.subnet6 is not None and plan.gateway6 is not None and plan.nameserver6 is not None:
            self._prefix = plan.subnet6.network_address.packed[:PREFIX_BYTES]
            self._routers |= {plan.gateway6.packed, plan.nameserver6.packed}
        self._sockets = sockets
        self._flows: OrderedDict[bytes, None] = OrderedDict()
        """Sources of UDP that have a socket, or had one lately."""

    def refuse(self, frame: bytes) -> Refusal | None:
        """Why a frame must not reach libslirp; None lets it."""
        if len(frame) < ETHERNET_HEADER:
            return Refusal.MALFORMED
        ethertype = word(frame, 2 * MAC_LENGTH)
        if ethertype == ETHERTYPE_IPV4:
            return self._ipv4(frame)
        if ethertype == ETHERTYPE_IPV6 and self._prefix is not None:
            return self._ipv6(frame, self._prefix)
        return None if ethertype == ETHERTYPE_ARP else Refusal.PROTOCOL

    def _ipv4(self, frame: bytes) -> Refusal | None:
        if len(frame) < ETHERNET_HEADER + IPV4_HEADER:
            return Refusal.MALFORMED
        source = frame[IPV4_SOURCE:IPV4_DESTINATION]
        if int.from_bytes(source, "big") & self._mask != self._network or source in self._routers:
            return Refusal.SOURCE
        destination = frame[IPV4_DESTINATION : IPV4_DESTINATION + 4]
        local = destination in self._routers
        if not local and (
            destination[0] in (THIS_NETWORK, LOOPBACK_NETWORK)
            or destination[0] >= FIRST_GROUP
            or destination[:2] == LINK_LOCAL
            or int.from_bytes(destination, "big") & self._mask == self._network
        ):
            return Refusal.DESTINATION
        if word(frame, IPV4_FRAGMENT) & FRAGMENT_MASK:
            return Refusal.FRAGMENT
        header = ETHERNET_HEADER + (frame[ETHERNET_HEADER] & HEADER_WORDS) * WORD
        protocol = frame[IPV4_PROTOCOL]
        if protocol == PROTOCOL_ICMP:
            return None if local or self._room() else Refusal.SOCKETS
        return self._transport(frame, protocol, header, source)

    def _ipv6(self, frame: bytes, prefix: bytes) -> Refusal | None:
        if len(frame) < ETHERNET_HEADER + IPV6_HEADER:
            return Refusal.MALFORMED
        source = frame[IPV6_SOURCE:IPV6_DESTINATION]
        destination = frame[IPV6_DESTINATION : IPV6_DESTINATION + 16]
        link_local = word(destination, 0) & LINK_LOCAL6_MASK == LINK_LOCAL6
        if frame[IPV6_NEXT] == PROTOCOL_ICMPV6:
            # Neighbour discovery, and pings of the gateway; libslirp forwards no ICMPv6.
            near = destination[0] == GROUP6 or link_local or destination.startswith(prefix)
            return None if near else Refusal.DESTINATION
        if destination == DHCP_SERVERS:
            return None
        if not source.startswith(prefix) or source in self._routers:
            return Refusal.SOURCE
        if destination not in self._routers and (
            destination[0] == GROUP6
            or link_local
            or destination.startswith(IPV4_INSIDE)
            or destination.startswith(prefix)
        ):
            return Refusal.DESTINATION
        return self._transport(frame, frame[IPV6_NEXT], ETHERNET_HEADER + IPV6_HEADER, source)

    def _transport(self, frame: bytes, protocol: int, header: int, source: bytes) -> Refusal | None:
        if protocol == PROTOCOL_TCP:
            if len(frame) < header + TCP_HEADER:
                return Refusal.MALFORMED
            connects = frame[header + TCP_FLAGS] & (SYN | ACK) == SYN
            return Refusal.SOCKETS if connects and not self._room() else None
        if protocol != PROTOCOL_UDP:
            return Refusal.PROTOCOL
        if len(frame) < header + UDP_HEADER:
            return Refusal.MALFORMED
        flow = source + frame[header : header + 2]
        if flow in self._flows:
            self._flows.move_to_end(flow)
            return None
        if not self._room():
            return Refusal.SOCKETS
        self._flows[flow] = None
        if len(self._flows) > MAX_SOCKETS:
            self._flows.popitem(last=False)
        return None

    def _room(self) -> bool:
        return len(self._sockets) < MAX_SOCKETS
