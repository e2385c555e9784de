"""Intel 82371AB (PIIX4), function 3: power management. It says where the ACPI registers and the SMBus are.

Source: Intel 82371AB data sheet (290562), chapter 7. The ACPI registers themselves are the chip behind PMBASE.
"""

from collections.abc import Iterator

from emuvisor.bus.device import Device
from emuvisor.devices.pci.bar import Bar
from emuvisor.devices.pci.function import PciFunction, Window
from emuvisor.devices.pci.i440fx import VENDOR_INTEL
from emuvisor.devices.pci.registers import BAR_IO, INTERRUPT_LINE

__all__ = ["PM_BLOCK_SIZE", "PIIX4PowerManagement"]

DEVICE_PIIX4_PM = 0x7113
REVISION = 3
CLASS_BRIDGE_OTHER = 0x068000
INTA = 1
SCI = 9
"""The interrupt is wired to ISA line 9 whatever the register says."""

PMBASE = 0x40
PMBASE_MASK = 0xFFC0
PM_BLOCK_SIZE = 64
DEVACTB = 0x58
APMC_EN = 0x0200_0000
"""Set from power-on: it tells firmware that system management mode is set up already, for there is none."""
PMREGMISC = 0x80
PMIOSE = 0x01
SMBBA = 0x90
SMBBA_MASK = 0xFFF0
SMBHSTCFG = 0xD2
SMBHSTCFG_WRITABLE = 0x0F


class PIIX4PowerManagement(PciFunction):
    """The function, 8086:7113. `registers` is the chip of `PM_BLOCK_SIZE` ports that PMBASE moves."""

    def __init__(self, *, registers: Device) -> None:
        super().__init__(
            name="piix4-pm",
            vendor=VENDOR_INTEL,
            device=DEVICE_PIIX4_PM,
            class_code=CLASS_BRIDGE_OTHER,
            revision=REVISION,
            interrupt_pin=INTA,
        )
        self._block = Bar(size=PM_BLOCK_SIZE, space="io", device=registers, width=4)
        self.config[INTERRUPT_LINE] = SCI
        self.config[PMBASE] = self.config[SMBBA] = BAR_IO
        self.config[DEVACTB : DEVACTB + 4] = APMC_EN.to_bytes(4, "little")
        self.allow(PMBASE, PMBASE_MASK, 4)
        self.allow(PMREGMISC, PMIOSE, 1)
        self.allow(SMBBA, SMBBA_MASK, 4)
        self.allow(SMBHSTCFG, SMBHSTCFG_WRITABLE, 1)

    def config_write(self, offset: int, value: int, size: int) -> None:
        """The ACPI registers move at once."""
        super().config_write(offset, value, size)
        if offset & ~3 in (PMBASE, PMREGMISC):
            self.remap()

    def windows(self) -> Iterator[Window]:
        """Its only window is the block of ACPI registers."""
        if self.config[PMREGMISC] & PMIOSE and self.base:
            yield self._block, self.base

    @property
    def base(self) -> int:
        """The first port of the ACPI registers; 0 before firmware has set it."""
        return int.from_bytes(self.config[PMBASE : PMBASE + 4], "little") & PMBASE_MASK
