"""The input device, as a keyboard, a mouse or a tablet: virtio 1.2, section 5.8."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Literal

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Number, Numbers, load_fields, save_fields
from emuvisor.devices.keymap import key_called
from emuvisor.devices.virtio.chain import Chain
from emuvisor.devices.virtio.device import VirtioDevice
from emuvisor.devices.virtio.evdev import (
    ABS_X,
    ABS_Y,
    BUS_VIRTUAL,
    BUTTONS,
    EV_ABS,
    EV_KEY,
    EV_LED,
    EV_REL,
    EV_REP,
    EV_SYN,
    INPUT_PROP_POINTER,
    KEYS,
    LEDS,
    REL_HWHEEL,
    REL_WHEEL,
    REL_X,
    REL_Y,
    REP_DELAY,
    REP_PERIOD,
    SYN_REPORT,
)
from emuvisor.devices.virtio.features import DeviceType
from emuvisor.errors import UsageError

__all__ = ["ABS_MAX", "MAX_EVENTS", "Input"]

EVENT_QUEUE = 0
STATUS_QUEUE = 1
QUEUE_SIZE = 64

# Configuration space (5.8.4).
CFG_ID_NAME = 0x01
CFG_ID_SERIAL = 0x02
CFG_ID_DEVIDS = 0x03
CFG_PROP_BITS = 0x10
CFG_EV_BITS = 0x11
CFG_ABS_INFO = 0x12
SELECT_SIZE = 2
"""Bytes that the driver may write: select, subsel."""
_HEADER = Struct("<BBB5x")
UNION_SIZE = 128
_ABSINFO = Struct("<IIIII")
_DEVIDS = Struct("<HHHH")

_EVENT = Struct("<HHi")
EVENT_SIZE = _EVENT.size
REPORT = _EVENT.pack(EV_SYN, SYN_REPORT, 0)
"""Ends each group of events."""

ABS_MAX = 0x7FFF
"""The far edge of a tablet's axes."""
MAX_DELTA = 0x7FFF
MAX_EVENTS = 1024
"""Events that wait for buffers; groups that come then are dropped as a whole."""
VENDOR, PRODUCT = 0x1AF4, {"keyboard": 1, "mouse": 2, "tablet": 3}
"""PCI's number of virtio's vendor; the products are ours."""
REVISION = 1

Kind = Literal["keyboard", "mouse", "tablet"]

_DEVICE = "virtio-input"
_VERSION = 1
_FIELDS = Fields(
    {
        "select": Number(0xFF),
        "subsel": Number(0xFF),
        "lit": Numbers(len(LEDS), max(LEDS)),
        "held": Numbers(len(KEYS) + len(BUTTONS), 0xFFFF),
        "events": Data((MAX_EVENTS + 2 * (len(KEYS) + len(BUTTONS))) * EVENT_SIZE),
    }
)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a kind of device can report: event type to its codes."""

    codes: dict[int, tuple[int, ...]]
    properties: tuple[int, ...] = ()
    axes: tuple[int, ...] = field(default=())
    """Absolute ones, from 0 to ABS_MAX."""


_BUTTON_CODES = tuple(BUTTONS.values())
ABILITIES: dict[str, Abilities] = {
    "keyboard": Abilities(
        {EV_KEY: tuple(KEYS.values()), EV_LED: tuple(LEDS), EV_REP: (REP_DELAY, REP_PERIOD)}
    ),
    "mouse": Abilities(
        {EV_KEY: _BUTTON_CODES, EV_REL: (REL_X, REL_Y, REL_HWHEEL, REL_WHEEL)}, (INPUT_PROP_POINTER,)
    ),
    "tablet": Abilities(
        {EV_KEY: _BUTTON_CODES, EV_REL: (REL_HWHEEL, REL_WHEEL), EV_ABS: (ABS_X, ABS_Y)},
        (INPUT_PROP_POINTER,),
        (ABS_X, ABS_Y),
    ),
}


def _bitmap(codes: Iterable[int]) -> bytes:
    """One bit for each code, without zeros at the end."""
    bits = sum(1 << code for code in codes)
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


class Input(VirtioDevice):
    """A keyboard, a mouse or a tablet. People's side (`key`, `button`, `move`, `wheel`, `position`) may be called by
    any thread; each call is one group of events, which reaches the guest whole or, when `MAX_EVENTS` wait, not at all.
    Keys and buttons that the guest believes to be down are always released.

    Raises UsageError for another kind.
    """

    device_id = DeviceType.INPUT

    def __init__(self, *, name: str, kind: Kind, call_soon: Callable[[Callable[[], None]], None]) -> None:
        if kind not in ABILITIES:
            raise UsageError(f"{name}: no input device is a {kind!r}; there are {', '.join(ABILITIES)}")
        super().__init__(name=name, queue_sizes=(QUEUE_SIZE, QUEUE_SIZE))
        self.kind = kind
        self.dropped = 0
        """Groups of events that the guest never got."""
        self.select = 0
        self.subsel = 0
        self.lit: list[int] = []
        """Codes of the lights that are on."""
        self.held: list[int] = []
        """Codes of keys and buttons that are down."""
        self._abilities = ABILITIES[kind]
        self._call_soon = call_soon
        self._waiting: deque[bytes] = deque()

    # ---- for people ----

    def key(self, name: str, down: bool = True) -> None:
        """Press or release a key, by a short name such as "ret" or a W3C name such as "Enter".

        Raises UsageError for an unknown key, and unless this is a keyboard.
        """
        self._only("keyboard")
        self._press(KEYS[key_called(name)], down)

    def button(self, number: int, down: bool = True) -> None:
        """Press or release a button: 1 left, 2 middle, 3 right, 4 back, 5 forward, as the PS/2 mouse counts.

        Raises UsageError for another number, and for a keyboard.
        """
        self._only("mouse", "tablet")
        if number not in BUTTONS:
            raise UsageError(f"{self.name}: no button {number}; there are 1 to {len(BUTTONS)}")
        self._press(BUTTONS[number], down)

    def move(self, dx: int, dy: int) -> None:
        """Move by `dx` counts to the right and `dy` down. Raises UsageError unless this is a mouse."""
        self._only("mouse")
        self._report((EV_REL, code, _clamp(delta)) for code, delta in ((REL_X, dx), (REL_Y, dy)) if delta)

    def wheel(self, dz: int, dx: int = 0) -> None:
        """Turn the wheel by `dz` notches towards the user, which scrolls down, and tilt it by `dx` to the right.

        Raises UsageError for a keyboard.
        """
        self._only("mouse", "tablet")
        turns = ((REL_WHEEL, -dz), (REL_HWHEEL, dx))
        self._report((EV_REL, code, _clamp(delta)) for code, delta in turns if delta)

    def position(self, x: int, y: int) -> None:
        """Point at (`x`, `y`), each from 0 to `ABS_MAX` from the upper left.

        Raises UsageError outside of that, and unless this is a tablet.
        """
        self._only("tablet")
        if not (0 <= x <= ABS_MAX and 0 <= y <= ABS_MAX):
            raise UsageError(f"{self.name}: ({x}, {y}) is not on the tablet; each is 0 to {ABS_MAX}")
        self._report(((EV_ABS, ABS_X, x), (EV_ABS, ABS_Y, y)))

    @property
    def leds(self) -> frozenset[str]:
        """The keyboard's lights that are on: of "NumLock", "CapsLock", "ScrollLock"."""
        return frozenset(LEDS[code] for code in self.lit)

    def _only(self, *kinds: str) -> None:
        if self.kind not in kinds:
            raise UsageError(f"{self.name}: a {self.kind} cannot do that; a {' or a '.join(kinds)} can")

    def _press(self, code: int, down: bool) -> None:
        if down == (code in self.held):
            return  # it is already
        if down:
            if self._report(((EV_KEY, code, 1),)):
                self.held.append(code)
        else:
            self.held.remove(code)
            self._report(((EV_KEY, code, 0),), always=True)

    def _report(self, events: Iterable[tuple[int, int, int]], *, always: bool = False) -> bool:
        """Queue a group of events; whether there was room for it."""
        group = [_EVENT.pack(*event) for event in events]
        if not group:
            return True
        if not always and len(self._waiting) + len(group) >= MAX_EVENTS:
            self.dropped += 1
            return False
        self._waiting.extend([*group, REPORT])
        self._call_soon(self._deliver)
        return True

    def _deliver(self) -> None:
        if self.live:
            self.kick(EVENT_QUEUE)
        else:
            self._forget()  # there is no driver that could want it

    def _forget(self) -> None:
        self._waiting.clear()
        self.held.clear()

    # ---- as a virtio device ----

    def config(self) -> bytes:
        """select, subsel, and what they ask for."""
        answer = self._answer()[:UNION_SIZE]
        return _HEADER.pack(self.select, self.subsel, len(answer)) + answer.ljust(UNION_SIZE, b"\0")

    def _answer(self) -> bytes:
        if self.select == CFG_EV_BITS:
            return _bitmap(self._abilities.codes.get(self.subsel, ()))
        if self.select == CFG_ABS_INFO:
            return _ABSINFO.pack(0, ABS_MAX, 0, 0, 0) if self.subsel in self._abilities.axes else b""
        if self.subsel:
            return b""
        if self.select == CFG_ID_NAME:
            return f"emuvisor {self.kind}".encode()
        if self.select == CFG_ID_SERIAL:
            return self.name.encode()
        if self.select == CFG_ID_DEVIDS:
            return _DEVIDS.pack(BUS_VIRTUAL, VENDOR, PRODUCT[self.kind], REVISION)
        if self.select == CFG_PROP_BITS:
            return _bitmap(self._abilities.properties)
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """select and subsel; the rest is not the driver's."""
        chosen = bytearray((self.select, self.subsel))
        for place, value in enumerate(data, offset):
            if place < SELECT_SIZE:
                chosen[place] = value
        self.select, self.subsel = chosen

    def notified(self, index: int) -> None:
        """Buffers for events, or the state of the lights."""
        queue = self.queues[index]
        if index == EVENT_QUEUE:
            self.serve(queue, self._send, while_=lambda: bool(self._waiting))
        else:
            self.serve(queue, self._take_status)

    def quiesced(self) -> None:
        """The next driver begins with nothing pressed and no light on."""
        self.select = self.subsel = 0
        self.lit.clear()
        self._forget()

    def _send(self, chain: Chain) -> int:
        written = chain.write(self._waiting[0])
        self._waiting.popleft()
        return written

    def _take_status(self, chain: Chain) -> int:
        event = chain.read(0, EVENT_SIZE)
        if len(event) == EVENT_SIZE:
            kind, code, value = _EVENT.unpack(event)
            if kind == EV_LED and code in LEDS:
                if code in self.lit:
                    self.lit.remove(code)
                if value:
                    self.lit.append(code)
        return 0

    # ---- saved state ----

    @property
    def events(self) -> bytes:
        """The events that wait; setting it replaces them."""
        return b"".join(self._waiting)

    @events.setter
    def events(self, data: bytes) -> None:
        self._waiting.clear()
        whole = len(data) // EVENT_SIZE * EVENT_SIZE
        self._waiting.extend(data[i : i + EVENT_SIZE] for i in range(0, whole, EVENT_SIZE))

    def save_device(self) -> SavedState:
        """What was selected, pressed and lit, and the events that wait."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load_device(self, state: SavedState) -> None:
        """Go on with the same. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        if self._waiting:
            self.serve_later(EVENT_QUEUE)


def _clamp(delta: int) -> int:
    return max(-MAX_DELTA, min(MAX_DELTA, delta))
