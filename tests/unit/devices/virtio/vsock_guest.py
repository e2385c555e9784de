"""The guest's half of a vsock device, by hand: packets out, packets in, and sockets that keep the rules of credit."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from driver import Driver
from soon import Soon

from emuvisor.devices.virtio.vsock import Vsock
from emuvisor.devices.virtio.vsock.packet import HEADER_SIZE, HOST_CID, TYPE_STREAM, Op, Packet

RX, TX, EVENT = range(3)
CID = 3
GUEST_WINDOW = 0x10000


class Guest:
    """`device` and its driver; `soon` keeps what other threads want until `run`."""

    def __init__(self, *, buffers=32, buffer_size=4096, window=None, **driver):
        self.soon = Soon()
        more = {} if window is None else {"window": window}
        self.device = Vsock(name="vsock", cid=CID, call_soon=self.soon, **more)
        self.host = self.device.host
        self.driver = Driver(self.device, **driver)
        self.buffer_size = buffer_size
        if self.driver.rings:
            self.offer(buffers)

    def offer(self, count):
        for _ in range(min(count, len(self.driver.rings[RX].free))):
            self.driver.add(RX, b"", [self.buffer_size])
        self.driver.kick(RX)

    def send(self, op, *, port=80, guest_port=1000, data=b"", **fields):
        header = {
            "src_cid": CID,
            "dst_cid": HOST_CID,
            "src_port": guest_port,
            "dst_port": port,
            "length": len(data),
            "type": TYPE_STREAM,
            "op": op,
            "buf_alloc": GUEST_WINDOW,
        } | fields
        self.driver.request(TX, [Packet(**header).pack(), data])

    def receive(self):
        """Packets and their payloads that have come; as many buffers are given again."""
        self.soon.run()
        got = [(Packet.unpack(data[:HEADER_SIZE]), data[HEADER_SIZE:]) for _, data in self.driver.used(RX)]
        self.offer(len(got))
        return got

    def ops(self):
        """What has come: operations, and the payloads of RW."""
        return [data if packet.op == Op.RW else Op(packet.op) for packet, data in self.receive()]

    def connected(self, port=80, guest_port=1000, **fields):
        """Connect to the host's `port`."""
        self.send(Op.REQUEST, port=port, guest_port=guest_port, **fields)
        assert self.ops() == [Op.RESPONSE]


@dataclass
class Socket:
    """The guest's end of a connection. `window` and `forwarded` are the host's, as far as the guest knows."""

    flow: dict[str, int]
    window: int = 0
    forwarded: int = 0
    received: int = 0
    sent: int = 0
    waiting: deque[tuple[bytes, int]] = field(default_factory=deque)
    """What is to be sent, with the flags."""


class Echoing(Guest):
    """A guest whose programs answer at once: whatever the host asks of its thread happens, and then they do.

    They accept connections to the ports in `listening`, and send what comes back, in pieces of `chunk` bytes and no
    more than the host has given credit for.
    """

    def __init__(self, listening=(), *, chunk=1 << 14, **more):
        super().__init__(**more)
        self.listening = listening
        self.chunk = chunk
        self.heard: list[Op | bytes] = []
        self._sockets: dict[tuple[int, int], Socket] = {}
        self._reacting = False
        self.host._call_soon = self.now

    def now(self, function: Callable[[], None]) -> None:
        function()
        self.react()

    def react(self) -> None:
        if self._reacting:
            return
        self._reacting = True
        while packets := self.receive():
            for packet, data in packets:
                self.heard.append(data if packet.op == Op.RW else Op(packet.op))
                self._answer(packet, data)
        self._reacting = False

    def _answer(self, packet, data):
        key = packet.src_port, packet.dst_port
        flow = {"port": packet.src_port, "guest_port": packet.dst_port, "type": packet.type}
        end = self._sockets.setdefault(key, Socket(flow))
        end.window, end.forwarded = packet.buf_alloc, packet.fwd_cnt
        if packet.op == Op.REQUEST:
            accepted = packet.dst_port in self.listening
            self.send(Op.RESPONSE if accepted else Op.RST, **flow)
        elif packet.op == Op.SHUTDOWN and packet.flags == 3:
            self.send(Op.RST, **flow)
        pieces = [data[at : at + self.chunk] for at in range(0, len(data), self.chunk)]
        end.waiting.extend((piece, 0) for piece in pieces[:-1])
        end.waiting.extend((piece, packet.flags) for piece in pieces[-1:])
        end.received += len(data)
        while end.waiting and end.window - (end.sent - end.forwarded) >= len(end.waiting[0][0]):
            piece, flags = end.waiting.popleft()
            end.sent += len(piece)
            self.send(Op.RW, data=piece, fwd_cnt=end.received, flags=flags, **flow)
