"""Text mode 3 (80 by 25 characters of 9 by 16 dots) as a video BIOS leaves it. The registers' power-on values are
those of the mode already; this adds what power-on does not bring: colours, a font, a clear screen, and the picture.

Source of the values: IBM VGA Technical Reference, "BIOS modes".
"""

import numpy as np

from emuvisor.devices.display.font import GLYPH_HEIGHT, font
from emuvisor.devices.display.memory import DisplayMemory
from emuvisor.devices.display.text import ATTRIBUTE, BYTES_PER_GLYPH, CHARACTER, FONT

__all__ = ["MISCELLANEOUS_OUTPUT", "fill_memory", "palette"]

MISCELLANEOUS_OUTPUT = 0x67
"""Ports at 3Dxh, memory on, 28.322 MHz, 400 lines."""

BLANK = 0x20
LIGHT_GREY = 0x07
CELLS = 0x4000
"""Characters in the 32 KiB at B8000h."""
FONT_SIZE = 256 * BYTES_PER_GLYPH

STRONG = 42
WEAK = 21
"""Two thirds and one third of a 6-bit channel: what the two bits of an EGA's colour give."""


def palette() -> bytes:
    """The DAC's first 64 colours: those of an EGA, whose numbers' bits are weak red, green, blue and strong ones."""
    channels = bytearray()
    for colour in range(64):
        for strong, weak in ((2, 5), (1, 4), (0, 3)):  # red, green, blue
            channels.append(STRONG * (colour >> strong & 1) + WEAK * (colour >> weak & 1))
    return bytes(channels)


def fill_memory(memory: DisplayMemory) -> None:
    """Blanks, light grey on black, and our font in the first character map."""
    memory.planes[:] = 0
    even = memory.planes[: 2 * CELLS : 2]
    even[:, CHARACTER] = BLANK
    even[:, ATTRIBUTE] = LIGHT_GREY
    glyphs = np.zeros((256, BYTES_PER_GLYPH), np.uint8)
    glyphs[:, :GLYPH_HEIGHT] = font()
    memory.planes[:FONT_SIZE, FONT] = glyphs.ravel()
