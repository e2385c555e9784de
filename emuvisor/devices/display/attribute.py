"""The attribute controller (3C0h, 3C1h): which of the DAC's colours a pixel's four bits mean, blinking, panning.

One port takes index and data by turns; a read of input status 1 makes the index the next.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from emuvisor.bus.saved import Flag, Kind
from emuvisor.devices.display.registers import RegisterFile

__all__ = ["AttributeController"]

# The index register.
INDEX_MASK = 0x1F
PALETTE_ADDRESS_SOURCE = 0x20
"""Off: the palette belongs to the processor, and the screen is black."""

# Registers behind the palette's 16.
PALETTE_SIZE = 16
MODE_CONTROL = 0x10
OVERSCAN = 0x11
COLOUR_PLANE_ENABLE = 0x12
PIXEL_PANNING = 0x13
COLOUR_SELECT = 0x14

# Mode control.
LINE_GRAPHICS = 0x04
BLINK = 0x08
PANNING_COMPATIBLE = 0x20
PALETTE_BITS_5_4 = 0x80

PALETTE_MASK = 0x3F
PLANES = 0x0F


class AttributeController(RegisterFile):
    """After power-on as for text mode 3, with the screen off; data sheets leave the values open."""

    name = "vga attribute controller"
    power_on = bytes((0, 1, 2, 3, 4, 5, 0x14, 7, *range(0x38, 0x40), LINE_GRAPHICS | BLINK, 0, PLANES, 8, 0))
    writable = bytes((*[PALETTE_MASK] * PALETTE_SIZE, 0xEF, 0xFF, 0x3F, 0x0F, 0x0F))
    more_fields: ClassVar[Mapping[str, Kind]] = {"data_next": Flag(), "palette_enabled": Flag()}

    def __init__(self) -> None:
        super().__init__()
        self.data_next = False
        """The flip-flop: the next write to 3C0h is data."""
        self.palette_enabled = False

    def reset(self) -> None:
        """Back to the values after power-on."""
        super().reset()
        self.data_next = False
        self.palette_enabled = False

    def read_index(self) -> int:
        """The index register."""
        return self.index | (PALETTE_ADDRESS_SOURCE if self.palette_enabled else 0)

    def write_port(self, value: int) -> None:
        """3C0h: index and data by turns."""
        if self.data_next:
            self.write(value)
        else:
            self.index = value & INDEX_MASK
            self.palette_enabled = bool(value & PALETTE_ADDRESS_SOURCE)
        self.data_next = not self.data_next

    @property
    def line_graphics(self) -> bool:
        """The ninth dot of characters C0h to DFh repeats the eighth."""
        return bool(self.registers[MODE_CONTROL] & LINE_GRAPHICS)

    @property
    def blink(self) -> bool:
        """Attribute bit 7 makes a character blink; otherwise it makes its background bright."""
        return bool(self.registers[MODE_CONTROL] & BLINK)

    @property
    def panning_ends_at_split(self) -> bool:
        """Below the line compare nothing is panned."""
        return bool(self.registers[MODE_CONTROL] & PANNING_COMPATIBLE)

    @property
    def panning(self) -> int:
        """The pixel panning register, whose unit depends on the mode."""
        return self.registers[PIXEL_PANNING] & 0x0F

    def dac_indexes(self) -> NDArray[np.uint8]:
        """For each value of a pixel's four bits the entry of the DAC."""
        pixels = np.arange(PALETTE_SIZE) & self.registers[COLOUR_PLANE_ENABLE]
        palette = np.array(list(self.registers[:PALETTE_SIZE]))[pixels] & PALETTE_MASK
        select = self.registers[COLOUR_SELECT]
        if self.registers[MODE_CONTROL] & PALETTE_BITS_5_4:
            palette = palette & 0x0F | (select & 3) << 4
        indexes: NDArray[np.uint8] = (palette | (select & 0x0C) << 4).astype(np.uint8)
        return indexes
