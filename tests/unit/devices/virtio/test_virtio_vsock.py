"""vsock as the guest sees it: connections, credit, ends, and packets that no honest driver sends."""

import struct

import pytest
from driver import RAM, RING_IDS, RINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from vsock_guest import CID, EVENT, RX, TX, Guest

from emuvisor.devices.virtio.vsock import Handler, Vsock
from emuvisor.devices.virtio.vsock.device import MAX_CONNECTIONS, MAX_RESETS
from emuvisor.devices.virtio.vsock.packet import TYPE_SEQPACKET, Op, Packet
from emuvisor.errors import SnapshotError, UsageError

RECEIVE, SEND, BOTH = 1, 2, 3
EOM = 1
WINDOW = 64 * 1024


class Echo(Handler):
    """Answers with what it gets, and remembers how it ended."""

    ends: list

    def received(self, data):
        self.channel.write(data)

    def closed(self, error):
        self.ends.append(error and str(error))


def serve_echo(guest, port=80, *, messages=False):
    ends = []
    service = guest.host.serve(port, type("EchoOf", (Echo,), {"ends": ends}), messages=messages)
    return service, ends


@pytest.fixture
def guest():
    return Guest()


# ---- a connection's life ----


def test_configuration(guest):
    assert struct.unpack("<Q", guest.driver.config(0, 8)) == (CID,)


@pytest.mark.parametrize("cid", [0, 1, 2, 0xFFFF_FFFF, 1 << 32])
def test_reserved_context_ids(cid):
    with pytest.raises(
        UsageError, match=f"^v: context ID {cid} is not a guest's; those are 3 to 4294967294$"
    ):
        Vsock(name="v", cid=cid, call_soon=print)


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_echo(ring):
    guest = Guest(**ring)
    _, ends = serve_echo(guest)
    guest.send(Op.REQUEST)
    ((response, _),) = guest.receive()
    assert response == Packet(2, CID, 80, 1000, 0, 1, Op.RESPONSE, 0, WINDOW, 0)
    guest.send(Op.RW, data=b"ping")
    ((answer, data),) = guest.receive()
    assert data == b"ping"
    assert answer == Packet(2, CID, 80, 1000, 4, 1, Op.RW, 0, WINDOW, 4)
    assert guest.device.connections == 1
    guest.send(Op.SHUTDOWN, flags=BOTH)
    assert guest.ops() == [Op.RST]
    assert ends == [None]
    assert guest.device.connections == 0


def test_nobody_listens(guest):
    guest.send(Op.REQUEST, port=99)
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.src_port, packet.dst_port) == (Op.RST, 99, 1000)


def test_a_service_that_was_closed_accepts_no_more(guest):
    service, _ends = serve_echo(guest)
    guest.connected()
    service.close()
    service.close()
    guest.send(Op.REQUEST, guest_port=1001)
    assert guest.ops() == [Op.RST]
    guest.send(Op.RW, data=b"still open")
    assert guest.ops() == [b"still open"]


def test_the_guest_finishes_first(guest):
    _, ends = serve_echo(guest)
    guest.connected()
    guest.send(Op.RW, data=b"bye")
    guest.send(Op.SHUTDOWN, flags=SEND)
    assert guest.ops() == [b"bye", Op.SHUTDOWN]
    guest.send(Op.RST)
    assert guest.ops() == []
    assert ends == [None]


def test_shutdown_bits_add_up(guest):
    serve_echo(guest)
    guest.connected()
    guest.send(Op.SHUTDOWN, flags=RECEIVE)
    guest.send(Op.SHUTDOWN, flags=0)
    assert guest.ops() == []
    guest.send(Op.SHUTDOWN, flags=SEND)
    assert guest.ops() == [Op.RST]


def test_a_guest_that_takes_no_more_is_sent_no_more(guest):
    serve_echo(guest)
    guest.connected()
    guest.send(Op.SHUTDOWN, flags=RECEIVE)
    guest.send(Op.RW, data=b"into the void")
    assert guest.ops() == []


def test_the_guest_resets(guest):
    _, ends = serve_echo(guest)
    guest.connected()
    guest.send(Op.RST)
    assert guest.ops() == []
    assert ends == ["the guest reset the connection"]


def test_a_service_may_close(guest):
    class Greeter(Handler):
        def __init__(self, channel):
            super().__init__(channel)
            channel.write(b"hello")
            channel.close()
            channel.write(b"too late")

    guest.host.serve(80, Greeter)
    guest.send(Op.REQUEST)
    assert guest.ops() == [Op.RESPONSE, b"hello", Op.SHUTDOWN]
    guest.send(Op.RW, data=b"crossed")
    guest.send(Op.RST)
    assert guest.ops() == []
    assert guest.device.connections == 0


def test_a_service_may_finish_and_go_on_reading(guest):
    heard = []

    class Sink(Handler):
        def received(self, data):
            heard.append(data)
            self.channel.finish()

    guest.host.serve(80, Sink)
    guest.connected()
    guest.send(Op.RW, data=b"a")
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.flags) == (Op.SHUTDOWN, SEND)
    guest.send(Op.RW, data=b"b")
    assert heard == [b"a", b"b"]


def test_a_guest_that_does_not_answer_the_end_is_reset():
    guest = Guest()

    class Closer(Handler):
        def received(self, data):
            self.channel.close()

    guest.host.serve(80, Closer)
    guest.connected(guest_port=1)
    guest.connected(guest_port=2)
    for guest_port in (1, 2):
        guest.send(Op.RW, guest_port=guest_port, data=b"x")
        guest.driver.clock.skip(1_000_000_000)
    assert guest.ops() == [Op.SHUTDOWN, Op.SHUTDOWN]
    guest.driver.clock.skip(6_000_000_000)
    guest.driver.run_timers()
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.dst_port) == (Op.RST, 1)
    guest.driver.clock.skip(1_000_000_000)
    guest.driver.run_timers()
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.dst_port) == (Op.RST, 2)
    assert guest.device.connections == 0
    assert guest.driver.clock.next_deadline_ns() is None


def test_one_that_answers_in_time_is_not(guest):
    class Closer(Handler):
        def received(self, data):
            self.channel.close()

    guest.host.serve(80, Closer)
    guest.connected()
    guest.send(Op.RW, data=b"x")
    guest.send(Op.RST)
    guest.driver.clock.skip(9_000_000_000)
    guest.driver.run_timers()
    assert guest.ops() == [Op.SHUTDOWN]


# ---- credit ----


def test_data_waits_for_the_guests_credit(guest):
    serve_echo(guest)
    guest.connected(buf_alloc=6)
    guest.send(Op.RW, data=b"12345678", buf_alloc=6)
    assert guest.ops() == [b"123456", Op.CREDIT_REQUEST]
    guest.send(Op.CREDIT_UPDATE, buf_alloc=6, fwd_cnt=0)
    assert guest.ops() == [Op.CREDIT_REQUEST], "asked once for each answer"
    guest.send(Op.CREDIT_UPDATE, buf_alloc=6, fwd_cnt=1)
    assert guest.ops() == [b"7", Op.CREDIT_REQUEST]
    guest.send(Op.CREDIT_UPDATE, buf_alloc=100, fwd_cnt=7)
    assert guest.ops() == [b"8"]


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"fwd_cnt": 1}, Op.CREDIT_REQUEST),
        ({"buf_alloc": 0}, Op.CREDIT_REQUEST),
        ({"fwd_cnt": 0xFFFF_FFFF}, b"x"),
        ({"buf_alloc": 0xFFFF_FFFF}, b"x"),
    ],
)
def test_nonsense_credit_stalls_the_guest_only(guest, fields, answer):
    serve_echo(guest)
    guest.connected()
    guest.send(Op.RW, data=b"x", **fields)
    assert guest.ops() == [answer]
    assert guest.device.connections == 1


def test_the_guest_asks_for_credit(guest):
    serve_echo(guest)
    guest.connected()
    guest.send(Op.CREDIT_REQUEST)
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.buf_alloc, packet.fwd_cnt) == (Op.CREDIT_UPDATE, WINDOW, 0)


def test_credit_comes_back_by_itself():
    heard = []

    class Sink(Handler):
        def received(self, data):
            heard.append(data)

    guest = Guest()
    guest.host.serve(80, Sink)
    guest.connected()
    for _ in range(3):
        guest.send(Op.RW, data=b"x" * 20_000)
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.fwd_cnt) == (Op.CREDIT_UPDATE, 40_000)
    assert sum(map(len, heard)) == 60_000


def test_an_echo_that_is_not_read_takes_no_more_than_two_windows():
    guest = Guest(window=1000)
    _, ends = serve_echo(guest)
    guest.connected(buf_alloc=0)
    for _ in range(4):
        guest.send(Op.RW, data=b"x" * 500, buf_alloc=0)
    assert guest.device.connections == 1
    guest.send(Op.RW, data=b"x", buf_alloc=0)
    assert ends == ["the guest sent more than it had credit for"]
    assert guest.ops()[-1] == Op.RST


def test_an_echo_that_is_read_goes_on():
    guest = Guest(window=1000)
    serve_echo(guest)
    guest.connected(buf_alloc=0)
    for i in range(4):
        guest.send(Op.RW, data=bytes((i,)) * 500, buf_alloc=0)
    assert guest.ops()[-1] == Op.CREDIT_REQUEST
    guest.send(Op.CREDIT_UPDATE, buf_alloc=4000)
    back = b"".join(data for _, data in guest.receive())
    assert back == b"".join(bytes((i,)) * 500 for i in range(4))


def test_data_that_waits_is_dropped_with_the_connection():
    guest = Guest(window=1000)
    _, ends = serve_echo(guest)
    guest.connected(buf_alloc=0)
    for _ in range(4):
        guest.send(Op.RW, data=b"x" * 500, buf_alloc=0)
    guest.send(Op.RST)
    assert ends == ["the guest reset the connection"]


def test_packets_are_as_large_as_the_guests_buffers():
    guest = Guest(buffer_size=44 + 10)
    serve_echo(guest)
    guest.connected()
    guest.send(Op.RW, data=b"0123456789abcdefghijk")
    assert guest.ops() == [b"0123456789", b"abcdefghij", b"k"]


def test_connections_take_turns():
    guest = Guest(buffers=0, buffer_size=44 + 1)
    serve_echo(guest)
    for guest_port, data in ((1, b"aaa"), (2, b"bbb")):
        guest.send(Op.REQUEST, guest_port=guest_port)
        guest.send(Op.RW, guest_port=guest_port, data=data)
    guest.offer(8)
    assert guest.ops() == [Op.RESPONSE, Op.RESPONSE, b"a", b"b", b"a", b"b", b"a", b"b"]


# ---- buffers ----


@pytest.mark.parametrize("ring", RINGS, ids=RING_IDS)
def test_what_is_to_be_said_waits_for_buffers(ring):
    guest = Guest(buffers=0, **ring)
    serve_echo(guest)
    guest.send(Op.REQUEST)
    guest.send(Op.RW, data=b"data")
    guest.send(Op.REQUEST, port=1)
    assert guest.ops() == []
    guest.offer(8)
    assert guest.ops() == [Op.RST, Op.RESPONSE, b"data"]


def test_a_buffer_that_is_too_small_breaks_the_queue():
    guest = Guest(buffer_size=44)
    serve_echo(guest)
    guest.send(Op.REQUEST)
    assert guest.driver.needs_reset
    assert guest.device.failure == "queue 0: a buffer of 44 bytes is too small"


def test_data_is_not_lost_when_a_buffer_is_nowhere():
    guest = Guest(buffers=0)
    _, ends = serve_echo(guest)
    guest.driver.add_parts(RX, [], [(RAM, 4096)])
    guest.driver.kick(RX)
    guest.send(Op.REQUEST)
    assert guest.driver.needs_reset
    guest.driver.setup()
    assert ends == ["the guest's driver was reset"]


def test_answers_that_nobody_takes_are_bounded():
    guest = Guest(buffers=0)
    for port in range(MAX_RESETS + 50):
        guest.send(Op.REQUEST, guest_port=port)
    count = 0
    while True:
        guest.offer(128)
        if not (ops := guest.ops()):
            break
        count += len(ops)
    assert count == MAX_RESETS


def test_connections_are_bounded():
    guest = Guest()
    serve_echo(guest)
    for port in range(MAX_CONNECTIONS):
        guest.send(Op.REQUEST, guest_port=port)
        if port % 16 == 0:
            guest.receive()
    assert guest.device.connections == MAX_CONNECTIONS
    guest.receive()
    guest.send(Op.REQUEST, guest_port=MAX_CONNECTIONS)
    assert guest.ops()[-1] == Op.RST


# ---- what no honest driver sends ----


@pytest.mark.parametrize(
    "op", [Op.RESPONSE, Op.RW, Op.SHUTDOWN, Op.CREDIT_UPDATE, Op.CREDIT_REQUEST, Op.INVALID, 77]
)
def test_packets_without_a_connection_are_reset(guest, op):
    guest.send(op)
    assert guest.ops() == [Op.RST]
    guest.send(Op.RST)
    assert guest.ops() == []


@pytest.mark.parametrize("op", [Op.REQUEST, Op.RESPONSE, Op.INVALID, 77])
def test_operations_out_of_place_end_the_connection(guest, op):
    _, ends = serve_echo(guest)
    guest.connected()
    guest.send(op)
    assert guest.ops() == [Op.RST]
    assert ends == ["the guest broke the protocol"]


@pytest.mark.parametrize("length", [1, 5, 0xFFFF_FFFF, 64 * 1024 + 1])
def test_wrong_lengths_end_the_connection(guest, length):
    _, ends = serve_echo(guest)
    guest.connected()
    guest.send(Op.RW, data=b"", length=length)
    assert guest.ops() == [Op.RST]
    assert ends == ["the guest sent a packet of a wrong length"]


def test_payload_behind_the_length_is_ignored(guest):
    serve_echo(guest)
    guest.connected()
    guest.send(Op.RW, data=b"abcdef", length=3)
    guest.send(Op.RW, data=b"", length=0)
    guest.send(Op.CREDIT_UPDATE, data=b"payload where none belongs")
    assert guest.ops() == [b"abc"]


def test_data_behind_the_end_resets(guest):
    serve_echo(guest)
    guest.connected()
    guest.send(Op.RW, data=b"x", buf_alloc=0)
    guest.send(Op.SHUTDOWN, flags=SEND, buf_alloc=0)
    guest.send(Op.RW, data=b"y")
    assert guest.ops()[-1] == Op.RST


def test_addresses_that_are_not_the_guests(guest):
    serve_echo(guest)
    guest.send(Op.REQUEST, src_cid=CID + 1)
    guest.send(Op.REQUEST, src_cid=2)
    guest.driver.request(TX, b"short")
    assert guest.ops() == []
    assert guest.device.dropped == 3
    guest.send(Op.REQUEST, dst_cid=(1 << 64) - 1)
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.src_cid) == (Op.RST, (1 << 64) - 1)


@pytest.mark.parametrize("kind", [0, 3, 0xFFFF])
def test_unknown_types_are_reset(guest, kind):
    serve_echo(guest)
    guest.send(Op.REQUEST, type=kind)
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.type) == (Op.RST, kind)


def test_sequenced_packets_need_the_feature():
    guest = Guest(features=1)
    serve_echo(guest, messages=True)
    guest.send(Op.REQUEST, type=TYPE_SEQPACKET)
    assert guest.ops() == [Op.RST]


# ---- sequenced packets ----


def test_messages_stay_whole():
    guest = Guest(buffer_size=44 + 4)
    heard = []

    class Collect(Echo):
        ends = []  # noqa: RUF012 - one test's

        def received(self, data):
            heard.append(data)
            super().received(data)

    guest.host.serve(80, Collect, messages=True)
    seq = {"type": TYPE_SEQPACKET}
    guest.send(Op.REQUEST, **seq)
    guest.send(Op.RW, data=b"abc", **seq)
    assert heard == []
    guest.send(Op.RW, data=b"def", flags=EOM, **seq)
    guest.send(Op.RW, data=b"g", flags=EOM, **seq)
    assert heard == [b"abcdef", b"g"]
    packets = guest.receive()
    assert [(data, packet.flags) for packet, data in packets if packet.op == Op.RW] == [
        (b"abcd", 0),
        (b"ef", EOM),
        (b"g", EOM),
    ]


# ---- resets and saved state ----


def test_a_driver_reset_ends_connections(guest):
    _, ends = serve_echo(guest)
    guest.connected()
    guest.driver.setup()
    assert ends == ["the guest's driver was reset"]
    guest.offer(4)
    guest.connected()


def test_a_restored_guest_is_told_that_its_connections_are_gone():
    guest = Guest()
    serve_echo(guest)
    guest.connected()
    state = guest.device.save()
    twin = Guest(setup=False)
    twin.driver.memory.write(0, guest.driver.memory.read(0, RAM))
    twin.device.load(state)
    twin.driver.rings = guest.driver.rings
    twin.driver.run_timers()
    twin.driver.add(EVENT, b"", [4])
    twin.driver.add(EVENT, b"", [4])
    twin.driver.kick(EVENT)
    assert [data for _, data in twin.driver.used(EVENT)] == [bytes(4)], (
        "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, once"
    )
    twin.send(Op.RW, data=b"to whom?")
    assert twin.ops() == [Op.RST]
    twin.driver.setup()
    twin.driver.add(EVENT, b"", [4])
    twin.driver.kick(EVENT)
    assert twin.driver.used(EVENT) == []


def test_a_guest_without_connections_is_told_nothing():
    guest = Guest()
    state = guest.device.save()
    guest.driver.add(EVENT, b"", [4])
    guest.driver.kick(EVENT)
    serve_echo(guest)
    guest.connected()
    guest.device.load(state)
    guest.driver.run_timers()
    assert guest.driver.used(EVENT) == []
    assert guest.device.connections == 0
    state["type"] = {"connected": 1}
    with pytest.raises(SnapshotError, match=r"saved field 'connected' is 1; expected True or False$"):
        guest.device.load(state)


def test_connections_of_the_device_that_is_loaded_into_end():
    guest = Guest()
    _, ends = serve_echo(guest)
    guest.connected()
    guest.driver.add(EVENT, b"", [4])
    guest.driver.kick(EVENT)
    guest.device.load(guest.device.save())
    assert ends == ["the guest was restored from a saved state"]
    guest.driver.run_timers()
    assert len(guest.driver.used(EVENT)) == 1


# ---- hostile drivers ----

headers = st.builds(
    Packet,
    src_cid=st.just(CID) | st.integers(0, (1 << 64) - 1),
    dst_cid=st.just(2) | st.integers(0, (1 << 64) - 1),
    src_port=st.integers(0, 3),
    dst_port=st.sampled_from([80, 81, 82, 0xFFFF_FFFF]),
    length=st.integers(0, 12) | st.integers(0, (1 << 32) - 1),
    type=st.sampled_from([0, 1, 1, 1, 2, 2]),
    op=st.integers(0, 9),
    flags=st.integers(0, 3),
    buf_alloc=st.sampled_from([0, 5, 1 << 16, (1 << 32) - 1]),
    fwd_cnt=st.sampled_from([0, 0, 3, (1 << 32) - 1]),
)


@settings(max_examples=120, deadline=None)
@given(
    steps=st.lists(
        st.tuples(headers, st.binary(max_size=12) | st.just(b"z" * 300), st.integers(0, 3)), max_size=40
    )
)
def test_any_packets(steps):
    guest = Guest(window=512, buffers=4, buffer_size=60)
    serve_echo(guest)
    serve_echo(guest, 81, messages=True)
    listener = guest.host.listen(82)
    for header, data, offered in steps:
        guest.driver.request(TX, [header.pack(), data])
        guest.offer(offered)
        guest.soon.run()
        guest.driver.used(RX)
    assert not guest.driver.needs_reset
    for connection in guest.device._connections.values():
        assert connection.endpoint.pending <= 512 + 300
    listener.close()
    guest.driver.setup()
    guest.offer(8)
    guest.connected()
    guest.send(Op.RW, data=b"still there")
    assert guest.ops() == [b"still there"]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.binary(max_size=60),
            st.lists(
                st.tuples(st.integers(0, (1 << 64) - 1) | st.integers(0, RAM), st.integers(0, 1 << 20)),
                max_size=3,
            ),
        ),
        max_size=12,
    )
)
def test_any_chains(steps):
    guest = Guest(buffers=2)
    serve_echo(guest)
    for queue, data, parts in steps:
        if guest.driver.needs_reset:
            guest.driver.setup()
        if data or parts:
            guest.driver.add_parts(queue, [guest.driver.buffer(data)] if data else [], parts)
        guest.driver.kick(queue)
    guest.driver.setup()
    guest.offer(4)
    guest.connected()
