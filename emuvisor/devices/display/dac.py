"""The DAC (3C6h to 3C9h): 256 colours of three times 6 bits, or 8 bits where Bochs VBE asks for it."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields

__all__ = ["Dac"]

COLOURS = 256
CHANNELS = 3
SIZE = COLOURS * CHANNELS
SIX_BITS = 0x3F

_VALUES = np.arange(256) & SIX_BITS
_EIGHT_BITS: NDArray[np.uint8] = (_VALUES << 2 | _VALUES >> 4).astype(np.uint8)
"""A 6-bit channel with 8 bits: its highest two again below, so that full on is 255."""

READ_STATE = 0x03
WRITE_STATE = 0x00

_DEVICE = "vga dac"
_VERSION = 1
_FIELDS = Fields(
    {
        "colours": Data(SIZE, minimum=SIZE),
        "mask": Number(0xFF),
        "index": Number(COLOURS - 1),
        "channel": Number(CHANNELS - 1),
        "reading": Flag(),
        "eight_bit": Flag(),
    }
)


class Dac:
    """The colour table. Reads and writes of the data port step through the channels and entries."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All black, nothing masked."""
        self.colours = bytearray(SIZE)
        """Red, green and blue of each entry, as they were written."""
        self.mask = 0xFF
        self.index = 0
        self.channel = 0
        self.reading = False
        self.eight_bit = False

    def state(self) -> int:
        """3C7h: whether the last index was for reading or for writing."""
        return READ_STATE if self.reading else WRITE_STATE

    def start(self, index: int, reading: bool) -> None:
        """3C7h or 3C8h: go on with entry `index`, red first."""
        self.index = index
        self.channel = 0
        self.reading = reading

    def read(self) -> int:
        """3C9h: the next channel."""
        value = self.colours[self.index * CHANNELS + self.channel]
        self._step()
        return value

    def write(self, value: int) -> None:
        """3C9h: set the next channel."""
        self.colours[self.index * CHANNELS + self.channel] = value if self.eight_bit else value & SIX_BITS
        self._step()

    def _step(self) -> None:
        self.channel += 1
        if self.channel == CHANNELS:
            self.channel = 0
            self.index = (self.index + 1) % COLOURS

    def table(self) -> NDArray[np.uint8]:
        """What each pixel value looks like: (256, 3) red, green, blue."""
        colours: NDArray[np.uint8] = np.frombuffer(bytes(self.colours), np.uint8)
        if not self.eight_bit:
            colours = _EIGHT_BITS[colours]
        shown: NDArray[np.uint8] = colours.reshape(COLOURS, CHANNELS)[np.arange(COLOURS) & self.mask]
        return shown

    def save(self) -> SavedState:
        """Colours and ports as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
