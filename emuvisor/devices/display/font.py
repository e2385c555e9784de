"""Our font of 8 by 16 dots for code page 437: letters and signs as drawn in glyphs.txt, boxes and blocks computed.

What neither has is shown as a hollow box.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.cp437 import CP437

__all__ = ["GLYPH_HEIGHT", "font"]

GLYPH_WIDTH = 8
GLYPH_HEIGHT = 16
DRAWN_HEIGHT = 12
DRAWN_WIDTH = 7
DRAWN_TOP = 2
"""Lines above what glyphs.txt has."""
BAND = 9
"""Dots from one drawing to the next beside it."""
DOT = "#"

Dots = NDArray[np.bool_]
"""(GLYPH_HEIGHT, GLYPH_WIDTH)."""

# Box drawing: the lines that leave the middle to the left, right, top and bottom; 1 is a single and 2 a double line.
_BOXES = {
    "│": "0011", "┤": "1011", "╡": "2011", "╢": "1022", "╖": "1002", "╕": "2001", "╣": "2022", "║": "0022",
    "╗": "2002", "╝": "2020", "╜": "1020", "╛": "2010", "┐": "1001", "└": "0110", "┴": "1110", "┬": "1101",
    "├": "0111", "─": "1100", "┼": "1111", "╞": "0211", "╟": "0122", "╚": "0220", "╔": "0202", "╩": "2220",
    "╦": "2202", "╠": "0222", "═": "2200", "╬": "2222", "╧": "2210", "╨": "1120", "╤": "2201", "╥": "1102",
    "╙": "0120", "╘": "0210", "╒": "0201", "╓": "0102", "╫": "1122", "╪": "2211", "┘": "1010", "┌": "0101",
}  # fmt: skip
COLUMNS = {"1": (3,), "2": (2, 5)}
LINES = {"1": (7,), "2": (6, 9)}

_HALF_WIDTH = GLYPH_WIDTH // 2
_HALF_HEIGHT = GLYPH_HEIGHT // 2
_BLOCKS = {
    "█": (slice(None), slice(None)),
    "▄": (slice(_HALF_HEIGHT, None), slice(None)),
    "▀": (slice(None, _HALF_HEIGHT), slice(None)),
    "▌": (slice(None), slice(None, _HALF_WIDTH)),
    "▐": (slice(None), slice(_HALF_WIDTH, None)),
}
_SHADES = {"░": (0, 8), "▒": (0, 8, 5, 13), "▓": (0, 8, 5, 13, 2, 10, 7, 15)}
"""By shade: which of the sixteen places of a 4 by 4 pattern have a dot."""


@cache
def font() -> NDArray[np.uint8]:
    """(256, GLYPH_HEIGHT): for each code and line a byte, the leftmost dot in its highest bit."""
    dots = np.stack([_glyph(character) for character in CP437])
    return np.packbits(dots, axis=2)[..., 0]


def _glyph(character: str) -> Dots:
    dots = np.zeros((GLYPH_HEIGHT, GLYPH_WIDTH), np.bool_)
    drawn = _drawings().get(character)
    if drawn is not None:
        dots[DRAWN_TOP : DRAWN_TOP + DRAWN_HEIGHT, :DRAWN_WIDTH] = drawn
    elif character in _BOXES:
        _draw_box(dots, _BOXES[character])
    elif character in _BLOCKS:
        dots[_BLOCKS[character]] = True
    elif character in _SHADES:
        pattern = np.isin(np.arange(16), _SHADES[character]).reshape(4, 4)
        dots[:] = np.tile(pattern, (GLYPH_HEIGHT // 4, GLYPH_WIDTH // 4))
    elif not character.isspace():
        dots[3:12, 1:6] = True
        dots[4:11, 2:5] = False
    return dots


def _draw_box(dots: Dots, arms: str) -> None:
    """Lines from the edges to the far side of what they meet in the middle."""
    left, right, up, down = list(arms)
    across = [column for arm in (up, down) for column in COLUMNS.get(arm, ())] or [_HALF_WIDTH - 1]
    along = [line for arm in (left, right) for line in LINES.get(arm, ())] or [_HALF_HEIGHT - 1]
    for line in LINES.get(left, ()):
        dots[line, : max(across) + 1] = True
    for line in LINES.get(right, ()):
        dots[line, min(across) :] = True
    for column in COLUMNS.get(up, ()):
        dots[: max(along) + 1, column] = True
    for column in COLUMNS.get(down, ()):
        dots[min(along) :, column] = True


@cache
def _drawings() -> dict[str, Dots]:
    """What glyphs.txt has: behind its introduction, bands of characters above their drawings."""
    text = (files("emuvisor.devices.display") / "glyphs.txt").read_text(encoding="utf-8")
    drawings = {}
    for band in text.split("\n\n")[1:]:
        names, *lines = band.splitlines()
        for start in range(0, len(names), BAND):
            cells = [line[start : start + DRAWN_WIDTH] for line in lines]
            drawings[names[start]] = np.array([[dot == DOT for dot in cell] for cell in cells])
    return drawings
