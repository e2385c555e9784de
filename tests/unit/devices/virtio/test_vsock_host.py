"""vsock as the host's programs see it: listening, connecting, streams, from any thread."""

import errno
import socket
import threading

import pytest
from vsock_guest import Echoing, Guest

from emuvisor.devices.virtio.vsock import Handler
from emuvisor.devices.virtio.vsock.device import EPHEMERAL_PORTS
from emuvisor.devices.virtio.vsock.packet import TYPE_SEQPACKET, Op
from emuvisor.errors import UsageError

PATIENCE = 30
"""Seconds that a thread may take at most; none takes that long unless something is broken."""


@pytest.fixture
def guest():
    """A guest that answers by itself; its programs listen at port 7 and send back what they get."""
    return Echoing(listening=(7,))


@pytest.fixture
def stream(guest):
    stream = guest.host.connect(7)
    stream.settimeout(0)
    return stream


@pytest.fixture
def accepted():
    """A guest, and the host's end of a connection that it made to port 80."""
    guest = Guest()
    listener = guest.host.listen(80)
    guest.connected()
    stream = listener.accept(timeout=0)
    stream.settimeout(0)
    return guest, stream


# ---- connecting ----


def test_the_host_connects(guest):
    with guest.host.connect(7) as stream:
        assert stream.port in EPHEMERAL_PORTS
        assert stream.guest_port == 7
        stream.sendall(b"hello")
        assert stream.recv(3) == b"hel"
        assert stream.recv(100) == b"lo"
    assert guest.heard == [Op.REQUEST, b"hello", Op.SHUTDOWN]
    assert guest.device.connections == 0


def test_every_connection_has_a_port_of_its_own(guest):
    first, second = guest.host.connect(7), guest.host.connect(7)
    assert first.port != second.port
    guest.host.listen(second.port + 1)
    assert guest.host.connect(7).port == second.port + 2
    guest.device._next_port = 0
    assert guest.host.connect(7).port == second.port + 3


def test_nobody_listens_in_the_guest(guest):
    with pytest.raises(ConnectionRefusedError, match=r"^the guest refused the connection to port 8$"):
        guest.host.connect(8)


def test_a_guest_without_a_driver():
    guest = Echoing(setup=False)
    message = r"^vsock: the guest has no driver for such sockets$"
    guest.react = lambda: None
    with pytest.raises(ConnectionRefusedError, match=message):
        guest.host.connect(7)
    streams_only = Echoing(listening=(7,), features=1)
    with pytest.raises(ConnectionRefusedError, match=message):
        streams_only.host.connect(7, messages=True)


def test_too_many_connections(guest, monkeypatch):
    monkeypatch.setattr("emuvisor.devices.virtio.vsock.device.MAX_CONNECTIONS", 1)
    guest.host.connect(7)
    with pytest.raises(ConnectionRefusedError, match=r"^vsock: the guest has 1 connections already$"):
        guest.host.connect(7)


def test_a_guest_that_does_not_answer():
    guest = Guest()
    with pytest.raises(TimeoutError, match=r"^the guest did not answer at vsock port 7 within 0 s$"):
        guest.host.connect(7, timeout=0)
    assert guest.ops() == [Op.REQUEST, Op.RST], "when it does run, it learns that nobody waits"
    assert guest.device.connections == 0


def test_a_guest_that_answers_a_request_with_nonsense():
    guest = Guest()
    done = connect_in_thread(guest, 7)
    (request,) = (packet for packet, _ in until(guest.receive))
    guest.send(Op.RW, port=request.src_port, guest_port=7, data=b"x")
    assert guest.ops() == [Op.RST]
    assert str(done()) == "the guest did not answer the request"


def connect_in_thread(guest, port):
    """Connect in a thread of its own; the result waits for the stream or the error."""
    outcome = []

    def connect():
        try:
            outcome.append(guest.host.connect(port, timeout=PATIENCE))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect)
    thread.start()

    def done():
        thread.join(PATIENCE)
        return outcome[0]

    return done


def until(look):
    """What `look` returns, as soon as that is something."""
    while not (found := look()):
        pass
    return found


def test_a_connection_from_another_thread():
    guest = Guest()
    done = connect_in_thread(guest, 7)
    ((request, _),) = until(guest.receive)
    guest.send(Op.RESPONSE, port=request.src_port, guest_port=7)
    stream = done()
    reader = threading.Thread(target=lambda: got.append(stream.recv(10)))
    got = []
    reader.start()
    guest.send(Op.RW, port=request.src_port, guest_port=7, data=b"from the guest")
    reader.join(PATIENCE)
    assert got == [b"from the g"]


@pytest.mark.parametrize("port", [-1, 0xFFFF_FFFF])
def test_ports_that_do_not_exist(guest, port):
    message = f"^vsock port {port} does not exist; ports are 0 to 4294967294$"
    for call in (guest.host.connect, guest.host.listen, lambda port: guest.host.serve(port, Handler)):
        with pytest.raises(UsageError, match=message):
            call(port)


# ---- listening ----


def test_the_guest_connects(accepted):
    guest, stream = accepted
    assert (stream.port, stream.guest_port) == (80, 1000)
    guest.send(Op.RW, data=b"request")
    assert stream.recv(100) == b"request"
    stream.sendall(b"response")
    assert guest.ops() == [b"response"]


def test_nobody_connects():
    with (
        Guest().host.listen(80) as listener,
        pytest.raises(TimeoutError, match=r"^nobody connected to vsock port 80 within 0 s$"),
    ):
        listener.accept(timeout=0)


def test_a_port_is_taken_once():
    host = Guest().host
    listener = host.listen(80)
    host.listen(80, messages=True)
    for call in (host.listen, lambda port: host.serve(port, Handler)):
        with pytest.raises(UsageError, match=r"^vsock port 80 is already listened to$"):
            call(80)
    listener.close()
    second = host.listen(80)
    listener.close()
    with pytest.raises(UsageError, match=r"^vsock port 80 is already listened to$"):
        host.listen(80)
    second.close()
    with pytest.raises(ConnectionAbortedError, match=r"^the listener at vsock port 80 is closed$"):
        second.accept()


def test_a_full_backlog_refuses():
    guest = Guest()
    listener = guest.host.listen(80, backlog=2)
    for guest_port in (1, 2, 3):
        guest.send(Op.REQUEST, guest_port=guest_port)
    assert sorted(guest.ops()) == [Op.RESPONSE, Op.RESPONSE, Op.RST]
    assert listener.accept(0).guest_port == 1
    guest.connected(guest_port=3)


def test_a_listener_that_closes_ends_what_waits():
    guest = Guest()
    listener = guest.host.listen(80)
    guest.connected()
    listener.close()
    ((packet, _),) = guest.receive()
    assert (packet.op, packet.flags) == (Op.SHUTDOWN, 3)
    guest.send(Op.REQUEST, guest_port=2)
    assert guest.ops() == [Op.RST]
    assert listener.offer(3) is None


# ---- streams ----


def test_more_than_the_windows_hold(guest, stream):
    data = bytes(range(256)) * 1024
    got, rest = bytearray(), memoryview(data)
    while len(got) < len(data):
        if rest:
            rest = rest[stream.send(rest) :]
        got += stream.recv(50_000)
    assert got == data


def test_sendall_waits_for_the_guest(accepted):
    guest, stream = accepted
    stream.settimeout(PATIENCE)
    data = bytes(range(256)) * 1024
    sender = threading.Thread(target=lambda: stream.sendall(data))
    sender.start()
    got = b""
    while len(got) < len(data):
        got += b"".join(piece for _, piece in guest.receive())
        guest.send(Op.CREDIT_UPDATE, fwd_cnt=len(got))
    sender.join(PATIENCE)
    assert got == data


def test_timeouts(accepted):
    _guest, stream = accepted
    assert stream.gettimeout() == 0
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        stream.recv(1)
    assert stream.send(b"x" * 100_000) == 65536
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        stream.send(b"y")
    assert stream.send(b"") == 0
    stream.settimeout(None)
    assert stream.gettimeout() is None


def test_the_guest_finishes(accepted):
    guest, stream = accepted
    guest.send(Op.RW, data=b"last words")
    guest.send(Op.SHUTDOWN, flags=2)
    assert stream.recv(100) == b"last words"
    assert stream.recv(100) == b""
    stream.sendall(b"heard")
    stream.close()
    assert guest.ops() == [b"heard", Op.SHUTDOWN]


def test_the_guest_takes_no_more(accepted):
    guest, stream = accepted
    guest.send(Op.SHUTDOWN, flags=1)
    with pytest.raises(BrokenPipeError, match=r"the connection takes no more data"):
        stream.send(b"x")


def test_the_guest_closes(accepted):
    guest, stream = accepted
    guest.send(Op.RW, data=b"last words")
    guest.send(Op.SHUTDOWN, flags=3)
    assert guest.ops() == [Op.RST]
    assert stream.recv(100) == b"last words"
    assert stream.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        stream.send(b"x")
    stream.close()
    assert guest.ops() == []


def test_the_guest_resets(accepted):
    guest, stream = accepted
    guest.send(Op.RW, data=b"last words")
    guest.send(Op.RST)
    assert stream.recv(100) == b"last words"
    for call in (lambda: stream.recv(1), lambda: stream.send(b"x")):
        with pytest.raises(ConnectionResetError, match=r"^the guest reset the connection$"):
            call()


def test_the_guest_resets_while_the_host_sends(accepted):
    guest, stream = accepted
    assert stream.send(b"never seen") == 10
    guest.send(Op.RST)
    assert guest.ops() == []


def test_an_answer_that_crosses_the_end_of_waiting():
    guest = Guest()
    with pytest.raises(TimeoutError):
        guest.host.connect(7, timeout=0)
    guest.soon.asked.popleft()()  # the request goes out
    guest.send(Op.RESPONSE, port=EPHEMERAL_PORTS[0], guest_port=7)
    assert guest.ops() == [Op.REQUEST, Op.SHUTDOWN]


def test_the_host_finishes(guest, stream):
    stream.sendall(b"question")
    stream.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        stream.send(b"more")
    assert stream.recv(100) == b"question"
    assert guest.heard[-1] == Op.SHUTDOWN
    assert guest.device.connections == 1


def test_the_host_stops_reading(accepted):
    guest, stream = accepted
    stream.shutdown(socket.SHUT_RD)
    assert guest.ops() == [Op.SHUTDOWN]
    assert stream.recv(1) == b""
    for _ in range(3):
        guest.send(Op.RW, data=b"x" * 30_000)
    assert guest.ops() == [Op.CREDIT_UPDATE], "what comes is thrown away"
    assert stream.send(b"y") == 1


def test_shutdown_knows_three_ways(stream):
    with pytest.raises(ValueError, match=r"^shutdown takes SHUT_RD, SHUT_WR or SHUT_RDWR, not 7$"):
        stream.shutdown(7)


def test_a_closed_stream(accepted):
    guest, stream = accepted
    stream.sendall(b"goodbye")
    stream.close()
    stream.close()
    for call in (lambda: stream.recv(1), lambda: stream.send(b"x"), lambda: stream.shutdown(0)):
        with pytest.raises(OSError, match=r"the socket is closed") as failure:
            call()
        assert failure.value.errno == errno.EBADF
    assert guest.ops() == [b"goodbye", Op.SHUTDOWN], "what was sent arrives"


def test_sizes_that_are_none(stream):
    with pytest.raises(ValueError, match=r"^recv takes no size of -1 bytes$"):
        stream.recv(-1)
    stream.sendall(b"x")
    assert stream.recv(0) == b""


def test_a_reset_of_the_driver_wakes_who_waits(accepted):
    guest, stream = accepted
    stream.settimeout(PATIENCE)
    outcome = []

    def read():
        try:
            stream.recv(1)
        except OSError as error:
            outcome.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    guest.driver.setup()
    reader.join(PATIENCE)
    assert outcome == ["the guest's driver was reset"]


# ---- sequenced packets ----


def test_messages():
    small = Echoing(listening=(7,), chunk=4, buffer_size=44 + 8)
    stream = small.host.connect(7, messages=True)
    stream.settimeout(0)
    stream.sendall(b"first message")
    stream.send(b"second")
    stream.send(b"third")
    assert stream.recv(100) == b"first message"
    assert stream.recv(3) == b"sec", "the rest of the message is lost"
    assert stream.recv(100) == b"third"
    with pytest.raises(OSError, match=r"a message has at most 65536 bytes; this one has 65537") as failure:
        stream.send(bytes(65537))
    assert failure.value.errno == errno.EMSGSIZE


def test_messages_from_the_guest_wait_for_their_end():
    guest = Guest()
    listener = guest.host.listen(80, messages=True)
    seq = {"type": TYPE_SEQPACKET}
    guest.connected(**seq)
    stream = listener.accept(0)
    stream.settimeout(0)
    guest.send(Op.RW, data=b"half ", **seq)
    with pytest.raises(TimeoutError):
        stream.recv(100)
    guest.send(Op.RW, data=b"and half", flags=1, **seq)
    assert stream.recv(100) == b"half and half"
    assert stream.send(b"x" * 65536) == 65536
    with pytest.raises(TimeoutError):
        stream.send(b"no room for a whole one")
