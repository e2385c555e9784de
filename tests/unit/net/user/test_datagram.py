from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import ethernet, ip_packet, udp_packet

from emuvisor.net.user.datagram import Datagram, parse

MAC = bytes.fromhex("525400aabb01")
ROUTER = bytes.fromhex("52550a000202")
FOUR = (IPv4Address("10.0.2.15"), IPv4Address("10.0.2.2"))
SIX = (IPv6Address("fec0::15"), IPv6Address("fec0::2"))


@given(st.sampled_from([FOUR, SIX]), st.binary(max_size=40))
def test_frames_as_another_hand_writes_them(
    ends: tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address], payload: bytes
) -> None:
    source, destination = ends
    datagram = Datagram(MAC, ROUTER, source, 68, destination, 67, payload)
    frame = datagram.frame()
    assert parse(frame) == datagram
    other = ethernet(MAC, udp_packet(source, 68, destination, 67, payload), ROUTER)
    # Hop limits differ, and one may forbid fragments; the UDP part, with its checksum, is the same.
    assert frame[34 if source.version == 4 else 54 :] == other[34 if source.version == 4 else 54 :]
    assert parse(other + bytes(20)) == datagram  # padding behind does not belong to it


def test_reply_goes_back() -> None:
    reply = Datagram(MAC, ROUTER, FOUR[0], 4000, FOUR[1], 53, b"?").reply(b"!")
    assert reply == Datagram(ROUTER, MAC, FOUR[1], 53, FOUR[0], 4000, b"!")


GOOD = ethernet(MAC, udp_packet(FOUR[0], 68, FOUR[1], 67, b"data"))
GOOD6 = ethernet(MAC, udp_packet(SIX[0], 68, SIX[1], 67, b"data"))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        GOOD[:-1],
        GOOD6[:-1],
        GOOD6[:42],
        GOOD[:14] + b"\x44" + GOOD[15:],  # a header of 16 bytes
        GOOD[:14] + b"\x65" + GOOD[15:],  # version 6
        GOOD6[:14] + b"\x40" + GOOD6[15:],  # version 4
        GOOD[:20] + b"\x20" + GOOD[21:],  # a fragment
        GOOD[:38] + b"\x00\x07" + GOOD[40:],  # shorter than its header
        GOOD[:38] + b"\x00\xff" + GOOD[40:],  # longer than the packet
        ethernet(MAC, ip_packet(FOUR[0], FOUR[1], 6, bytes(20))),
        ethernet(MAC, ip_packet(FOUR[0], FOUR[1], 17, bytes(7))) + b"\0",
        GOOD[:12] + b"\x08\x06" + GOOD[14:],
    ],
)
def test_what_is_no_whole_datagram(frame: bytes) -> None:
    assert parse(frame) is None


@given(st.sampled_from([GOOD, GOOD6]), st.binary(max_size=60), st.integers(0, 60))
def test_any_frame(frame: bytes, tail: bytes, cut: int) -> None:
    parse(frame[:cut] + tail)
