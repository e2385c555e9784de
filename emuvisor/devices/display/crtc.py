"""The CRT controller (3D4h, 3D5h): the picture's timing, and which address is fetched for which place on screen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emuvisor.devices.display.registers import RegisterFile

__all__ = ["Crtc", "Scanout"]

# Registers.
HORIZONTAL_TOTAL = 0x00
HORIZONTAL_DISPLAY_END = 0x01
START_HORIZONTAL_BLANKING = 0x02
END_HORIZONTAL_BLANKING = 0x03
START_HORIZONTAL_RETRACE = 0x04
END_HORIZONTAL_RETRACE = 0x05
VERTICAL_TOTAL = 0x06
OVERFLOW = 0x07
PRESET_ROW_SCAN = 0x08
MAXIMUM_SCAN_LINE = 0x09
CURSOR_START = 0x0A
CURSOR_END = 0x0B
START_ADDRESS_HIGH = 0x0C
START_ADDRESS_LOW = 0x0D
CURSOR_LOCATION_HIGH = 0x0E
CURSOR_LOCATION_LOW = 0x0F
VERTICAL_RETRACE_START = 0x10
VERTICAL_RETRACE_END = 0x11
VERTICAL_DISPLAY_END = 0x12
OFFSET = 0x13
UNDERLINE_LOCATION = 0x14
START_VERTICAL_BLANKING = 0x15
END_VERTICAL_BLANKING = 0x16
MODE_CONTROL = 0x17
LINE_COMPARE = 0x18

FIVE_BITS = 0x1F
"""Row scan lines, cursor lines and the underline's line."""

# Overflow: further bits of the vertical registers.
OVERFLOW_LINE_COMPARE_8 = 0x10

BYTE_PANNING_SHIFT = 5
BYTE_PANNING_MASK = 0x03

# Maximum scan line.
LINE_COMPARE_9 = 0x40
DOUBLE_SCAN = 0x80

CURSOR_OFF = 0x20

# Vertical retrace end.
RETRACE_END_MASK = 0x0F
PROTECT = 0x80
"""Registers 0 to 7 cannot be written, but for the line compare's bit."""

# Underline location.
COUNT_BY_4 = 0x20
DOUBLE_WORD = 0x40

# Mode control.
MAP_13 = 0x01
"""Off: bit 13 of the address is bit 0 of the row scan line, as on a CGA."""
MAP_14 = 0x02
"""Off: bit 14 of the address is bit 1 of the row scan line, as on a Hercules."""
COUNT_BY_2 = 0x08
ADDRESS_WRAP_15 = 0x20
BYTE_MODE = 0x40

ADDRESS_MASK = 0xFFFF
ROW_SCAN_ADDRESS = ((MAP_13, 13), (MAP_14, 14))

# What the timing registers leave out.
TOTAL_CHARACTERS = 5
TOTAL_LINES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Scanout:
    """What is fetched for each of some scan lines of the screen, as arrays of one element per line."""

    counters: NDArray[np.int64]
    """The address counter at the left end."""
    rows: NDArray[np.int64]
    """The character row, counted from the start address or the split."""
    scans: NDArray[np.int64]
    """The line inside its character row."""
    below: NDArray[np.bool_]
    """Whether the line is below the split."""


class Crtc(RegisterFile):
    """After power-on with the timing of text mode 3; data sheets leave the values open."""

    name = "vga crtc"
    power_on = bytes.fromhex("5f4f50825581bf1f 004f0d0e00000000 9c8e8f281f96b9a3 ff")
    writable = bytes.fromhex("ffffffffffffffff 7fff3f7fffffffff ffffffff7fffffef ff")

    def write(self, value: int) -> None:
        """Set the register that the index names, unless it is protected."""
        if self.index <= OVERFLOW and self.registers[VERTICAL_RETRACE_END] & PROTECT:
            if self.index == OVERFLOW:
                kept = self.registers[OVERFLOW] & ~OVERFLOW_LINE_COMPARE_8
                self.registers[OVERFLOW] = kept | value & OVERFLOW_LINE_COMPARE_8
        else:
            super().write(value)

    # ---- geometry ----

    def _vertical(self, register: int, bit_8: int, bit_9: int) -> int:
        """A vertical register with its two bits from the overflow register."""
        overflow = self.registers[OVERFLOW]
        return self.registers[register] | (overflow >> bit_8 & 1) << 8 | (overflow >> bit_9 & 1) << 9

    @property
    def columns(self) -> int:
        """Characters (character clocks) of a line that are shown, 1 to 256."""
        return self.registers[HORIZONTAL_DISPLAY_END] + 1

    @property
    def height(self) -> int:
        """Scan lines that are shown, 1 to 1024."""
        return self._vertical(VERTICAL_DISPLAY_END, 1, 6) + 1

    @property
    def row_height(self) -> int:
        """Scan lines of a character row, 1 to 32, each of them shown twice with `double_scan`."""
        return (self.registers[MAXIMUM_SCAN_LINE] & FIVE_BITS) + 1

    @property
    def double_scan(self) -> bool:
        """Every line is shown twice: 200 as 400."""
        return bool(self.registers[MAXIMUM_SCAN_LINE] & DOUBLE_SCAN)

    @property
    def repeat(self) -> int:
        """How often the same line of a graphics mode is shown below itself."""
        lines = 2 if self.double_scan else 1
        by_row_scan = self.registers[MODE_CONTROL] & (MAP_13 | MAP_14) != MAP_13 | MAP_14
        return lines if by_row_scan else lines * self.row_height

    @property
    def line_compare(self) -> int:
        """The last scan line above the split; the lines below are fetched from address 0."""
        overflow = self.registers[OVERFLOW] & OVERFLOW_LINE_COMPARE_8
        bit_9 = self.registers[MAXIMUM_SCAN_LINE] & LINE_COMPARE_9
        return self.registers[LINE_COMPARE] | (0x100 if overflow else 0) | (0x200 if bit_9 else 0)

    @property
    def start_address(self) -> int:
        """The address counter at the top left, in character clocks."""
        return self.registers[START_ADDRESS_HIGH] << 8 | self.registers[START_ADDRESS_LOW]

    @property
    def pitch(self) -> int:
        """How much the address counter grows from row to row."""
        return self.registers[OFFSET] * 2

    @property
    def count_shift(self) -> int:
        """The address counter grows at each, every second or every fourth character clock: 0, 1, 2."""
        if self.registers[UNDERLINE_LOCATION] & COUNT_BY_4:
            return 2
        return 1 if self.registers[MODE_CONTROL] & COUNT_BY_2 else 0

    @property
    def cursor_location(self) -> int | None:
        """The address counter at the cursor; None while it is off."""
        if self.registers[CURSOR_START] & CURSOR_OFF:
            return None
        return self.registers[CURSOR_LOCATION_HIGH] << 8 | self.registers[CURSOR_LOCATION_LOW]

    @property
    def cursor_lines(self) -> tuple[int, int]:
        """The first and last line of a row that the cursor covers."""
        return self.registers[CURSOR_START] & FIVE_BITS, self.registers[CURSOR_END] & FIVE_BITS

    @property
    def underline(self) -> int:
        """The line of a row at which underlined characters have their line."""
        return self.registers[UNDERLINE_LOCATION] & FIVE_BITS

    # ---- fetching ----

    def scanout(self, lines: NDArray[np.int64]) -> Scanout:
        """What is fetched for scan `lines` of the screen."""
        below = lines > self.line_compare
        byte_panning = self.registers[PRESET_ROW_SCAN] >> BYTE_PANNING_SHIFT & BYTE_PANNING_MASK
        line = np.where(below, lines - self.line_compare - 1, lines) >> self.double_scan
        line += np.where(below, 0, self.registers[PRESET_ROW_SCAN] & FIVE_BITS)
        rows, scans = np.divmod(line, self.row_height)
        counters = np.where(below, 0, self.start_address + byte_panning) + rows * self.pitch
        return Scanout(counters, rows, scans, below)

    def counters(self, scanout: Scanout, columns: int) -> NDArray[np.int64]:
        """(lines, columns): the address counter at each character clock."""
        return scanout.counters[:, np.newaxis] + (np.arange(columns) >> self.count_shift)

    def addresses(self, counters: NDArray[np.int64], scans: NDArray[np.int64]) -> NDArray[np.int64]:
        """The bytes of each plane that are fetched at `counters` (lines, columns); `scans` is by line."""
        mode = self.registers[MODE_CONTROL]
        if self.registers[UNDERLINE_LOCATION] & DOUBLE_WORD:
            addresses = counters << 2  # the low bits stay 0, as those of chained addresses do
        elif mode & BYTE_MODE:
            addresses = counters
        else:
            addresses = counters << 1 | counters >> (15 if mode & ADDRESS_WRAP_15 else 13) & 1
        for number, (bit, position) in enumerate(ROW_SCAN_ADDRESS):
            if not mode & bit:
                row_scan_bit = (scans[:, np.newaxis] >> number & 1) << position
                addresses = addresses & ~(1 << position) | row_scan_bit
        return addresses & ADDRESS_MASK

    # ---- timing ----

    @property
    def total_columns(self) -> int:
        """Character clocks of a line with its blanking."""
        return self.registers[HORIZONTAL_TOTAL] + TOTAL_CHARACTERS

    @property
    def total_lines(self) -> int:
        """Scan lines of a frame with its blanking."""
        return self._vertical(VERTICAL_TOTAL, 0, 5) + TOTAL_LINES

    def in_retrace(self, line: int) -> bool:
        """Whether `line` of the frame is in the vertical retrace.

        A frame has at least one line with it and one without, whatever the registers hold: nobody waits for ever.
        """
        start = min(max(self._vertical(VERTICAL_RETRACE_START, 2, 7), 1), self.total_lines - 1)
        end = self.registers[VERTICAL_RETRACE_END] & RETRACE_END_MASK
        length = (end - start - 1 & RETRACE_END_MASK) + 1
        return start <= line < start + length

    def shows(self, line: int, column: int) -> bool:
        """Whether the picture, and no blanking, is at `line` and `column` of the frame."""
        return line < self.height and column < self.columns
