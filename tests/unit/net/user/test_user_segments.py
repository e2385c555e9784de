import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import ethernet, ip_packet, udp_packet, with_checksum

from emuvisor.bus.ethernet import CHECKSUM, TSO4, TSO6, UFO
from emuvisor.net.offload import complete_checksum, finish, fits
from emuvisor.net.user.egress import Egress
from emuvisor.net.user.plan import Plan
from emuvisor.net.user.segments import cut_by_cards, slirp_mtu, widen_mss

MAC = bytes.fromhex("525400aabb01")
FOUR = (IPv4Address("10.0.2.15"), IPv4Address("192.0.2.1"))
SIX = (IPv6Address("fec0::15"), IPv6Address("2001:db8::1"))
Ends = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]
SYN, ACK = 2, 16


def tcp(ends: Ends, options: bytes = b"", flags: int = SYN, data: bytes = b"") -> bytes:
    options += bytes(-len(options) % 4)
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack("!HHIIBBHHH", 5000, 80, 1, 2, offset, flags, 1000, 0, 0) + options + data
    return ethernet(MAC, ip_packet(*ends, 6, with_checksum(*ends, 6, segment, 16)))


def mss(value: int) -> bytes:
    return struct.pack("!BBH", 2, 4, value)


@pytest.mark.parametrize(("mtu", "wide"), [(576, 16384), (1500, 16384), (20000, 20000), (65535, 65521)])
def test_mtu_of_libslirp(mtu: int, wide: int) -> None:
    assert slirp_mtu(mtu) == wide


@pytest.mark.parametrize("flags", [SYN, SYN | ACK])
@pytest.mark.parametrize("before", [b"", b"\1\1", b"\4\2", b"\1\3\3\7"])
@pytest.mark.parametrize(("ends", "headers"), [(FOUR, 40), (SIX, 60)])
def test_mss_of_a_syn_is_widened(ends: Ends, headers: int, before: bytes, flags: int) -> None:
    frame = tcp(ends, before + mss(1500 - headers), flags)
    assert widen_mss(frame, 1500) == tcp(ends, before + mss(16384 - headers), flags)


@pytest.mark.parametrize(
    "frame",
    [
        tcp(FOUR, mss(536)),  # what the guest takes is less than the network's MTU
        tcp(FOUR, mss(1460), ACK),
        tcp(FOUR),
        tcp(FOUR, b"\0" + mss(1460)),  # behind the end of the options
        tcp(FOUR, b"\1" + mss(1460)),  # on no word's boundary
        tcp(FOUR, b"\4\0" + mss(1460)),  # an option of no length
        tcp(FOUR, mss(1460))[:-1],
        tcp(FOUR, b"\2\3\5\xb4"),
        ethernet(MAC, udp_packet(*FOUR[:1], 1, FOUR[1], 2, bytes(20))),
        ethernet(MAC, ip_packet(*SIX, 58, bytes(20))),
        b"\xff" * 6 + MAC + b"\x08\x06",
    ],
)
def test_what_stays_as_it_is(frame: bytes) -> None:
    assert widen_mss(frame, 1500) == frame


@given(
    st.sampled_from([tcp(FOUR, mss(1460)), tcp(SIX, mss(1440))]), st.binary(max_size=40), st.integers(0, 90)
)
def test_any_frame_that_may_leave(frame: bytes, tail: bytes, cut: int) -> None:
    frame = frame[:cut] + tail
    plan = Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64"))
    if Egress(plan, ()).refuse(frame) is None:
        assert len(widen_mss(frame, 1500)) == len(frame)


@pytest.mark.parametrize(("ends", "need", "size"), [(FOUR, TSO4, 1460), (SIX, TSO6, 1440)])
def test_long_tcp_segments_are_left_to_cards(ends: Ends, need: int, size: int) -> None:
    long = tcp(ends, flags=ACK, data=bytes(range(250)) * 20)
    cut = cut_by_cards(long, 1500)
    assert cut is not None
    frame, offload = cut
    assert (offload.needs, offload.segment_size) == (CHECKSUM | need, size)
    assert fits(frame, offload, 1500)
    assert complete_checksum(frame, offload) == long
    assert [len(piece) for piece, _ in finish(frame, offload, 0)] == [
        1514,
        1514,
        1514,
        14 + 1500 - size + 5000 - 3 * size,
    ]


@pytest.mark.parametrize(("ends", "size"), [(FOUR, 1472), (SIX, 1448)])
def test_long_datagrams_are_left_to_cards(ends: Ends, size: int) -> None:
    long = ethernet(MAC, udp_packet(ends[0], 1, ends[1], 2, bytes(4000)))
    cut = cut_by_cards(long, 1500)
    assert cut is not None
    frame, offload = cut
    assert (offload.needs, offload.segment_size) == (CHECKSUM | UFO, size)
    assert fits(frame, offload, 1500)
    assert complete_checksum(frame, offload) == long
    assert all(len(piece) <= 1514 for piece, _ in finish(frame, offload, 0))


def test_nothing_else_can_be_cut() -> None:
    assert cut_by_cards(ethernet(MAC, ip_packet(*FOUR, 1, bytes(2000))), 1500) is None
