"""One connection between a guest's socket and the host's end of it (virtio 1.2, 5.10.6.3 to 5.10.6.6).

What has to be sent is never queued: it follows from the connection's state when the guest has a buffer for it. So a
guest that sends much and gives no buffers makes the host keep nothing.
"""

from enum import Enum, auto
from typing import NamedTuple, Protocol

from emuvisor.devices.virtio.vsock.packet import (
    COUNTER_MASK,
    HOST_CID,
    SEQ_EOM,
    SHUTDOWN_BOTH,
    SHUTDOWN_RECEIVE,
    SHUTDOWN_SEND,
    Op,
    Packet,
)

__all__ = ["Carrier", "Connection", "Endpoint", "Flow", "State", "Verdict"]


class Flow(NamedTuple):
    """What tells a guest's connections apart."""

    type: int
    host_port: int
    guest_port: int


class State(Enum):
    """How far a connection is."""

    REQUESTED = auto()
    """The host asked for it; the guest has not answered."""
    ESTABLISHED = auto()
    CLOSING = auto()
    """The host has said that it neither sends nor takes any more; the guest has to answer with RST."""
    CLOSED = auto()


class Verdict(Enum):
    """What becomes of a connection after a packet."""

    KEEP = auto()
    DROP = auto()
    RESET = auto()
    """It goes, and the guest is told by RST."""


class Endpoint(Protocol):
    """The host's end of a connection. All of this is called in the guest's thread."""

    @property
    def pending(self) -> int:
        """Bytes that wait to be sent to the guest."""
        ...

    def attach(self, connection: "Connection") -> None:
        """This is the connection."""
        ...

    def take(self, limit: int) -> tuple[bytes, bool]:
        """At most `limit` bytes of those that wait, and whether a message ends behind them."""
        ...

    def on_connected(self) -> None:
        """The guest has accepted."""
        ...

    def on_received(self, data: bytes, end: bool) -> None:
        """The guest sent `data`, behind which a message ends. `Connection.consumed` makes room for more."""
        ...

    def on_finished(self) -> None:
        """The guest sends no more."""
        ...

    def on_hung_up(self) -> None:
        """The guest takes no more."""
        ...

    def on_closed(self, error: OSError | None) -> None:
        """The connection is gone, by both sides' wish or by `error`."""
        ...


class Carrier(Protocol):
    """What brings a connection's packets to the guest."""

    def ready(self, connection: "Connection") -> None:
        """`connection` may have something to send."""
        ...

    def abort(self, connection: "Connection", error: OSError | None) -> None:
        """End `connection` at once, with RST."""
        ...


class Connection:
    """Lives in the guest's thread. `window` is how many bytes of the guest's the host's end holds at most."""

    def __init__(
        self, flow: Flow, endpoint: Endpoint, *, cid: int, window: int, carrier: Carrier, state: State
    ) -> None:
        """In `state` REQUESTED when the host asks, ESTABLISHED when it accepts what the guest asked for."""
        self.flow = flow
        self.endpoint = endpoint
        self.state = state
        self.error: OSError | None = None
        """Why it ended."""
        self._cid = cid
        self._window = window
        self._carrier = carrier
        self._opening: Op | None = Op.REQUEST if state is State.REQUESTED else Op.RESPONSE
        self._sent = 0
        """tx_cnt: bytes sent to the guest."""
        self._guest_window = 0
        self._guest_forwarded = 0
        """The guest's last buf_alloc and fwd_cnt."""
        self._held = 0
        """Bytes received and not yet consumed."""
        self._forwarded = 0
        """fwd_cnt: bytes consumed."""
        self._told = 0
        """fwd_cnt as the guest knows it."""
        self._update_due = False
        self._credit_asked = False
        self._shutdown_wanted = 0
        self._shutdown_sent = 0
        self._guest_shutdown = 0
        endpoint.attach(self)

    # ---- from the guest ----

    def receive(self, packet: Packet, data: bytes) -> Verdict:
        """Take a packet of this flow with its payload. What no honest driver sends ends the connection."""
        self.note_credit(packet)
        if packet.op == Op.RST:
            return self._end(Verdict.DROP, self._reset_error())
        if self.state is State.REQUESTED:
            if packet.op != Op.RESPONSE:
                return self._end(Verdict.RESET, ConnectionResetError("the guest did not answer the request"))
            self.state = State.ESTABLISHED
            self.endpoint.on_connected()
        elif packet.op == Op.RW:
            return self._receive_data(data, bool(packet.flags & SEQ_EOM))
        elif packet.op == Op.SHUTDOWN:
            return self._receive_shutdown(packet.flags)
        elif packet.op == Op.CREDIT_REQUEST:
            self._update_due = True
        elif packet.op != Op.CREDIT_UPDATE:
            return self._end(Verdict.RESET, ConnectionResetError("the guest broke the protocol"))
        self.wake()
        return Verdict.KEEP

    def note_credit(self, packet: Packet) -> None:
        """Every packet says how much the guest can take."""
        self._guest_window = packet.buf_alloc
        self._guest_forwarded = packet.fwd_cnt
        self._credit_asked = False

    def _reset_error(self) -> OSError | None:
        """What RST means now."""
        if self.state is State.REQUESTED:
            return ConnectionRefusedError(f"the guest refused the connection to port {self.flow.guest_port}")
        if self.state is State.CLOSING:
            return None
        return ConnectionResetError("the guest reset the connection")

    def _receive_data(self, data: bytes, end: bool) -> Verdict:
        if self._guest_shutdown & SHUTDOWN_SEND or self._held + len(data) > self._window:
            return self._end(
                Verdict.RESET, ConnectionResetError("the guest sent more than it had credit for")
            )
        self._held += len(data)
        if self._shutdown_wanted & SHUTDOWN_RECEIVE:
            self.consumed(len(data))  # it was under way when the host's end stopped reading
        elif data:
            self.endpoint.on_received(data, end)
        self.wake()
        return Verdict.KEEP

    def _receive_shutdown(self, flags: int) -> Verdict:
        new = flags & SHUTDOWN_BOTH & ~self._guest_shutdown
        self._guest_shutdown |= new
        if new & SHUTDOWN_RECEIVE:
            self.endpoint.on_hung_up()
        if new & SHUTDOWN_SEND:
            self.endpoint.on_finished()
        if self._guest_shutdown == SHUTDOWN_BOTH:
            return self._end(Verdict.RESET, None)
        self.wake()
        return Verdict.KEEP

    def _end(self, verdict: Verdict, error: OSError | None) -> Verdict:
        self.error = error
        return verdict

    # ---- from the host's end, in the guest's thread ----

    def consumed(self, count: int) -> None:
        """The host's end has done with `count` bytes: there is room for as many."""
        self._held -= count
        self._forwarded = (self._forwarded + count) & COUNTER_MASK
        if (self._forwarded - self._told) & COUNTER_MASK >= self._window // 2:
            self._update_due = True
        self.wake()

    def shutdown(self, flags: int) -> None:
        """Tell the guest that this end takes (SHUTDOWN_RECEIVE) or, when all is sent, sends (SHUTDOWN_SEND) no more."""
        self._shutdown_wanted |= flags
        self.wake()

    def abort(self) -> None:
        """End it at once; what waits is lost."""
        if self.state is not State.CLOSED:
            self._carrier.abort(self, None)

    def wake(self) -> None:
        """There may be something to send."""
        if self.state is not State.CLOSED:
            self._carrier.ready(self)

    # ---- to the guest ----

    @property
    def has_packet(self) -> bool:
        """Whether `next_packet` has something to say now."""
        return self._next_op() is not None

    def next_packet(self, room: int) -> tuple[Packet, bytes]:
        """The next packet, of at most `room` payload bytes; call it only if `has_packet`."""
        op = self._next_op()
        assert op is not None
        data, flags = b"", 0
        if op is self._opening:
            self._opening = None
        elif op is Op.RW:
            data, end = self.endpoint.take(min(room, self._credit()))
            self._sent = (self._sent + len(data)) & COUNTER_MASK
            flags = SEQ_EOM if end else 0
        elif op is Op.SHUTDOWN:
            flags = self._shutdown_sent = self._shutdown_due()
            if flags == SHUTDOWN_BOTH:
                self.state = State.CLOSING
        elif op is Op.CREDIT_REQUEST:
            self._credit_asked = True
        self._update_due = False
        self._told = self._forwarded
        return self._packet(op, flags, len(data)), data

    def _packet(self, op: Op, flags: int, length: int) -> Packet:
        flow = self.flow
        return Packet(
            HOST_CID,
            self._cid,
            flow.host_port,
            flow.guest_port,
            length,
            flow.type,
            op,
            flags,
            self._window,
            self._forwarded,
        )

    def _next_op(self) -> Op | None:
        if self._opening is not None:
            return self._opening
        if self.state is not State.ESTABLISHED:
            return None
        if self._pending():
            if self._credit():
                return Op.RW
            if not self._credit_asked:
                return Op.CREDIT_REQUEST
        if self._shutdown_due() & ~self._shutdown_sent:
            return Op.SHUTDOWN
        return Op.CREDIT_UPDATE if self._update_due else None

    def _pending(self) -> int:
        """Bytes that the guest still wants and has not got."""
        return 0 if self._guest_shutdown & SHUTDOWN_RECEIVE else self.endpoint.pending

    def _credit(self) -> int:
        """Bytes that the guest has room for. A guest whose counters are nonsense gets nothing, or what it asks for."""
        return max(0, self._guest_window - ((self._sent - self._guest_forwarded) & COUNTER_MASK))

    def _shutdown_due(self) -> int:
        """Both directions' flags as they can be told now; sending ends behind the last byte."""
        return self._shutdown_wanted & ~(SHUTDOWN_SEND if self._pending() else 0)
