"""What a sender left to its card: completing checksums, cutting segments (virtio 1.2, section 5.1.6.2).

Checksums are completed the generic way: the sender has put the pseudo header's sum into the field and says where to
begin summing. For segments the headers have to be understood: Ethernet with or without VLAN tags, IPv4 or IPv6
without extension headers, TCP or UDP. `fits` says whether a frame and its `Offload` go together; the other functions
take only those for which it does.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from emuvisor.bus.ethernet import CHECKSUM, ECN, SEGMENTATION, TSO4, TSO6, UFO, VERIFIED, Offload
from emuvisor.net.checksum import checksum, word_sum
from emuvisor.net.frames import (
    ETHERNET_HEADER,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TCP_HEADER,
    UDP_HEADER,
    network_header,
    word,
)

__all__ = ["MAX_IP_LENGTH", "MAX_SEGMENTS", "complete_checksum", "finish", "fits", "segments"]

MAX_IP_LENGTH = 0xFFFF
MAX_SEGMENTS = 1366
"""Frames that one can become: 64 KiB in segments of 48 bytes, the least that Linux's TCP sends."""

# IPv4 (RFC 791).
IPV4_TOTAL_LENGTH = 2
IPV4_IDENTIFICATION = 4
IPV4_FRAGMENT = 6
MORE_FRAGMENTS = 0x2000
FRAGMENT_MASK = 0x3FFF
"""More fragments, and the offset."""
FRAGMENT_UNIT = 8
IPV4_PROTOCOL = 9
IPV4_CHECKSUM = 10
IPV4_ADDRESSES = slice(12, 20)

# IPv6 (RFC 8200).
IPV6_PAYLOAD_LENGTH = 4
IPV6_NEXT = 6
IPV6_ADDRESSES = slice(8, 40)
FRAGMENT_HEADER = 8
NEXT_FRAGMENT = 44
IPV6_MORE_FRAGMENTS = 1

# TCP (RFC 9293) and UDP (RFC 768).
TCP_SEQUENCE = 4
TCP_DATA_OFFSET = 12
TCP_FLAGS = 13
TCP_CHECKSUM = 16
CWR, PSH, FIN = 0x80, 0x08, 0x01
UDP_LENGTH = 4
UDP_CHECKSUM = 6


class _Layout(NamedTuple):
    """Offsets into a frame."""

    version: int
    ip: int
    transport: int
    payload: int


def _layout(frame: bytes, kind: int) -> _Layout | None:
    """Where the headers are of a frame that needs `kind` of segmentation; None if it is no such frame."""
    found = network_header(frame)
    if found is None:
        return None
    ethertype, ip = found
    if ethertype == ETHERTYPE_IPV4 and kind != TSO6:
        if len(frame) < ip + IPV4_HEADER or len(frame) - ip > MAX_IP_LENGTH:
            return None
        version, header = divmod(frame[ip], 16)
        header *= 4
        if version != 4 or header < IPV4_HEADER or word(frame, ip + IPV4_FRAGMENT) & FRAGMENT_MASK:
            return None
        protocol = frame[ip + IPV4_PROTOCOL]
    elif ethertype == ETHERTYPE_IPV6 and kind != TSO4:
        if len(frame) < ip + IPV6_HEADER or len(frame) - ip - IPV6_HEADER > MAX_IP_LENGTH:
            return None
        version, header = frame[ip] >> 4, IPV6_HEADER
        if version != 6:
            return None
        protocol = frame[ip + IPV6_NEXT]
    else:
        return None
    transport = ip + header
    if kind & (TSO4 | TSO6):
        if protocol != PROTOCOL_TCP or len(frame) < transport + TCP_HEADER:
            return None
        length = (frame[transport + TCP_DATA_OFFSET] >> 4) * 4
        if length < TCP_HEADER:
            return None
    else:
        if protocol != PROTOCOL_UDP:
            return None
        length = UDP_HEADER
    payload = transport + length
    return _Layout(version, ip, transport, payload) if payload < len(frame) else None


def fits(frame: bytes, offload: Offload, mtu: int) -> bool:
    """Whether what `offload` says is possible for a frame of at least 14 bytes, and no segment is longer than `mtu`.

    `mtu` counts from the IP header. A frame without segmentation is not held to it here.
    """
    needs, start, offset, size = offload
    if needs == 0:
        return True
    if not needs & CHECKSUM or start < ETHERNET_HEADER or start + offset + 2 > len(frame):
        return False
    kind = needs & SEGMENTATION
    if kind == 0:
        return needs == CHECKSUM
    if needs & ECN and not kind & (TSO4 | TSO6):
        return False
    found = _layout(frame, kind)
    if found is None or start != found.transport:
        return False
    field = TCP_CHECKSUM if kind & (TSO4 | TSO6) else UDP_CHECKSUM
    if offset != field:
        return False
    if kind == UFO:
        # What is cut is the IP payload, at multiples of 8 bytes; IPv6 needs a header more.
        size &= -FRAGMENT_UNIT
        header = found.transport - found.ip + (FRAGMENT_HEADER if found.version == 6 else 0)
        length = len(frame) - found.transport
    else:
        header = found.payload - found.ip
        length = len(frame) - found.payload
    return 0 < size <= mtu - header and length <= size * MAX_SEGMENTS


def complete_checksum(frame: bytes, offload: Offload) -> bytes:
    """`frame` with its checksum in place."""
    _, start, offset, _ = offload
    result = bytearray(frame)
    field = start + offset
    value = checksum(word_sum(memoryview(frame)[start:]))
    # UDP's zero is "no checksum"; what it stands for is the other zero (RFC 768). For others both mean the same.
    result[field : field + 2] = (value or 0xFFFF).to_bytes(2, "big")
    return bytes(result)


def segments(frame: bytes, offload: Offload) -> Iterator[bytes]:
    """The frames that go over the wire in place of one that needs segmentation, checksums complete."""
    kind = offload.needs & SEGMENTATION
    layout = _layout(frame, kind)
    assert layout is not None, "`fits` said yes"
    if kind == UFO:
        yield from _fragments(complete_checksum(frame, offload), layout, offload.segment_size)
    else:
        yield from _segments(frame, layout, offload.segment_size, tcp=bool(kind & (TSO4 | TSO6)))


def _segments(frame: bytes, layout: _Layout, size: int, *, tcp: bool) -> Iterator[bytes]:
    version, ip, transport, payload = layout
    header = bytearray(frame[:payload])
    view = memoryview(frame)
    field = transport + (TCP_CHECKSUM if tcp else UDP_CHECKSUM)
    header[field : field + 2] = bytes(2)
    if version == 4:
        header[ip + IPV4_CHECKSUM : ip + IPV4_CHECKSUM + 2] = bytes(2)
        addresses = header[ip:][IPV4_ADDRESSES]
    else:
        addresses = header[ip:][IPV6_ADDRESSES]
    pseudo_header = word_sum(addresses) + (PROTOCOL_TCP if tcp else PROTOCOL_UDP)
    flags = frame[transport + TCP_FLAGS] if tcp else 0
    sequence = int.from_bytes(frame[transport + TCP_SEQUENCE : transport + TCP_SEQUENCE + 4], "big")
    identification = word(frame, ip + IPV4_IDENTIFICATION)
    for number, begin in enumerate(range(payload, len(frame), size)):
        data = view[begin : begin + size]
        segment = header.copy()
        length = payload - transport + len(data)
        if tcp:
            here = (sequence + begin - payload) & 0xFFFF_FFFF
            segment[transport + TCP_SEQUENCE : transport + TCP_SEQUENCE + 4] = here.to_bytes(4, "big")
            if begin > payload:
                flags &= ~CWR
            last = begin + size >= len(frame)
            segment[transport + TCP_FLAGS] = flags if last else flags & ~(FIN | PSH)
        else:
            segment[transport + UDP_LENGTH : transport + UDP_LENGTH + 2] = length.to_bytes(2, "big")
        if version == 4:
            _finish_ipv4(segment, ip, transport, transport - ip + length, identification + number)
        else:
            field_6 = ip + IPV6_PAYLOAD_LENGTH
            segment[field_6 : field_6 + 2] = length.to_bytes(2, "big")
        total = pseudo_header + length + word_sum(segment[transport:]) + word_sum(data)
        segment[field : field + 2] = (checksum(total) or 0xFFFF).to_bytes(2, "big")
        segment += data
        yield bytes(segment)


def _finish_ipv4(header: bytearray, ip: int, end: int, length: int, identification: int) -> None:
    """Total length, identification and checksum of the IPv4 header from `ip` to `end`; its checksum field is 0."""
    header[ip + IPV4_TOTAL_LENGTH : ip + IPV4_TOTAL_LENGTH + 2] = length.to_bytes(2, "big")
    header[ip + IPV4_IDENTIFICATION : ip + IPV4_IDENTIFICATION + 2] = (identification & 0xFFFF).to_bytes(
        2, "big"
    )
    value = checksum(word_sum(header[ip:end]))
    header[ip + IPV4_CHECKSUM : ip + IPV4_CHECKSUM + 2] = value.to_bytes(2, "big")


def _fragments(frame: bytes, layout: _Layout, size: int) -> Iterator[bytes]:
    version, ip, transport, _ = layout
    size &= -FRAGMENT_UNIT
    identification = zlib.crc32(frame)
    for begin in range(transport, len(frame), size):
        data = frame[begin : begin + size]
        more = begin + size < len(frame)
        header = bytearray(frame[:transport])
        if version == 4:
            fragment = (begin - transport) // FRAGMENT_UNIT | (MORE_FRAGMENTS if more else 0)
            header[ip + IPV4_FRAGMENT : ip + IPV4_FRAGMENT + 2] = fragment.to_bytes(2, "big")
            header[ip + IPV4_CHECKSUM : ip + IPV4_CHECKSUM + 2] = bytes(2)
            own = word(frame, ip + IPV4_IDENTIFICATION)
            _finish_ipv4(header, ip, transport, transport - ip + len(data), own)
        else:
            length = FRAGMENT_HEADER + len(data)
            header[ip + IPV6_PAYLOAD_LENGTH : ip + IPV6_PAYLOAD_LENGTH + 2] = length.to_bytes(2, "big")
            header[ip + IPV6_NEXT] = NEXT_FRAGMENT
            header += bytes((PROTOCOL_UDP, 0))
            header += (begin - transport | (IPV6_MORE_FRAGMENTS if more else 0)).to_bytes(2, "big")
            header += identification.to_bytes(4, "big")
        yield bytes(header + data)


def finish(frame: bytes, offload: Offload, accepts: int) -> list[tuple[bytes, Offload]]:
    """What a station gets that accepts only some of the needs: one frame or more, each with what may still be left."""
    missing = offload.needs & ~accepts
    if not missing:
        return [(frame, offload)]
    if missing & ~CHECKSUM:
        return [(piece, VERIFIED) for piece in segments(frame, offload)]
    done = complete_checksum(frame, offload)
    left = offload.needs & ~CHECKSUM
    return [(done, offload._replace(needs=left) if left else VERIFIED)]
