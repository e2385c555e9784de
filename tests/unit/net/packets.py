"""Frames for the tests, put together the straightforward way."""

from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack

MAC_A = bytes.fromhex("525400000001")
MAC_B = bytes.fromhex("525400000002")
MAC_C = bytes.fromhex("525400000003")
MAC_D = bytes.fromhex("525400000004")
BROADCAST = b"\xff" * 6
IP_A, IP_B, IP_C = "10.0.2.15", "10.0.2.16", "10.0.2.17"
IP6_A, IP6_B = "fec0::a", "fec0::b"
TCP, UDP, ICMPV6, FRAGMENT = 6, 17, 58, 44
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD


def plain_sum(data: bytes) -> int:
    """The ones' complement sum, word by word, as RFC 1071 tells it."""
    total = 0
    for i in range(0, len(data), 2):
        total += int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ethernet(
    payload: bytes,
    ethertype: int,
    *,
    source: bytes = MAC_A,
    destination: bytes = MAC_B,
    tags: tuple[int, ...] = (),
) -> bytes:
    vlan = b"".join(pack(">HH", 0x8100, tag) for tag in tags)
    return destination + source + vlan + pack(">H", ethertype) + payload


def ipv4(
    payload: bytes,
    protocol: int,
    *,
    source: str = IP_A,
    destination: str = IP_B,
    fragment: int = 0,
    options: bytes = b"",
    identification: int = 1,
) -> bytes:
    length = 20 + len(options)
    head = pack(
        ">BBHHHBBH4s4s",
        0x40 | length // 4,
        0,
        length + len(payload),
        identification,
        fragment,
        64,
        protocol,
        0,
        IPv4Address(source).packed,
        IPv4Address(destination).packed,
    )
    head += options
    return head[:10] + pack(">H", plain_sum(head) ^ 0xFFFF) + head[12:] + payload


def ipv6(payload: bytes, protocol: int, *, source: str = IP6_A, destination: str = IP6_B) -> bytes:
    addresses = IPv6Address(source).packed + IPv6Address(destination).packed
    return pack(">IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def udp(payload: bytes, *, source: int = 1000, destination: int = 2000, checksum: int = 0) -> bytes:
    return pack(">HHHH", source, destination, 8 + len(payload), checksum) + payload


def tcp(
    payload: bytes, *, sequence: int = 1000, flags: int = 0x18, options: bytes = b"", checksum: int = 0
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    return pack(">HHIIBBHHH", 1000, 2000, sequence, 7, offset, flags, 512, checksum, 0) + options + payload


def arp(mac: bytes = MAC_A, address: str = IP_A, *, target: str = IP_B) -> bytes:
    return (
        pack(">HHBBH", 1, IPV4, 6, 4, 1)
        + mac
        + IPv4Address(address).packed
        + bytes(6)
        + IPv4Address(target).packed
    )


def plain(payload: bytes = b"", **addresses: bytes) -> bytes:
    """A frame of a protocol that nobody looks into."""
    return ethernet(payload, 0x88B5, **addresses)


def with_pseudo_sum(packet: bytes, protocol: int, field: int) -> bytes:
    """The IP packet (no options), its checksum field `field` bytes into the transport header as a driver leaves it."""
    four = packet[0] >> 4 == 4
    header = 20 if four else 40
    addresses = packet[12:20] if four else packet[8:40]
    total = plain_sum(addresses + pack(">HH", protocol, len(packet) - header))
    at = header + field
    return packet[:at] + pack(">H", total) + packet[at + 2 :]


def transport_is_right(packet: bytes) -> bool:
    """Whether the checksum of the TCP or UDP in an IP packet (no options) is."""
    four = packet[0] >> 4 == 4
    header = 20 if four else 40
    addresses, protocol = (packet[12:20], packet[9]) if four else (packet[8:40], packet[6])
    data = packet[header:]
    return plain_sum(addresses + pack(">II", protocol, len(data)) + data) == 0xFFFF


def header_is_right(packet: bytes) -> bool:
    """Whether length and checksum of an IP header are."""
    if packet[0] >> 4 == 6:
        return bool(unpack(">H", packet[4:6])[0] == len(packet) - 40)
    return bool(unpack(">H", packet[2:4])[0] == len(packet)) and plain_sum(packet[:20]) == 0xFFFF
