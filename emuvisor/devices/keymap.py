"""Keys of a PC keyboard by their standard names, and which of them type a character.

Names are the `code` values of the W3C UI Events specification, for a US layout. Scan codes are those of set 2
(IBM PS/2 Hardware Interface Technical Reference, "Keyboard"), and the table by which the keyboard controller
turns them into set 1.
"""

from emuvisor.errors import UsageError

__all__ = ["BREAK", "EXTENDED", "MAKE_CODES", "RELEASED", "TO_SET_1", "keys_of", "scan_codes", "to_set_1"]

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
        raise UsageError(
            f"no key is called {key!r}; names are those of W3C UI Events, such as 'KeyA' or 'Enter'"
        )
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
