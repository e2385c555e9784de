import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import BROADCAST, IPV4, MAC_A, MAC_B, MAC_C, TCP, ethernet, ipv4, plain, tcp
from pcapng_reader import Packet, read
from stations import Time, make_network

from emuvisor.bus.ethernet import CHECKSUM, TSO4, Offload
from emuvisor.errors import HostError, UsageError
from emuvisor.net.pcapng import INBOUND, OUTBOUND, PcapngWriter

NOW_NS = 1_700_000_000_123_456_789


def test_a_network_is_recorded_as_its_senders_see_it(tmp_path: Path) -> None:
    network, (a, b), _ = make_network(MAC_A, MAC_B, wall_ns=Time(NOW_NS))
    a.send(plain(b"before"))
    with network.capture(tmp_path / "x.pcapng") as capture:
        a.send(plain(b"one"))
        b.send(plain(b"two", source=MAC_B, destination=BROADCAST))
        a.send(plain(b"spoofed", source=MAC_C))
    a.send(plain(b"after"))
    recording = read(capture.path)
    assert recording.interfaces == ["a", "b"]
    assert recording.packets == [
        Packet("a", NOW_NS, plain(b"one"), OUTBOUND),
        Packet("b", NOW_NS, plain(b"two", source=MAC_B, destination=BROADCAST), OUTBOUND),
    ]
    assert (capture.missed, capture.error) == (0, "")


def test_one_port_is_recorded_in_both_directions(tmp_path: Path) -> None:
    network, (a, b, c), _ = make_network(MAC_A, MAC_B, MAC_C)
    with network.capture(tmp_path / "x.pcapng", port="b") as capture:
        a.send(plain(b"in"))
        b.send(plain(b"out", source=MAC_B, destination=MAC_C))
        c.send(plain(b"not b's", source=MAC_C, destination=MAC_A))
    assert [(packet.frame[14:], packet.direction) for packet in read(capture.path).packets] == [
        (b"in", INBOUND),
        (b"out", OUTBOUND),
    ]


def test_long_frames_are_recorded_as_segments(tmp_path: Path) -> None:
    network, (a, _), (_, station) = make_network(MAC_A, MAC_B, accepts=CHECKSUM | TSO4)
    frame = ethernet(ipv4(tcp(bytes(2500)), TCP), IPV4)
    with network.capture(tmp_path / "x.pcapng") as capture:
        a.send(frame, Offload(CHECKSUM | TSO4, 34, 16, 1000))
    assert station.frames == [frame]
    assert [len(packet.frame) for packet in read(capture.path).packets] == [1054, 1054, 554]


def test_the_file_has_a_longest(tmp_path: Path) -> None:
    network, (a, _), _ = make_network(MAC_A, MAC_B)
    with network.capture(tmp_path / "x.pcapng", max_bytes=300) as capture:
        for _ in range(10):
            a.send(plain(bytes(50)))
    size = capture.path.stat().st_size
    assert size <= 300
    assert len(read(capture.path).packets) + capture.missed == 10
    assert 0 < capture.missed < 10


def test_a_file_without_room_for_an_interface_misses_all(tmp_path: Path) -> None:
    network, (a, _), _ = make_network(MAC_A, MAC_B)
    with network.capture(tmp_path / "x.pcapng", max_bytes=50) as capture:
        a.send(plain())
    assert (read(capture.path).interfaces, capture.missed) == ([], 1)


def test_a_closed_capture_takes_nothing(tmp_path: Path) -> None:
    network, (a, _), _ = make_network(MAC_A, MAC_B)
    capture = network.capture(tmp_path / "x.pcapng")
    capture.close()
    capture.close()
    capture.sent("a", plain(), None)
    a.send(plain())
    assert read(capture.path).packets == []


def test_what_cannot_be_captured_is_refused(tmp_path: Path) -> None:
    network, _, _ = make_network(MAC_A, MAC_B)
    with pytest.raises(UsageError) as usage:
        network.capture(tmp_path / "x.pcapng", port="c")
    assert str(usage.value) == "network lan: has no port c; it has a, b"
    with pytest.raises(HostError) as host:
        network.capture(tmp_path / "no" / "x.pcapng")
    assert str(host.value) == f"capture {tmp_path}/no/x.pcapng: No such file or directory"


def test_a_full_host_ends_the_recording_and_nothing_else() -> None:
    network, (a, _), (_, station) = make_network(MAC_A, MAC_B, mtu=65535)
    capture = network.capture(Path("/dev/full"))
    for _ in range(3):
        a.send(plain(bytes(60000)))
    capture.close()
    assert len(station.got) == 3
    assert capture.error == "No space left on device"
    assert capture.missed == 3


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(0, 2**64 - 1), st.binary(max_size=70), st.sampled_from([1, 2])
        ),
        max_size=10,
    )
)
def test_what_is_written_is_read(packets: list[tuple[int, int, bytes, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = PcapngWriter(Path(folder) / "x", 10_000)
        names = ["gäste", "x" * 33]
        assert [writer.interface(name) for name in names] == [0, 1]
        for packet in packets:
            writer.packet(*packet)
        writer.close()
        recording = read(writer.path)
    assert recording.interfaces == names
    assert recording.packets == [Packet(names[i], ns, frame, way) for i, ns, frame, way in packets]
