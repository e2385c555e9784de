"""The Bochs VBE extension ("dispi"): linear modes up to 2560x1600, set by twelve registers of 16 bits.

Source: the interface's description in Bochs's documentation (VBE_DISPI_*), and what its drivers rely on (Linux's
bochs-drm, EDK II's QemuVideoDxe, the VGA BIOSes): enabling resets the virtual screen, and values that do not fit
the memory are brought to what does.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, Numbers, load_fields, save_fields
from emuvisor.devices.display.memory import PLANE_SIZE, VideoRam
from emuvisor.devices.display.pixels import planar
from emuvisor.units import KIB

__all__ = ["MAX_XRES", "MAX_YRES", "PORTS_LENGTH", "BochsVbe"]

# Offsets of the ports from 1CEh; on a PC the data port is there twice.
INDEX_PORT = 0
DATA_PORT = 1
ALIGNED_DATA_PORT = 2
PORTS_LENGTH = 4

# Registers.
ID = 0x0
XRES = 0x1
YRES = 0x2
BPP = 0x3
ENABLE = 0x4
BANK = 0x5
VIRT_WIDTH = 0x6
VIRT_HEIGHT = 0x7
X_OFFSET = 0x8
Y_OFFSET = 0x9
VIDEO_MEMORY_64K = 0xA
COUNT = 0xB
GEOMETRY = (XRES, YRES, BPP, VIRT_WIDTH, X_OFFSET, Y_OFFSET)

ID_FIRST = 0xB0C0
ID_LAST = 0xB0C5

# Enable.
ENABLED = 0x01
GETCAPS = 0x02
DAC_8BIT = 0x20
LFB_ENABLED = 0x40
NOCLEARMEM = 0x80
ENABLE_WRITABLE = ENABLED | GETCAPS | DAC_8BIT | LFB_ENABLED | NOCLEARMEM

MAX_XRES = 2560
MAX_YRES = 1600
MAX_BPP = 32
STORED_BITS = {4: 1, 8: 8, 15: 16, 16: 16, 24: 24, 32: 32}
"""By bits per pixel: the bits that a pixel takes, in each plane with 4."""
DEFAULT_BPP = 8
PLANAR_BPP = 4
RGB_BPP = 24

BANK_SIZE = 64 * KIB
CLEAR_STEP = 64 * KIB
REGISTER_MASK = 0xFFFF
PLANE_MASK = PLANE_SIZE - 1

_DEVICE = "bochs vbe"
_VERSION = 1
_FIELDS = Fields({"index": Number(0xFFFF), "registers": Numbers(COUNT, 0xFFFF)})


class BochsVbe:
    """The registers, and the picture in `vram`; with 4 bits per pixel it is in the VGA's `planes` (address, plane).

    `on_change` is called when the mode, the bank or the width of the DAC may have changed. As a device it is the
    ports from 1CEh on, of 16 bits.
    """

    name = _DEVICE

    def __init__(
        self, *, vram: VideoRam, planes: Callable[[], NDArray[np.uint8]], on_change: Callable[[], None]
    ) -> None:
        self._vram = vram
        self._planes = planes
        self._on_change = on_change
        self.index = 0
        self.registers = self._power_on()

    def _power_on(self) -> list[int]:
        registers = [0] * COUNT
        registers[ID] = ID_LAST
        registers[VIDEO_MEMORY_64K] = self._vram.length // BANK_SIZE
        return registers

    def reset(self) -> None:
        """No mode. What is in the memory stays."""
        self.index = 0
        self.registers[:] = self._power_on()

    # ---- state that others ask for ----

    @property
    def enabled(self) -> bool:
        """Whether the picture is this extension's."""
        return bool(self.registers[ENABLE] & ENABLED)

    @property
    def bpp(self) -> int:
        """Bits per pixel."""
        return self.registers[BPP]

    @property
    def bank(self) -> int | None:
        """Which 64 KiB of the memory the window at A0000h shows; None in modes whose memory are the planes."""
        return self.registers[BANK] if self.enabled and self.bpp != PLANAR_BPP else None

    @property
    def dac_8bit(self) -> bool:
        """The DAC takes 8 bits."""
        return bool(self.registers[ENABLE] & DAC_8BIT)

    # ---- ports ----

    def read(self, offset: int, size: int) -> int:
        """The index, or the register that it names."""
        return self.index if offset == INDEX_PORT else self.read_register(self.index)

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the index, or the register that it names; single bytes are ignored."""
        if size == 1:
            return
        if offset == INDEX_PORT:
            self.index = value & REGISTER_MASK
        else:
            self.write_register(self.index, value & REGISTER_MASK)

    def read_register(self, index: int) -> int:
        """Register `index`; with GETCAPS set XRES, YRES and BPP are the largest. 0 for one that does not exist."""
        if index >= COUNT:
            return 0
        if self.registers[ENABLE] & GETCAPS and index in (XRES, YRES, BPP):
            return (MAX_XRES, MAX_YRES, MAX_BPP)[index - XRES]
        return self.registers[index]

    def write_register(self, index: int, value: int) -> None:
        """A guest's write of a 16-bit `value`."""
        if index == ID:
            if ID_FIRST <= value <= ID_LAST:
                self.registers[ID] = value
        elif index == ENABLE:
            self._enable(value & ENABLE_WRITABLE)
        elif index == BANK:
            self.registers[BANK] = min(value, self.registers[VIDEO_MEMORY_64K] - 1)
            self._on_change()
        elif index in GEOMETRY:
            if index != BPP or value in (0, *STORED_BITS):
                self.registers[index] = value or (DEFAULT_BPP if index == BPP else 0)
            if self.enabled:
                self._fit()
                self._on_change()

    def _enable(self, value: int) -> None:
        was_enabled = self.enabled
        self.registers[ENABLE] = value
        if not was_enabled and self.enabled:
            for index in (VIRT_WIDTH, X_OFFSET, Y_OFFSET, BANK):
                self.registers[index] = 0
            self._fit()
            if not value & NOCLEARMEM:
                self._clear(self._pitch * self.registers[YRES])
        self._on_change()

    # ---- geometry ----

    def _fit(self) -> None:
        """Bring the mode to what there is memory for."""
        registers = self.registers
        if self.bpp not in STORED_BITS:
            registers[BPP] = DEFAULT_BPP
        unit = 8 if self.bpp == PLANAR_BPP else 1  # pixels that share a byte
        memory = PLANE_SIZE if self.bpp == PLANAR_BPP else self._vram.length
        xres = min(max(-(-registers[XRES] // unit), 1) * unit, MAX_XRES)
        yres = min(max(registers[YRES], 1), MAX_YRES)
        width = max(registers[VIRT_WIDTH] // unit * unit, xres)
        if self._bytes(width) * yres > memory:
            width = xres
        height = min(memory // self._bytes(width), REGISTER_MASK)
        yres = min(yres, height)
        registers[XRES], registers[YRES] = xres, yres
        registers[VIRT_WIDTH], registers[VIRT_HEIGHT] = width, height
        registers[X_OFFSET] = min(registers[X_OFFSET] // unit * unit, width - xres)
        registers[Y_OFFSET] = min(registers[Y_OFFSET], height - yres)

    def _bytes(self, pixels: int) -> int:
        """Bytes that `pixels` of a line take (in each plane, where there are planes)."""
        return pixels * STORED_BITS[self.bpp] // 8

    @property
    def _pitch(self) -> int:
        return self._bytes(self.registers[VIRT_WIDTH])

    @property
    def _first(self) -> int:
        """The place of the top left pixel."""
        return self.registers[Y_OFFSET] * self._pitch + self._bytes(self.registers[X_OFFSET])

    def _clear(self, length: int) -> None:
        """Zeros at the beginning of the memory. What is zero already is not written: it may cost no memory yet."""
        if self.bpp == PLANAR_BPP:
            self._planes()[:length] = 0
            return
        for start in range(0, length, CLEAR_STEP):
            size = min(CLEAR_STEP, length - start)
            if any(self._vram.read(start, size)):
                self._vram.write(start, bytes(size))

    # ---- the picture ----

    def indexes(self) -> NDArray[np.uint8]:
        """(lines, pixels) with 4 bits per pixel: 0 to 15; with 8: entries of the DAC."""
        xres, yres = self.registers[XRES], self.registers[YRES]
        if self.bpp == PLANAR_BPP:
            lines = self._first + np.arange(yres) * self._pitch
            return planar(self._planes()[lines[:, np.newaxis] + np.arange(self._bytes(xres)) & PLANE_MASK])
        return self._lines()

    def colours(self) -> NDArray[np.uint8]:
        """(lines, pixels, 3) with 15 and more bits per pixel: red, green, blue."""
        xres, yres = self.registers[XRES], self.registers[YRES]
        lines = self._lines()
        if self.bpp >= RGB_BPP:
            return np.ascontiguousarray(lines.reshape(yres, xres, self.bpp // 8)[..., 2::-1])
        words = lines.view("<u2")
        red_shift, green_shift, green_mask = (8, 3, 0xFC) if self.bpp == 16 else (7, 2, 0xF8)
        colours = np.empty((yres, xres, 3), np.uint8)
        for channel, bits in enumerate(
            (words >> red_shift & 0xF8, words >> green_shift & green_mask, words << 3 & 0xF8)
        ):
            # The highest bits again below the lowest: full on is 255.
            colours[..., channel] = bits | bits >> (6 if channel == 1 and self.bpp == 16 else 5)
        return colours

    def _lines(self) -> NDArray[np.uint8]:
        """(lines, bytes) of what is shown."""
        yres, pitch, width = self.registers[YRES], self._pitch, self._bytes(self.registers[XRES])
        data = self._vram.read(self._first, pitch * (yres - 1) + width)
        if width == pitch:
            return np.frombuffer(data, np.uint8).reshape(yres, width)
        padded = np.frombuffer(data.ljust(pitch * yres, b"\0"), np.uint8)
        return np.ascontiguousarray(padded.reshape(yres, pitch)[:, :width])

    # ---- saved state ----

    def save(self) -> SavedState:
        """Index and registers as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave, brought to what this memory holds. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self.registers += [0] * (COUNT - len(self.registers))
        self.registers[VIDEO_MEMORY_64K] = self._vram.length // BANK_SIZE
        self.registers[BANK] = min(self.registers[BANK], self.registers[VIDEO_MEMORY_64K] - 1)
        if self.enabled:
            self._fit()
