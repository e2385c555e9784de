from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import (
    ARP,
    FRAGMENT,
    ICMPV6,
    IP6_A,
    IP6_B,
    IP_A,
    IP_B,
    IPV4,
    IPV6,
    MAC_A,
    MAC_B,
    TCP,
    UDP,
    arp,
    ethernet,
    ipv4,
    ipv6,
    plain,
    tcp,
    udp,
)

from emuvisor.net.guard import Guard
from emuvisor.net.statistics import Drop

OWN = {ip_address(a).packed for a in (IP_A, IP6_A, "0.0.0.0", "::")}
GUARD = Guard(MAC_A, OWN.__contains__)


def icmp6(kind: int, body: bytes, source: str = IP6_A) -> bytes:
    return ipv6(pack(">BBH", kind, 0, 0) + body, ICMPV6, source=source)


def solicitation(*options: bytes) -> bytes:
    return icmp6(135, bytes(4) + IPv6Address(IP6_B).packed + b"".join(options))


def advertisement(target: str, *options: bytes) -> bytes:
    return icmp6(136, bytes(4) + IPv6Address(target).packed + b"".join(options))


def link_layer(kind: int, mac: bytes) -> bytes:
    return bytes((kind, 1)) + mac


def extension(following: int, length: int = 0) -> bytes:
    return bytes((following, length)) + bytes(6 + 8 * length)


HONEST = {
    "TCP": ethernet(ipv4(tcp(b"x"), TCP), IPV4),
    "TCP over IPv6": ethernet(ipv6(tcp(b"x"), TCP), IPV6),
    "tagged": ethernet(ipv4(tcp(b"x"), TCP), IPV4, tags=(1, 2)),
    "ARP": ethernet(arp(), ARP),
    "ARP probe": ethernet(arp(address="0.0.0.0"), ARP),
    "DHCP client": ethernet(ipv4(udp(b"x", source=68, destination=67), UDP, source="0.0.0.0"), IPV4),
    "later fragment": ethernet(ipv4(b"\0\x43\0\x44", UDP, fragment=1), IPV4),
    "duplicate address detection": ethernet(icmp6(135, bytes(20), "::"), IPV6),
    "neighbour solicitation": ethernet(solicitation(link_layer(1, MAC_A)), IPV6),
    "neighbour advertisement": ethernet(advertisement(IP6_A, link_layer(2, MAC_A)), IPV6),
    "an option that says nothing": ethernet(solicitation(bytes((14, 1)) + bytes(6)), IPV6),
    "router solicitation": ethernet(icmp6(133, bytes(4)), IPV6),
    "ping": ethernet(icmp6(128, bytes(4)), IPV6),
    "extensions": ethernet(ipv6(extension(60) + extension(TCP) + tcp(b""), 0), IPV6),
    "later IPv6 fragment": ethernet(ipv6(pack(">BBHI", ICMPV6, 0, 8, 1) + bytes((134,)), FRAGMENT), IPV6),
    "first IPv6 fragment": ethernet(ipv6(pack(">BBHI", UDP, 0, 1, 1) + udp(b""), FRAGMENT), IPV6),
    "another protocol": plain(b"hello"),
}

HOSTILE = {
    "another's MAC": (plain(source=MAC_B), Drop.SOURCE_MAC),
    "too many tags": (ethernet(b"", IPV4, tags=(1, 2, 3)), Drop.MALFORMED),
    "ends in a tag": (ethernet(b"", 0x8100), Drop.MALFORMED),
    "another's IPv4": (ethernet(ipv4(b"", TCP, source=IP_B), IPV4), Drop.SOURCE_ADDRESS),
    "another's IPv4, tagged": (
        ethernet(ipv4(b"", TCP, source=IP_B), IPV4, tags=(1, 2)),
        Drop.SOURCE_ADDRESS,
    ),
    "another's IPv6": (ethernet(ipv6(b"", TCP, source=IP6_B), IPV6), Drop.SOURCE_ADDRESS),
    "short IPv4": (ethernet(ipv4(b"", TCP)[:19], IPV4), Drop.MALFORMED),
    "short IPv6": (ethernet(ipv6(b"", TCP)[:39], IPV6), Drop.MALFORMED),
    "IPv6 as IPv4": (ethernet(ipv6(b"", TCP), IPV4), Drop.MALFORMED),
    "IPv4 as IPv6": (ethernet(ipv4(bytes(40), TCP), IPV6), Drop.MALFORMED),
    "ARP for another's address": (ethernet(arp(address=IP_B), ARP), Drop.NEIGHBOUR),
    "ARP for another's MAC": (ethernet(arp(MAC_B), ARP), Drop.NEIGHBOUR),
    "short ARP": (ethernet(arp()[:27], ARP), Drop.MALFORMED),
    "ARP of another kind": (ethernet(b"\0\6" + arp()[2:], ARP), Drop.MALFORMED),
    "DHCP server": (ethernet(ipv4(udp(b"", source=67, destination=68), UDP), IPV4), Drop.ROUTER),
    "DHCP server with IP options": (
        ethernet(ipv4(udp(b"", source=67, destination=68), UDP, options=bytes(4)), IPV4),
        Drop.ROUTER,
    ),
    "UDP without ports": (ethernet(ipv4(b"\0\x43", UDP, fragment=0x2000), IPV4), Drop.MALFORMED),
    "DHCPv6 server": (ethernet(ipv6(udp(b"", source=547, destination=546), UDP), IPV6), Drop.ROUTER),
    "router advertisement": (ethernet(icmp6(134, bytes(12)), IPV6), Drop.ROUTER),
    "redirect": (ethernet(icmp6(137, bytes(36)), IPV6), Drop.ROUTER),
    "router advertisement behind extensions": (
        ethernet(ipv6(extension(51) + bytes((ICMPV6, 0)) + bytes(6) + bytes((134,)), 0), IPV6),
        Drop.ROUTER,
    ),
    "router advertisement behind a long extension": (
        ethernet(ipv6(extension(ICMPV6, 1) + bytes((134,)), 60), IPV6),
        Drop.ROUTER,
    ),
    "router advertisement in a fragment": (
        ethernet(ipv6(pack(">BBHI", ICMPV6, 0, 1, 1) + bytes((134,)), FRAGMENT), IPV6),
        Drop.ROUTER,
    ),
    "neighbour advertisement in a fragment": (
        ethernet(ipv6(pack(">BBHI", ICMPV6, 0, 1, 1) + advertisement(IP6_A)[40:], FRAGMENT), IPV6),
        Drop.MALFORMED,
    ),
    "neighbour advertisement for another": (ethernet(advertisement(IP6_B), IPV6), Drop.NEIGHBOUR),
    "solicitation with another's MAC": (ethernet(solicitation(link_layer(1, MAC_B)), IPV6), Drop.NEIGHBOUR),
    "advertisement with another's MAC": (
        ethernet(advertisement(IP6_A, link_layer(2, MAC_B)), IPV6),
        Drop.NEIGHBOUR,
    ),
    "short neighbour advertisement": (ethernet(icmp6(136, bytes(4)), IPV6), Drop.MALFORMED),
    "an option without length": (ethernet(solicitation(bytes(8)), IPV6), Drop.MALFORMED),
    "too many options": (ethernet(solicitation(*[bytes((14, 1)) + bytes(6)] * 17), IPV6), Drop.MALFORMED),
    "empty ICMPv6": (ethernet(ipv6(b"", ICMPV6), IPV6), Drop.MALFORMED),
    "cut extension": (ethernet(ipv6(bytes(4), 0), IPV6), Drop.MALFORMED),
    "too many extensions": (ethernet(ipv6(extension(0) * 9, 0), IPV6), Drop.MALFORMED),
}


@pytest.mark.parametrize("what", HONEST)
def test_honest_frames_pass(what: str) -> None:
    assert GUARD.refuse(HONEST[what]) is None


@pytest.mark.parametrize("what", HOSTILE)
def test_others_do_not(what: str) -> None:
    frame, drop = HOSTILE[what]
    assert GUARD.refuse(frame) is drop


@given(
    frame=st.sampled_from([*HONEST.values(), *(frame for frame, _ in HOSTILE.values())]),
    length=st.integers(14, 200),
    patches=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4),
    rest=st.binary(max_size=60),
)
def test_no_frame_is_too_strange(
    frame: bytes, length: int, patches: list[tuple[int, int]], rest: bytes
) -> None:
    data = bytearray((frame[:length] + rest).ljust(14, b"\0"))
    for at, value in patches:
        data[at % len(data)] = value
    result = GUARD.refuse(bytes(data))
    if data[6:12] != MAC_A:
        assert result is Drop.SOURCE_MAC
    elif data[12:14] == b"\x08\x00" and bytes(data[26:30]) != IPv4Address(IP_A).packed and any(data[26:30]):
        assert result is not None
