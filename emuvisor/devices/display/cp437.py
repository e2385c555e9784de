"""Code page 437, the PC's characters, as Unicode; with the pictures that the control codes have on screen."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CP437", "decode"]

_PICTURES = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_DELETE = "⌂"

CP437 = (
    _PICTURES + bytes(range(0x20, 0x7F)).decode("ascii") + _DELETE + bytes(range(0x80, 0x100)).decode("cp437")
)
"""The character of each code. Code 0 is blank."""

_CODE_POINTS = np.array([ord(character) for character in CP437], np.dtype("<u4"))


def decode(codes: NDArray[np.uint8]) -> str:
    """The text of character codes."""
    return _CODE_POINTS[codes].tobytes().decode("utf-32-le")
