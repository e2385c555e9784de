import select
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from wire_client import PATIENCE

from emuvisor.net.user import udp_forward
from emuvisor.net.user.datagram import BROADCAST_MAC, Datagram, parse
from emuvisor.net.user.plan import Plan
from emuvisor.net.user.slirp import SocketAddress
from emuvisor.net.user.udp_forward import UdpForwards

LOOPBACK = IPv4Address("127.0.0.1")
GATEWAY, GUEST = IPv4Address("10.0.2.2"), IPv4Address("10.0.2.15")
MAC = bytes.fromhex("525400aabb01")


class Rig:
    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.plan = Plan(IPv4Network("10.0.2.0/24"), None)
        self.forwards = UdpForwards(self.plan, mtu=576, send=self.frames.append)
        self.port = self.forwards.add(SocketAddress(LOOPBACK, 0), SocketAddress(GUEST, 53))
        (self.descriptor,) = self.forwards.descriptors
        self.peers: list[socket.socket] = []

    def peer(self) -> socket.socket:
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.settimeout(PATIENCE)
        peer.connect(("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    def take(self) -> None:
        """Wait for something at the port of the host, and take it."""
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE)
        assert ready
        self.forwards.receive(self.descriptor)

    def arrive(self, count: int = 1) -> list[Datagram]:
        """What comes out for the guest, so many datagrams."""
        self.frames.clear()
        while len(self.frames) < count:
            self.take()
        return [datagram for frame in self.frames if (datagram := parse(frame)) is not None]

    def answer(self, port: int, payload: bytes) -> bool:
        return self.forwards.answer(Datagram(MAC, BROADCAST_MAC, GUEST, 53, GATEWAY, port, payload))


@pytest.fixture
def rig():  # type: ignore[no-untyped-def]
    rig = Rig()
    yield rig
    rig.forwards.close()
    for peer in rig.peers:
        peer.close()


def test_peer_keeps_its_port(rig: Rig) -> None:
    rig.plan.join("web", MAC)
    peer = rig.peer()
    peer.send(b"one")
    peer.send(b"two")
    first, second = rig.arrive(2)
    assert (first.source, first.source_port) == (GATEWAY, peer.getsockname()[1])
    assert (first.destination_mac, first.destination, first.destination_port) == (MAC, GUEST, 53)
    assert (first.payload, second.payload, second.source_port) == (b"one", b"two", first.source_port)
    assert rig.answer(first.source_port, b"back")
    assert peer.recv(100) == b"back"
    assert not rig.answer(first.source_port ^ 1, b"nobody")


def test_guest_that_nobody_announced_is_called_by_broadcast(rig: Rig) -> None:
    rig.peer().send(b"?")
    (datagram,) = rig.arrive()
    assert datagram.destination_mac == BROADCAST_MAC


def test_what_is_too_long_for_a_packet_is_dropped(rig: Rig) -> None:
    peer = rig.peer()
    peer.send(bytes(576 - 28 + 1))
    peer.send(bytes(576 - 28))
    (datagram,) = rig.arrive()
    assert len(datagram.payload) == 576 - 28


def test_two_peers_with_one_port(rig: Rig) -> None:
    peer = rig.peer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.settimeout(PATIENCE)
        other.bind(("127.0.0.2", peer.getsockname()[1]))
        peer.send(b"one")
        other.sendto(b"two", ("127.0.0.1", rig.port))
        first, second = rig.arrive(2)
        assert first.source_port != second.source_port
        assert rig.answer(second.source_port, b"to two")
        assert other.recv(100) == b"to two"


def test_the_longest_silent_peer_makes_room(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_forward, "MAX_PEERS", 2)
    ports = []
    for _ in range(3):
        rig.peer().send(b"?")
        ports.append(rig.arrive()[0].source_port)
        assert rig.answer(ports[0], b"keep") is (len(ports) < 4)
    assert [rig.answer(port, b"!") for port in ports] == [True, False, True]


def test_errors_of_earlier_answers_do_not_matter(rig: Rig) -> None:
    gone = rig.peer()
    gone.send(b"?")
    (datagram,) = rig.arrive()
    gone.close()
    assert rig.answer(datagram.source_port, b"to nobody")
    rig.peer().send(b"next")
    assert [datagram.payload for datagram in rig.arrive()] == [b"next"]


def test_removal_forgets_the_peers(rig: Rig) -> None:
    rig.peer().send(b"?")
    (datagram,) = rig.arrive()
    rig.forwards.remove(SocketAddress(LOOPBACK, rig.port))
    assert rig.forwards.descriptors == []
    assert not rig.answer(datagram.source_port, b"late")
    rig.forwards.remove(SocketAddress(LOOPBACK, rig.port))


def test_a_port_that_is_taken(rig: Rig) -> None:
    with pytest.raises(OSError, match="in use"):
        rig.forwards.add(SocketAddress(LOOPBACK, rig.port), SocketAddress(GUEST, 53))


def test_ipv6_where_there_is_none(rig: Rig) -> None:
    rig.forwards.remove(SocketAddress(LOOPBACK, rig.port))
    rig.port = rig.forwards.add(SocketAddress(LOOPBACK, 0), SocketAddress(IPv6Address("fec0::15"), 53))
    (rig.descriptor,) = rig.forwards.descriptors
    rig.peer().send(b"?")
    rig.take()
    assert rig.frames == []
