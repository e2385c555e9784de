"""A guest's screen live in the terminal: its characters in text modes, and half blocks for everything else."""

from functools import lru_cache
from itertools import groupby
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from emuvisor.devices.display.screen import Screen

__all__ = ["TextDisplay"]

HALF_BLOCK = "▀"
COLOUR_MASK = 0xF8
"""Finer shades are not told apart, and neighbours that look the same are one piece of text."""
STYLES = 4096


class TextDisplay:
    """Shows what `update` is given on `console` (standard output) while it is entered, on a screen of its own."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, screen: Screen) -> None:
        """Show `screen`, cut or scaled to the terminal's size."""
        columns, lines = self._console.size
        if screen.text is not None:
            picture = text_picture(screen.text, screen.cursor, columns, lines)
        else:
            picture = block_picture(screen.pixels, columns, lines)
        self._live.update(picture, refresh=True)


def text_picture(text: list[str], cursor: tuple[int, int] | None, columns: int, lines: int) -> Text:
    """The top left `columns` by `lines` of a text screen, the cursor in reverse."""
    picture = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(text[:lines]):
        shown = Text(line[:columns])
        if cursor is not None and cursor[1] == number and cursor[0] < columns:
            shown.pad_right(max(0, cursor[0] + 1 - len(line)))
            shown.stylize("reverse", cursor[0], cursor[0] + 1)
        if number:
            picture.append("\n")
        picture.append(shown)
    return picture


def block_picture(pixels: NDArray[np.uint8], columns: int, lines: int) -> Text:
    """The whole picture in half blocks, two pixels to a character, as large as fits `columns` by `lines`."""
    height, width, _ = pixels.shape
    scale = min(columns / width, 2 * lines / height)
    small = scaled(pixels, max(1, int(width * scale)), max(2, int(height * scale) & ~1)) & COLOUR_MASK
    picture = Text(no_wrap=True, overflow="crop", end="")
    for number, (upper, lower) in enumerate(zip(small[::2].tolist(), small[1::2].tolist(), strict=True)):
        if number:
            picture.append("\n")
        for colours, group in groupby(zip(upper, lower, strict=True)):
            above, below = colours
            picture.append(HALF_BLOCK * len(list(group)), _style(tuple(above), tuple(below)))
    return picture


@lru_cache(STYLES)
def _style(above: tuple[int, ...], below: tuple[int, ...]) -> Style:
    return Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below))


def scaled(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`pixels` with another size: each pixel the mean of what it stands for, or a copy of the nearest."""
    old_height, old_width, _ = pixels.shape
    rows = np.arange(height) * old_height // height
    columns = np.arange(width) * old_width // width
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32), columns, axis=1)
    heights = np.maximum(np.diff(rows, append=old_height), 1)
    widths = np.maximum(np.diff(columns, append=old_width), 1)
    means: NDArray[np.uint8] = (sums // (heights[:, np.newaxis] * widths)[..., np.newaxis]).astype(np.uint8)
    return means
