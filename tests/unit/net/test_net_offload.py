from struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import (
    FRAGMENT,
    IPV4,
    IPV6,
    TCP,
    UDP,
    ethernet,
    header_is_right,
    ipv4,
    ipv6,
    tcp,
    transport_is_right,
    udp,
    with_pseudo_sum,
)

from emuvisor.bus.ethernet import CHECKSUM, ECN, TSO4, TSO6, UFO, USO, VERIFIED, Offload
from emuvisor.net.offload import complete_checksum, finish, fits, segments

MTU = 1500
TCP_FIELD, UDP_FIELD = 16, 6
IP_HEADER = {4: 20, 6: 40}


def tcp_frame(
    payload: bytes,
    version: int = 4,
    size: int = 1000,
    *,
    tags: tuple[int, ...] = (),
    flags: int = 0x18,
    sequence: int = 1000,
    options: bytes = b"",
) -> tuple[bytes, Offload]:
    """As a driver with segmentation offload hands it over."""
    segment = tcp(payload, flags=flags, sequence=sequence, options=options)
    packet = ipv4(segment, TCP) if version == 4 else ipv6(segment, TCP)
    frame = ethernet(with_pseudo_sum(packet, TCP, TCP_FIELD), IPV4 if version == 4 else IPV6, tags=tags)
    start = 14 + 4 * len(tags) + IP_HEADER[version]
    need = TSO4 if version == 4 else TSO6
    return frame, Offload(CHECKSUM | need, start, TCP_FIELD, size)


def udp_frame(payload: bytes, need: int, version: int = 4, size: int = 1000) -> tuple[bytes, Offload]:
    packet = ipv4(udp(payload), UDP) if version == 4 else ipv6(udp(payload), UDP)
    frame = ethernet(with_pseudo_sum(packet, UDP, UDP_FIELD), IPV4 if version == 4 else IPV6)
    return frame, Offload(CHECKSUM | need, 14 + IP_HEADER[version], UDP_FIELD, size)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@given(
    payload=st.binary(min_size=1, max_size=5000),
    size=st.integers(48, 1400),
    sequence=st.integers(0, 2**32 - 1),
)
def test_tcp_segments_make_the_stream_again(
    version: int, tags: tuple[int, ...], payload: bytes, size: int, sequence: int
) -> None:
    frame, offload = tcp_frame(payload, version, size, tags=tags, sequence=sequence, options=b"\1\1\1\0")
    assert fits(frame, offload, MTU)
    stream = b""
    header = 14 + 4 * len(tags)
    for number, segment in enumerate(segments(frame, offload)):
        packet = segment[header:]
        assert segment[:header] == frame[:header]
        assert header_is_right(packet)
        assert transport_is_right(packet)
        if version == 4:
            assert unpack(">H", packet[4:6])[0] == 1 + number
        segment_tcp = packet[IP_HEADER[version] :]
        assert unpack(">I", segment_tcp[4:8])[0] == (sequence + len(stream)) & 0xFFFF_FFFF
        assert segment_tcp[20:24] == b"\1\1\1\0"
        assert 0 < len(segment_tcp) - 24 <= size
        stream += segment_tcp[24:]
    assert stream == payload


def test_fin_and_push_are_on_the_last_segment_and_cwr_on_the_first() -> None:
    frame, offload = tcp_frame(bytes(2500), flags=0x80 | 0x10 | 0x08 | 0x01)
    offload = offload._replace(needs=offload.needs | ECN)
    assert fits(frame, offload, MTU)
    assert [segment[14 + 20 + 13] for segment in segments(frame, offload)] == [0x90, 0x10, 0x19]


@pytest.mark.parametrize("version", [4, 6])
@given(payload=st.binary(min_size=1, max_size=4000), size=st.integers(8, 1400))
def test_udp_segments_are_datagrams_of_their_own(version: int, payload: bytes, size: int) -> None:
    frame, offload = udp_frame(payload, USO, version, size)
    assert fits(frame, offload, MTU)
    data = []
    for segment in segments(frame, offload):
        packet = segment[14:]
        assert header_is_right(packet)
        assert transport_is_right(packet)
        datagram = packet[IP_HEADER[version] :]
        assert unpack(">H", datagram[4:6])[0] == len(datagram)
        data.append(datagram[8:])
    assert b"".join(data) == payload
    assert all(len(piece) == size for piece in data[:-1])


@given(payload=st.binary(min_size=1, max_size=4000), size=st.integers(8, 1400))
def test_ipv4_fragments_make_the_datagram_again(payload: bytes, size: int) -> None:
    frame, offload = udp_frame(payload, UFO, 4, size)
    assert fits(frame, offload, MTU)
    datagram = b""
    pieces = list(segments(frame, offload))
    for number, fragment in enumerate(pieces):
        packet = fragment[14:]
        assert header_is_right(packet)
        assert unpack(">H", packet[4:6])[0] == 1
        field = unpack(">H", packet[6:8])[0]
        assert field & 0x1FFF == len(datagram) // 8
        assert bool(field & 0x2000) == (number + 1 < len(pieces))
        datagram += packet[20:]
    assert datagram[8:] == payload
    assert transport_is_right(ipv4(datagram, UDP))


@given(payload=st.binary(min_size=1, max_size=4000), size=st.integers(8, 1400))
def test_ipv6_fragments_make_the_datagram_again(payload: bytes, size: int) -> None:
    frame, offload = udp_frame(payload, UFO, 6, size)
    assert fits(frame, offload, MTU)
    datagram = b""
    identifications = set()
    pieces = list(segments(frame, offload))
    for number, fragment in enumerate(pieces):
        packet = fragment[14:]
        assert header_is_right(packet)
        assert packet[6] == FRAGMENT
        following, _, field, identification = unpack(">BBHI", packet[40:48])
        assert following == UDP
        assert field & 0xFFF8 == len(datagram)
        assert bool(field & 1) == (number + 1 < len(pieces))
        identifications.add(identification)
        datagram += packet[48:]
    assert len(identifications) == 1
    assert datagram[8:] == payload
    assert transport_is_right(ipv6(datagram, UDP))


@given(payload=st.binary(max_size=1400))
def test_a_completed_checksum_is_right(payload: bytes) -> None:
    for version in (4, 6):
        frame, offload = tcp_frame(payload, version)
        done = complete_checksum(frame, offload)
        assert transport_is_right(done[14:])
        assert done[:50] == frame[:50]


def test_a_checksum_of_zero_is_sent_as_all_ones() -> None:
    frame, offload = udp_frame(b"\0\0", 0)
    complement = (unpack(">H", complete_checksum(frame, offload)[40:42])[0]).to_bytes(2, "big")
    frame, offload = udp_frame(complement, 0)
    assert complete_checksum(frame, offload)[40:42] == b"\xff\xff"


def test_who_accepts_all_needs_gets_the_frame_as_it_is() -> None:
    frame, offload = tcp_frame(bytes(3000))
    assert finish(frame, offload, CHECKSUM | TSO4) == [(frame, offload)]
    assert finish(frame, VERIFIED, 0) == [(frame, VERIFIED)]


def test_who_accepts_long_frames_gets_one_with_a_checksum() -> None:
    frame, offload = tcp_frame(bytes(3000))
    ((done, left),) = finish(frame, offload, TSO4)
    assert transport_is_right(done[14:])
    assert left == offload._replace(needs=TSO4)


def test_who_accepts_nothing_gets_verified_segments() -> None:
    frame, offload = tcp_frame(bytes(3000))
    assert [left for _, left in finish(frame, offload, CHECKSUM)] == [VERIFIED] * 3


def test_who_lacks_only_the_checksum_gets_it() -> None:
    frame, offload = tcp_frame(bytes(100))
    offload = offload._replace(needs=CHECKSUM)
    assert fits(frame, offload, MTU)
    assert finish(frame, offload, 0) == [(complete_checksum(frame, offload), VERIFIED)]


FRAME, OFFLOAD = tcp_frame(bytes(3000))
FRAME6, OFFLOAD6 = tcp_frame(bytes(3000), 6)
DATAGRAM, DATAGRAM_OFFLOAD = udp_frame(bytes(3000), UFO)


def patched(frame: bytes, offset: int, value: int) -> bytes:
    return frame[:offset] + bytes((value,)) + frame[offset + 1 :]


@pytest.mark.parametrize(
    ("frame", "offload"),
    [
        pytest.param(FRAME, OFFLOAD._replace(needs=TSO4), id="segments without checksum"),
        pytest.param(FRAME, OFFLOAD._replace(checksum_start=13), id="checksum over the Ethernet header"),
        pytest.param(
            FRAME, OFFLOAD._replace(needs=CHECKSUM, checksum_start=len(FRAME)), id="start behind the end"
        ),
        pytest.param(
            FRAME, OFFLOAD._replace(needs=CHECKSUM, checksum_offset=65535), id="field behind the end"
        ),
        pytest.param(FRAME, OFFLOAD._replace(needs=CHECKSUM | ECN), id="ECN alone"),
        pytest.param(DATAGRAM, DATAGRAM_OFFLOAD._replace(needs=CHECKSUM | UFO | ECN), id="ECN with UDP"),
        pytest.param(FRAME, OFFLOAD._replace(needs=CHECKSUM | TSO6), id="wrong version"),
        pytest.param(FRAME, OFFLOAD._replace(needs=CHECKSUM | USO, checksum_offset=6), id="TCP as UDP"),
        pytest.param(
            DATAGRAM, DATAGRAM_OFFLOAD._replace(needs=CHECKSUM | TSO4, checksum_offset=16), id="UDP as TCP"
        ),
        pytest.param(FRAME, OFFLOAD._replace(checksum_start=38), id="not where TCP begins"),
        pytest.param(FRAME, OFFLOAD._replace(checksum_offset=14), id="not TCP's field"),
        pytest.param(FRAME, OFFLOAD._replace(segment_size=0), id="segments of nothing"),
        pytest.param(FRAME, OFFLOAD._replace(segment_size=1461), id="segments above the MTU"),
        pytest.param(FRAME, OFFLOAD._replace(segment_size=2), id="too many segments"),
        pytest.param(DATAGRAM, DATAGRAM_OFFLOAD._replace(segment_size=7), id="fragments below 8 bytes"),
        pytest.param(FRAME[:54], OFFLOAD, id="no payload"),
        pytest.param(FRAME[:53], OFFLOAD, id="cut in TCP"),
        pytest.param(FRAME[:33], OFFLOAD._replace(checksum_start=14), id="cut in IPv4"),
        pytest.param(FRAME6[:53], OFFLOAD6._replace(checksum_start=14), id="cut in IPv6"),
        pytest.param(FRAME + bytes(65536), OFFLOAD, id="longer than IPv4 allows"),
        pytest.param(FRAME6 + bytes(65536), OFFLOAD6, id="longer than IPv6 allows"),
        pytest.param(patched(FRAME, 14, 0x65), OFFLOAD, id="IPv4 of version 6"),
        pytest.param(patched(FRAME, 14, 0x44), OFFLOAD, id="IPv4 header below 20 bytes"),
        pytest.param(patched(FRAME, 20, 0x20), OFFLOAD, id="a fragment already"),
        pytest.param(patched(FRAME6, 14, 0x40), OFFLOAD6, id="IPv6 of version 4"),
        pytest.param(patched(FRAME, 46, 0x40), OFFLOAD, id="TCP header below 20 bytes"),
        pytest.param(ethernet(FRAME[14:], IPV4, tags=(1, 2, 3)), OFFLOAD, id="three VLAN tags"),
        pytest.param(patched(FRAME, 12, 0x09), OFFLOAD, id="not IP"),
    ],
)
def test_what_does_not_fit_is_refused(frame: bytes, offload: Offload) -> None:
    assert not fits(frame, offload, MTU)


@given(
    frame=st.binary(min_size=14, max_size=200) | st.sampled_from([FRAME, FRAME6, DATAGRAM]),
    offload=st.builds(
        Offload,
        st.integers(0, 63),
        st.integers(0, 65535) | st.sampled_from([34, 54]),
        st.integers(0, 65535) | st.sampled_from([6, 16]),
        st.integers(0, 65535),
    ),
    byte=st.integers(0, 199),
    value=st.integers(0, 255),
)
def test_whatever_fits_can_be_finished(frame: bytes, offload: Offload, byte: int, value: int) -> None:
    frame = patched(frame, byte % len(frame), value)
    if fits(frame, offload, MTU):
        for piece, left in finish(frame, offload, 0):
            assert not left.needs
            assert len(piece) <= max(len(frame), MTU + 22)


def test_the_padding_of_options_counts_as_header() -> None:
    packet = ipv4(tcp(bytes(2000)), TCP, options=pack(">I", 0x01010100))
    offload = Offload(CHECKSUM | TSO4, 38, TCP_FIELD, 1000)
    frame = ethernet(packet, IPV4)
    assert fits(frame, offload, MTU)
    assert [len(piece) for piece in segments(frame, offload)] == [14 + 24 + 20 + 1000] * 2
