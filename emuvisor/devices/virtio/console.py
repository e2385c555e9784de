"""The console device, with several ports: virtio 1.2, section 5.3."""

import threading
from collections.abc import Callable, Sequence
from struct import Struct

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields, saved_part
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.features import DeviceType, mask_of
from emuvisor.errors import UsageError
from emuvisor.units import KIB

__all__ = ["BACKLOG", "MAX_PORTS", "Console", "ConsolePort"]

# Feature bits (5.3.3).
F_SIZE = 0
F_MULTIPORT = 1
F_EMERG_WRITE = 2

# Queues (5.3.2): port 0's, the control queues, then two for each further port.
CONTROL_RX = 2
"""Messages to the driver."""
CONTROL_TX = 3
QUEUE_SIZE = 64
MAX_PORTS = 31
"""A bound of ours: with them the device has 64 queues."""

# Control messages (5.3.6.2): events.
DEVICE_READY = 0
PORT_ADD = 1
PORT_READY = 3
CONSOLE_PORT = 4
RESIZE = 5
PORT_OPEN = 6
PORT_NAME = 7
_CONTROL = Struct("<IHH")
_SIZE = Struct("<HH")

# Configuration space (5.3.4).
_CONFIG = Struct("<HHII")
EMERG_WR = 8
"""Offset of emerg_wr."""

BACKLOG = 64 * KIB
"""Bytes fed to a port that wait for the guest; the rest stays with who fed it."""
CHUNK = 64 * KIB
"""Bytes of output that are handled at once."""
MAX_OUTPUT = 1024 * KIB
"""Bytes of one request that are printed. Linux sends 32 KiB at most, so that what is cut off is nonsense."""
MAX_NAME = 64

_DEVICE = "virtio-console"
_VERSION = 1
_FIELDS = Fields({"columns": Number(0xFFFF), "rows": Number(0xFFFF)})
_PORT_DEVICE = "virtio-console port"
_PORT_FIELDS = Fields(
    {
        "guest_connected": Flag(),
        "host_connected": Flag(),
        "added": Flag(),
        "backlog": Data(BACKLOG),
    }
)
_ALL_FIELDS = Fields({**_FIELDS, "messages": Data(MAX_PORTS * 8 * (_CONTROL.size + MAX_NAME + 2))})
_LENGTH = Struct("<H")


class ConsolePort:
    """One port: `sink(data)` takes what the guest writes, in the guest's thread; `feed` is what it reads.

    A `console` port is a terminal to the guest's kernel; the others are byte pipes that guest programs find by `name`
    (in Linux /dev/virtio-ports/NAME). Raises UsageError for a name of no or more than 64 bytes.
    """

    def __init__(self, name: str, sink: Callable[[bytes], None], console: bool = False) -> None:
        if not 1 <= len(name.encode()) <= MAX_NAME:
            raise UsageError(f"console port {name!r}: a name has 1 to {MAX_NAME} bytes")
        self.name = name
        self.sink = sink
        self.console = console
        self.guest_connected = False
        """Whether a program in the guest has the port open (before that, what is fed waits)."""
        self.host_connected = True
        """What the guest is told: without, programs that read find the end, and those that write wait."""
        self.added = False
        """The driver knows the port."""
        self.on_guest_connected: Callable[[bool], None] | None = None
        """Hears of each change of `guest_connected`, in the guest's thread."""
        self.on_room: Callable[[], None] | None = None
        """Called in the guest's thread when all that was fed has been taken."""
        self._call_soon: Callable[[Callable[[], None]], None] = _nobody
        self._pump: Callable[[], None] = _nothing
        self._announce: Callable[[], None] = _nothing
        # `feed` is called by any thread, so this is not the device's alone.
        self._lock = threading.Lock()
        self.backlog = bytearray()
        """What was fed and not yet taken."""

    def feed(self, data: bytes) -> int:
        """Give the guest `data` to read; returns how many bytes were taken, fewer when `BACKLOG` wait. Any thread."""
        with self._lock:
            taken = data[: BACKLOG - len(self.backlog)]
            self.backlog += taken
        if taken:
            self._call_soon(self._pump)
        return len(taken)

    def connect(self, connected: bool = True) -> None:
        """Open or close the host's side. Any thread."""
        self.host_connected = connected
        self._call_soon(self._announce)

    def attach(
        self,
        call_soon: Callable[[Callable[[], None]], None],
        *,
        pump: Callable[[], None],
        announce: Callable[[], None],
    ) -> None:
        """The console does this: how to reach the guest's thread, and what to do there."""
        self._call_soon = call_soon
        self._pump = pump
        self._announce = announce

    def peek(self, limit: int) -> bytes:
        """At most `limit` bytes of what waits."""
        with self._lock:
            return bytes(self.backlog[:limit])

    def drop(self, count: int) -> None:
        """The guest has `count` bytes."""
        with self._lock:
            del self.backlog[:count]
            empty = not self.backlog
        if empty and self.on_room is not None:
            self.on_room()

    def set_guest_connected(self, connected: bool) -> None:
        """A program in the guest opened or closed the port."""
        if connected != self.guest_connected:
            self.guest_connected = connected
            if self.on_guest_connected is not None:
                self.on_guest_connected(connected)


def _nobody(_function: Callable[[], None]) -> None:
    """Stands in for the guest's thread while the port is not part of a console."""


def _nothing() -> None:
    """Stands in for what a console does."""


def _receive_queue(number: int) -> int:
    """The queue by which port `number` gets its input: those of the ports from 1 on are behind the control queues."""
    return 2 * number + (2 if number else 0)


class Console(VirtioDevice):
    """A console of 1 to 31 `ports`. A driver without F_MULTIPORT sees the first one only.

    Messages to the driver are kept by port and kind, the newest of each: a guest that never takes them makes the host
    keep a bounded number. Raises UsageError for another number of ports and for two of the same name.
    """

    device_id = DeviceType.CONSOLE

    def __init__(
        self,
        *,
        name: str,
        ports: Sequence[ConsolePort],
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        if not 1 <= len(ports) <= MAX_PORTS:
            raise UsageError(f"{name}: {len(ports)} ports; a console has 1 to {MAX_PORTS}")
        for i, port in enumerate(ports):
            if any(port.name == other.name for other in ports[:i]):
                raise UsageError(f"{name}: two ports are called {port.name!r}")
        super().__init__(
            name=name,
            queue_sizes=(QUEUE_SIZE,) * (2 * len(ports) + 2),
            features=mask_of(F_SIZE, F_MULTIPORT, F_EMERG_WRITE),
        )
        self.ports = tuple(ports)
        self.columns = self.rows = 0
        """The terminal's size; nothing while nobody has said it."""
        self._call_soon = call_soon
        self._pending: dict[tuple[int, int], bytes] = {}
        """Messages that wait for a buffer, by port and event."""
        for number, port in enumerate(self.ports):
            port.attach(call_soon, pump=self._pump_of(number), announce=self._announcement_of(number))

    # ---- for the host ----

    def resize(self, columns: int, rows: int) -> None:
        """The terminal at the console ports has this size. Any thread. Raises UsageError beyond 65535."""
        if not (0 <= columns <= 0xFFFF and 0 <= rows <= 0xFFFF):
            raise UsageError(f"{self.name}: a size of {columns} x {rows}; each has 16 bits")
        self._call_soon(lambda: self._resize(columns, rows))

    # ---- as a virtio device ----

    def config(self) -> bytes:
        """cols, rows, max_nr_ports, emerg_wr."""
        return _CONFIG.pack(self.columns, self.rows, len(self.ports), 0)

    def write_config(self, offset: int, data: bytes) -> None:
        """The low byte of emerg_wr is printed at once, whatever state the device is in."""
        if offset == EMERG_WR:
            self.ports[0].sink(data[:1])

    def notified(self, index: int) -> None:
        """Output or control messages from the driver, or buffers for input or messages to it."""
        queue = self.queues[index]
        if index == CONTROL_RX:
            self.serve(queue, self._send_message, while_=lambda: bool(self._pending))
        elif index == CONTROL_TX:
            self.serve(queue, self._take_message)
            self.kick(CONTROL_RX)
        else:
            port = self.ports[index // 2 - (index > CONTROL_TX)]
            if index % 2:
                self.serve(queue, lambda chain: self._print(port, chain))
            else:
                self.serve(queue, lambda chain: self._fill(port, chain), while_=lambda: self._has_input(port))

    def quiesced(self) -> None:
        """Nobody has a port open any more. What was fed waits for the next driver."""
        self._pending.clear()
        for port in self.ports:
            port.added = False
            port.set_guest_connected(False)

    # ---- input and output ----

    def _pump_of(self, number: int) -> Callable[[], None]:
        return lambda: self.kick(_receive_queue(number))

    def _has_input(self, port: ConsolePort) -> bool:
        """A port that no program in the guest has open takes nothing: Linux would throw it away."""
        return bool(port.backlog) and (port.guest_connected or not self.has(F_MULTIPORT))

    def _fill(self, port: ConsolePort, chain: Chain) -> int:
        written = chain.write(port.peek(min(chain.writable_length, BACKLOG)))
        port.drop(written)
        return written

    def _print(self, port: ConsolePort, chain: Chain) -> int:
        for offset in range(0, min(chain.readable_length, MAX_OUTPUT), CHUNK):
            port.sink(chain.read(offset, min(CHUNK, MAX_OUTPUT - offset)))
        return 0

    # ---- control messages ----

    def _take_message(self, chain: Chain) -> int:
        message = chain.read(0, _CONTROL.size)
        if len(message) == _CONTROL.size and self.has(F_MULTIPORT):
            number, event, value = _CONTROL.unpack(message)
            if event == DEVICE_READY and value:
                for i in range(len(self.ports)):
                    self._add(i)
            elif number < len(self.ports) and event == PORT_READY and value:
                self._introduce(number)
            elif number < len(self.ports) and event == PORT_OPEN:
                self.ports[number].set_guest_connected(bool(value))
                self._pump_of(number)()
        return 0

    def _add(self, number: int) -> None:
        port = self.ports[number]
        if not port.added:
            port.added = True
            self._post(number, PORT_ADD)

    def _introduce(self, number: int) -> None:
        """What the driver has to know of a port that is ready: 5.3.5."""
        port = self.ports[number]
        if port.console:
            self._post(number, CONSOLE_PORT, 1)
            if self.columns and self.rows:
                self._post_size(number)
        self._post(number, PORT_NAME, 1, port.name.encode())
        if port.host_connected:
            self._post(number, PORT_OPEN, 1)

    def _post_size(self, number: int) -> None:
        """Columns first, as the specification has it. Linux before 6.15 takes them for the rows, so that a size is told
        only when there is one to tell."""
        self._post(number, RESIZE, extra=_SIZE.pack(self.columns, self.rows))

    def _post(self, number: int, event: int, value: int = 0, extra: bytes = b"") -> None:
        self._pending.pop((number, event), None)  # the newest one counts, and comes last
        self._pending[number, event] = _CONTROL.pack(number, event, value) + extra

    def _send_message(self, chain: Chain) -> int:
        key, message = next(iter(self._pending.items()))
        written = chain.write(message)
        del self._pending[key]
        return written

    def _announcement_of(self, number: int) -> Callable[[], None]:
        def announce() -> None:
            port = self.ports[number]
            if port.added:
                self._post(number, PORT_OPEN, int(port.host_connected))
                self.kick(CONTROL_RX)

        return announce

    def _resize(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.config_changed()
        for number, port in enumerate(self.ports):
            if port.console and port.added:
                self._post_size(number)
        self.kick(CONTROL_RX)

    # ---- saved state ----

    @property
    def messages(self) -> bytes:
        """The messages that wait, each behind its length; setting it replaces them."""
        return b"".join(_LENGTH.pack(len(message)) + message for message in self._pending.values())

    @messages.setter
    def messages(self, data: bytes) -> None:
        self._pending.clear()
        while len(data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data)
            message, data = data[_LENGTH.size : _LENGTH.size + length], data[_LENGTH.size + length :]
            if len(message) >= _CONTROL.size:
                number, event, _ = _CONTROL.unpack_from(message)
                self._pending[number, event] = message

    def save_device(self) -> SavedState:
        """Size, messages that wait, and the ports with what was fed to them."""
        state = save_fields(self, _DEVICE, _VERSION, _ALL_FIELDS)
        for number, port in enumerate(self.ports):
            state[f"port {number}"] = save_fields(port, _PORT_DEVICE, _VERSION, _PORT_FIELDS)
        return state

    def load_device(self, state: SavedState) -> None:
        """Go on with the same ports. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _ALL_FIELDS)
        for number, port in enumerate(self.ports):
            part = saved_part(state, _DEVICE, f"port {number}")
            load_fields(port, part, _PORT_DEVICE, _VERSION, _PORT_FIELDS)
            if port.backlog:
                self.serve_later(_receive_queue(number))
        if self._pending:
            self.serve_later(CONTROL_RX)
