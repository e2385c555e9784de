"""The sequencer (3C4h, 3C5h): character clock, which planes are written, how they are addressed, which fonts."""

from emuvisor.devices.display.registers import RegisterFile

__all__ = ["Sequencer"]

# Registers.
RESET = 0
CLOCKING_MODE = 1
MAP_MASK = 2
CHARACTER_MAP_SELECT = 3
MEMORY_MODE = 4

# Clocking mode.
EIGHT_DOTS = 0x01
DOT_CLOCK_HALF = 0x08
SCREEN_OFF = 0x20

MAP_MASK_PLANES = 0x0F

# Memory mode.
SEQUENTIAL = 0x04
"""Off: even addresses reach planes 0 and 2, odd ones 1 and 3."""
CHAIN_4 = 0x08

_FONT_OFFSETS = (0x0000, 0x4000, 0x8000, 0xC000, 0x2000, 0x6000, 0xA000, 0xE000)
"""Where in plane 2 the character maps begin, by the 3-bit numbers of the character map select register."""


class Sequencer(RegisterFile):
    """After power-on as for text mode 3; data sheets leave the values open."""

    name = "vga sequencer"
    power_on = bytes((0x03, 0x00, 0x03, 0x00, 0x02))
    writable = bytes((0x03, 0x3D, 0x0F, 0x3F, 0x0E))

    @property
    def dots(self) -> int:
        """Dots of a character clock: 8 or 9."""
        return 8 if self.registers[CLOCKING_MODE] & EIGHT_DOTS else 9

    @property
    def half_dot_clock(self) -> bool:
        """Each dot lasts two periods of the clock: 320 or 360 in a line."""
        return bool(self.registers[CLOCKING_MODE] & DOT_CLOCK_HALF)

    @property
    def screen_off(self) -> bool:
        """The processor has all the memory's time, and the screen is black."""
        return bool(self.registers[CLOCKING_MODE] & SCREEN_OFF)

    @property
    def map_mask(self) -> int:
        """The planes that are written, one bit each."""
        return self.registers[MAP_MASK] & MAP_MASK_PLANES

    @property
    def odd_even(self) -> bool:
        """Writes to even addresses go to planes 0 and 2, to odd ones to 1 and 3."""
        return not self.registers[MEMORY_MODE] & SEQUENTIAL

    @property
    def chain_4(self) -> bool:
        """The two low address bits choose the plane."""
        return bool(self.registers[MEMORY_MODE] & CHAIN_4)

    @property
    def fonts(self) -> tuple[int, int]:
        """Offsets in plane 2 of the fonts for characters with attribute bit 3 clear (map B) and set (map A)."""
        select = self.registers[CHARACTER_MAP_SELECT]
        map_b = select & 3 | (select >> 2 & 4)
        map_a = select >> 2 & 3 | (select >> 3 & 4)
        return _FONT_OFFSETS[map_b], _FONT_OFFSETS[map_a]
