"""Frames on a host with the virtual clock: in which order they arrive, and how many may be on their way."""

import pytest

from emuvisor.bus.ethernet import CHECKSUM, Offload
from emuvisor.host.virtual_frames import BACKLOG_BYTES, BACKLOG_FRAMES, VirtualFrames
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.net.statistics import Drop


class FakePort:
    def __init__(self, name, wire):
        self.name = name
        self.up = True
        self.mtu = 1500
        self.station = None
        self.dropped = []
        self._wire = wire

    def attach(self, station):
        self.station = station

    def send(self, frame, offload):
        self._wire.append((self.name, frame, offload))

    def drop(self, reason):
        self.dropped.append(reason)


@pytest.fixture
def rig():
    class Rig:
        def __init__(self):
            self.now_ns = 0
            self.wire = []
            self.frames = VirtualFrames()

        def link(self, name):
            return self.frames.link(FakePort(name, self.wire), lambda: self.now_ns)

        def arrived(self):
            self.wire.clear()
            self.frames.deliver()
            return [(name, frame) for name, frame, _ in self.wire]

    return Rig()


def test_frames_arrive_in_the_order_of_time_then_of_names(rig):
    a, b = rig.link("a"), rig.link("b")
    assert not rig.frames
    rig.now_ns = 20
    b.send(b"b20")
    a.send(b"a20")
    a.send(b"a20 too")
    rig.now_ns = 10
    b.send(b"b10", Offload(CHECKSUM))
    assert rig.frames
    assert not rig.wire, "they are on their way"
    assert rig.arrived() == [("b", b"b10"), ("a", b"a20"), ("a", b"a20 too"), ("b", b"b20")]
    assert rig.wire[0][2] == Offload(CHECKSUM)
    assert not rig.frames
    assert rig.arrived() == []


def test_an_answer_comes_with_the_next(rig):
    a, b = rig.link("a"), rig.link("b")
    b.port.send = lambda frame, _offload: a.send(b"answer to " + frame)
    b.send(b"question")
    assert rig.arrived() == []
    assert rig.arrived() == [("a", b"answer to question")]


def test_a_guest_that_sends_and_sends(rig):
    few, big = rig.link("few"), rig.link("big")
    for _ in range(BACKLOG_FRAMES + 2):
        few.send(b"x")
    big.send(bytes(BACKLOG_BYTES - 1))
    big.send(b"xx")
    big.send(b"x")
    assert (few.port.dropped, big.port.dropped) == ([Drop.CONGESTED] * 2, [Drop.CONGESTED])
    assert len(rig.arrived()) == BACKLOG_FRAMES + 2
    big.send(b"xx")
    assert rig.arrived() == [("big", b"xx")]


def test_the_rest_is_the_ports(rig):
    link = rig.link("a")
    link.attach("station")
    assert (link.up, link.mtu, link.port.station) == (True, 1500, "station")
    link.port.up = False
    assert not link.up


def test_what_is_lost_on_its_way_is_counted():
    port = Network(NetworkConfig("net")).port("a", bytes.fromhex("020000000001"))
    port.drop(Drop.CONGESTED)
    assert port.statistics.sent_dropped == {"more than may be on its way at a time": 1}
