"""Intel 82441FX (440FX PMC) host bridge: what the pc board's firmware programs of it.

Source: Intel 82441FX data sheet (290549), section 3.2. The programmable attribute map says, for each piece of
C0000h to FFFFFh, whether reads and writes go to the RAM there or to the ROM behind it.
"""

from typing import Protocol

from emuvisor.devices.pci.function import PciFunction
from emuvisor.devices.pci.registers import COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY
from emuvisor.units import KIB

__all__ = ["I440FX", "AttributeMap"]

VENDOR_INTEL = 0x8086
DEVICE_82441FX = 0x1237
REVISION = 2
CLASS_HOST_BRIDGE = 0x060000

PMCCFG = 0x50
PAM0 = 0x59
PAM_COUNT = 7
SMRAM = 0x72
SMRAM_RESET = 0x02
SMRAM_WRITABLE = 0x78

PAM_READ_RAM = 0x1
PAM_WRITE_RAM = 0x2
PAM_ATTRIBUTES = PAM_READ_RAM | PAM_WRITE_RAM
PAM_UPPER_SHIFT = 4

PAM_BASE = 0xC0000
PAM_PIECE = 16 * KIB
PAM_BIOS_BASE = 0xF0000
PAM_BIOS_LENGTH = 64 * KIB


class AttributeMap(Protocol):
    """RAM that lies under ROM, with a say about which of the two answers."""

    def set(self, gpa: int, length: int, *, read_ram: bool, write_ram: bool) -> None:
        """Where reads and writes of [gpa, gpa + length) go: to RAM, or to the ROM and nowhere."""
        ...


def pieces() -> list[tuple[int, int, int, int]]:
    """(register, shift of its attributes, base, length) of every piece that the attribute map governs."""
    governed = [(PAM0, PAM_UPPER_SHIFT, PAM_BIOS_BASE, PAM_BIOS_LENGTH)]
    for i in range(2 * (PAM_COUNT - 1)):
        governed.append((PAM0 + 1 + i // 2, PAM_UPPER_SHIFT * (i % 2), PAM_BASE + i * PAM_PIECE, PAM_PIECE))
    return governed


class I440FX(PciFunction):
    """The host bridge, 8086:1237. `shadow` is the memory that the attribute map governs."""

    def __init__(self, *, shadow: AttributeMap) -> None:
        super().__init__(
            name="i440fx",
            vendor=VENDOR_INTEL,
            device=DEVICE_82441FX,
            class_code=CLASS_HOST_BRIDGE,
            revision=REVISION,
        )
        self._shadow = shadow
        self._attributes: dict[int, int] = {}
        """What each piece was last set to, by base."""
        fixed = COMMAND_MEMORY | COMMAND_BUS_MASTER
        self.config[COMMAND] = fixed
        self.writable[COMMAND] &= ~fixed
        self.allow(PMCCFG, 0xFFFF, 2)
        for register in range(PAM0, PAM0 + PAM_COUNT):
            both = PAM_ATTRIBUTES | PAM_ATTRIBUTES << PAM_UPPER_SHIFT
            self.allow(register, both if register != PAM0 else PAM_ATTRIBUTES << PAM_UPPER_SHIFT, 1)
        self.config[SMRAM] = SMRAM_RESET
        self.allow(SMRAM, SMRAM_WRITABLE, 1)

    def config_write(self, offset: int, value: int, size: int) -> None:
        """The attribute map takes effect at once."""
        super().config_write(offset, value, size)
        self._apply()

    def remap(self) -> None:
        """Registers came from a reset or a saved state."""
        super().remap()
        self._apply()

    def _apply(self) -> None:
        for register, shift, base, length in pieces():
            attributes = self.config[register] >> shift & PAM_ATTRIBUTES
            if self._attributes.get(base, 0) != attributes:
                self._attributes[base] = attributes
                self._shadow.set(
                    base,
                    length,
                    read_ram=bool(attributes & PAM_READ_RAM),
                    write_ram=bool(attributes & PAM_WRITE_RAM),
                )

    def show_ram(self, base: int, length: int) -> None:
        """Let reads and writes of the pieces inside [base, base + length) reach RAM, as firmware leaves it."""
        for register, shift, start, size in pieces():
            if base <= start and start + size <= base + length:
                self.config[register] |= PAM_ATTRIBUTES << shift
        self._apply()
