"""PS/2 keyboard: what a host types, as scan codes; and the commands that a guest sends it.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard" (101/102 keys). Scan code sets 1 and 2;
keys do not repeat while they are held. The self-test code that a keyboard sends when it gets power is left
out: every driver asks for it with a reset command.
"""

from collections import deque
from collections.abc import Callable
from typing import Self

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.keymap import keys_of, scan_codes, to_set_1
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.units import KIB

__all__ = ["Keyboard"]

FIFO_SIZE = 16
"""Bytes of scan codes that the keyboard holds; one more says that some were lost."""
TEXT_SIZE = 4 * KIB
"""Characters of typed text that wait for room in the FIFO."""
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
_FIELDS: Fields = {
    "scan_set": Number(max(SCAN_CODE_SETS), minimum=min(SCAN_CODE_SETS)),
    "enabled": Flag(),
    "leds": Number(0xFF),
    "expecting": Number(0xFF, optional=True),
    "last_sent": Number(0xFF),
    "replies": Data(MAX_REPLIES),
    "fifo": Data(FIFO_SIZE + 1),
    "text": Data(TEXT_SIZE),
}


def _nobody() -> None:
    """Stands in for a controller until one is connected."""


class Keyboard:
    """A keyboard on the wire to its controller, which calls `send` and `take`.

    Hosts use `press` and `type_text`, while the guest does not run.
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
        self.text: deque[int] = deque()
        self._set_defaults()

    def connect(self, on_data: Callable[[], None]) -> None:
        """Call `on_data` whenever there is something to take."""
        self._on_data = on_data

    def reset(self) -> None:
        """As after power-on; typed text that waits is dropped."""
        self._set_defaults()
        self.leds = 0
        self.last_sent = 0
        self.expecting = None
        self.replies.clear()
        self.text.clear()

    def press(self, key: str, down: bool = True) -> None:
        """Press or release `key`, a W3C name such as "KeyA". Where the FIFO is full it says so to the guest.

        Raises UsageError for an unknown key.
        """
        codes = self._encode(key, down)
        if not self.enabled:
            return
        if len(self.fifo) + len(codes) <= FIFO_SIZE:
            self.fifo.extend(codes)
        elif len(self.fifo) <= FIFO_SIZE and (not self.fifo or self.fifo[-1] != OVERRUN[self.scan_set]):
            self.fifo.append(OVERRUN[self.scan_set])
        self._on_data()

    def type_text(self, text: str) -> int:
        """Type `text` as the guest takes it; returns how many characters were taken, all unless 4,096 wait.

        Raises UsageError, before anything is typed, for a character that the US layout does not have.
        """
        for character in text:
            keys_of(character)
        taken = min(len(text), TEXT_SIZE - len(self.text))
        self.text.extend(text[:taken].encode("ascii"))
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

    @classmethod
    def restore(cls, state: SavedState) -> Self:
        """The keyboard as it was saved, for its controller to connect to. Raises SnapshotError."""
        keyboard = cls()
        load_fields(keyboard, state, _DEVICE, _VERSION, _FIELDS)
        for character in map(chr, keyboard.text):
            try:
                keys_of(character)
            except UsageError as error:
                raise SnapshotError(f"{_DEVICE}: saved field 'text': {error}") from error
        return keyboard

    def _set_defaults(self) -> None:
        self.scan_set = DEFAULT_SCAN_CODE_SET
        self.enabled = True
        self.fifo.clear()

    def _encode(self, key: str, down: bool) -> bytes:
        codes = scan_codes(key, down)
        return to_set_1(codes) if self.scan_set == 1 else codes

    def _type(self) -> None:
        """Move waiting text into the FIFO, a whole character at a time."""
        while self.text and self.enabled:
            events = keys_of(chr(self.text[0]))
            codes = b"".join(self._encode(key, down) for key, down in events)
            if len(self.fifo) + len(codes) > FIFO_SIZE:
                return
            self.fifo.extend(codes)
            self.text.popleft()

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
