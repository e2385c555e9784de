"""UDP datagrams in Ethernet frames: those that the uplink answers itself, taken apart and put together."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from emuvisor.net.checksum import checksum, word_sum
from emuvisor.net.frames import (
    ETHERNET_HEADER,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    MAC_LENGTH,
    PROTOCOL_UDP,
    UDP_HEADER,
    word,
)

__all__ = ["BROADCAST_MAC", "Datagram", "parse", "router_mac"]

BROADCAST_MAC = b"\xff" * MAC_LENGTH
ROUTER_PREFIX = b"\x52\x55"
"""libslirp's stations have this and the last four bytes of their IP address as MAC."""

# IPv4 (RFC 791).
VERSION_AND_LENGTH = ETHERNET_HEADER
VERSION_4, VERSION_6 = 4, 6
HEADER_WORDS = 0x0F
WORD = 4
TOTAL_LENGTH = ETHERNET_HEADER + 2
FRAGMENT = ETHERNET_HEADER + 6
MORE_FRAGMENTS, DONT_FRAGMENT, FRAGMENT_OFFSET = 0x2000, 0x4000, 0x1FFF
PROTOCOL = ETHERNET_HEADER + 9
SOURCE = ETHERNET_HEADER + 12
DESTINATION = ETHERNET_HEADER + 16
HOPS = 64
_IPV4 = struct.Struct("!BBHHHBBH4s4s")

# IPv6 (RFC 8200).
PAYLOAD_LENGTH = ETHERNET_HEADER + 4
NEXT_HEADER = ETHERNET_HEADER + 6
SOURCE6 = ETHERNET_HEADER + 8
DESTINATION6 = ETHERNET_HEADER + 24
_IPV6 = struct.Struct("!IHBB16s16s")

_UDP = struct.Struct("!HHHH")
NO_CHECKSUM, ZERO_CHECKSUM = 0, 0xFFFF
"""RFC 768: 0 says that there is none, so a sum of 0 is written as its other form."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram with the addresses of all its layers; `frame` makes a frame of it."""

    source_mac: bytes
    destination_mac: bytes
    source: IPv4Address | IPv6Address
    source_port: int
    destination: IPv4Address | IPv6Address
    destination_port: int
    payload: bytes

    def reply(self, payload: bytes) -> "Datagram":
        """The way back, with `payload`."""
        return Datagram(
            source_mac=router_mac(self.destination),
            destination_mac=self.source_mac,
            source=self.destination,
            source_port=self.destination_port,
            destination=self.source,
            destination_port=self.source_port,
            payload=payload,
        )

    def frame(self) -> bytes:
        """The Ethernet frame. Source and destination are of one family."""
        length = UDP_HEADER + len(self.payload)
        source, destination = self.source.packed, self.destination.packed
        udp = _UDP.pack(self.source_port, self.destination_port, length, NO_CHECKSUM) + self.payload
        # Both families' pseudo headers have the same sum: addresses, length and protocol (RFC 768; RFC 8200, 8.1).
        total = word_sum(source + destination) + PROTOCOL_UDP + length + word_sum(udp)
        udp = (
            _UDP.pack(self.source_port, self.destination_port, length, checksum(total) or ZERO_CHECKSUM)
            + self.payload
        )
        if isinstance(self.source, IPv4Address):
            fields = (
                VERSION_4 << 4 | IPV4_HEADER // WORD,
                0,
                IPV4_HEADER + length,
                0,
                DONT_FRAGMENT,
                HOPS,
                PROTOCOL_UDP,
            )
            header = _IPV4.pack(*fields, 0, source, destination)
            header = _IPV4.pack(*fields, checksum(word_sum(header)), source, destination)
            ethertype = ETHERTYPE_IPV4
        else:
            header = _IPV6.pack(VERSION_6 << 28, length, PROTOCOL_UDP, HOPS, source, destination)
            ethertype = ETHERTYPE_IPV6
        return self.destination_mac + self.source_mac + ethertype.to_bytes(2, "big") + header + udp


def router_mac(address: IPv4Address | IPv6Address) -> bytes:
    """The MAC of the uplink's station with `address`."""
    return ROUTER_PREFIX + address.packed[-4:]


def parse(frame: bytes) -> Datagram | None:
    """The datagram in an Ethernet frame without VLAN tags; None if it holds none, or not a whole one.

    Its checksum is not looked at: no wire lies between the sender and us.
    """
    if len(frame) < ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER:
        return None
    ethertype = word(frame, 2 * MAC_LENGTH)
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    if ethertype == ETHERTYPE_IPV4 and frame[PROTOCOL] == PROTOCOL_UDP:
        header = (frame[VERSION_AND_LENGTH] & HEADER_WORDS) * WORD
        end = ETHERNET_HEADER + word(frame, TOTAL_LENGTH)
        if (
            frame[VERSION_AND_LENGTH] >> 4 != VERSION_4
            or header < IPV4_HEADER
            or word(frame, FRAGMENT) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)
        ):
            return None
        udp = ETHERNET_HEADER + header
        source = IPv4Address(frame[SOURCE:DESTINATION])
        destination = IPv4Address(frame[DESTINATION : DESTINATION + 4])
    elif ethertype == ETHERTYPE_IPV6 and frame[NEXT_HEADER] == PROTOCOL_UDP:
        udp = ETHERNET_HEADER + IPV6_HEADER
        end = udp + word(frame, PAYLOAD_LENGTH)
        if len(frame) < udp or frame[VERSION_AND_LENGTH] >> 4 != VERSION_6:
            return None
        source = IPv6Address(frame[SOURCE6:DESTINATION6])
        destination = IPv6Address(frame[DESTINATION6 : DESTINATION6 + 16])
    else:
        return None
    if not udp + UDP_HEADER <= end <= len(frame):
        return None
    source_port, destination_port, length, _ = _UDP.unpack_from(frame, udp)
    if not UDP_HEADER <= length <= end - udp:
        return None
    return Datagram(
        source_mac=frame[MAC_LENGTH : 2 * MAC_LENGTH],
        destination_mac=frame[:MAC_LENGTH],
        source=source,
        source_port=source_port,
        destination=destination,
        destination_port=destination_port,
        payload=frame[udp + UDP_HEADER : udp + length],
    )
