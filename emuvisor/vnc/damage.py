"""Which parts of the screen have changed, in tiles."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "Rectangle", "changed"]

TILE = 64
"""Pixels in each direction: ZRLE's tiles."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of the screen, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def clipped(self, width: int, height: int) -> "Rectangle":
        """What of it lies on a screen of `width` by `height`; it may be empty."""
        x, y = min(self.x, width), min(self.y, height)
        return Rectangle(x, y, min(self.width, width - x), min(self.height, height - y))

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Its part of `pixels`."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]

    @property
    def empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.width == 0 or self.height == 0


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8], within: Rectangle) -> Iterator[Rectangle]:
    """The tiles of `within` that differ, tiles side by side as one rectangle."""
    if within.empty:
        return
    differs = (within.of(before) != within.of(after)).any(axis=2)
    rows = np.logical_or.reduceat(differs, np.arange(0, within.height, TILE), axis=0)
    tiles = np.logical_or.reduceat(rows, np.arange(0, within.width, TILE), axis=1)
    for row, line in enumerate(tiles):
        # Where a run of changed tiles begins and ends, with an unchanged one thought to be at either end.
        edges = np.flatnonzero(np.diff(line, prepend=False, append=False)).tolist()
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            x, y = first * TILE, row * TILE
            width, height = min(end * TILE, within.width) - x, min(TILE, within.height - y)
            yield Rectangle(within.x + x, within.y + y, width, height)
