"""Keys of a PC keyboard by their standard names, and which of them type a character.

Names are the `code` values of the W3C UI Events specification, for a US layout; `key_called` knows the short ones
that people type, as QEMU's monitor has them, and `keysym_to_key` those of X11 (keysymdef.h), which VNC uses. Scan
codes are those of set 2 (IBM PS/2 Hardware Interface Technical Reference, "Keyboard"), and the table by which the
keyboard controller turns them into set 1.
"""

from emuvisor.errors import UsageError

__all__ = [
    "BREAK",
    "EXTENDED",
    "MAKE_CODES",
    "RELEASED",
    "SHORT_NAMES",
    "TO_SET_1",
    "key_called",
    "keys_of",
    "keysym_to_key",
    "scan_codes",
    "to_set_1",
]

EXTENDED = 0xE0
"""First byte of the codes of keys that the 84-key keyboard did not have."""
BREAK = 0xF0
"""Set 2's byte before the code of a key that is released."""
RELEASED = 0x80
"""Set 1's bit for the same."""

_PLAIN = {
    "KeyA": 0x1C, "KeyB": 0x32, "KeyC": 0x21, "KeyD": 0x23, "KeyE": 0x24, "KeyF": 0x2B, "KeyG": 0x34,
    "KeyH": 0x33, "KeyI": 0x43, "KeyJ": 0x3B, "KeyK": 0x42, "KeyL": 0x4B, "KeyM": 0x3A, "KeyN": 0x31,
    "KeyO": 0x44, "KeyP": 0x4D, "KeyQ": 0x15, "KeyR": 0x2D, "KeyS": 0x1B, "KeyT": 0x2C, "KeyU": 0x3C,
    "KeyV": 0x2A, "KeyW": 0x1D, "KeyX": 0x22, "KeyY": 0x35, "KeyZ": 0x1A,
    "Digit1": 0x16, "Digit2": 0x1E, "Digit3": 0x26, "Digit4": 0x25, "Digit5": 0x2E,
    "Digit6": 0x36, "Digit7": 0x3D, "Digit8": 0x3E, "Digit9": 0x46, "Digit0": 0x45,
    "Backquote": 0x0E, "Minus": 0x4E, "Equal": 0x55, "BracketLeft": 0x54, "BracketRight": 0x5B,
    "Backslash": 0x5D, "Semicolon": 0x4C, "Quote": 0x52, "Comma": 0x41, "Period": 0x49, "Slash": 0x4A,
    "IntlBackslash": 0x61, "Space": 0x29, "Enter": 0x5A, "Tab": 0x0D, "Backspace": 0x66, "Escape": 0x76,
    "CapsLock": 0x58, "ShiftLeft": 0x12, "ShiftRight": 0x59, "ControlLeft": 0x14, "AltLeft": 0x11,
    "F1": 0x05, "F2": 0x06, "F3": 0x04, "F4": 0x0C, "F5": 0x03, "F6": 0x0B, "F7": 0x83, "F8": 0x0A,
    "F9": 0x01, "F10": 0x09, "F11": 0x78, "F12": 0x07, "ScrollLock": 0x7E, "NumLock": 0x77,
    "Numpad0": 0x70, "Numpad1": 0x69, "Numpad2": 0x72, "Numpad3": 0x7A, "Numpad4": 0x6B, "Numpad5": 0x73,
    "Numpad6": 0x74, "Numpad7": 0x6C, "Numpad8": 0x75, "Numpad9": 0x7D, "NumpadDecimal": 0x71,
    "NumpadAdd": 0x79, "NumpadSubtract": 0x7B, "NumpadMultiply": 0x7C,
}  # fmt: skip

_EXTENDED = {
    "ControlRight": 0x14, "AltRight": 0x11, "MetaLeft": 0x1F, "MetaRight": 0x27, "ContextMenu": 0x2F,
    "Insert": 0x70, "Delete": 0x71, "Home": 0x6C, "End": 0x69, "PageUp": 0x7D, "PageDown": 0x7A,
    "ArrowUp": 0x75, "ArrowDown": 0x72, "ArrowLeft": 0x6B, "ArrowRight": 0x74,
    "NumpadDivide": 0x4A, "NumpadEnter": 0x5A,
}  # fmt: skip

MAKE_CODES = {
    **{name: bytes((code,)) for name, code in _PLAIN.items()},
    **{name: bytes((EXTENDED, code)) for name, code in _EXTENDED.items()},
}
"""Set 2's code for each key when it is pressed. PrintScreen and Pause are in `scan_codes`."""

_IRREGULAR = {
    ("PrintScreen", True): bytes.fromhex("e012e07c"),
    ("PrintScreen", False): bytes.fromhex("e0f07ce0f012"),
    ("Pause", True): bytes.fromhex("e11477e1f014f077"),
    ("Pause", False): b"",  # never reported
}

TO_SET_1 = bytes.fromhex(
    "ff43413f 3d3b3c58 64444240 3e0f2959"
    "65382a70 1d10025a 66712c1f 1e11035b"
    "672e2d20 1205045c 68392f21 1413065d"
    "69313023 2215075e 6a723224 1608095f"
    "6b332517 180b0a60 6c343526 27190c61"
    "6d732874 1a0d626e 3a361c1b 752b6376"
    "55567778 797a0e7b 7c4f7d4b 477e7f6f"
    "5253504c 4d480145 574e514a 37494654"
    "80818241 54"
) + bytes(range(0x85, 0x100))
"""The controller's translation: index is a byte of set 2, value the byte of set 1."""

_NAMES_HINT = "names are short ones, such as 'a', 'ret' or 'ctrl', or those of W3C UI Events, such as 'KeyA'"


def to_set_1(codes: bytes) -> bytes:
    """Set 2's bytes of whole keys as set 1's."""
    translated = bytearray()
    released = 0
    for code in codes:
        if code == BREAK:
            released = RELEASED
        else:
            translated.append(TO_SET_1[code] | released)
            released = 0
    return bytes(translated)


def scan_codes(key: str, pressed: bool) -> bytes:
    """Set 2's bytes for `key` going down or up.

    Raises UsageError for an unknown key.
    """
    irregular = _IRREGULAR.get((key, pressed))
    if irregular is not None:
        return irregular
    make = MAKE_CODES.get(key)
    if make is None:
        raise UsageError(f"no key is called {key!r}; {_NAMES_HINT}")
    return make if pressed else make[:-1] + bytes((BREAK, make[-1]))


_UNSHIFTED = {" ": "Space", "\n": "Enter", "\t": "Tab", "\b": "Backspace", "\x1b": "Escape"}
_SHIFTED: dict[str, str] = {}
for _letter in "abcdefghijklmnopqrstuvwxyz":
    _UNSHIFTED[_letter] = _SHIFTED[_letter.upper()] = f"Key{_letter.upper()}"
for _digit, _symbol in zip("1234567890", "!@#$%^&*()", strict=True):
    _UNSHIFTED[_digit] = _SHIFTED[_symbol] = f"Digit{_digit}"
for _pair, _name in {
    "`~": "Backquote", "-_": "Minus", "=+": "Equal", "[{": "BracketLeft", "]}": "BracketRight",
    "\\|": "Backslash", ";:": "Semicolon", "'\"": "Quote", ",<": "Comma", ".>": "Period", "/?": "Slash",
}.items():  # fmt: skip
    _UNSHIFTED[_pair[0]] = _SHIFTED[_pair[1]] = _name


def keys_of(character: str) -> tuple[tuple[str, bool], ...]:
    """The key events (name, pressed) that type `character`: press and release, inside a shift where needed.

    Raises UsageError for a character that the US layout does not have.
    """
    key = _UNSHIFTED.get(character)
    if key is not None:
        return (key, True), (key, False)
    key = _SHIFTED.get(character)
    if key is None:
        raise UsageError(f"the US keyboard layout cannot type {character!r}")
    return ("ShiftLeft", True), (key, True), (key, False), ("ShiftLeft", False)


SHORT_NAMES = {
    **{letter: f"Key{letter.upper()}" for letter in "abcdefghijklmnopqrstuvwxyz"},
    **{digit: f"Digit{digit}" for digit in "0123456789"},
    **{f"f{number}": f"F{number}" for number in range(1, 13)},
    **{f"kp_{digit}": f"Numpad{digit}" for digit in "0123456789"},
    "ret": "Enter", "enter": "Enter", "esc": "Escape", "spc": "Space", "space": "Space", "tab": "Tab",
    "backspace": "Backspace", "delete": "Delete", "insert": "Insert", "home": "Home", "end": "End",
    "pgup": "PageUp", "pgdn": "PageDown", "up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft",
    "right": "ArrowRight", "shift": "ShiftLeft", "shift_r": "ShiftRight", "ctrl": "ControlLeft",
    "ctrl_r": "ControlRight", "alt": "AltLeft", "alt_r": "AltRight", "altgr": "AltRight",
    "meta_l": "MetaLeft", "meta_r": "MetaRight", "menu": "ContextMenu", "caps_lock": "CapsLock",
    "num_lock": "NumLock", "scroll_lock": "ScrollLock", "print": "PrintScreen", "sysrq": "PrintScreen",
    "pause": "Pause", "grave_accent": "Backquote", "minus": "Minus", "equal": "Equal",
    "bracket_left": "BracketLeft", "bracket_right": "BracketRight", "backslash": "Backslash",
    "semicolon": "Semicolon", "apostrophe": "Quote", "comma": "Comma", "dot": "Period", "slash": "Slash",
    "less": "IntlBackslash", "kp_add": "NumpadAdd", "kp_subtract": "NumpadSubtract",
    "kp_multiply": "NumpadMultiply", "kp_divide": "NumpadDivide", "kp_decimal": "NumpadDecimal",
    "kp_enter": "NumpadEnter",
}  # fmt: skip
"""The names that QEMU's `sendkey` has, and a few of their like."""

_EVERY_KEY = frozenset(MAKE_CODES) | {key for key, _ in _IRREGULAR}


def key_called(name: str) -> str:
    """The W3C name of the key that is called `name`, a short name or a W3C name.

    Raises UsageError for an unknown name.
    """
    key = SHORT_NAMES.get(name, name)
    if key not in _EVERY_KEY:
        raise UsageError(f"no key is called {name!r}; {_NAMES_HINT}")
    return key


_KEYSYMS = {
    0xFF08: "Backspace", 0xFF09: "Tab", 0xFE20: "Tab", 0xFF0A: "Enter", 0xFF0D: "Enter", 0xFF13: "Pause",
    0xFF14: "ScrollLock", 0xFF15: "PrintScreen", 0xFF1B: "Escape", 0xFF50: "Home", 0xFF51: "ArrowLeft",
    0xFF52: "ArrowUp", 0xFF53: "ArrowRight", 0xFF54: "ArrowDown", 0xFF55: "PageUp", 0xFF56: "PageDown",
    0xFF57: "End", 0xFF61: "PrintScreen", 0xFF63: "Insert", 0xFF67: "ContextMenu", 0xFF6B: "Pause",
    0xFF7E: "AltRight", 0xFE03: "AltRight", 0xFF7F: "NumLock", 0xFFFF: "Delete",
    0xFF80: "Space", 0xFF8D: "NumpadEnter", 0xFF95: "Numpad7", 0xFF96: "Numpad4", 0xFF97: "Numpad8",
    0xFF98: "Numpad6", 0xFF99: "Numpad2", 0xFF9A: "Numpad9", 0xFF9B: "Numpad3", 0xFF9C: "Numpad1",
    0xFF9D: "Numpad5", 0xFF9E: "Numpad0", 0xFF9F: "NumpadDecimal", 0xFFAA: "NumpadMultiply",
    0xFFAB: "NumpadAdd", 0xFFAC: "NumpadDecimal", 0xFFAD: "NumpadSubtract", 0xFFAE: "NumpadDecimal",
    0xFFAF: "NumpadDivide", 0xFFBD: "Equal",
    0xFFE1: "ShiftLeft", 0xFFE2: "ShiftRight", 0xFFE3: "ControlLeft", 0xFFE4: "ControlRight",
    0xFFE5: "CapsLock", 0xFFE7: "MetaLeft", 0xFFE8: "MetaRight", 0xFFE9: "AltLeft", 0xFFEA: "AltRight",
    0xFFEB: "MetaLeft", 0xFFEC: "MetaRight",
    **{0xFFB0 + digit: f"Numpad{digit}" for digit in range(10)},
    **{0xFFBD + number: f"F{number}" for number in range(1, 13)},
}  # fmt: skip
"""X11's keysyms of keys that type nothing, and of the keypad. Those of Latin-1 are the characters' codes."""


def keysym_to_key(keysym: int) -> str | None:
    """The W3C name of the key that has `keysym` on a US keyboard; None when no key has it.

    A shifted character's key is that of the unshifted one: clients send their shift as a key of its own.
    """
    key = _KEYSYMS.get(keysym)
    if key is None and 0x20 <= keysym <= 0x7E:
        key = _UNSHIFTED.get(chr(keysym)) or _SHIFTED.get(chr(keysym))
    return key
