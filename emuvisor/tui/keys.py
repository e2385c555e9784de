"""Keys as the bytes that a terminal sends for them (xterm's, in its normal mode)."""

__all__ = ["key_bytes"]

_KEYS = {
    "enter": b"\r",
    "tab": b"\t",
    "escape": b"\x1b",
    "backspace": b"\x7f",
    "delete": b"\x1b[3~",
    "insert": b"\x1b[2~",
    "up": b"\x1b[A",
    "down": b"\x1b[B",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "pageup": b"\x1b[5~",
    "pagedown": b"\x1b[6~",
    "shift+tab": b"\x1b[Z",
    "ctrl+@": b"\0",
    "ctrl+backslash": b"\x1c",
    "ctrl+right_square_bracket": b"\x1d",
    "ctrl+circumflex_accent": b"\x1e",
    "ctrl+underscore": b"\x1f",
}
_CONTROL_MASK = 0x1F


def key_bytes(key: str, character: str | None) -> bytes:
    """What textual's `key`, which gives `character`, is on a serial line; nothing for keys that it has no bytes for."""
    if key in _KEYS:
        return _KEYS[key]
    modifier, plus, letter = key.partition("+")
    if plus and modifier == "ctrl" and len(letter) == 1 and letter.isascii() and letter.isalpha():
        return bytes([ord(letter) & _CONTROL_MASK])
    return (character or "").encode(errors="ignore")
