"""From the bytes of planes to pixels: tables, and the three ways in which a VGA shifts bytes out.

A table entry is a whole number of pixels, one byte each and the leftmost first, so that numpy puts eight pixels
together with one operation.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["EIGHT_PIXELS", "EVERY_PIXEL", "bytes_of", "interleaved", "look_up", "planar"]

EVERY_PIXEL = np.uint64(0x0101010101010101)
"""Times a byte: that byte in eight pixels."""

_BYTES = np.arange(256, dtype=np.uint8)
EIGHT_PIXELS: NDArray[np.uint64] = np.unpackbits(_BYTES[:, np.newaxis], axis=1).view(np.uint64).ravel()
"""For each byte, its eight bits as eight pixels."""
_FOUR_PIXELS: NDArray[np.uint32] = (
    (_BYTES[:, np.newaxis] >> np.array([6, 4, 2, 0], np.uint8) & 3).astype(np.uint8).view(np.uint32).ravel()
)
"""For each byte, its four pairs of bits as four pixels."""


def bytes_of(pixels: NDArray[np.uint64] | NDArray[np.uint32]) -> NDArray[np.uint8]:
    """(lines, pixels) of table entries put together, (lines, entries)."""
    lines, entries = pixels.shape
    return pixels.view(np.uint8).reshape(lines, entries * pixels.dtype.itemsize)


def planar(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each plane gives one bit: (lines, 8 * columns) pixels of 0 to 15 from (lines, columns, 4 planes)."""
    pixels = EIGHT_PIXELS[cells[..., 0]]
    for plane in (1, 2, 3):
        pixels |= EIGHT_PIXELS[cells[..., plane]] << np.uint64(plane)
    return bytes_of(pixels)


def interleaved(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two bits of planes 0 and 2 for four pixels, then of 1 and 3: (lines, 8 * columns) pixels of 0 to 15."""
    lines, columns, _ = cells.shape
    low, high = _FOUR_PIXELS[cells[..., :2]], _FOUR_PIXELS[cells[..., 2:]]
    return bytes_of((low | high << np.uint32(2)).reshape(lines, 2 * columns))


def look_up(table: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(lines, pixels, 3): for each pixel its colour in `table`."""
    # Five times as fast as table[pixels]; clipping is the quickest way to say what never happens.
    return np.take(table, pixels, axis=0, mode="clip")
