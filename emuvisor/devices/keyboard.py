"""PS/2 keyboard: what a host types, as scan codes; and the commands that a guest sends it.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard" (101/102 keys). Scan code sets 1 and 2;
keys do not repeat while they are held. The self-test code that a keyboard sends when it gets power is left
out: every driver asks for it with a reset command.
"""

from collections import deque
from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.keymap import key_called, keys_of, scan_codes, to_set_1
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.units import KIB

__all__ = ["Keyboard"]

FIFO_SIZE = 16
"""Bytes of scan codes that the keyboard holds."""
MAX_WAITING = 8 * KIB
"""Key events that wait for room in the FIFO; one more is lost, and the guest is told."""
LONGEST_NAME = 14
RELEASE_MARK = "-"
"""Stands before the name of a key that is released, where events are saved as text."""
MAX_REPLIES = 4

# Commands to the keyboard.
SET_LEDS = 0xED
ECHO = 0xEE
SCAN_CODE_SET = 0xF0
IDENTIFY = 0xF2
SET_TYPEMATIC = 0xF3
ENABLE = 0xF4
DISABLE = 0xF5
SET_DEFAULTS = 0xF6
SET_ALL_KEYS = range(0xF7, 0xFB)
"""Key types, for all keys at once; they act in set 3 only and are acknowledged."""
RESEND = 0xFE
RESET = 0xFF
WITH_ARGUMENT = (SET_LEDS, SCAN_CODE_SET, SET_TYPEMATIC)
FIRST_COMMAND = 0xED
"""A byte from here on is a command, also where an argument is expected."""

# Answers.
ACK = 0xFA
NAK = 0xFE
SELF_TEST_PASSED = 0xAA
IDENTITY = bytes((0xAB, 0x83))
OVERRUN = {1: 0xFF, 2: 0x00}

QUERY_SCAN_CODE_SET = 0
SCAN_CODE_SETS = (1, 2)
DEFAULT_SCAN_CODE_SET = 2

_DEVICE = "ps2-keyboard"
_VERSION = 1
_FIELDS = Fields(
    {
        "scan_set": Number(max(SCAN_CODE_SETS), minimum=min(SCAN_CODE_SETS)),
        "enabled": Flag(),
        "leds": Number(0xFF),
        "expecting": Number(0xFF, optional=True),
        "last_sent": Number(0xFF),
        "replies": Data(MAX_REPLIES),
        "fifo": Data(FIFO_SIZE + 1),
        "waiting": Data(MAX_WAITING * (LONGEST_NAME + 2)),
    }
)


def _nobody() -> None:
    """Stands in for a controller until one is connected."""


class Keyboard:
    """A keyboard on the wire to its controller, which calls `send` and `take`.

    Hosts use `press`, `release`, `send_keys` and `type_text`, while the guest does not run. Keys go into the
    keyboard's FIFO as the guest takes them, in the order in which they came.
    """

    name = _DEVICE

    def __init__(self) -> None:
        self._on_data: Callable[[], None] = _nobody
        self.leds = 0
        self.last_sent = 0
        self.expecting: int | None = None
        """The command whose argument is the next byte."""
        self.replies: deque[int] = deque()
        self.fifo: deque[int] = deque()
        self._events: deque[tuple[str, bool]] = deque()
        """Keys that go down or up when the FIFO has room."""
        self._set_defaults()

    def connect(self, on_data: Callable[[], None]) -> None:
        """Call `on_data` whenever there is something to take."""
        self._on_data = on_data

    def reset(self) -> None:
        """As after power-on; keys that wait are dropped."""
        self._set_defaults()
        self.leds = 0
        self.last_sent = 0
        self.expecting = None
        self.replies.clear()
        self._events.clear()

    def press(self, key: str, down: bool = True) -> None:
        """Press or release `key`, a short name such as "ret" or a W3C name such as "Enter".

        A keyboard that the guest has disabled drops it. Raises UsageError for an unknown key.
        """
        event = key_called(key), down
        if self.enabled or self._events:  # behind text that waits, keys wait too
            self._put(event)

    def release(self, key: str) -> None:
        """Release `key`. Raises UsageError for an unknown key."""
        self.press(key, down=False)

    def send_keys(self, chord: str) -> None:
        """Press the keys of `chord`, such as "ctrl-alt-delete", one after the other, and release them.

        Raises UsageError, before any is pressed, for an unknown key.
        """
        keys = [key_called(name) for name in chord.split("-")]
        for key in keys:
            self.press(key)
        for key in reversed(keys):
            self.release(key)

    def type_text(self, text: str) -> int:
        """Type `text` as the guest takes it; returns how many characters were taken, all unless thousands wait.

        Text waits also while the guest has the keyboard disabled. Raises UsageError, before anything is typed,
        for a character that the US layout does not have.
        """
        characters = [keys_of(character) for character in text]
        taken = 0
        for events in characters:
            if len(self._events) + len(events) > MAX_WAITING:
                break
            self._events.extend(events)
            taken += 1
        self._type()
        self._on_data()
        return taken

    @property
    def has_data(self) -> bool:
        """Whether `take` has a byte."""
        return bool(self.replies or self.fifo)

    def take(self) -> int:
        """The next byte to the controller; call it only if `has_data`."""
        self.last_sent = self.replies.popleft() if self.replies else self.fifo.popleft()
        self._type()
        return self.last_sent

    def send(self, value: int) -> None:
        """A byte from the controller: a command or its argument. Answers that nobody took are dropped."""
        self.replies.clear()
        command, self.expecting = self.expecting, None
        if command is not None and value < FIRST_COMMAND:
            self._take_argument(command, value)
        else:
            self._take_command(value)
        self._type()
        self._on_data()

    def save(self) -> SavedState:
        """Settings, scan codes and waiting text as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    @property
    def waiting(self) -> bytes:
        """The events that wait, as key names in ASCII, those that go up marked; setting it replaces them."""
        return " ".join(key if down else RELEASE_MARK + key for key, down in self._events).encode("ascii")

    @waiting.setter
    def waiting(self, names: bytes) -> None:
        self._events.clear()
        for word in names.decode("ascii", errors="replace").split():
            key = word.removeprefix(RELEASE_MARK)
            try:
                self._events.append((key_called(key), key == word))
            except UsageError as error:
                raise SnapshotError(f"{_DEVICE}: saved field 'waiting': {error}") from error

    def _set_defaults(self) -> None:
        self.scan_set = DEFAULT_SCAN_CODE_SET
        self.enabled = True
        self.fifo.clear()

    def _encode(self, key: str, down: bool) -> bytes:
        codes = scan_codes(key, down)
        return to_set_1(codes) if self.scan_set == 1 else codes

    def _put(self, event: tuple[str, bool]) -> None:
        if len(self._events) < MAX_WAITING:
            self._events.append(event)
        elif len(self.fifo) <= FIFO_SIZE and (not self.fifo or self.fifo[-1] != OVERRUN[self.scan_set]):
            self.fifo.append(OVERRUN[self.scan_set])
        self._type()
        self._on_data()

    def _type(self) -> None:
        """Move what waits into the FIFO, a whole key at a time."""
        while self._events and self.enabled:
            codes = self._encode(*self._events[0])
            if len(self.fifo) + len(codes) > FIFO_SIZE:
                return
            self.fifo.extend(codes)
            self._events.popleft()

    def _take_command(self, command: int) -> None:
        if command == RESEND:
            self.replies.append(self.last_sent)
        elif command == ECHO:
            self.replies.append(ECHO)
        elif command in WITH_ARGUMENT:
            self.expecting = command
            self.replies.append(ACK)
        elif command == IDENTIFY:
            self.replies.append(ACK)
            self.replies.extend(IDENTITY)
        elif command == RESET:
            self._set_defaults()
            self.replies.extend((ACK, SELF_TEST_PASSED))
        elif command in (ENABLE, DISABLE, SET_DEFAULTS):
            self._set_defaults_or_enable(command)
            self.replies.append(ACK)
        elif command in SET_ALL_KEYS:
            self.replies.append(ACK)
        else:
            self.replies.append(NAK)

    def _set_defaults_or_enable(self, command: int) -> None:
        if command == ENABLE:
            self.fifo.clear()
            self.enabled = True
        else:
            self._set_defaults()
            self.enabled = command != DISABLE

    def _take_argument(self, command: int, value: int) -> None:
        if command == SET_LEDS:
            self.leds = value
        elif command == SCAN_CODE_SET:
            if value == QUERY_SCAN_CODE_SET:
                self.replies.extend((ACK, self.scan_set))
                return
            if value not in SCAN_CODE_SETS:
                self.replies.append(NAK)
                return
            self.scan_set = value
            self.fifo.clear()
        self.replies.append(ACK)
