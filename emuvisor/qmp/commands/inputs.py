"""Keys and pointers: parts of "User interface"."""

from collections.abc import Mapping
from typing import Any

from emuvisor.devices.keymap import MAKE_CODES, key_called, to_set_1
from emuvisor.devices.virtio.input import ABS_MAX
from emuvisor.errors import UsageError
from emuvisor.host import Guest
from emuvisor.host.guest import WHEEL_DOWN, WHEEL_UP
from emuvisor.qmp.errors import ErrorClass, QmpError
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry

__all__ = ["REGISTRY", "press_together"]

REGISTRY = Registry()
MAX_KEYS = 64
"""Keys of one chord, and events of one call."""
EXTENDED = 0x80
"""What a QEMU key number has in place of the prefix E0h."""

_NUMBERS = {
    (to_set_1(codes)[-1] | (EXTENDED if len(codes) > 1 else 0)): name for name, codes in MAKE_CODES.items()
}
"""Keys by the codes of set 1, as QEMU numbers them."""
_BUTTONS = {"left": 1, "middle": 2, "right": 3, "side": 4, "extra": 5}
_WHEEL = {"wheel-up": -1, "wheel-down": 1}


def press_together(guest: Guest, keys: list[str]) -> None:
    """Press the keys (W3C names) in order, and release them."""
    for key in keys:
        _press(guest, key, True)
    for key in reversed(keys):
        _press(guest, key, False)


def _press(guest: Guest, key: str, down: bool) -> None:
    """On the keyboard of the board, or else of virtio."""
    if guest.machine.board.keyboard is not None:
        guest.press(key, down)
    else:
        guest.input("keyboard").key(key, down)


@REGISTRY.command("send-key", hold_time=int)
def send_key(monitor: Monitor, *, keys: list[Any]) -> dict[str, Any]:
    """Press keys together and release them, at once: a guest sees the order."""
    if len(keys) > MAX_KEYS:
        raise QmpError(f"Too many keys: {len(keys)}; {MAX_KEYS} are allowed")
    press_together(monitor.guest, [_key(key) for key in keys])
    return {}


def _key(value: object) -> str:
    """The W3C name of a QAPI KeyValue. Raises QmpError."""
    kind, data = _tagged(value)
    if kind == "number" and isinstance(data, int) and data in _NUMBERS:
        return _NUMBERS[data]
    if kind == "qcode" and isinstance(data, str):
        try:
            return key_called(data)
        except UsageError:
            pass
    raise QmpError(f"Parameter 'data' does not accept value '{data}'")


def _tagged(value: object) -> tuple[str, Any]:
    """The two members of a QAPI union. Raises QmpError."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or "data" not in value:
        raise QmpError("Parameter 'type' or 'data' is missing")
    return value["type"], value["data"]


@REGISTRY.command("input-send-event", head=int)
def input_send_event(monitor: Monitor, *, events: list[Any], device: str | None = None) -> dict[str, Any]:
    """Keys, buttons, and movements. Nothing happens unless all of them are understood."""
    if device is not None:
        raise QmpError(f"Device '{device}' not found", ErrorClass.DEVICE_NOT_FOUND)
    if len(events) > MAX_KEYS:
        raise QmpError(f"Too many events: {len(events)}; {MAX_KEYS} are allowed")
    actions = _Actions(monitor)
    for event in events:
        actions.add(*_tagged(event))
    actions.carry_out()
    return {}


class _Actions:
    """What a list of events comes to."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._keys: list[tuple[str, bool]] = []
        self._buttons: list[tuple[int, bool]] = []
        self._moved = {"x": 0, "y": 0}
        self._at: dict[str, int] = {}
        self._wheel = 0

    def add(self, kind: str, data: object) -> None:
        """An InputEvent. Raises QmpError."""
        if not isinstance(data, dict):
            raise QmpError("Invalid parameter type for 'data', expected: object")
        match kind:
            case "key":
                self._keys.append((_key(data.get("key")), _down(data)))
            case "btn":
                self._button(data.get("button"), _down(data))
            case "rel" | "abs":
                axis, value = data.get("axis"), data.get("value")
                if axis not in ("x", "y") or not isinstance(value, int) or isinstance(value, bool):
                    raise QmpError("An axis is 'x' or 'y', its value an integer")
                if not abs(value) <= ABS_MAX:
                    raise QmpError(f"An axis goes to {ABS_MAX}, not to {value}")
                if kind == "rel":
                    self._moved[axis] += value
                else:
                    self._at[axis] = value
            case _:
                raise QmpError(f"Parameter 'type' does not accept value '{kind}'")

    def _button(self, button: object, down: bool) -> None:
        if isinstance(button, str) and button in _WHEEL:
            self._wheel += _WHEEL[button] if down else 0
        elif isinstance(button, str) and button in _BUTTONS:
            self._buttons.append((_BUTTONS[button], down))
        else:
            raise QmpError(f"Parameter 'button' does not accept value '{button}'")

    def carry_out(self) -> None:
        """Movements first, so that a click is where the pointer is."""
        guest = self._monitor.guest
        for key, down in self._keys:
            _press(guest, key, down)
        if self._at or "tablet" in guest.config.input:
            tablet = guest.input("tablet")
            if self._at:
                tablet.position(self._at.get("x", 0), self._at.get("y", 0))
            for number, down in self._buttons:
                tablet.button(number, down)
            if self._wheel:
                tablet.wheel(self._wheel)
        elif any(self._moved.values()) or self._buttons or self._wheel:
            self._move_mouse(guest)

    def _move_mouse(self, guest: Guest) -> None:
        if "mouse" in guest.config.input:
            mouse = guest.input("mouse")
            mouse.move(self._moved["x"], self._moved["y"])
            for number, down in self._buttons:
                mouse.button(number, down)
            if self._wheel:
                mouse.wheel(self._wheel)
            return
        dx, dy = self._moved["x"], self._moved["y"]
        held = self._monitor.buttons
        if not self._buttons:
            guest.point(dx, dy, held)
        for number, down in self._buttons:
            held = held | 1 << number - 1 if down else held & ~(1 << number - 1)
            guest.point(dx, dy, held & 0b111)
            dx = dy = 0
        self._monitor.buttons = held
        for _ in range(abs(self._wheel)):
            guest.point(0, 0, held & 0b111 | (WHEEL_DOWN if self._wheel > 0 else WHEEL_UP))


def _down(data: Mapping[str, Any]) -> bool:
    down = data.get("down")
    if not isinstance(down, bool):
        raise QmpError("Invalid parameter type for 'down', expected: boolean")
    return down
