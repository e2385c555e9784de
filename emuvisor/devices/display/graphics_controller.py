"""The graphics controller (3CEh, 3CFh): what happens to data between the processor and the planes."""

from emuvisor.devices.display.registers import RegisterFile
from emuvisor.units import KIB

__all__ = ["GraphicsController"]

# Registers.
SET_RESET = 0
ENABLE_SET_RESET = 1
COLOUR_COMPARE = 2
DATA_ROTATE = 3
READ_MAP_SELECT = 4
MODE = 5
MISCELLANEOUS = 6
COLOUR_DONT_CARE = 7
BIT_MASK = 8

PLANES = 0x0F

# Data rotate.
ROTATE_COUNT = 0x07
FUNCTION_SHIFT = 3
FUNCTION_MASK = 0x03

# Mode.
WRITE_MODE = 0x03
READ_MODE_1 = 0x08
HOST_ODD_EVEN = 0x10
SHIFT_INTERLEAVE = 0x20
SHIFT_256 = 0x40

# Miscellaneous.
GRAPHICS = 0x01
MEMORY_MAP_SHIFT = 2
MEMORY_MAP_MASK = 0x03

_WINDOWS = (
    (0x00000, 128 * KIB),
    (0x00000, 64 * KIB),
    (0x10000, 32 * KIB),
    (0x18000, 32 * KIB),
)
"""By memory map: first byte, counted from A0000h, and length of what the processor sees."""


class GraphicsController(RegisterFile):
    """After power-on as for text mode 3; data sheets leave the values open."""

    name = "vga graphics controller"
    power_on = bytes((0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF))
    writable = bytes((0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF))

    @property
    def set_reset(self) -> int:
        """What planes with set/reset enabled are filled with, one bit each."""
        return self.registers[SET_RESET] & PLANES

    @property
    def enable_set_reset(self) -> int:
        """The planes that write mode 0 fills from `set_reset`."""
        return self.registers[ENABLE_SET_RESET] & PLANES

    @property
    def colour_compare(self) -> int:
        """What read mode 1 compares with."""
        return self.registers[COLOUR_COMPARE] & PLANES

    @property
    def colour_care(self) -> int:
        """The planes that read mode 1 compares."""
        return self.registers[COLOUR_DONT_CARE] & PLANES

    @property
    def rotate(self) -> int:
        """Bits by which written data is rotated right."""
        return self.registers[DATA_ROTATE] & ROTATE_COUNT

    @property
    def function(self) -> int:
        """How written data meets the latches: 0 replace, 1 AND, 2 OR, 3 XOR."""
        return self.registers[DATA_ROTATE] >> FUNCTION_SHIFT & FUNCTION_MASK

    @property
    def read_map(self) -> int:
        """The plane that read mode 0 reads."""
        return self.registers[READ_MAP_SELECT] & 3

    @property
    def write_mode(self) -> int:
        """0 to 3."""
        return self.registers[MODE] & WRITE_MODE

    @property
    def read_mode_1(self) -> bool:
        """Reads compare colours."""
        return bool(self.registers[MODE] & READ_MODE_1)

    @property
    def odd_even(self) -> bool:
        """Reads of odd addresses come from odd planes."""
        return bool(self.registers[MODE] & HOST_ODD_EVEN)

    @property
    def shift_256(self) -> bool:
        """Each byte of a plane is a pixel."""
        return bool(self.registers[MODE] & SHIFT_256)

    @property
    def shift_interleave(self) -> bool:
        """Two bits of a byte are a pixel, as on a CGA."""
        return bool(self.registers[MODE] & SHIFT_INTERLEAVE)

    @property
    def graphics(self) -> bool:
        """Off: characters."""
        return bool(self.registers[MISCELLANEOUS] & GRAPHICS)

    @property
    def window(self) -> tuple[int, int]:
        """(first byte counted from A0000h, length) of what the processor sees of the planes."""
        return _WINDOWS[self.registers[MISCELLANEOUS] >> MEMORY_MAP_SHIFT & MEMORY_MAP_MASK]

    @property
    def bit_mask(self) -> int:
        """Bits that come from the data; the others come from the latches."""
        return self.registers[BIT_MASK]

    @property
    def plain_write(self) -> bool:
        """Data goes to the planes as it is."""
        return (
            self.write_mode == 0
            and self.bit_mask == 0xFF
            and not (self.registers[DATA_ROTATE] or self.enable_set_reset)
        )
