from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import BROADCAST, ethernet, ip_packet, udp_packet

from emuvisor.net.user.egress import MAX_SOCKETS, Egress, Refusal
from emuvisor.net.user.plan import Plan

MAC = bytes.fromhex("525400aabb01")
GUEST, GUEST6 = IPv4Address("10.0.2.15"), IPv6Address("fec0::5054:ff:feaa:bb01")
SYN, ACK = 2, 16


def make(sockets: int = 0) -> Egress:
    return Egress(Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64")), range(sockets))


def tcp(destination: str, flags: int = SYN, source: str | None = None) -> bytes:
    there = ip_address(destination)
    own = ip_address(source) if source else (GUEST if there.version == 4 else GUEST6)
    return ethernet(MAC, ip_packet(own, there, 6, bytes(12) + bytes((0x50, flags)) + bytes(6)))


def udp(destination: str, source_port: int = 1000) -> bytes:
    there = ip_address(destination)
    return ethernet(MAC, udp_packet(GUEST if there.version == 4 else GUEST6, source_port, there, 7, b""))


@pytest.mark.parametrize(
    "destination",
    ["192.0.2.1", "10.0.2.2", "10.0.2.3", "10.0.3.1", "2001:db8::1", "fec0::2", "fec0::3", "fd00::1"],
)
def test_destinations_that_are_forwarded_to(destination: str) -> None:
    assert make().refuse(tcp(destination)) is None
    assert make().refuse(udp(destination)) is None


@pytest.mark.parametrize(
    "destination",
    [
        "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "169.254.169.254", "224.0.0.251", "240.0.0.1",
        "255.255.255.255", "10.0.2.255", "10.0.2.0", "10.0.2.16",
        "::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "fe80::1", "febf::1", "ff02::fb", "fec0::1:1",
    ],
)  # fmt: skip
def test_destinations_that_are_not(destination: str) -> None:
    assert make().refuse(tcp(destination)) is Refusal.DESTINATION
    assert make().refuse(udp(destination)) is Refusal.DESTINATION


@pytest.mark.parametrize(
    ("destination", "source"),
    [
        ("192.0.2.1", "10.0.3.15"), ("192.0.2.1", "0.0.0.0"), ("192.0.2.1", "10.0.2.2"),
        ("2001:db8::1", "2001:db8::2"), ("2001:db8::1", "fe80::1"), ("2001:db8::1", "fec0::2"),
    ],
)  # fmt: skip
def test_sources_that_are_no_guests(destination: str, source: str) -> None:
    assert make().refuse(tcp(destination, source=source)) is Refusal.SOURCE


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", Refusal.MALFORMED),
        (BROADCAST + MAC + b"\x08\x00" + bytes(19), Refusal.MALFORMED),
        (BROADCAST + MAC + b"\x86\xdd" + bytes(39), Refusal.MALFORMED),
        (tcp("192.0.2.1")[:-1], Refusal.MALFORMED),
        (tcp("2001:db8::1")[:-1], Refusal.MALFORMED),
        (udp("192.0.2.1")[:-1], Refusal.MALFORMED),
        (BROADCAST + MAC + b"\x08\x06", None),  # libslirp looks at ARP's length itself
        (BROADCAST + MAC + b"\x88\xf8", Refusal.PROTOCOL),  # NC-SI, which libslirp would answer
        (ethernet(MAC, ip_packet(GUEST, IPv4Address("192.0.2.1"), 132, bytes(20))), Refusal.PROTOCOL),
        (ethernet(MAC, ip_packet(GUEST6, IPv6Address("2001:db8::1"), 44, bytes(20))), Refusal.PROTOCOL),
        (tcp("192.0.2.1")[:20] + b"\x20\x00" + tcp("192.0.2.1")[22:], Refusal.FRAGMENT),
        (tcp("192.0.2.1")[:20] + b"\x00\x01" + tcp("192.0.2.1")[22:], Refusal.FRAGMENT),
        (ethernet(MAC, ip_packet(GUEST6, IPv6Address("ff02::2"), 58, bytes(8))), None),
        (ethernet(MAC, ip_packet(GUEST6, IPv6Address("fe80::2"), 58, bytes(8))), None),
        (ethernet(MAC, ip_packet(GUEST6, IPv6Address("2001:db8::1"), 58, bytes(8))), Refusal.DESTINATION),
        (ethernet(MAC, ip_packet(IPv6Address("fe80::1"), IPv6Address("ff02::1:2"), 17, bytes(8))), None),
    ],
)
def test_other_frames(frame: bytes, reason: Refusal | None) -> None:
    assert make().refuse(frame) is reason


def test_ipv6_where_there_is_none() -> None:
    egress = Egress(Plan(IPv4Network("10.0.2.0/24"), None), ())
    assert egress.refuse(tcp("2001:db8::1")) is Refusal.PROTOCOL


def test_sockets_are_limited() -> None:
    sockets: set[int] = set()
    egress = Egress(Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64")), sockets)
    ping = ethernet(MAC, ip_packet(GUEST, IPv4Address("192.0.2.1"), 1, bytes(8)))
    near = ethernet(MAC, ip_packet(GUEST, IPv4Address("10.0.2.2"), 1, bytes(8)))
    assert egress.refuse(udp("192.0.2.1", 1)) is None
    assert egress.refuse(ping) is None
    sockets |= set(range(MAX_SOCKETS))
    assert egress.refuse(tcp("192.0.2.1")) is Refusal.SOCKETS
    assert egress.refuse(tcp("2001:db8::1")) is Refusal.SOCKETS
    assert egress.refuse(tcp("192.0.2.1", ACK)) is None  # a connection that exists
    assert egress.refuse(tcp("192.0.2.1", SYN | ACK)) is None  # one that came through a forward
    assert egress.refuse(udp("192.0.2.1", 1)) is None  # a flow that exists
    assert egress.refuse(udp("192.0.2.1", 2)) is Refusal.SOCKETS
    assert egress.refuse(ping) is Refusal.SOCKETS
    assert egress.refuse(near) is None  # answered without a socket


def test_flows_are_forgotten() -> None:
    sockets: set[int] = set()
    egress = Egress(Plan(IPv4Network("10.0.2.0/24"), None), sockets)
    for port in range(1, MAX_SOCKETS + 2):
        assert egress.refuse(udp("192.0.2.1", port)) is None
    sockets |= set(range(MAX_SOCKETS))
    assert egress.refuse(udp("192.0.2.1", 2)) is None
    assert egress.refuse(udp("192.0.2.1", 1)) is Refusal.SOCKETS


@given(
    st.sampled_from([tcp("192.0.2.1"), udp("10.0.2.2"), tcp("2001:db8::1"), b""]),
    st.binary(max_size=60),
    st.data(),
)
def test_any_frame(frame: bytes, tail: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(frame)))
    refusal = make().refuse(frame[:cut] + tail)
    assert refusal is None or isinstance(refusal, Refusal)
