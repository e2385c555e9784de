"""What a display shows at one moment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.png import encode_png

__all__ = ["Screen"]


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """A picture of `width` by `height` pixels.

    `pixels` is (height, width, 3): red, green, blue. In text modes `text` has the lines, without the blanks at
    their ends, as the Unicode characters of code page 437, and `cursor` is the (column, line) of the cursor
    where it is shown; in graphics modes both are None.
    """

    width: int
    height: int
    pixels: NDArray[np.uint8]
    text: list[str] | None = None
    cursor: tuple[int, int] | None = None

    def png(self) -> bytes:
        """The picture as a PNG file."""
        return encode_png(self.pixels)
