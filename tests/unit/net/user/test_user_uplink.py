"""The user-mode uplink with the real libslirp and the host's loopback; the guest is a few hand-made packets."""

import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_client import (
    BROADCAST,
    FIRST_GUEST,
    GATEWAY,
    GATEWAY6,
    ICMP,
    ICMPV6,
    NAMESERVER,
    PATIENCE,
    UDP,
    Client,
    Packet,
    dhcp_message,
    dhcp_options,
    ethernet,
    internet_checksum,
    ip_packet,
    udp_packet,
    with_checksum,
)

from emuvisor.bus.ethernet import CHECKSUM, TSO4
from emuvisor.errors import ConfigError, HostError, StateError
from emuvisor.net.config import NetworkConfig
from emuvisor.net.forward import Forward
from emuvisor.net.network import Network
from emuvisor.net.user import library
from emuvisor.net.user.egress import Refusal
from emuvisor.net.user.plan import Plan
from emuvisor.net.user.resolver import HostLookup
from emuvisor.net.user.slirp import Slirp
from emuvisor.net.user.uplink import UserUplink
from emuvisor.units import NS_PER_S

try:
    library.load()
except HostError as error:
    pytest.skip(str(error), allow_module_level=True)

MAC = bytes.fromhex("525400aabb01")
OTHER_MAC = bytes.fromhex("525400aabb02")
ALL_ROUTERS, ALL_NODES = IPv6Address("ff02::2"), IPv6Address("ff02::1")


class Wired:
    """A network with its uplink."""

    def __init__(self, **config: object) -> None:
        config = {"name": "lab", "uplink": "user"} | config
        self.network = Network(NetworkConfig(**config))  # type: ignore[arg-type]
        self.uplink = UserUplink(
            self.network.config, lookup=HostLookup(addresses=known, nameserver=lambda: None)
        )
        self.uplink.start(self.network.port("uplink", self.uplink.mac, trusted=True))

    def client(self, name: str = "web", mac: bytes = MAC) -> Client:
        client = Client(self.network, name, mac)
        self.uplink.joined(name, client.port)
        client.ip = self.uplink.address(name)
        client.router = client.arp(GATEWAY)
        return client


def known(name: str) -> list[IPv4Address | IPv6Address] | None:
    """What the host's resolver knows in these tests."""
    return [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")] if name == "example.org" else None


@contextmanager
def wired(**config: object) -> Iterator[Wired]:
    network = Wired(**config)
    try:
        yield network
    finally:
        network.uplink.close()


@contextmanager
def server(
    serve: Callable[[socket.socket], None],
    kind: socket.SocketKind = socket.SOCK_STREAM,
    family: int = socket.AF_INET,
) -> Iterator[int]:
    """A server on the host's loopback that calls `serve` with a connection, or with its socket for UDP; its port."""
    with socket.socket(family, kind) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        port: int = listener.getsockname()[1]

        def run() -> None:
            if kind == socket.SOCK_DGRAM:
                serve(listener)
                return
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                serve(connection)

        if kind == socket.SOCK_STREAM:
            listener.listen()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield port
        thread.join(PATIENCE)
        assert not thread.is_alive()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def echo_once(listener: socket.socket) -> None:
    data, address = listener.recvfrom(65536)
    listener.sendto(data, address)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="the host has no IPv6 loopback address")


# What the uplink answers itself.


def test_dhcp_gives_the_address_that_the_guest_then_keeps() -> None:
    with wired() as lab:
        client = lab.client()
        address, offer = client.dhcp(1)
        assert address == FIRST_GUEST
        assert dhcp_options(offer)[53] == b"\2"
        address, ack = client.dhcp(3, bytes((50, 4)) + address.packed)
        assert address == FIRST_GUEST
        options = dhcp_options(ack)
        assert options[53] == b"\5"
        assert (options[1], options[3], options[6]) == (
            b"\xff\xff\xff\0", GATEWAY.packed, NAMESERVER.packed,
        )  # fmt: skip
        assert (options[12], options[15]) == (b"web", b"lab")
        assert client.port.addresses == (FIRST_GUEST,)
        # Another guest gets another address, and the first one's stays with its MAC.
        assert lab.client("db", OTHER_MAC).dhcp(1)[0] == IPv4Address("10.0.2.16")
        client.port.close()
        lab.uplink.left("web", client.port)
        assert lab.client("new", MAC).dhcp(1)[0] == FIRST_GUEST


def test_boot_file_for_the_network_boot() -> None:
    url = "http://10.0.2.2:8000/boot.ipxe"
    with wired(bootfile=url) as lab:
        _, offer = lab.client().dhcp(1)
        assert offer[20:24] == GATEWAY.packed  # siaddr
        assert offer[108:236].rstrip(b"\0") == url.encode()
        assert dhcp_options(offer)[67] == url.encode()


def test_names_of_the_configuration_the_guests_and_the_host() -> None:
    with wired(names={"mirror": IPv4Address("10.0.2.2")}) as lab:
        client = lab.client()
        assert client.resolve("mirror") == (0, [GATEWAY])
        assert client.resolve("MIRROR.lab") == (0, [GATEWAY])
        assert client.resolve("web.lab") == (0, [FIRST_GUEST])
        assert client.resolve("web", 28) == (0, [client.ip6])
        assert client.resolve("nobody.lab") == (3, [])
        assert client.resolve("example.org") == (0, [IPv4Address("192.0.2.1")])
        assert client.resolve("example.org", 28) == (0, [IPv6Address("2001:db8::1")])
        assert client.resolve("nowhere.org") == (3, [])
        assert client.resolve("example.org", 16) == (4, [])  # TXT, and no name server to ask
        assert client.resolve("web", server=IPv6Address("fec0::3")) == (0, [FIRST_GUEST])


def test_restricted_names_are_those_of_the_network_alone() -> None:
    with wired(restrict=True) as lab:
        client = lab.client()
        assert client.resolve("web") == (0, [FIRST_GUEST])
        assert client.resolve("example.org") == (5, [])


def test_gateway_and_name_server_answer_pings() -> None:
    with wired() as lab:
        client = lab.client()
        assert client.ping(GATEWAY) == b"echo"
        assert client.ping(NAMESERVER) == b"echo"
        assert client.ping(GATEWAY6) == b"echo"


def test_other_ports_of_the_name_server_are_silent() -> None:
    with wired(host_loopback=True) as lab:
        client = lab.client()
        client.udp(NAMESERVER, 54, b"lost")
        assert client.ping(GATEWAY) == b"echo"
        assert client.silence()


# Out of the network.


def test_tcp_to_a_server_on_the_host() -> None:
    data = os.urandom(200_000)
    with wired(host_loopback=True) as lab, server(echo) as port:
        connection = lab.client().connect(GATEWAY, port)
        received = b""
        for start in range(0, len(data), 10_000):
            connection.send(data[start : start + 10_000])
            received += connection.receive(10_000)
        assert received == data
        connection.close()
        assert connection.receive(1) == b""


@needs_ipv6
def test_tcp_to_a_server_on_the_host_by_ipv6() -> None:
    with wired(host_loopback=True) as lab, server(echo, family=socket.AF_INET6) as port:
        client = lab.client()
        client.ping(GATEWAY6)
        connection = client.connect(GATEWAY6, port)
        connection.send(b"six")
        assert connection.receive(3) == b"six"
        connection.close()
        assert connection.receive(1) == b""


def test_udp_to_a_server_on_the_host() -> None:
    with wired(host_loopback=True) as lab, server(echo_once, socket.SOCK_DGRAM) as port:
        client = lab.client()
        client.udp(GATEWAY, port, b"datagram")
        assert client.udp_reply() == (GATEWAY, port, b"datagram")


def test_long_segments_are_taken_uncut() -> None:
    """What a guest's card left unsegmented comes to libslirp in one piece, with a whole checksum."""
    data = os.urandom(30_000)
    received = queue.Queue[bytes]()

    def take(connection: socket.socket) -> None:
        whole = b""
        while len(whole) < len(data):
            whole += connection.recv(65536)
        received.put(whole)

    with wired(host_loopback=True) as lab, server(take) as port:
        connection = lab.client().connect(GATEWAY, port)
        frames = lab.uplink.receive
        source, destination = FIRST_GUEST, GATEWAY
        header = struct.pack(
            "!HHIIBBHHH", 5000, port, connection.sent, connection.received, 0x50, 0x18, 65535, 0, 0
        )
        segment = with_checksum(source, destination, 6, header + data, 16)
        assert frames(
            ethernet(MAC, ip_packet(source, destination, 6, segment), connection.client.router), None
        )
        assert received.get(timeout=PATIENCE) == data


@pytest.mark.parametrize(("accepts", "longest"), [(0, 1500), (CHECKSUM | TSO4, 16384)])
def test_long_segments_for_guests_that_take_them(accepts: int, longest: int) -> None:
    data = os.urandom(100_000)

    def give(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(data)
        connection.recv(1)

    with wired(host_loopback=True) as lab, server(give) as port:
        client = lab.client()
        client.mss = 1460
        client.accepts = accepts
        connection = client.connect(GATEWAY, port)
        connection.send(b"?")
        assert connection.receive(len(data)) == data
        assert 14 + 1500 <= client.longest <= 14 + longest
        assert (client.longest == 14 + 1500) == (accepts == 0)
        connection.close()


def test_long_datagrams_come_in_fragments() -> None:
    def answer(listener: socket.socket) -> None:
        _, address = listener.recvfrom(100)
        listener.sendto(bytes(5000), address)

    with wired(host_loopback=True) as lab, server(answer, socket.SOCK_DGRAM) as port:
        client = lab.client()
        client.udp(GATEWAY, port, b"?")
        pieces = [client.packet(lambda packet: packet if packet.protocol == UDP else None) for _ in range(4)]
        assert sum(len(piece.payload) for piece in pieces) == 8 + 5000


def test_what_nobody_could_cut_is_dropped() -> None:
    with wired() as lab:
        client = lab.client()
        body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + bytes(2000)
        body = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
        # Longer than the MTU, which no port lets in; libslirp would send as much back.
        lab.uplink.receive(ethernet(MAC, ip_packet(FIRST_GUEST, GATEWAY, ICMP, body), client.router), None)
        assert client.ping(GATEWAY) == b"echo"
        assert client.silence()


def test_router_advertisements_come_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[bytes] = []
    plan = Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64"))
    slirp = Slirp(plan, mtu=1500, restrict=False, host_loopback=False, send=frames.append)
    wanted, wait = slirp.wanted()
    assert wanted == {}
    assert wait is not None
    assert 0 < wait <= 1000 * 3600
    frames.clear()
    later = time.monotonic_ns() + 3600 * NS_PER_S
    monkeypatch.setattr(time, "monotonic_ns", lambda: later)
    slirp.polled({})
    assert [frame[54] for frame in frames] == [134]
    slirp.close()
    slirp.close()


def test_a_guest_that_poses_as_a_router() -> None:
    plan = Plan(IPv4Network("10.0.2.0/24"), IPv6Network("fec0::/64"))
    slirp = Slirp(plan, mtu=1500, restrict=False, host_loopback=False, send=lambda frame: None)
    source = IPv6Address("fe80::1")
    body = with_checksum(source, ALL_NODES, ICMPV6, struct.pack("!BBHI", 134, 0, 0, 0) + bytes(8), 2)
    slirp.input(ethernet(MAC, ip_packet(source, ALL_NODES, ICMPV6, body)))
    assert slirp.guest_errors == 1
    slirp.close()


def test_a_configuration_that_libslirp_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    plan = Plan(IPv4Network("10.0.2.0/24"), None)
    with pytest.raises(HostError) as raised:
        Slirp(plan, mtu=10, restrict=False, host_loopback=False, send=lambda frame: None)
    assert str(raised.value) == "libslirp refused subnet 10.0.2.0/24 with an MTU of 10"


def test_host_loopback_is_out_of_reach_by_default() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, wired() as lab:
        port = listener.getsockname()[1]
        client = lab.client()
        with pytest.raises(ConnectionError, match="unreachable"):
            client.connect(GATEWAY, port)
        client.udp(GATEWAY, port, b"?")
        for address in ("127.0.0.1", "0.0.0.0", "255.255.255.255", "10.0.2.255"):
            client.udp(IPv4Address(address), port, b"?")
        for address in ("::1", "::ffff:127.0.0.1"):
            client.udp(IPv6Address(address), port, b"?")
        assert client.ping(GATEWAY) == b"echo"
        assert lab.uplink.refused == {Refusal.DESTINATION: 6}
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_restricted_guests_get_nowhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, wired(restrict=True, host_loopback=True) as lab:
        client = lab.client()
        with pytest.raises(ConnectionRefusedError):
            client.connect(GATEWAY, listener.getsockname()[1])
        assert client.dhcp(1)[0] == FIRST_GUEST


# Into the network.


def test_forward_of_tcp_to_the_first_guest() -> None:
    with wired(forwards=(Forward.parse("tcp:0:80"),), restrict=True) as lab:
        (forward,) = lab.uplink.forwards
        assert forward.host_port
        assert str(forward) == f"tcp:127.0.0.1:{forward.host_port}:80"
        client = lab.client()
        with socket.create_connection(("127.0.0.1", forward.host_port), PATIENCE) as connection:
            accepted = client.accept(80)
            assert accepted.peer == GATEWAY
            connection.sendall(b"request")
            assert accepted.receive(7) == b"request"
            accepted.send(b"answer")
            assert connection.recv(100) == b"answer"


def test_forwards_can_come_and_go_while_it_runs() -> None:
    with wired() as lab:
        lab.client()
        other = lab.client("db", OTHER_MAC)
        asked = Forward.parse("tcp:0:db:5432")
        forward = lab.uplink.add_forward(asked)
        assert lab.uplink.forwards == (forward,)
        with socket.create_connection(("127.0.0.1", forward.host_port), PATIENCE):
            assert other.accept(5432).peer == GATEWAY
        lab.uplink.remove_forward(asked)
        assert lab.uplink.forwards == ()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forward.host_port), PATIENCE)


@needs_ipv6
def test_forward_of_tcp_by_ipv6_waits_for_its_guest() -> None:
    with wired(forwards=(Forward.parse("tcp:[::1]:0:80"),)) as lab:
        assert lab.uplink.forwards == ()  # nobody knows the guest's MAC yet
        client = lab.client()
        (forward,) = lab.uplink.forwards
        with socket.create_connection(("::1", forward.host_port), PATIENCE) as connection:
            accepted = client.accept(80)
            assert accepted.peer == GATEWAY6
            accepted.send(b"six")
            assert connection.recv(100) == b"six"


@pytest.mark.parametrize(
    ("text", "family", "address", "gateway"),
    [
        ("udp:0:53", socket.AF_INET, "127.0.0.1", GATEWAY),
        pytest.param("udp:[::1]:0:53", socket.AF_INET6, "::1", GATEWAY6, marks=needs_ipv6),
    ],
)
def test_forward_of_udp_answers_each_peer(
    text: str, family: int, address: str, gateway: IPv4Address | IPv6Address
) -> None:
    with wired(restrict=True) as lab, socket.socket(family, socket.SOCK_DGRAM) as one:
        client = lab.client()
        forward = lab.uplink.add_forward(Forward.parse(text))
        with socket.socket(family, socket.SOCK_DGRAM) as two:
            seen = []
            for peer, data in ((one, b"one"), (two, b"two"), (one, b"three")):
                peer.settimeout(PATIENCE)
                peer.sendto(data, (address, forward.host_port))
                source, port, payload = client.udp_reply(53)
                assert (source, payload) == (gateway, data)
                seen.append(port)
            assert seen[0] == seen[2] != seen[1]
            for peer, port in ((two, seen[1]), (one, seen[0])):
                client.udp(gateway, port, b"to %d" % port, source_port=53)
                assert peer.recv(100) == b"to %d" % port
            lab.uplink.remove_forward(forward)
            assert lab.uplink.forwards == ()


def test_a_port_of_the_host_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostError) as raised:
            Wired(forwards=(Forward.parse(f"tcp:{port}:80"),))
        assert str(raised.value) == (
            f"forward tcp:127.0.0.1:{port}:80: cannot listen on the host: Address already in use"
        )
        with wired() as lab, pytest.raises(HostError):
            lab.uplink.add_forward(Forward.parse(f"tcp:{port}:80"))


def test_forwards_that_lead_nowhere() -> None:
    with pytest.raises(ConfigError) as raised:
        Wired(forwards=(Forward.parse("tcp:0:192.0.2.1:80"),))
    assert (
        str(raised.value)
        == "forward tcp:127.0.0.1:0:192.0.2.1:80: 192.0.2.1 is not in the network's 10.0.2.0/24"
    )
    with pytest.raises(ConfigError) as raised:
        Wired(subnet6=None, forwards=(Forward.parse("tcp:[::1]:0:80"),))
    assert str(raised.value) == "forward tcp:[::1]:0:80: network lab has no IPv6 (subnet6)"


def test_forward_to_an_address() -> None:
    with wired(anti_spoofing=False) as lab:
        lab.client()
        static = Client(lab.network, "static", OTHER_MAC, IPv4Address("10.0.2.99"))
        lab.uplink.add_forward(Forward.parse("tcp:0:10.0.2.99:80"))
        (forward,) = lab.uplink.forwards
        with socket.create_connection(("127.0.0.1", forward.host_port), PATIENCE):
            assert static.accept(80).peer == GATEWAY


# IPv6.


def test_router_advertisement_and_neighbour() -> None:
    with wired() as lab:
        client = lab.client()
        local = IPv6Address("fe80::5054:ff:feaa:bb01")
        solicitation = with_checksum(local, ALL_ROUTERS, ICMPV6, struct.pack("!BBHI", 133, 0, 0, 0), 2)
        client.send(ip_packet(local, ALL_ROUTERS, ICMPV6, solicitation))

        def advertisement(packet: Packet) -> Packet | None:
            return packet if packet.protocol == ICMPV6 and packet.payload[0] == 134 else None

        found = client.packet(advertisement)
        assert found.destination == ALL_NODES
        assert b"\x03\x04\x40\xc0" in found.payload  # a prefix of 64 bits, on-link, for addresses
        assert IPv6Address("fec0::").packed in found.payload

        group = IPv6Address("ff02::1:ff00:2")
        body = struct.pack("!BBHI", 135, 0, 0, 0) + GATEWAY6.packed + b"\1\1" + MAC
        client.send(ip_packet(client.ip6, group, ICMPV6, with_checksum(client.ip6, group, ICMPV6, body, 2)))

        def neighbour(packet: Packet) -> bytes | None:
            return packet.payload[26:32] if packet.protocol == ICMPV6 and packet.payload[0] == 136 else None

        assert client.packet(neighbour) == bytes.fromhex("525600000002")


def test_without_ipv6_there_is_none() -> None:
    with wired(subnet6=None) as lab:
        client = lab.client()
        lab.uplink.receive(
            ethernet(MAC, udp_packet(client.ip6, 1, IPv6Address("2001:db8::1"), 53, b"?")), None
        )
        assert client.ping(GATEWAY) == b"echo"
        assert lab.uplink.refused == {Refusal.PROTOCOL: 1}


# Trouble.


def test_backlog_is_bounded() -> None:
    lab = Wired()
    lab.uplink.close()
    assert not lab.uplink.receive(bytes(60), None)


def test_closing_twice_and_using_it_then() -> None:
    lab = Wired(forwards=(Forward.parse("tcp:0:80"), Forward.parse("udp:0:53")))
    client = lab.client()
    lab.uplink.close()
    lab.uplink.close()
    assert lab.uplink.forwards == ()
    lab.uplink.link_changed()
    lab.uplink.left("web", client.port)
    with pytest.raises(StateError) as raised:
        lab.uplink.add_forward(Forward.parse("tcp:0:80"))
    assert str(raised.value) == "network lab: its uplink is closed"


def test_closing_one_that_never_started() -> None:
    uplink = UserUplink(NetworkConfig("lab", uplink="user"))
    assert uplink.add_forward(Forward.parse("tcp:0:80")).host_port
    uplink.close()
    uplink.close()
    with pytest.raises(StateError):
        uplink.add_forward(Forward.parse("tcp:0:80"))


headers = st.sampled_from(
    [ethernet(MAC, ip_packet(FIRST_GUEST, GATEWAY, protocol, b""))[:34] for protocol in (1, 6, 17)]
    + [ethernet(MAC, ip_packet(IPv6Address("fec0::1"), GATEWAY6, protocol, b"")) for protocol in (6, 17, 58)]
    + [
        ethernet(
            MAC, udp_packet(IPv4Address(0), 68, IPv4Address("255.255.255.255"), 67, dhcp_message(MAC, 1))
        ),
        ethernet(MAC, udp_packet(FIRST_GUEST, 1, NAMESERVER, 53, b"\0" * 12)),
        BROADCAST + MAC + b"\x08\x06" + bytes.fromhex("0001080006040001"),
        BROADCAST + MAC,
        b"",
    ]
)


@st.composite
def hostile_frames(draw: st.DrawFn) -> bytes:
    """A right beginning, some of it changed, and anything behind; for IPv4 with lengths and checksum that let it in."""
    frame = bytearray(draw(headers) + draw(st.binary(max_size=80)))
    for position, value in draw(st.lists(st.tuples(st.integers(14, 100), st.integers(0, 255)), max_size=4)):
        if position < len(frame):
            frame[position] = value
    if len(frame) >= 34 and frame[12:14] == b"\x08\x00" and draw(st.booleans()):
        frame[16:18] = struct.pack("!H", len(frame) - 14)
        frame[24:26] = bytes(2)
        length = 14 + max(20, 4 * (frame[14] & 15))
        frame[24:26] = struct.pack("!H", internet_checksum(bytes(frame[14:length])))
    if len(frame) >= 54 and frame[12:14] == b"\x86\xdd" and draw(st.booleans()):
        frame[18:20] = struct.pack("!H", len(frame) - 54)
    return bytes(frame)


@pytest.fixture(scope="module")
def attacked() -> Iterator[tuple[Wired, Client]]:
    with wired(anti_spoofing=False, restrict=True) as lab:
        yield lab, lab.client()


@settings(max_examples=150, deadline=None)
@given(frames=st.lists(hostile_frames(), max_size=20))
def test_no_frame_ends_it(attacked: tuple[Wired, Client], frames: list[bytes]) -> None:
    lab, client = attacked
    for frame in frames:
        lab.uplink.receive(frame, None)
    lab.uplink.add_forward(forward := Forward.parse("udp:0:53"))  # the thread is still there
    lab.uplink.remove_forward(forward)
    while not client.silence():
        client.expect(lambda frame: frame)
