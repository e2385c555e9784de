"""Linux's input events, as virtio-input devices report them: types, codes, and the codes of keys by their names.

Source: Linux's include/uapi/linux/input-event-codes.h, to which virtio 1.2, section 5.8, refers. Keys have the names of
`emuvisor.devices.keymap`.
"""

__all__ = [
    "ABS_X",
    "ABS_Y",
    "BUS_VIRTUAL",
    "BUTTONS",
    "EV_ABS",
    "EV_KEY",
    "EV_LED",
    "EV_REL",
    "EV_REP",
    "EV_SYN",
    "INPUT_PROP_POINTER",
    "KEYS",
    "LEDS",
    "REL_HWHEEL",
    "REL_WHEEL",
    "REL_X",
    "REL_Y",
    "REP_DELAY",
    "REP_PERIOD",
    "SYN_REPORT",
]

# Types.
EV_SYN = 0x00
EV_KEY = 0x01
EV_REL = 0x02
EV_ABS = 0x03
EV_LED = 0x11
EV_REP = 0x14

SYN_REPORT = 0
REL_X = 0x00
REL_Y = 0x01
REL_HWHEEL = 0x06
REL_WHEEL = 0x08
ABS_X = 0x00
ABS_Y = 0x01
REP_DELAY = 0x00
REP_PERIOD = 0x01

INPUT_PROP_POINTER = 0x00
BUS_VIRTUAL = 0x06

LEDS = {0: "NumLock", 1: "CapsLock", 2: "ScrollLock"}
"""LED_NUML, LED_CAPSL, LED_SCROLLL, by the keys that switch them."""

BUTTONS = {1: 0x110, 2: 0x112, 3: 0x111, 4: 0x113, 5: 0x114}
"""BTN_LEFT, BTN_MIDDLE, BTN_RIGHT, BTN_SIDE, BTN_EXTRA, by X11's numbers."""

_ROWS = {
    1: "Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace",
    15: "Tab KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight Enter",
    29: "ControlLeft KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote",
    42: "ShiftLeft Backslash KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight NumpadMultiply",
    56: "AltLeft Space CapsLock F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NumLock ScrollLock",
    71: "Numpad7 Numpad8 Numpad9 NumpadSubtract Numpad4 Numpad5 Numpad6 NumpadAdd Numpad1 Numpad2 Numpad3",
    82: "Numpad0 NumpadDecimal",
    86: "IntlBackslash F11 F12",
    96: "NumpadEnter ControlRight NumpadDivide PrintScreen AltRight",
    102: "Home ArrowUp PageUp ArrowLeft ArrowRight End ArrowDown PageDown Insert Delete",
    119: "Pause",
    125: "MetaLeft MetaRight ContextMenu",
}
"""Names of keys whose codes follow one another, by the first one's code. Up to 88 they are scan code set 1's."""

KEYS = {name: first + i for first, row in _ROWS.items() for i, name in enumerate(row.split())}
"""W3C name of a key to its code (KEY_ESC is 1, and so on). KEY_SYSRQ is 99, KEY_COMPOSE 127."""
