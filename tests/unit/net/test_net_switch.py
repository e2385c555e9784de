import threading
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import (
    BROADCAST,
    IP_A,
    IP_B,
    IPV4,
    IPV6,
    MAC_A,
    MAC_B,
    MAC_C,
    MAC_D,
    TCP,
    ethernet,
    ipv4,
    ipv6,
    plain,
    tcp,
    transport_is_right,
    with_pseudo_sum,
)
from stations import FakeStation, Time, make_network

from emuvisor.bus.ethernet import CHECKSUM, TSO4, VERIFIED, Offload
from emuvisor.errors import UsageError
from emuvisor.net import network as network_module
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.net.port import Port
from emuvisor.net.statistics import Drop

ELSEWHERE = bytes.fromhex("020000000001")
MULTICAST = bytes.fromhex("01005e000001")


def test_a_known_station_alone_gets_its_frame() -> None:
    _, (a, *_), (sa, sb, sc) = make_network(MAC_A, MAC_B, MAC_C)
    a.send(plain(b"x", destination=MAC_B))
    assert (sa.frames, sb.frames, sc.frames) == ([], [plain(b"x")], [])


@pytest.mark.parametrize("destination", [BROADCAST, MULTICAST, ELSEWHERE])
def test_groups_and_strangers_go_to_all_others(destination: bytes) -> None:
    _, (a, *_), (sa, sb, sc) = make_network(MAC_A, MAC_B, MAC_C)
    frame = plain(destination=destination)
    a.send(frame)
    assert (sa.frames, sb.frames, sc.frames) == ([], [frame], [frame])


def test_networks_do_not_hear_each_other() -> None:
    _, (a, _), _ = make_network(MAC_A, MAC_B)
    _, _, (other, _) = make_network(MAC_C, MAC_D)
    a.send(plain(destination=BROADCAST))
    assert other.frames == []


def test_a_station_behind_a_port_is_learned() -> None:
    _, (a, b, _), (sa, sb, sc) = make_network(MAC_A, MAC_B, MAC_C, anti_spoofing=False)
    b.send(plain(source=ELSEWHERE, destination=MAC_A))
    a.send(plain(destination=ELSEWHERE))
    assert (len(sa.got), len(sb.got), len(sc.got)) == (1, 1, 0)


def test_a_frame_to_its_own_port_goes_nowhere() -> None:
    _, (a, _), (sa, sb) = make_network(MAC_A, MAC_B)
    a.send(plain(destination=MAC_A))
    assert (sa.frames, sb.frames) == ([], [])


def test_isolated_ports_reach_only_others() -> None:
    network = Network(NetworkConfig("lan"))
    stations = [FakeStation() for _ in range(3)]
    ports = [
        network.port("a", MAC_A, isolated=True),
        network.port("b", MAC_B, isolated=True),
        network.port("uplink", MAC_C),
    ]
    for port, station in zip(ports, stations, strict=True):
        port.attach(station)
    ports[0].send(plain(destination=BROADCAST))
    ports[0].send(plain(destination=MAC_B))
    assert [len(station.got) for station in stations] == [0, 0, 1]
    ports[2].send(plain(source=MAC_C, destination=BROADCAST))
    assert [len(station.got) for station in stations] == [1, 1, 1]


def test_spoofed_frames_are_dropped_and_counted() -> None:
    _, (a, b), (_, sb) = make_network(MAC_A, MAC_B)
    a.send(plain(source=MAC_C))
    b.send(ethernet(ipv4(b"", TCP, source=IP_B), IPV4, source=MAC_B, destination=MAC_A))
    a.send(ethernet(ipv4(b"", TCP, source=IP_B), IPV4))
    assert sb.frames == []
    assert a.statistics.sent_dropped == {Drop.SOURCE_MAC: 1, Drop.SOURCE_ADDRESS: 1}
    assert [str(address) for address in b.addresses] == [IP_B]


def test_a_station_may_go_on_with_the_address_that_it_had_elsewhere() -> None:
    _, (a, b), (sa, sb) = make_network(MAC_A, MAC_B)
    assert b.tolerate(MAC_C)
    assert not b.tolerate(MAC_A)
    b.send(plain(source=MAC_C, destination=MAC_A))
    b.send(plain(source=MAC_B, destination=MAC_A))
    b.send(plain(source=MAC_A, destination=MAC_A))
    assert b.statistics.sent_dropped == {Drop.SOURCE_MAC: 1}
    a.send(plain(destination=MAC_C))
    a.send(plain(destination=MAC_B))
    assert (len(sa.got), len(sb.got)) == (2, 2)


def test_a_tolerated_address_goes_with_its_port() -> None:
    network, (a, b, c), (_, _, sc) = make_network(MAC_A, MAC_B, MAC_D, anti_spoofing=False)
    assert b.tolerate(MAC_C)
    b.close()
    c.send(plain(source=MAC_C, destination=MAC_A))
    a.send(plain(destination=MAC_C))
    assert len(sc.got) == 1
    assert [port.name for port in network.ports] == ["a", "c"]


def test_without_anti_spoofing_and_for_trusted_ports_nothing_is_checked() -> None:
    _, (a, _), (_, sb) = make_network(MAC_A, MAC_B, anti_spoofing=False)
    a.send(plain(source=MAC_C))
    assert len(sb.got) == 1
    network, _, (sa,) = make_network(MAC_A)
    uplink = network.port("uplink", MAC_B, trusted=True)
    uplink.send(plain(source=MAC_C, destination=MAC_A))
    assert len(sa.got) == 1


def test_an_allowed_address_is_the_ports_alone() -> None:
    _, (a, b), (_, sb) = make_network(MAC_A, MAC_B)
    a.allow(ip_address(IP_A))
    b.send(ethernet(ipv4(b"", TCP), IPV4, source=MAC_B, destination=MAC_A))
    assert b.statistics.sent_dropped == {Drop.SOURCE_ADDRESS: 1}
    a.send(ethernet(ipv4(b"", TCP), IPV4))
    assert len(sb.got) == 1


def test_a_user_network_keeps_foreign_addresses_from_guests() -> None:
    network = Network(NetworkConfig("lan", uplink="user", subnet6=None))
    a = network.port("a", MAC_A)
    a.send(ethernet(ipv4(b"", TCP, source="8.8.8.8"), IPV4))
    assert a.statistics.sent_dropped == {Drop.SOURCE_ADDRESS: 1}


@pytest.mark.parametrize(
    ("length", "tags", "drop"),
    [
        (13, 0, Drop.TOO_SHORT),
        (14, 0, None),
        (1514, 0, None),
        (1515, 0, Drop.TOO_LONG),
        (1518, 1, None),
        (1519, 1, Drop.TOO_LONG),
        (1522, 2, None),
        (1523, 2, Drop.TOO_LONG),
    ],
)
def test_frames_have_a_shortest_and_a_longest(length: int, tags: int, drop: Drop | None) -> None:
    _, (a, _), (_, sb) = make_network(MAC_A, MAC_B)
    a.send(ethernet(bytes(1600), 0x88B5, tags=(1,) * tags)[:length])
    assert a.statistics.sent_dropped == ({} if drop is None else {drop: 1})
    assert len(sb.got) == (drop is None)


def test_three_tags_do_not_make_a_longer_frame_pass() -> None:
    _, (a, _), _ = make_network(MAC_A, MAC_B, anti_spoofing=False)
    a.send(ethernet(bytes(1493), 0x88B5, tags=(1, 1, 1)))
    assert a.statistics.sent_dropped == {Drop.TOO_LONG: 1}


def test_statistics_count_both_directions() -> None:
    network, (a, b), (_, sb) = make_network(MAC_A, MAC_B)
    sb.room = 1
    a.send(plain(b"12"))
    a.send(plain(b"34"))
    assert (a.statistics.sent_frames, a.statistics.sent_bytes) == (2, 32)
    assert (b.statistics.received_frames, b.statistics.received_bytes) == (1, 16)
    assert network.statistics()["b"].received_dropped == {Drop.NOT_TAKEN: 1}


def test_a_port_without_station_or_link_drops() -> None:
    network, (a, b), (_, sb) = make_network(MAC_A, MAC_B)
    empty = network.port("c", MAC_C)
    a.send(plain(destination=MAC_C))
    assert empty.statistics.received_dropped == {Drop.NOBODY: 1}
    empty.up = False
    b.up = False
    b.up = False
    assert (a.up, b.up) == (True, False)
    a.send(plain())
    b.send(plain(source=MAC_B, destination=MAC_A))
    assert b.statistics.received_dropped == {Drop.LINK_DOWN: 1}
    assert b.statistics.sent_dropped == {Drop.LINK_DOWN: 1}
    b.up = True
    a.send(plain())
    assert (len(sb.got), sb.link_changes) == (1, 2)


def test_a_plain_receiver_is_a_function() -> None:
    network, (a,), _ = make_network(MAC_A)
    got: list[bytes] = []
    b = network.port("b", MAC_B)
    b.connect(lambda frame: got.append(frame) is None)
    b.up = False
    b.up = True
    a.send(plain(), VERIFIED)
    assert got == [plain()]
    b.connect(lambda frame: False)
    a.send(plain())
    assert b.statistics.received_dropped == {Drop.NOT_TAKEN: 1}


def test_a_closed_port_gives_its_name_mac_and_addresses_back() -> None:
    network, (a, b), (_, sb) = make_network(MAC_A, MAC_B)
    b.send(ethernet(ipv4(b"", TCP, source=IP_B), IPV4, source=MAC_B, destination=MAC_A))
    b.close()
    a.send(plain())
    b.send(plain(source=MAC_B))
    assert (network.ports, sb.frames) == ((a,), [])
    again = network.port("b", MAC_B)
    assert again.addresses == ()
    assert repr(again) == "<Port b of lan>"


def test_what_cannot_be_a_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, _ = make_network(MAC_A)
    for name, mac, message in (
        ("a", MAC_B, "network lan: already has a port a"),
        ("b", MAC_A, "network lan: port b cannot have the MAC 52:54:00:00:00:01; it is port a's"),
        (
            "b",
            BROADCAST,
            "network lan: port b cannot have the MAC 'ff:ff:ff:ff:ff:ff'; "
            "it takes 6 bytes, not all zero, of which the first is even",
        ),
        (
            "b",
            b"\2",
            "network lan: port b cannot have the MAC '02'; it takes 6 bytes, not all zero, of which the first is even",
        ),
    ):
        with pytest.raises(UsageError) as error:
            network.port(name, mac)
        assert str(error.value) == message
    monkeypatch.setattr(network_module, "MAX_PORTS", 1)
    with pytest.raises(UsageError) as error:
        network.port("b", MAC_B)
    assert str(error.value) == "network lan: has 1 ports, and cannot have more"


PACKET = with_pseudo_sum(ipv4(tcp(bytes(3000)), TCP), TCP, 16)
LONG = ethernet(PACKET, IPV4, destination=BROADCAST)
LONG_OFFLOAD = Offload(CHECKSUM | TSO4, 34, 16, 1000)


def test_each_receiver_gets_what_it_accepts() -> None:
    _, (a, *_), (_, sb, sc, sd) = make_network(MAC_A, MAC_B, MAC_C, MAC_D)
    sb.accepts = CHECKSUM | TSO4
    sd.accepts = TSO4
    a.send(LONG, LONG_OFFLOAD)
    assert sb.got == [(LONG, LONG_OFFLOAD)]
    assert [(len(frame), offload) for frame, offload in sc.got] == [(1054, VERIFIED)] * 3
    ((whole, left),) = sd.got
    assert transport_is_right(whole[14:])
    assert left == LONG_OFFLOAD._replace(needs=TSO4)


def test_a_frame_is_finished_once_for_all_that_need_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = network_module.finish
    monkeypatch.setattr(network_module, "finish", lambda *args: calls.append(args) or real(*args))
    _, (a, *_), (_, sb, sc) = make_network(MAC_A, MAC_B, MAC_C)
    a.send(LONG, LONG_OFFLOAD)
    assert len(calls) == 1
    assert sb.got == sc.got
    assert len(sb.got) == 3


def test_an_offload_that_does_not_fit_is_dropped() -> None:
    _, (a, _), (_, sb) = make_network(MAC_A, MAC_B)
    a.send(LONG, LONG_OFFLOAD._replace(checksum_start=20))
    a.send(LONG, LONG_OFFLOAD._replace(needs=CHECKSUM))
    assert a.statistics.sent_dropped == {Drop.BAD_OFFLOAD: 1, Drop.TOO_LONG: 1}
    assert sb.got == []


STATIONS = [MAC_A, MAC_B, MAC_C]
STRANGERS = [bytes((2, 0, 0, 0, 0, n)) for n in range(3)]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(STATIONS + STRANGERS),
            st.sampled_from([*STATIONS, *STRANGERS, BROADCAST]),
            st.integers(0, 200),
        ),
        max_size=40,
    )
)
def test_the_switch_does_what_two_dictionaries_do(moves: list[tuple[int, bytes, bytes, int]]) -> None:
    now = Time(0)
    network = Network(NetworkConfig("lan", anti_spoofing=False), now_ns=now)
    stations = [FakeStation() for _ in STATIONS]
    ports: list[Port] = []
    for number, (mac, station) in enumerate(zip(STATIONS, stations, strict=True)):
        ports.append(network.port(str(number), mac))
        ports[-1].attach(station)
    behind = {mac: number for number, mac in enumerate(STATIONS)}
    until: dict[bytes, int] = {}
    for source, sender, destination, seconds in moves:
        now.ns += seconds * 10**9
        if sender in STRANGERS:
            behind[sender], until[sender] = source, now.ns + 300 * 10**9
        known = behind.get(destination)
        if destination in STRANGERS and now.ns >= until.get(destination, 0):
            known = None
        expected = [n for n in range(3) if n != source and known in (None, n)]
        before = [len(station.got) for station in stations]
        ports[source].send(plain(source=sender, destination=destination))
        after = [len(station.got) for station in stations]
        assert [n for n in range(3) if after[n] > before[n]] == expected


def test_many_threads_lose_no_count() -> None:
    _, ports, stations = make_network(MAC_A, MAC_B, MAC_C, MAC_D)
    for station in stations:
        station.room = 10**6
    target = stations[3]

    def flood(port: Port) -> None:
        for _ in range(500):
            port.send(plain(source=port.mac, destination=MAC_D))

    threads = [threading.Thread(target=flood, args=(port,)) for port in ports[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(target.got) == ports[3].statistics.received_frames == 1500


def test_what_an_uplink_answers_for_is_no_guests() -> None:
    _, (a, uplink), _ = make_network(MAC_A, MAC_B)
    uplink.allow(ip_address("fe80::2"))
    a.send(ethernet(ipv6(b"", TCP, source="fe80::2"), IPV6))
    assert a.statistics.sent_dropped == {Drop.SOURCE_ADDRESS: 1}
