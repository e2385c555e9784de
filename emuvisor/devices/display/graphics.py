"""The screen in the VGA's own graphics modes: planes to pixels."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.attribute import AttributeController
from emuvisor.devices.display.crtc import Crtc
from emuvisor.devices.display.graphics_controller import GraphicsController
from emuvisor.devices.display.pixels import interleaved, planar
from emuvisor.devices.display.text import pan

__all__ = ["graphics_pixels"]

PIXELS_PER_COLUMN = 8
PIXELS_PER_COLUMN_256 = 4


def graphics_pixels(
    planes: NDArray[np.uint8], *, crtc: Crtc, graphics: GraphicsController, attribute: AttributeController
) -> NDArray[np.uint8]:
    """(lines, pixels) of `planes` (address, plane): entries of the DAC in 256 colours, otherwise 0 to 15.

    Lines that the chip repeats are there once, so that mode 13h has 200.
    """
    scanout = crtc.scanout(np.arange(0, crtc.height, crtc.repeat))
    # One column more than is shown: panning moves it in.
    counters = crtc.counters(scanout, crtc.columns + 1)
    cells = planes[crtc.addresses(counters, scanout.scans)]
    panning = attribute.panning & 7
    if graphics.shift_256:
        per_column, panning = PIXELS_PER_COLUMN_256, panning >> 1  # two dots a pixel
        pixels = cells.reshape(len(cells), -1)
    else:
        per_column = PIXELS_PER_COLUMN
        pixels = interleaved(cells) if graphics.shift_interleave else planar(cells)
    below = 0 if attribute.panning_ends_at_split else panning
    return pan(pixels, crtc.columns * per_column, scanout, (panning, below))
