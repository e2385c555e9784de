"""The socket device: virtio 1.2, section 5.10."""

import reprlib
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from emuvisor.bus.device import SavedState
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import Transport, VirtioDevice
from emuvisor.devices.virtio.features import mask_of
from emuvisor.devices.virtio.queue import BrokenQueue
from emuvisor.devices.virtio.vsock.connection import Connection, Flow, State, Verdict
from emuvisor.devices.virtio.vsock.host import VsockHost
from emuvisor.devices.virtio.vsock.packet import (
    HEADER_SIZE,
    HOST_CID,
    MAX_PAYLOAD,
    TYPE_SEQPACKET,
    TYPE_STREAM,
    Op,
    Packet,
)
from emuvisor.devices.virtio.vsock.stream import Stream
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.units import KIB, NS_PER_S

__all__ = ["DEFAULT_WINDOW", "MAX_CONNECTIONS", "Vsock"]

# Feature bits.
F_STREAM = 0
F_SEQPACKET = 1

# Queues.
RX = 0
"""To the guest."""
TX = 1
EVENT = 2
QUEUE_SIZES = (128, 128, 8)

EVENT_TRANSPORT_RESET = 0
_EVENT = Struct("<I")
_CONFIG = Struct("<Q")

FIRST_CID = 3
LAST_CID = 0xFFFF_FFFE

DEFAULT_WINDOW = 64 * KIB
"""Bytes that the host's end of a connection keeps in each direction."""
MAX_CONNECTIONS = 1024
MAX_RESETS = 1024
"""RST packets to flows without a connection that wait for buffers; the guest does without more."""
EPHEMERAL_PORTS = range(49152, 65536)
"""The host's ports when it is the one that connects."""
RESET_TIMEOUT_NS = 8 * NS_PER_S
"""How long the guest has to answer a clean end with RST."""


class Refusal(NamedTuple):
    """A RST packet without a connection: its flow's type, from where and to which of the guest's ports."""

    type: int
    cid: int
    port: int
    guest_port: int


class Vsock(VirtioDevice):
    """Sockets between the guest, whose context ID is `cid`, and its host, who uses `host` from any thread.

    Connections do not outlive their host: a guest that was restored from its saved state is told to drop its own
    (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET). Raises UsageError for a reserved `cid`.
    """

    device_id = 19

    def __init__(
        self,
        *,
        name: str,
        cid: int,
        call_soon: Callable[[Callable[[], None]], None],
        window: int = DEFAULT_WINDOW,
    ) -> None:
        if not FIRST_CID <= cid <= LAST_CID:
            raise UsageError(
                f"{name}: context ID {cid} is not a guest's; those are {FIRST_CID} to {LAST_CID}"
            )
        super().__init__(name=name, queue_sizes=QUEUE_SIZES, features=mask_of(F_STREAM, F_SEQPACKET))
        self.cid = cid
        self.host = VsockHost(call_soon=call_soon, connect=self._open, window=window)
        self.dropped = 0
        """Packets that were no packets, or not from this guest."""
        self._window = window
        self._connections: dict[Flow, Connection] = {}
        self._ready: dict[Connection, None] = {}
        """Connections that may have something to say, in the order in which they get their turn."""
        self._refusals: dict[Refusal, None] = {}
        self._closing: deque[tuple[int, Connection]] = deque()
        """Until when the guest has to answer, soonest first."""
        self._next_port = 0
        self._interrupted = False
        """The guest has to be told that its connections are gone."""
        self._busy = False

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    # ---- as a virtio device ----

    def connect(self, transport: Transport) -> None:
        """Called by the transport that shows the device."""
        super().connect(transport)
        self._close_timer = transport.clock.timer(self._reset_overdue, self.name)

    def config(self) -> bytes:
        """guest_cid."""
        return _CONFIG.pack(self.cid)

    def notified(self, index: int) -> None:
        """Packets from the guest, or buffers for packets to it."""
        queue = self.queues[index]
        if index == TX:
            self._work(lambda: self.serve(queue, self._receive))
            self.kick(RX)
        elif index == RX:
            self._work(lambda: self.serve(queue, self._send, while_=self._has_packet))
        else:
            self.serve(queue, self._send_event, while_=lambda: self._interrupted)

    def quiesced(self) -> None:
        """The driver has forgotten all connections."""
        self._interrupted = False
        self._drop_all(ConnectionResetError("the guest's driver was reset"))

    def save_device(self) -> SavedState:
        """Whether the guest has connections, or has yet to hear that it has none any more."""
        return {"connected": self._interrupted or bool(self._connections or self._refusals)}

    def load_device(self, state: SavedState) -> None:
        """Connections that the guest remembers are not here: it is told, if it has any."""
        connected = state.get("connected")
        if type(connected) is not bool:
            raise SnapshotError(
                f"{self.name}: saved field 'connected' is {reprlib.repr(connected)}; expected True or False"
            )
        self._drop_all(ConnectionResetError("the guest was restored from a saved state"))
        self._interrupted = connected
        if connected:
            self.serve_later(EVENT)

    def _drop_all(self, error: OSError) -> None:
        connections = list(self._connections.values())
        self._connections.clear()
        self._ready.clear()
        self._refusals.clear()
        self._closing.clear()
        self._close_timer.cancel()
        for connection in connections:
            connection.state = State.CLOSED
            connection.endpoint.on_closed(error)

    def _work(self, step: Callable[[], None]) -> None:
        """While `step` runs, what connections want to send waits: it may be in the middle of sending."""
        self._busy = True
        try:
            step()
        finally:
            self._busy = False

    # ---- from the guest ----

    def _receive(self, chain: Chain) -> int:
        header = chain.read(0, HEADER_SIZE)
        packet = Packet.unpack(header) if len(header) == HEADER_SIZE else None
        if packet is None or packet.src_cid != self.cid:
            self.dropped += 1
        elif packet.dst_cid != HOST_CID or not self._supports(packet.type):
            self._refuse(packet)
        else:
            self._dispatch(packet, chain)
        return 0

    def _supports(self, kind: int) -> bool:
        return kind == TYPE_STREAM or (kind == TYPE_SEQPACKET and self.has(F_SEQPACKET))

    def _dispatch(self, packet: Packet, chain: Chain) -> None:
        flow = Flow(packet.type, packet.dst_port, packet.src_port)
        connection = self._connections.get(flow)
        if connection is None:
            if packet.op != Op.REQUEST or not self._accept(flow, packet):
                self._refuse(packet)
            return
        data = b""
        if packet.op == Op.RW:
            data = chain.read(HEADER_SIZE, min(packet.length, MAX_PAYLOAD))
            if len(data) != packet.length:
                self.abort(connection, ConnectionResetError("the guest sent a packet of a wrong length"))
                return
        verdict = connection.receive(packet, data)
        if verdict is not Verdict.KEEP:
            self._remove(connection, reset=verdict is Verdict.RESET)

    def _accept(self, flow: Flow, packet: Packet) -> bool:
        """The guest wants to connect: whether somebody is there for it."""
        if len(self._connections) >= MAX_CONNECTIONS:
            return False
        endpoint = self.host.offer(flow.type, flow.host_port, flow.guest_port)
        if endpoint is None:
            return False
        connection = self._add(Connection(
            flow, endpoint, cid=self.cid, window=self._window, carrier=self, state=State.ESTABLISHED
        ))  # fmt: skip
        connection.note_credit(packet)
        endpoint.on_connected()
        return True

    def _refuse(self, packet: Packet) -> None:
        """Answer a packet that belongs to no connection with RST, unless it is one itself."""
        if packet.op != Op.RST:
            self._reset(Refusal(packet.type, packet.dst_cid, packet.dst_port, packet.src_port))

    def _reset(self, refusal: Refusal) -> None:
        if len(self._refusals) < MAX_RESETS:
            self._refusals[refusal] = None

    # ---- connections ----

    def _open(self, stream: Stream, kind: int) -> None:
        """The host wants to connect, in the guest's thread."""
        if not self.live or not self._supports(kind):
            stream.on_closed(ConnectionRefusedError(f"{self.name}: the guest has no driver for such sockets"))
        elif len(self._connections) >= MAX_CONNECTIONS:
            stream.on_closed(
                ConnectionRefusedError(f"{self.name}: the guest has {MAX_CONNECTIONS} connections already")
            )
        else:
            stream.port = self._free_port(kind)
            flow = Flow(kind, stream.port, stream.guest_port)
            self._add(Connection(
                flow, stream, cid=self.cid, window=self._window, carrier=self, state=State.REQUESTED
            )).wake()  # fmt: skip

    def _free_port(self, kind: int) -> int:
        """A host's port that is nobody's; there are more of them than connections."""
        taken = {flow.host_port for flow in self._connections if flow.type == kind}
        while True:
            port = EPHEMERAL_PORTS[self._next_port]
            self._next_port = (self._next_port + 1) % len(EPHEMERAL_PORTS)
            if port not in taken and not self.host.in_use(kind, port):
                return port

    def _add(self, connection: Connection) -> Connection:
        self._connections[connection.flow] = connection
        self._ready[connection] = None
        return connection

    def _remove(self, connection: Connection, *, reset: bool) -> None:
        """The connection has ended; the guest is told unless it knows."""
        del self._connections[connection.flow]
        self._ready.pop(connection, None)
        connection.state = State.CLOSED
        if reset:
            flow = connection.flow
            self._reset(Refusal(flow.type, HOST_CID, flow.host_port, flow.guest_port))
        connection.endpoint.on_closed(connection.error)

    def ready(self, connection: Connection) -> None:
        """`connection` may have something to send."""
        self._ready[connection] = None
        self._deliver()

    def abort(self, connection: Connection, error: OSError | None) -> None:
        """End `connection` at once, with RST."""
        connection.error = error
        self._remove(connection, reset=True)
        self._deliver()

    def _reset_overdue(self, now_ns: int) -> None:
        """The guest did not answer the end of a connection."""
        while self._closing and self._closing[0][0] <= now_ns:
            _, connection = self._closing.popleft()
            connection.abort()
        if self._closing:
            self._close_timer.arm(self._closing[0][0])

    # ---- to the guest ----

    def _deliver(self) -> None:
        if not self._busy:
            self.kick(RX)

    def _has_packet(self) -> bool:
        while self._ready:
            connection = next(iter(self._ready))
            if connection.has_packet:
                return True
            del self._ready[connection]
        return bool(self._refusals)

    def _send(self, chain: Chain) -> int:
        room = min(chain.writable_length, HEADER_SIZE + MAX_PAYLOAD) - HEADER_SIZE
        if room <= 0:
            raise BrokenQueue(f"queue {RX}: a buffer of {chain.writable_length} bytes is too small")
        # The buffer gets its frames before anything is taken that could not be put back.
        chain.writable_views(0, HEADER_SIZE + room)
        if self._refusals:
            refusal = next(iter(self._refusals))
            del self._refusals[refusal]
            packet, data = self._rst(refusal), b""
        else:
            packet, data = self._next_packet(room)
        return chain.write(packet.pack() + data)

    def _next_packet(self, room: int) -> tuple[Packet, bytes]:
        """From the connection whose turn it is; then it is the next one's."""
        connection = next(iter(self._ready))
        del self._ready[connection]
        packet, data = connection.next_packet(room)
        self._ready[connection] = None
        if connection.state is State.CLOSING:
            deadline_ns = self.transport.clock.now_ns() + RESET_TIMEOUT_NS
            self._closing.append((deadline_ns, connection))
            if len(self._closing) == 1:
                self._close_timer.arm(deadline_ns)
        return packet, data

    def _rst(self, refusal: Refusal) -> Packet:
        return Packet(refusal.cid, self.cid, refusal.port, refusal.guest_port, 0, refusal.type, Op.RST)

    def _send_event(self, chain: Chain) -> int:
        written = chain.write(_EVENT.pack(EVENT_TRANSPORT_RESET))
        self._interrupted = False
        return written
