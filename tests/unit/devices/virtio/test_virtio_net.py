from collections.abc import Callable
from struct import pack, unpack
from typing import Any

import pytest
from driver import RING_IDS, RINGS, Driver
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.bus.ethernet import CHECKSUM, ECN, TSO4, TSO6, UFO, USO, VERIFIED, Offload, Station
from emuvisor.devices.virtio.features import Feature, mask_of
from emuvisor.devices.virtio.net import Net
from emuvisor.devices.virtio.net.device import CardDrop
from emuvisor.devices.virtio.net.features import DEVICE_FEATURES, NetFeature, dependencies_hold
from emuvisor.devices.virtio.net.filter import MAX_MAC_TABLE
from emuvisor.devices.virtio.net.inbox import BACKLOG_BYTES, BACKLOG_FRAMES
from emuvisor.errors import OutOfFrames, SnapshotError, UsageError
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.units import MIB, PAGE_SIZE

MAC = bytes.fromhex("525400000001")
OTHER = bytes.fromhex("525400000002")
BROADCAST = b"\xff" * 6
MULTICAST = bytes.fromhex("01005e000001")
RX, TX, CONTROL = 0, 1, 2
HEADER = 12
PLAIN = bytes(HEADER)
OK, ERR = b"\0", b"\1"


class FakeLink:
    def __init__(self) -> None:
        self.up = True
        self.mtu = 1400
        self.sent: list[tuple[bytes, Offload | None]] = []
        self.station: Station

    def attach(self, station: Station) -> None:
        self.station = station

    def send(self, frame: bytes, offload: Offload | None = None) -> None:
        self.sent.append((frame, offload))


class Card:
    """A card with its driver, and what the network and the machine would do."""

    def __init__(
        self,
        *,
        pairs: int = 1,
        without: tuple[NetFeature, ...] = (),
        link: Any = None,
        mac: bytes = MAC,
        **driver: Any,
    ) -> None:
        self.link = link or FakeLink()
        self.soon: list[Callable[[], None]] = []
        self.net = Net(name="net0", mac=mac, link=self.link, queue_pairs=pairs, call_soon=self.soon.append)
        wanted = (DEVICE_FEATURES | mask_of(NetFeature.MQ)) & ~mask_of(*without)
        self.driver = Driver(self.net, features=wanted, **driver)

    def run_soon(self) -> None:
        calls, self.soon[:] = list(self.soon), []
        for call in calls:
            call()

    def transmit(self, data: bytes) -> None:
        assert self.driver.request(TX, data) == b""

    def buffers(self, *sizes: int, queue: int = RX) -> None:
        for size in sizes:
            self.driver.add(queue, in_sizes=[size])

    def arrive(self, frame: bytes, offload: Offload | None = None) -> bool:
        taken = self.link.station.receive(frame, offload)
        self.run_soon()
        return taken

    def received(self, queue: int = RX) -> list[bytes]:
        return [data for _, data in self.driver.used(queue)]

    def command(self, group: int, number: int, data: bytes = b"", queue: int = CONTROL) -> bytes | None:
        return self.driver.request(queue, [bytes((group, number)), data], [1])


def frame(payload: bytes = b"payload", destination: bytes = MAC, source: bytes = OTHER) -> bytes:
    return destination + source + b"\x88\xb5" + payload


def header(  # noqa: PLR0917 - the fields of the structure, in their order
    flags: int = 0,
    gso: int = 0,
    length: int = 0,
    size: int = 0,
    start: int = 0,
    offset: int = 0,
    buffers: int = 1,
) -> bytes:
    return pack("<BBHHHHH", flags, gso, length, size, start, offset, buffers)


# ---- configuration ----


def test_the_configuration_space_says_what_the_card_is() -> None:
    card = Card()
    fields = unpack("<6sHHHIB", card.driver.config(0, 17))
    assert fields == (MAC, 1, 1, 1400, 10_000, 1)


def test_several_queues_are_offered_with_several_pairs_only() -> None:
    assert not Card().driver.offered() & mask_of(NetFeature.MQ)
    card = Card(pairs=2)
    assert card.driver.offered() & mask_of(NetFeature.MQ)
    assert card.net.queue_sizes == (256, 256, 256, 256, 64)


@pytest.mark.parametrize("pairs", [0, 17])
def test_a_card_has_one_to_sixteen_pairs(pairs: int) -> None:
    with pytest.raises(UsageError) as error:
        Net(name="net0", mac=MAC, link=FakeLink(), queue_pairs=pairs, call_soon=lambda call: None)
    assert str(error.value) == f"net0: {pairs} pairs of queues; it has 1 to 16"


@pytest.mark.parametrize(
    "feature",
    [
        NetFeature.GUEST_TSO4,
        NetFeature.GUEST_ECN,
        NetFeature.HOST_TSO6,
        NetFeature.HOST_ECN,
        NetFeature.CTRL_RX,
        NetFeature.MQ,
    ],
)
def test_features_that_need_others_are_refused_alone(feature: NetFeature) -> None:
    card = Card(pairs=2)
    assert not card.driver.negotiate(mask_of(Feature.VERSION_1, feature))
    assert card.driver.negotiate(mask_of(Feature.VERSION_1, NetFeature.MAC))
    assert dependencies_hold(DEVICE_FEATURES)


def test_the_drivers_write_to_the_mac_has_no_effect() -> None:
    card = Card()
    card.driver.write_config(0, b"\2")
    assert card.driver.config(0, 6) == MAC


def test_a_pulled_cable_is_announced() -> None:
    card = Card()
    card.driver.used(RX)
    before = card.driver.interrupts
    card.link.up = False
    card.link.station.link_changed()
    card.run_soon()
    assert card.driver.config(6, 2) == b"\0\0"
    assert card.driver.interrupts == before + 1
    card.transmit(PLAIN + frame())
    assert card.link.sent == []
    assert card.net.dropped == {CardDrop.LINK_DOWN: 1}


# ---- transmit ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_frames_are_sent(ring: dict[str, bool]) -> None:
    card = Card(**ring)
    assert card.driver.request(TX, [PLAIN, frame()]) == b""
    assert card.driver.request(TX, [PLAIN[:5], PLAIN[5:] + frame()[:3], frame()[3:]]) == b""
    assert card.link.sent == [(frame(), None)] * 2


@pytest.mark.parametrize(
    ("given", "offload"),
    [
        (header(), None),
        (header(flags=2), None),
        (header(flags=1, start=34, offset=16), Offload(CHECKSUM, 34, 16)),
        (header(1, 1, 54, 1448, 34, 16), Offload(CHECKSUM | TSO4, 34, 16, 1448)),
        (header(1, 0x81, 9999, 1448, 34, 16), Offload(CHECKSUM | TSO4 | ECN, 34, 16, 1448)),
        (header(1, 4, 0, 1428, 54, 16), Offload(CHECKSUM | TSO6, 54, 16, 1428)),
        (header(1, 3, 0, 1480, 34, 6), Offload(CHECKSUM | UFO, 34, 6, 1480)),
        (header(1, 5, 0, 1472, 34, 6), Offload(CHECKSUM | USO, 34, 6, 1472)),
    ],
)
def test_what_the_driver_leaves_to_do_goes_with_the_frame(given: bytes, offload: Offload | None) -> None:
    card = Card()
    card.transmit(given + frame())
    assert card.link.sent == [(frame(), offload)]


NO_ECN = (NetFeature.HOST_ECN,)
NO_TSO4 = (NetFeature.HOST_TSO4,)
NO_CSUM = (
    NetFeature.CSUM,
    NetFeature.HOST_TSO4,
    NetFeature.HOST_TSO6,
    NetFeature.HOST_ECN,
    NetFeature.HOST_UFO,
    NetFeature.HOST_USO,
)


@pytest.mark.parametrize(
    ("given", "without"),
    [
        (header(1, 2), ()),
        (header(1, 0x80), ()),
        (header(0, 1, 54, 1448, 34, 16), ()),
        (header(1, 1, 54, 1448, 34, 16), NO_TSO4),
        (header(1, 0x84, 54, 1448, 34, 16), NO_ECN),
        (header(1, start=34, offset=16), NO_CSUM),
    ],
)
def test_headers_that_no_driver_writes_drop_the_frame(given: bytes, without: tuple[NetFeature, ...]) -> None:
    card = Card(without=without)
    card.transmit(given + frame())
    assert card.link.sent == []
    assert card.net.dropped == {CardDrop.BAD_HEADER: 1}


@pytest.mark.parametrize("length", [1, 11, 12, 25, 12 + 65597 + 1, 1 * MIB])
def test_lengths_that_no_frame_has_drop_it(length: int) -> None:
    card = Card()
    card.transmit(bytes(length))
    assert card.net.dropped == {CardDrop.BAD_LENGTH: 1}


def test_the_longest_and_the_shortest_frame_are_sent() -> None:
    card = Card()
    for length in (14, 65597):
        card.transmit(bytes(HEADER + length))
    assert [len(sent) for sent, _ in card.link.sent] == [14, 65597]


@given(
    st.lists(
        st.binary(min_size=1, max_size=60)
        | st.builds(
            lambda head, body: head + body, st.binary(min_size=12, max_size=12), st.binary(max_size=60)
        ),
        max_size=8,
    )
)
def test_whatever_the_driver_sends_comes_back(chains: list[bytes]) -> None:
    card = CARD
    card.link.sent.clear()
    before = sum(card.net.dropped.values())
    for chain in chains:
        card.driver.add(TX, chain)
    card.driver.kick(TX)
    card.driver.run_timers()
    assert len(card.driver.used(TX)) == len(chains)
    assert len(card.link.sent) + sum(card.net.dropped.values()) - before == len(chains)
    assert not card.driver.needs_reset


CARD = Card()


# ---- receive ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_frames_arrive(ring: dict[str, bool]) -> None:
    card = Card(**ring)
    card.buffers(1526, 1526)
    before = card.driver.interrupts
    assert card.link.station.receive(frame(b"1"), None)
    assert card.link.station.receive(frame(b"2"), None)
    assert len(card.soon) == 1
    card.run_soon()
    assert card.driver.interrupts == before + 1
    assert card.received() == [header() + frame(b"1"), header() + frame(b"2")]


def test_what_comes_before_there_are_buffers_waits_for_them() -> None:
    card = Card()
    assert card.arrive(frame(b"1"))
    assert card.received() == []
    card.buffers(100)
    card.driver.kick(RX)
    assert card.received() == [header() + frame(b"1")]
    assert card.driver.wants_kick(RX) is False


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_a_long_frame_takes_several_buffers(ring: dict[str, bool]) -> None:
    card = Card(**ring)
    long = frame(bytes(range(200)))
    card.buffers(100, 100)
    assert card.arrive(long)
    assert card.received() == []
    card.buffers(100, 100)
    card.driver.kick(RX)
    data = card.received()
    assert [len(piece) for piece in data] == [100, 100, 26]
    assert b"".join(data) == header(buffers=3) + long


def test_without_mergeable_buffers_a_frame_has_one() -> None:
    card = Card(without=(NetFeature.MRG_RXBUF,))
    card.buffers(30, 500)
    card.arrive(frame(bytes(100)))
    assert card.received() == []
    assert card.net.dropped == {CardDrop.BUFFER_TOO_SHORT: 1}
    card.arrive(frame(b"1"))
    assert card.received() == [header() + frame(b"1")]


@pytest.mark.parametrize("readable", [b"", b"x"])
def test_a_buffer_that_takes_no_header_needs_a_reset(readable: bytes) -> None:
    card = Card()
    card.driver.add(RX, readable, [11 if not readable else 100])
    card.arrive(frame())
    assert card.driver.needs_reset
    assert card.net.failure == "queue 0: a receive buffer that takes no header"
    card.arrive(frame())


def test_a_buffer_outside_of_memory_needs_a_reset() -> None:
    card = Card()
    card.driver.add_parts(RX, [], [(1 << 40, 2000)])
    card.arrive(frame())
    assert card.driver.needs_reset


@pytest.mark.parametrize(
    ("offload", "expected"),
    [
        (None, header()),
        (VERIFIED, header(flags=2)),
        (Offload(CHECKSUM, 34, 16), header(1, start=34, offset=16)),
        (Offload(CHECKSUM | TSO4, 34, 16, 1448), header(1, 1, 54, 1448, 34, 16)),
        (Offload(CHECKSUM | TSO4 | ECN, 34, 16, 1448), header(1, 0x81, 54, 1448, 34, 16)),
        (Offload(CHECKSUM | TSO6, 34, 16, 1448), header(1, 4, 54, 1448, 34, 16)),
        (Offload(CHECKSUM | UFO, 34, 6, 1480), header(1, 3, 42, 1480, 34, 6)),
        (Offload(CHECKSUM | USO, 34, 6, 1472), header(1, 5, 42, 1472, 34, 6)),
    ],
)
def test_the_header_says_what_is_left_to_do(offload: Offload | None, expected: bytes) -> None:
    card = Card()
    card.buffers(1000)
    segment = frame(bytes(32) + b"\x50" + bytes(40))
    card.arrive(segment, offload)
    assert card.received() == [expected + segment]


def test_several_buffers_are_counted_in_every_kind_of_header() -> None:
    card = Card()
    for offload, flags in ((None, 0), (VERIFIED, 2)):
        card.buffers(40, 40)
        card.arrive(frame(bytes(40)), offload)
        assert b"".join(card.received()) == header(flags, buffers=2) + frame(bytes(40))


def test_what_the_driver_takes_is_what_frames_may_come_with() -> None:
    everything = CHECKSUM | TSO4 | TSO6 | ECN | UFO | USO
    assert Card().link.station.accepts == everything
    assert Card(without=(NetFeature.GUEST_USO6,)).link.station.accepts == everything & ~USO
    guest = (
        NetFeature.GUEST_CSUM,
        NetFeature.GUEST_TSO4,
        NetFeature.GUEST_TSO6,
        NetFeature.GUEST_ECN,
        NetFeature.GUEST_UFO,
        NetFeature.GUEST_USO4,
        NetFeature.GUEST_USO6,
    )
    card = Card(without=guest)
    assert card.link.station.accepts == 0
    card.buffers(100)
    card.arrive(frame(), VERIFIED)
    assert card.received() == [header() + frame()]


def test_nothing_is_taken_without_a_driver() -> None:
    card = Card(setup=False)
    assert not card.arrive(frame())
    card = Card()
    assert card.arrive(frame())
    card.driver.setup()
    assert card.net.dropped == {}
    card.buffers(100)
    card.driver.kick(RX)
    assert card.received() == []
    card.net.reset()
    assert not card.arrive(frame())
    assert card.net.dropped == {CardDrop.NO_ROOM: 1}


def test_a_reset_card_asks_to_be_looked_at_again() -> None:
    card = Card()
    card.link.station.receive(frame(), None)
    card.soon.clear()  # the machine was switched off meanwhile
    card.driver.setup()
    card.buffers(100)
    card.arrive(frame(b"1"))
    assert card.received() == [header() + frame(b"1")]


def test_the_backlog_is_bounded_in_frames() -> None:
    card = Card()
    assert all(card.link.station.receive(frame(), None) for _ in range(BACKLOG_FRAMES))
    assert not card.link.station.receive(frame(), None)
    assert len(card.soon) == 1
    card.buffers(*[100] * 256)
    card.run_soon()
    assert len(card.received()) == 256
    assert card.link.station.receive(frame(), None)


def test_the_backlog_is_bounded_in_bytes() -> None:
    card = Card()
    long = frame(bytes(60_000))
    taken = 0
    while card.link.station.receive(long, None):
        taken += 1
    assert taken == BACKLOG_BYTES // len(long)


def test_a_host_without_frames_delivers_later() -> None:
    card = Card(memory=GuestMemory(FramePool(8 * MIB), [(0, 64 * MIB)]), indirect=False)
    pool = card.driver.memory.pool
    card.buffers(100)
    card.arrive(frame())
    card.received()
    card.driver.add_parts(RX, [], [(48 * MIB, PAGE_SIZE)])
    held = pool.take_many(pool.free)
    with pytest.raises(OutOfFrames):
        card.arrive(frame())
    assert card.received() == []
    pool.release(held)
    card.driver.run_timers()
    assert card.received() == [header() + frame()]


# ---- filters ----


def wants(card: Card, destination: bytes, tag: int | None = None) -> bool:
    vlan = b"" if tag is None else pack(">HH", 0x8100, tag)
    data = destination + OTHER + vlan + b"\x88\xb5payload"
    card.buffers(100)
    assert card.arrive(data)
    return card.received() == [header() + data]


def test_the_card_is_promiscuous_until_told_otherwise() -> None:
    card = Card()
    assert wants(card, OTHER)
    assert card.command(0, 0, b"\0") == OK
    assert not wants(card, OTHER)
    assert wants(card, MAC)
    assert wants(card, BROADCAST)
    assert not wants(card, MULTICAST)
    assert card.net.dropped == {CardDrop.FILTERED: 2}


def test_receive_modes() -> None:
    card = Card()
    card.command(0, 0, b"\0")
    for number, destination, with_mode in (
        (1, MULTICAST, True),
        (2, OTHER, True),
        (3, MULTICAST, False),
        (4, MAC, False),
        (5, BROADCAST, False),
    ):
        assert card.command(0, number, b"\1") == OK
        assert wants(card, destination) is with_mode
        card.command(0, number, b"\0")


def table(*addresses: bytes) -> bytes:
    return pack("<I", len(addresses)) + b"".join(addresses)


def test_the_mac_table_is_a_filter() -> None:
    card = Card()
    card.command(0, 0, b"\0")
    assert card.command(1, 0, table(OTHER) + table(MULTICAST)) == OK
    assert wants(card, OTHER)
    assert wants(card, MULTICAST)
    assert not wants(card, b"\2" + OTHER[1:])
    assert card.command(1, 0, table() + table()) == OK
    assert not wants(card, OTHER)


def test_a_mac_table_that_is_too_long_takes_all() -> None:
    card = Card()
    card.command(0, 0, b"\0")
    many = [b"\2" + number.to_bytes(5, "big") for number in range(MAX_MAC_TABLE + 1)]
    assert card.command(1, 0, table(*many) + table()) == OK
    assert wants(card, OTHER)
    assert not wants(card, MULTICAST)
    groups = [b"\1" + number.to_bytes(5, "big") for number in range(MAX_MAC_TABLE + 1)]
    assert card.command(1, 0, table() + table(*groups)) == OK
    assert wants(card, MULTICAST)
    assert not wants(card, OTHER)


def test_the_mac_can_be_changed() -> None:
    card = Card()
    card.command(0, 0, b"\0")
    assert card.command(1, 1, OTHER) == OK
    assert wants(card, OTHER)
    assert not wants(card, MAC)
    assert card.driver.config(0, 6) == OTHER
    card.net.reset()
    assert card.driver.config(0, 6) == MAC


def test_vlans_are_a_filter() -> None:
    card = Card()
    assert wants(card, MAC)
    assert not wants(card, MAC, tag=5)
    assert card.command(2, 0, pack("<H", 5)) == OK
    assert wants(card, MAC, tag=0xE005)
    assert not wants(card, MAC, tag=6)
    assert card.command(2, 1, pack("<H", 5)) == OK
    assert not wants(card, MAC, tag=5)
    card.buffers(100)
    card.arrive(MAC + OTHER + b"\x81\x00")
    assert card.received() == []


def test_without_the_feature_all_vlans_pass() -> None:
    assert wants(Card(without=(NetFeature.CTRL_VLAN,)), MAC, tag=5)


# ---- the other commands ----


def test_an_announcement_is_asked_for_and_acknowledged() -> None:
    card = Card()
    card.driver.used(RX)
    before = card.driver.interrupts
    card.net.announce()
    assert card.driver.interrupts == before + 1
    assert card.driver.config(6, 2) == b"\3\0"
    assert card.command(3, 0) == OK
    assert card.driver.config(6, 2) == b"\1\0"


def test_a_driver_that_cannot_announce_is_not_asked() -> None:
    card = Card(without=(NetFeature.GUEST_ANNOUNCE,))
    card.net.announce()
    assert card.driver.config(6, 2) == b"\1\0"


def test_offloads_can_be_switched() -> None:
    card = Card()
    assert card.command(5, 0, pack("<Q", 1 << NetFeature.GUEST_CSUM)) == OK
    assert card.link.station.accepts == CHECKSUM
    assert card.command(5, 0, pack("<Q", 0)) == OK
    assert card.link.station.accepts == 0
    assert card.command(5, 0, pack("<Q", 1 << NetFeature.HOST_TSO4)) == ERR
    card.buffers(100)
    card.arrive(frame(), Offload(CHECKSUM, 34, 16))
    assert card.received() == []
    assert card.net.dropped == {CardDrop.NOT_ACCEPTED: 1}


@pytest.mark.parametrize(
    "command",
    [
        b"\0",
        b"\0\0",
        b"\0\0\1\1",
        b"\0\6\1",
        b"\7\0",
        b"\1\0",
        b"\1\0" + table(),
        b"\1\0" + table() + table() + b"x",
        b"\1\0" + pack("<I", 0xFFFF_FFFF) + MAC,
        b"\1\1" + MAC[:5],
        b"\2\0" + pack("<H", 4096),
        b"\2\0\0",
        b"\3\0\0",
        b"\4\0\1\0",
        b"\5\0" + bytes(7),
        b"\1\0" + table() + table() + bytes(70_000),
    ],
)
def test_commands_that_make_no_sense_are_refused(command: bytes) -> None:
    card = Card()
    assert card.driver.request(CONTROL, command, [1]) == ERR


@pytest.mark.parametrize(
    ("feature", "command"),
    [
        (NetFeature.CTRL_RX, b"\0\0\1"),
        (NetFeature.CTRL_RX, b"\1\0" + table() + table()),
        (NetFeature.CTRL_RX_EXTRA, b"\0\2\1"),
        (NetFeature.CTRL_VLAN, b"\2\0\5\0"),
        (NetFeature.GUEST_ANNOUNCE, b"\3\0"),
        (NetFeature.CTRL_MAC_ADDR, b"\1\1" + MAC),
        (NetFeature.CTRL_GUEST_OFFLOADS, b"\5\0" + bytes(8)),
    ],
)
def test_commands_need_their_features(feature: NetFeature, command: bytes) -> None:
    assert Card().driver.request(CONTROL, command, [1]) == OK
    assert Card(without=(feature,)).driver.request(CONTROL, command, [1]) == ERR


def test_a_command_without_room_for_an_answer_is_carried_out() -> None:
    card = Card()
    assert card.driver.request(CONTROL, b"\0\0\0") == b""
    assert not wants(card, OTHER)


@given(st.binary(max_size=40), st.integers(0, 2))
def test_no_command_is_too_strange(command: bytes, room: int) -> None:
    if command or room:
        assert CARD.driver.request(CONTROL, command, [room]) in (OK, ERR, b"")
    assert not CARD.driver.needs_reset


# ---- several queues ----


def tcp_frame(source_port: int, destination_port: int, *, six: bool = False, back: bool = False) -> bytes:
    ports = (destination_port, source_port) if back else (source_port, destination_port)
    addresses = (b"B" * 4, b"A" * 4) if back else (b"A" * 4, b"B" * 4)
    if six:
        addresses = (addresses[0] * 4, addresses[1] * 4)
        ip = bytes(6) + b"\x06\x40" + b"".join(addresses)
        return MAC + OTHER + b"\x86\xdd" + ip + pack(">HH", *ports)
    ip = b"\x45" + bytes(8) + b"\x06" + bytes(2) + b"".join(addresses)
    return MAC + OTHER + b"\x08\x00" + ip + pack(">HH", *ports)


@pytest.mark.parametrize("six", [False, True])
def test_a_flow_comes_in_where_it_went_out(six: bool) -> None:
    card = Card(pairs=2)
    assert card.command(4, 0, pack("<H", 2), queue=4) == OK
    card.driver.request(3, PLAIN + tcp_frame(1000, 80, six=six))
    card.buffers(200, queue=0)
    card.buffers(200, queue=2)
    back = tcp_frame(1000, 80, six=six, back=True)
    card.arrive(back)
    assert card.received(2) == [header() + back]
    card.arrive(frame())
    assert card.received(0) == [header() + frame()]


def test_pairs_that_are_given_up_leave_their_frames_to_the_first() -> None:
    card = Card(pairs=2)
    card.command(4, 0, pack("<H", 2), queue=4)
    card.driver.request(3, PLAIN + tcp_frame(1000, 80))
    back = tcp_frame(1000, 80, back=True)
    card.arrive(back)
    assert card.command(4, 0, pack("<H", 1), queue=4) == OK
    card.buffers(200, queue=0)
    card.driver.kick(0)
    card.driver.kick(2)
    assert card.received(0) == [header() + back]
    card.arrive(back)
    card.buffers(200, queue=0)
    card.driver.kick(0)
    assert card.received(0) == [header() + back]


@pytest.mark.parametrize("pairs", [0, 3])
def test_a_card_has_no_more_pairs_than_it_says(pairs: int) -> None:
    assert Card(pairs=2).command(4, 0, pack("<H", pairs), queue=4) == ERR


def test_without_the_feature_the_control_queue_is_the_third() -> None:
    card = Card(pairs=2, without=(NetFeature.MQ,))
    assert card.command(0, 0, b"\0", queue=2) == OK


# ---- saved state ----


def test_a_restored_card_goes_on() -> None:
    card = Card()
    card.command(0, 0, b"\0")
    card.command(1, 0, table(OTHER) + table(MULTICAST))
    card.command(2, 0, pack("<H", 5))
    card.command(5, 0, pack("<Q", 1 << NetFeature.GUEST_CSUM))
    card.buffers(100, 100)
    card.arrive(frame(bytes(300)))  # waits, and is lost: a network may
    state = card.net.save()
    copy = Card(memory=card.driver.memory, setup=False)
    copy.net.load(state)
    copy.driver.rings = card.driver.rings
    assert copy.net.save()["type"] == state["type"]
    assert copy.link.station.accepts == CHECKSUM
    copy.arrive(frame(b"1"))
    copy.arrive(frame(b"2", destination=b"\2" + OTHER[1:]))
    copy.arrive(frame(b"3", destination=MULTICAST))
    assert copy.received() == [header() + frame(b"1"), header() + frame(b"3", destination=MULTICAST)]


def test_a_card_that_no_driver_uses_is_restored_so() -> None:
    state = Card(setup=False).net.save()
    copy = Card(setup=False)
    copy.net.load(state)
    assert not copy.arrive(frame())


def test_a_state_that_is_none_is_refused() -> None:
    card = Card()
    state = card.net.save()
    state["type"]["filter"]["unicast"] = b"12345"
    with pytest.raises(SnapshotError) as error:
        Card(setup=False).net.load(state)
    assert str(error.value) == "virtio-net-filter: saved field 'unicast' is no list of MAC addresses"


def clone_of(card: Card, mac: bytes = OTHER) -> Card:
    """Another card, with the state of `card` and a driver that goes on with it."""
    twin = Card(memory=card.driver.memory, setup=False, mac=mac)
    twin.net.load(card.net.save())
    twin.driver.rings = card.driver.rings
    return twin


def test_a_clone_s_driver_goes_on_with_the_address_that_it_knows_until_it_is_told() -> None:
    card = Card()
    assert card.command(0, 0, b"\0") == OK
    twin = clone_of(card)
    generation = twin.net.generation
    twin.net.tell_address()
    assert twin.net.generation == generation + 1
    assert (card.driver.config(0, 6), twin.driver.config(0, 6)) == (MAC, OTHER)
    assert (wants(twin, MAC), wants(twin, OTHER)) == (True, False)
    assert twin.command(1, 1, OTHER) == OK
    assert (wants(twin, MAC), wants(twin, OTHER)) == (False, True)
    generation = twin.net.generation
    twin.net.tell_address()
    assert twin.net.generation == generation


def test_a_clone_s_driver_may_choose_any_address() -> None:
    twin = clone_of(Card())
    chosen = bytes.fromhex("525400000009")
    assert twin.command(1, 1, chosen) == OK
    assert twin.driver.config(0, 6) == chosen
    again = clone_of(twin)
    assert again.driver.config(0, 6) == chosen


def test_a_clone_s_card_is_called_as_it_was_made_after_a_reset() -> None:
    twin = clone_of(Card())
    twin.net.reset()
    twin.net.tell_address()
    assert (twin.net.renamed, twin.driver.config(0, 6)) == (False, OTHER)


def test_a_clone_of_a_clone_that_was_not_told() -> None:
    third = bytes.fromhex("525400000003")
    twin = clone_of(clone_of(Card()), third)
    assert twin.driver.config(0, 6) == third
    assert clone_of(clone_of(Card()), OTHER).driver.config(0, 6) == OTHER


def test_a_clone_without_a_driver_has_its_own_address_at_once() -> None:
    twin = Card(setup=False, mac=OTHER)
    twin.net.load(Card(setup=False).net.save())
    assert (twin.net.renamed, twin.driver.config(0, 6)) == (False, OTHER)


def test_a_saved_address_that_is_none_is_refused() -> None:
    state = Card().net.save()
    state["type"]["mac"] = b"12345"
    with pytest.raises(SnapshotError) as error:
        Card(setup=False).net.load(state)
    assert str(error.value) == "net0: saved field 'mac' is b'12345'; expected 6 to 6 bytes"


# ---- two cards on a real network ----


def two_cards(*, packed: bool, without: tuple[NetFeature, ...] = ()) -> tuple[Card, Card]:
    network = Network(NetworkConfig("lan"))
    return (
        Card(link=network.port("a", MAC), packed=packed),
        Card(link=network.port("b", OTHER), mac=OTHER, packed=packed, without=without),
    )


def tso_frame(payload: bytes) -> bytes:
    tcp = pack(">HHIIBBHHH", 1000, 2000, 1, 1, 0x50, 0x18, 512, 0, 0) + payload
    ip = pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + bytes((10, 0, 2, 15, 10, 0, 2, 16))
    return OTHER + MAC + b"\x08\x00" + ip + tcp


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_frame_crosses_the_network_as_it_is(packed: bool) -> None:
    a, b = two_cards(packed=packed)
    long, head = tso_frame(bytes(range(250)) * 240), header(1, 1, 54, 1448, 34, 16)
    b.buffers(*[1526] * 50)
    a.transmit(head + long)
    b.run_soon()
    data = b.received()
    assert b"".join(data) == header(1, 1, 54, 1448, 34, 16, buffers=len(data)) + long


@pytest.mark.parametrize("packed", [False, True])
def test_a_driver_that_takes_no_long_frames_gets_segments(packed: bool) -> None:
    a, b = two_cards(packed=packed, without=(NetFeature.GUEST_TSO4, NetFeature.GUEST_ECN))
    payload = bytes(range(250)) * 16
    b.buffers(*[1526] * 50)
    a.transmit(header(1, 1, 54, 1448, 34, 16) + tso_frame(payload))
    b.run_soon()
    data = b.received()
    assert [len(piece) for piece in data] == [HEADER + 54 + 1448, HEADER + 54 + 1448, HEADER + 54 + 1104]
    assert {piece[:HEADER] for piece in data} == {header(flags=2)}
    assert b"".join(piece[HEADER + 54 :] for piece in data) == payload
