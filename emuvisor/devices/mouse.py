"""PS/2 mouse with a wheel and five buttons, and the commands that a guest sends it.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft, "Device Support: IntelliMouse", for
the sequences of sample rates by which drivers ask for the wheel and for the buttons 4 and 5. Packets come as fast
as the guest takes them, whatever the sample rate; movements are counts, whatever the resolution. The self-test
code that a mouse sends when it gets power is left out: every driver asks for it with a reset command.
"""

from collections import deque
from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.errors import UsageError

__all__ = ["BUTTONS", "Mouse"]

FIFO_SIZE = 16
"""Bytes of packets that wait for the guest; behind that, movements add up."""
MAX_REPLIES = 5
COUNT_LIMIT = 0x7FFF
"""Counts that add up at most while nobody takes them."""

# Commands.
SET_SCALING_1_TO_1 = 0xE6
SET_SCALING_2_TO_1 = 0xE7
SET_RESOLUTION = 0xE8
STATUS_REQUEST = 0xE9
SET_STREAM_MODE = 0xEA
READ_DATA = 0xEB
RESET_WRAP_MODE = 0xEC
SET_WRAP_MODE = 0xEE
SET_REMOTE_MODE = 0xF0
READ_DEVICE_TYPE = 0xF2
SET_SAMPLE_RATE = 0xF3
ENABLE = 0xF4
DISABLE = 0xF5
SET_DEFAULT = 0xF6
RESEND = 0xFE
RESET = 0xFF

# Answers.
ACK = 0xFA
NAK = 0xFE
SELF_TEST_PASSED = 0xAA

SAMPLE_RATES = (10, 20, 40, 60, 80, 100, 200)
DEFAULT_SAMPLE_RATE = 100
MAX_RESOLUTION = 3
DEFAULT_RESOLUTION = 2

# Device types.
STANDARD = 0
WHEEL = 3
FIVE_BUTTONS = 4
TYPE_OF_RATES = {bytes((200, 100, 80)): WHEEL, bytes((200, 200, 80)): FIVE_BUTTONS}
"""What the mouse becomes when the guest sets these three sample rates one after the other."""
KNOCK_LENGTH = 3

# First byte of a status answer; the buttons are those of a packet, in another order.
STATUS_REMOTE = 0x40
STATUS_ENABLED = 0x20
STATUS_SCALING = 0x10
STATUS_LEFT = 0x04
STATUS_MIDDLE = 0x02
STATUS_RIGHT = 0x01

# First byte of a packet.
LEFT = 0x01
RIGHT = 0x02
MIDDLE = 0x04
PACKET_BUTTONS = LEFT | RIGHT | MIDDLE
ALWAYS = 0x08
X_SIGN = 0x10
Y_SIGN = 0x20
PACKET_MIN, PACKET_MAX = -256, 255
"""What the nine bits of a movement hold."""

# Fourth byte of a packet with five buttons, beside the wheel's four bits; BACK and FORWARD lie in `buttons` as here.
BACK = 0x10
FORWARD = 0x20
WHEEL_BITS = 0x0F
WHEEL_MIN, WHEEL_MAX = -8, 7

BUTTONS = {1: LEFT, 2: MIDDLE, 3: RIGHT, 4: BACK, 5: FORWARD}
ALL_BUTTONS = sum(BUTTONS.values())

SCALED = (0, 1, 1, 3, 6, 9)
"""What scaling 2:1 makes of small movements; larger ones are doubled."""

_DEVICE = "ps2-mouse"
_VERSION = 1
_COUNT = Number(COUNT_LIMIT, minimum=-COUNT_LIMIT)
_FIELDS = Fields(
    {
        "device_type": Number(FIVE_BUTTONS),
        "enabled": Flag(),
        "remote": Flag(),
        "wrap": Flag(),
        "scaling": Flag(),
        "resolution": Number(MAX_RESOLUTION),
        "sample_rate": Number(0xFF),
        "knock": Data(KNOCK_LENGTH),
        "expecting": Number(0xFF, optional=True),
        "buttons": Number(ALL_BUTTONS),
        "unreported": Flag(),
        "dx": _COUNT,
        "dy": _COUNT,
        "dz": _COUNT,
        "replies": Data(MAX_REPLIES),
        "fifo": Data(FIFO_SIZE),
        "last_sent": Data(MAX_REPLIES),
    }
)


def _nobody() -> None:
    """Stands in for a controller until one is connected."""


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


class Mouse:
    """A mouse on the wire to its controller, which calls `send` and `take`.

    Hosts use `move`, `wheel` and `button`, while the guest does not run. A guest that has not enabled the
    mouse does not hear of movements.
    """

    name = _DEVICE

    def __init__(self) -> None:
        self._on_data: Callable[[], None] = _nobody
        self.replies: deque[int] = deque()
        self.fifo: deque[int] = deque()
        self.knock: deque[int] = deque(maxlen=KNOCK_LENGTH)
        """The last sample rates that were set."""
        self.last_sent = bytearray()
        """The answer or packet that RESEND repeats."""
        self._power_on()

    def _power_on(self) -> None:
        self.device_type = STANDARD
        self.buttons = 0
        self.expecting: int | None = None
        """The command whose argument is the next byte."""
        self.wrap = False
        self.replies.clear()
        self.knock.clear()
        self.last_sent.clear()
        self._set_defaults()

    def _set_defaults(self) -> None:
        self.sample_rate = DEFAULT_SAMPLE_RATE
        self.resolution = DEFAULT_RESOLUTION
        self.scaling = False
        self.remote = False
        self.enabled = False
        self._forget_movement()

    def _forget_movement(self) -> None:
        self.fifo.clear()
        self.dx = self.dy = self.dz = 0
        self.unreported = False
        """A button has changed since the last packet."""

    def connect(self, on_data: Callable[[], None]) -> None:
        """Call `on_data` whenever there is something to take."""
        self._on_data = on_data

    def reset(self) -> None:
        """As after power-on, no button held."""
        self._power_on()

    # The host's side.

    def move(self, dx: int, dy: int) -> None:
        """Move by `dx` counts to the right and `dy` down, as screens count."""
        if self._hears():
            self.dx = _clamp(self.dx + dx, -COUNT_LIMIT, COUNT_LIMIT)
            self.dy = _clamp(self.dy + dy, -COUNT_LIMIT, COUNT_LIMIT)
            self._tell()

    def wheel(self, dz: int) -> None:
        """Turn the wheel by `dz` notches towards the user, which scrolls down."""
        if self._hears() and self.device_type != STANDARD:
            self.dz = _clamp(self.dz + dz, -COUNT_LIMIT, COUNT_LIMIT)
            self._tell()

    def button(self, number: int, down: bool) -> None:
        """Press or release a button: 1 left, 2 middle, 3 right, 4 back, 5 forward.

        Raises UsageError for another number.
        """
        bit = BUTTONS.get(number)
        if bit is None:
            raise UsageError(f"{_DEVICE}: no button {number}; there are 1 to {len(BUTTONS)}")
        buttons = self.buttons | bit if down else self.buttons & ~bit
        if buttons != self.buttons:
            self.buttons = buttons
            self.unreported = self._hears()
            self._tell()

    def _hears(self) -> bool:
        return self.enabled or self.remote

    def _tell(self) -> None:
        self._report()
        self._on_data()

    # The controller's side.

    @property
    def has_data(self) -> bool:
        """Whether `take` has a byte."""
        return bool(self.replies or self.fifo)

    def take(self) -> int:
        """The next byte to the controller; call it only if `has_data`."""
        if self.replies:
            return self.replies.popleft()
        if len(self.fifo) % self._packet_length() == 0:
            self.last_sent[:] = bytes(self.fifo)[: self._packet_length()]
        value = self.fifo.popleft()
        self._report()
        return value

    def send(self, value: int) -> None:
        """A byte from the controller: a command or its argument.

        Answers and packets that nobody took are dropped; which buttons are held is told again.
        """
        self.replies.clear()
        self.unreported = self.unreported or bool(self.fifo)
        self.fifo.clear()
        command, self.expecting = self.expecting, None
        if self.wrap and value not in (RESET_WRAP_MODE, RESET):
            self._reply(value)
        elif command == SET_SAMPLE_RATE:
            self._set_sample_rate(value)
        elif command == SET_RESOLUTION:
            self._set_resolution(value)
        else:
            self._take_command(value)
        self._tell()

    def save(self) -> SavedState:
        """Settings, counts and what waits for the guest, as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    # Commands.

    def _reply(self, *answer: int) -> None:
        self.replies.extend(answer)
        self.last_sent[:] = bytes(answer)

    def _take_command(self, command: int) -> None:
        if command == RESEND:
            self.replies.extend(self.last_sent)
        elif command == RESET:
            self._power_on()
            self._reply(ACK, SELF_TEST_PASSED, STANDARD)
        elif command == READ_DEVICE_TYPE:
            self._reply(ACK, self.device_type)
        elif command == STATUS_REQUEST:
            self._reply(ACK, self._status(), self.resolution, self.sample_rate)
        elif command == READ_DATA:
            self._reply(ACK, *self._packet(scaled=False))
        elif command in (SET_SAMPLE_RATE, SET_RESOLUTION):
            self.expecting = command
            self._reply(ACK)
        elif self._set_mode(command):
            self._reply(ACK)
        else:
            self._reply(NAK)

    def _set_mode(self, command: int) -> bool:
        """Carry out a command that only changes how the mouse works; whether it is one."""
        if command in (SET_SCALING_1_TO_1, SET_SCALING_2_TO_1):
            self.scaling = command == SET_SCALING_2_TO_1
        elif command in (SET_WRAP_MODE, RESET_WRAP_MODE):
            self.wrap = command == SET_WRAP_MODE
        elif command in (SET_STREAM_MODE, SET_REMOTE_MODE):
            self.remote = command == SET_REMOTE_MODE
            self._forget_movement()
        elif command in (ENABLE, DISABLE):
            self.enabled = command == ENABLE
            self._forget_movement()
        elif command == SET_DEFAULT:
            self._set_defaults()
        else:
            return False
        return True

    def _set_sample_rate(self, rate: int) -> None:
        if rate not in SAMPLE_RATES:
            self._reply(NAK)
            return
        self.sample_rate = rate
        self.knock.append(rate)
        self.device_type = TYPE_OF_RATES.get(bytes(self.knock), self.device_type)
        self._reply(ACK)

    def _set_resolution(self, resolution: int) -> None:
        if resolution > MAX_RESOLUTION:
            self._reply(NAK)
            return
        self.resolution = resolution
        self._reply(ACK)

    def _status(self) -> int:
        status = 0
        if self.remote:
            status |= STATUS_REMOTE
        if self.enabled:
            status |= STATUS_ENABLED
        if self.scaling:
            status |= STATUS_SCALING
        if self.buttons & LEFT:
            status |= STATUS_LEFT
        if self.buttons & MIDDLE:
            status |= STATUS_MIDDLE
        if self.buttons & RIGHT:
            status |= STATUS_RIGHT
        return status

    # Packets.

    def _packet_length(self) -> int:
        return 3 if self.device_type == STANDARD else 4

    def _report(self) -> None:
        """Queue packets while there is something to tell and room for it."""
        while (
            self.enabled
            and not self.remote
            and not self.wrap
            and (self.unreported or self.dx or self.dy or self.dz)
            and len(self.fifo) + self._packet_length() <= FIFO_SIZE
        ):
            self.fifo.extend(self._packet(scaled=self.scaling))

    def _packet(self, scaled: bool) -> bytes:
        """What is to be told now, as much as one packet holds."""
        dx = _clamp(self.dx, PACKET_MIN, PACKET_MAX)
        up = _clamp(-self.dy, PACKET_MIN, PACKET_MAX)
        dz = _clamp(self.dz, WHEEL_MIN, WHEEL_MAX)
        self.dx -= dx
        self.dy += up
        self.dz -= dz
        self.unreported = False
        if scaled:
            dx, up = self._scale(dx), self._scale(up)
        first = ALWAYS | self.buttons & PACKET_BUTTONS
        if dx < 0:
            first |= X_SIGN
        if up < 0:
            first |= Y_SIGN
        packet = bytes((first, dx & 0xFF, up & 0xFF))
        if self.device_type == WHEEL:
            return packet + bytes((dz & 0xFF,))
        if self.device_type == FIVE_BUTTONS:
            return packet + bytes((dz & WHEEL_BITS | self.buttons & (BACK | FORWARD),))
        return packet

    @staticmethod
    def _scale(count: int) -> int:
        size = abs(count)
        size = SCALED[size] if size < len(SCALED) else 2 * size
        return _clamp(size if count > 0 else -size, PACKET_MIN, PACKET_MAX)
