"""Anti-spoofing: a guest sends only from what is its own.

Its frames have the port's MAC as their source; ARP and IPv6 neighbour discovery speak of that MAC and of addresses that
the port has (`AddressBook`); so do the sources of IPv4 and IPv6. Nor does a guest pose as the network's router
or DHCP server, whose word decides where the others send: router advertisements, redirects, and DHCP servers' answers
are refused. All of this holds inside VLAN tags too. Neighbour discovery and its like are refused in
fragments, as receivers do (RFC 6980). Other protocols than IP and ARP pass, with the right MAC.
"""

from collections.abc import Callable

from emuvisor.net.frames import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    MAC_LENGTH,
    PROTOCOL_ICMPV6,
    PROTOCOL_UDP,
    network_header,
    word,
)
from emuvisor.net.statistics import Drop

__all__ = ["Guard"]

# ARP (RFC 826): Ethernet and IPv4 are the only kinds that there are here.
ARP_LENGTH = 28
ARP_FIXED = bytes((0, 1, 8, 0, 6, 4))
"""Hardware Ethernet, protocol IPv4, and the lengths of their addresses."""
ARP_SENDER_MAC = 8
ARP_SENDER_ADDRESS = 14
IPV4_LENGTH = 4

# IPv4 (RFC 791).
VERSION_4, VERSION_6 = 4, 6
IPV4_FRAGMENT = 6
FRAGMENT_OFFSET = 0x1FFF
IPV4_PROTOCOL = 9
IPV4_SOURCE = 12

# IPv6 (RFC 8200).
IPV6_NEXT = 6
IPV6_SOURCE = 8
IPV6_LENGTH = 16
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, DESTINATION, AUTHENTICATION, FRAGMENT)
MAX_EXTENSIONS = 8
EXTENSION_HEADER = 8
"""The shortest extension header, and the length of a fragment header."""
IPV6_FRAGMENT_OFFSET = 0xFFF8

# ICMPv6 (RFC 4443, RFC 4861).
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT, REDIRECT = 135, 136, 137
FIRST_OPTION = {ROUTER_SOLICITATION: 8, NEIGHBOUR_SOLICITATION: 24, NEIGHBOUR_ADVERTISEMENT: 24}
TARGET_ADDRESS = 8
OPTION_UNIT = 8
LINK_LAYER_ADDRESSES = (1, 2)
"""The source's, the target's."""
MAX_OPTIONS = 16

# DHCP (RFC 2131, RFC 8415): from the server's port to the client's.
PORTS = 4
DHCP_SERVER_TO_CLIENT = (67, 68)
DHCPV6_SERVER_TO_CLIENT = (547, 546)


class Guard:
    """Looks at what comes in through a port. `may_send(address)` says whether the 4 or 16 bytes are the port's."""

    def __init__(self, mac: bytes, may_send: Callable[[bytes], bool]) -> None:
        self._macs = {mac}
        self._may_send = may_send

    def allow(self, mac: bytes) -> None:
        """Frames may come from `mac`, too."""
        self._macs.add(mac)

    def refuse(self, frame: bytes) -> Drop | None:
        """Why a frame of at least 14 bytes must not pass; None lets it."""
        if frame[MAC_LENGTH : 2 * MAC_LENGTH] not in self._macs:
            return Drop.SOURCE_MAC
        found = network_header(frame)
        if found is None:
            return Drop.MALFORMED
        ethertype, header = found
        if ethertype == ETHERTYPE_IPV4:
            return self._ipv4(frame, header)
        if ethertype == ETHERTYPE_IPV6:
            return self._ipv6(frame, header)
        if ethertype == ETHERTYPE_ARP:
            return self._arp(frame, header)
        return None

    def _arp(self, frame: bytes, arp: int) -> Drop | None:
        if len(frame) < arp + ARP_LENGTH or not frame.startswith(ARP_FIXED, arp):
            return Drop.MALFORMED
        mac, address = arp + ARP_SENDER_MAC, arp + ARP_SENDER_ADDRESS
        if frame[mac : mac + MAC_LENGTH] not in self._macs or not self._may_send(
            frame[address : address + IPV4_LENGTH]
        ):
            return Drop.NEIGHBOUR
        return None

    def _ipv4(self, frame: bytes, ip: int) -> Drop | None:
        if len(frame) < ip + IPV4_HEADER or frame[ip] >> 4 != VERSION_4:
            return Drop.MALFORMED
        if not self._may_send(frame[ip + IPV4_SOURCE : ip + IPV4_SOURCE + IPV4_LENGTH]):
            return Drop.SOURCE_ADDRESS
        if (
            frame[ip + IPV4_PROTOCOL] == PROTOCOL_UDP
            and not word(frame, ip + IPV4_FRAGMENT) & FRAGMENT_OFFSET
        ):
            return _dhcp(frame, ip + (frame[ip] & 0xF) * 4, DHCP_SERVER_TO_CLIENT)
        return None

    def _ipv6(self, frame: bytes, ip: int) -> Drop | None:
        if len(frame) < ip + IPV6_HEADER or frame[ip] >> 4 != VERSION_6:
            return Drop.MALFORMED
        if not self._may_send(frame[ip + IPV6_SOURCE : ip + IPV6_SOURCE + IPV6_LENGTH]):
            return Drop.SOURCE_ADDRESS
        protocol, offset, fragmented = frame[ip + IPV6_NEXT], ip + IPV6_HEADER, False
        for _ in range(MAX_EXTENSIONS):
            if protocol not in EXTENSIONS:
                break
            if len(frame) < offset + EXTENSION_HEADER:
                return Drop.MALFORMED
            length = EXTENSION_HEADER
            if protocol == FRAGMENT:
                if word(frame, offset + 2) & IPV6_FRAGMENT_OFFSET:
                    return None  # the first fragment has all the headers (RFC 7112), and was looked at
                fragmented = True
            elif protocol == AUTHENTICATION:
                length = (frame[offset + 1] + 2) * 4
            else:
                length = (frame[offset + 1] + 1) * 8
            protocol = frame[offset]
            offset += length
        else:
            return Drop.MALFORMED
        if protocol == PROTOCOL_UDP:
            return _dhcp(frame, offset, DHCPV6_SERVER_TO_CLIENT)
        if protocol == PROTOCOL_ICMPV6:
            return self._icmpv6(frame, offset, fragmented)
        return None

    def _icmpv6(self, frame: bytes, icmp: int, fragmented: bool) -> Drop | None:
        if len(frame) <= icmp:
            return Drop.MALFORMED
        kind = frame[icmp]
        if kind in (ROUTER_ADVERTISEMENT, REDIRECT):
            return Drop.ROUTER
        if kind not in FIRST_OPTION:
            return None
        option = icmp + FIRST_OPTION[kind]
        if fragmented or len(frame) < option:
            return Drop.MALFORMED
        if kind == NEIGHBOUR_ADVERTISEMENT:
            target = icmp + TARGET_ADDRESS
            if not self._may_send(frame[target : target + IPV6_LENGTH]):
                return Drop.NEIGHBOUR
        for _ in range(MAX_OPTIONS):
            if option + OPTION_UNIT > len(frame):
                return None
            length = frame[option + 1] * OPTION_UNIT
            if length == 0:
                return Drop.MALFORMED
            address = frame[option + 2 : option + 2 + MAC_LENGTH]
            if frame[option] in LINK_LAYER_ADDRESSES and address not in self._macs:
                return Drop.NEIGHBOUR
            option += length
        return Drop.MALFORMED


def _dhcp(frame: bytes, udp: int, server_to_client: tuple[int, int]) -> Drop | None:
    if len(frame) < udp + PORTS:
        return Drop.MALFORMED
    return Drop.ROUTER if (word(frame, udp), word(frame, udp + 2)) == server_to_client else None
