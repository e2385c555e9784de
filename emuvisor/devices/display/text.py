"""The screen in text modes: characters, attributes and fonts to pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.attribute import AttributeController
from emuvisor.devices.display.cp437 import decode
from emuvisor.devices.display.crtc import Crtc, Scanout
from emuvisor.devices.display.pixels import EIGHT_PIXELS, EVERY_PIXEL
from emuvisor.devices.display.sequencer import Sequencer

__all__ = ["Text"]

# What the planes hold.
CHARACTER = 0
ATTRIBUTE = 1
FONT = 2
BYTES_PER_GLYPH = 32
FONT_MASK = 0xFFFF

# Attributes.
FOREGROUND = 0x0F
SECOND_FONT = 0x08
UNDERLINED_BITS = 0x07
UNDERLINED = 0x01
BACKGROUND_SHIFT = 4
BLINKING = 0x80
DARK_BACKGROUND = 0x07

LINE_GRAPHICS_FIRST = 0xC0
LINE_GRAPHICS_LAST = 0xDF

CURSOR_BLINK = 8
"""Frames for which the cursor is on, then off."""
CHARACTER_BLINK = 16
"""The same of blinking characters."""
NINE_DOTS = 9


class Text:
    """The text that the registers and `planes` (address, plane) show in frame number `frame`."""

    def __init__(
        self,
        planes: NDArray[np.uint8],
        *,
        crtc: Crtc,
        sequencer: Sequencer,
        attribute: AttributeController,
        frame: int,
    ) -> None:
        self._planes = planes
        self._crtc = crtc
        self._sequencer = sequencer
        self._attribute = attribute
        self._frame = frame
        self._columns = crtc.columns
        self._scanout = crtc.scanout(np.arange(crtc.height))
        # One column more than is shown: panning moves it in.
        self._counters = crtc.counters(self._scanout, self._columns + 1)
        self._cells = planes[crtc.addresses(self._counters, self._scanout.scans)]

    @property
    def _row_starts(self) -> NDArray[np.intp]:
        """The first scan line of each character row on screen."""
        scanout: Scanout = self._scanout
        changes = (np.diff(scanout.rows) != 0) | np.diff(scanout.below)
        return np.concatenate(([0], np.flatnonzero(changes) + 1))

    def lines(self) -> list[str]:
        """The characters, row by row, without the blanks at the rows' ends."""
        codes = self._cells[self._row_starts, : self._columns, CHARACTER]
        text = decode(codes)
        return [text[i : i + self._columns].rstrip() for i in range(0, len(text), self._columns)]

    def cursor(self) -> tuple[int, int] | None:
        """(column, line) of the cursor; None where it is not on screen or off."""
        location = self._crtc.cursor_location
        first, last = self._crtc.cursor_lines
        if location is None or first > last:
            return None
        found = np.argwhere(self._counters[self._row_starts, : self._columns] == location)
        return (int(found[0][1]), int(found[0][0])) if len(found) else None

    def pixels(self) -> NDArray[np.uint8]:
        """(lines, dots) of 0 to 15."""
        characters, attributes = self._cells[..., CHARACTER], self._cells[..., ATTRIBUTE]
        glyphs = self._glyphs(characters, attributes)
        foreground = attributes & np.uint8(FOREGROUND)
        background = attributes >> np.uint8(BACKGROUND_SHIFT)
        if self._attribute.blink:
            background = background & np.uint8(DARK_BACKGROUND)
            if self._frame // CHARACTER_BLINK % 2:
                glyphs[attributes & BLINKING != 0] = 0
        self._underline(glyphs, attributes)
        self._draw_cursor(glyphs)
        dots = self._dots(characters, glyphs, foreground, background)
        return self._panned(dots)

    def _glyphs(self, characters: NDArray[np.uint8], attributes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The line of its glyph that each cell shows, a bit for each of eight dots."""
        first, second = self._sequencer.fonts
        fonts = np.where(attributes & SECOND_FONT, second, first)
        scans = self._scanout.scans[:, np.newaxis]
        addresses = fonts + characters.astype(np.intp) * BYTES_PER_GLYPH + scans & FONT_MASK
        glyphs: NDArray[np.uint8] = self._planes[addresses, FONT]
        return glyphs

    def _underline(self, glyphs: NDArray[np.uint8], attributes: NDArray[np.uint8]) -> None:
        line = self._scanout.scans == self._crtc.underline
        glyphs[line[:, np.newaxis] & (attributes & UNDERLINED_BITS == UNDERLINED)] = 0xFF

    def _draw_cursor(self, glyphs: NDArray[np.uint8]) -> None:
        location = self._crtc.cursor_location
        if location is None or self._frame // CURSOR_BLINK % 2:
            return
        first, last = self._crtc.cursor_lines
        lines = (first <= self._scanout.scans) & (self._scanout.scans <= last)
        glyphs[lines[:, np.newaxis] & (self._counters == location)] = 0xFF

    def _dots(
        self,
        characters: NDArray[np.uint8],
        glyphs: NDArray[np.uint8],
        foreground: NDArray[np.uint8],
        background: NDArray[np.uint8],
    ) -> NDArray[np.uint8]:
        """(lines, dots) of the cells; with nine dots the last one is background, or the eighth again."""
        lines, columns = glyphs.shape
        chosen = EIGHT_PIXELS[glyphs] * np.uint64(0xFF)
        back = background * EVERY_PIXEL
        eight = back ^ (back ^ foreground * EVERY_PIXEL) & chosen
        dots = eight.view(np.uint8).reshape(lines, columns, 8)
        if self._sequencer.dots == NINE_DOTS:
            ninth = background
            if self._attribute.line_graphics:
                drawn = (characters >= LINE_GRAPHICS_FIRST) & (characters <= LINE_GRAPHICS_LAST)
                ninth = np.where(drawn, dots[..., 7], ninth)
            dots = np.concatenate((dots, ninth[..., np.newaxis]), axis=2)
        joined: NDArray[np.uint8] = dots.reshape(lines, -1)
        return joined

    def _panned(self, dots: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The dots that are shown, from the panning register's on."""
        width = self._columns * self._sequencer.dots
        panning = self._attribute.panning
        if self._sequencer.dots == NINE_DOTS:
            panning = panning + 1 if panning < 8 else 0
        else:
            panning &= 7
        below = 0 if self._attribute.panning_ends_at_split else panning
        return pan(dots, width, self._scanout, (panning, below))


def pan(dots: NDArray[np.uint8], width: int, scanout: Scanout, panning: Sequence[int]) -> NDArray[np.uint8]:
    """`width` of the `dots` (lines, dots), from `panning[0]` on above the split and `panning[1]` below it."""
    above, below = panning
    if above == below:
        return dots[:, above : above + width]
    shown: NDArray[np.uint8] = np.where(
        scanout.below[:, np.newaxis], dots[:, below : below + width], dots[:, above : above + width]
    )
    return shown
