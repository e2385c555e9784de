"""Long segments towards guests: libslirp makes few long ones, and cutting is left to the guests' cards.

A TCP sends segments no longer than its peer's MSS option allows (RFC 9293, section 3.7.1). The option of a guest that
takes what the network's MTU allows is widened on its way to libslirp, and what libslirp then sends is longer than the
MTU and travels with an `Offload`: a card that takes long segments gets them in one piece, for others the switch cuts
them. A guest with a smaller MSS is left alone. Long UDP datagrams go the same way.
"""

from emuvisor.bus.ethernet import CHECKSUM, TSO4, TSO6, UFO, Offload
from emuvisor.net.checksum import checksum, word_sum
from emuvisor.net.frames import (
    ETHERNET_HEADER,
    ETHERTYPE_IPV4,
    IPV4_HEADER,
    IPV6_HEADER,
    MAC_LENGTH,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TCP_HEADER,
    word,
)
from emuvisor.net.user.egress import (
    HEADER_WORDS,
    IPV4_PROTOCOL,
    IPV4_SOURCE,
    IPV6_NEXT,
    IPV6_SOURCE,
    SYN,
    TCP_FLAGS,
    WORD,
)
from emuvisor.net.user.slirp import MAX_MTU

__all__ = ["cut_by_cards", "slirp_mtu", "widen_mss"]

LONG_MTU = 16384
"""Eleven of Ethernet's packets. With a segment of half its window libslirp would tell guests too late that there is
room again: it waits for two segments' worth."""

TCP_CHECKSUM, UDP_CHECKSUM = 16, 6
DATA_OFFSET = 12
END_OF_OPTIONS, NO_OPERATION, OPTION_MSS = 0, 1, 2
MSS_LENGTH = 4
ONES = 0xFFFF
FRAGMENT_HEADER, FRAGMENT_UNIT = 8, 8
"""IPv6's header of fragments, and what their lengths are multiples of."""


def slirp_mtu(mtu: int) -> int:
    """The MTU that libslirp works with in a network with `mtu`."""
    return max(LONG_MTU, min(mtu, MAX_MTU))


def widen_mss(frame: bytes, mtu: int) -> bytes:
    """A frame that may go to libslirp. An MSS option in it that allows all of `mtu` now allows all of `slirp_mtu`."""
    if word(frame, 2 * MAC_LENGTH) == ETHERTYPE_IPV4:
        if frame[IPV4_PROTOCOL] != PROTOCOL_TCP:
            return frame
        tcp = ETHERNET_HEADER + (frame[ETHERNET_HEADER] & HEADER_WORDS) * WORD
        headers = IPV4_HEADER + TCP_HEADER
    else:
        if len(frame) < ETHERNET_HEADER + IPV6_HEADER or frame[IPV6_NEXT] != PROTOCOL_TCP:
            return frame  # ARP is shorter
        tcp = ETHERNET_HEADER + IPV6_HEADER
        headers = IPV6_HEADER + TCP_HEADER
    if not frame[tcp + TCP_FLAGS] & SYN:
        return frame
    place = _mss(frame, tcp)
    if place is None or word(frame, place) != mtu - headers:
        return frame
    wide = slirp_mtu(mtu) - headers
    result = bytearray(frame)
    result[place : place + 2] = wide.to_bytes(2, "big")
    field = tcp + TCP_CHECKSUM
    # RFC 1624, equation 3: the sum without the old word and with the new one.
    total = (word(frame, field) ^ ONES) + (mtu - headers ^ ONES) + wide
    result[field : field + 2] = checksum(total).to_bytes(2, "big")
    return bytes(result)


def _mss(frame: bytes, tcp: int) -> int | None:
    """Where the value of the MSS option is; None without one on a word's boundary, which is where all put it."""
    position = tcp + TCP_HEADER
    end = min(len(frame), tcp + (frame[tcp + DATA_OFFSET] >> 4) * WORD)
    while position + MSS_LENGTH <= end:
        kind, length = frame[position], frame[position + 1]
        if kind == NO_OPERATION:
            position += 1
        elif kind == OPTION_MSS and length == MSS_LENGTH and not (position - tcp) & 1:
            return position + 2
        elif kind == END_OF_OPTIONS or length < 2:
            return None
        else:
            position += length
    return None


def cut_by_cards(frame: bytes, mtu: int) -> tuple[bytes, Offload] | None:
    """A frame of libslirp that is longer than `mtu`, with what is to be done to it; None if nothing can be."""
    if word(frame, 2 * MAC_LENGTH) == ETHERTYPE_IPV4:
        protocol = frame[IPV4_PROTOCOL]
        start = ETHERNET_HEADER + IPV4_HEADER  # libslirp writes no options
        addresses = frame[IPV4_SOURCE:start]
        tso = TSO4
    else:
        protocol = frame[IPV6_NEXT]
        start = ETHERNET_HEADER + IPV6_HEADER
        addresses = frame[IPV6_SOURCE:start]
        tso = TSO6
    network = start - ETHERNET_HEADER
    if protocol == PROTOCOL_TCP:
        header = (frame[start + DATA_OFFSET] >> 4) * WORD
        offload = Offload(CHECKSUM | tso, start, TCP_CHECKSUM, mtu - network - header)
    elif protocol == PROTOCOL_UDP:
        offload = Offload(
            CHECKSUM | UFO, start, UDP_CHECKSUM, mtu - network - FRAGMENT_HEADER & -FRAGMENT_UNIT
        )
    else:
        return None
    field = start + offload.checksum_offset
    partial = checksum(word_sum(addresses) + protocol + len(frame) - start) ^ ONES
    return frame[:field] + partial.to_bytes(2, "big") + frame[field + 2 :], offload
