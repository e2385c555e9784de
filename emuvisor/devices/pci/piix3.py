"""Intel 82371SB (PIIX3), function 0: the ISA bridge, which routes PCI interrupts to ISA lines.

Source: Intel 82371FB/82371SB data sheet (290550), section 2.2. Whether an ISA line is level-triggered is up
to ELCR, which firmware sets for the lines that it routes PCI interrupts to.
"""

from collections.abc import Sequence

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Numbers, load_fields, save_fields, saved_part
from emuvisor.devices.pci.function import PciFunction
from emuvisor.devices.pci.i440fx import VENDOR_INTEL
from emuvisor.devices.pci.registers import COMMAND, COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY

__all__ = ["PIIX3", "PIRQ_COUNT", "pirq_of"]

DEVICE_PIIX3_ISA = 0x7000
CLASS_ISA_BRIDGE = 0x060100

XBCS = 0x4E
"""X-bus chip select: which of the board's chips are decoded."""
XBCS_RESET = 0x0003
PIRQRC = 0x60
PIRQ_COUNT = 4
PIRQ_DISABLED = 0x80
PIRQ_IRQ = 0x0F
TOM = 0x69
TOM_RESET = 0x02
MSTAT = 0x6A
ROUTABLE = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)
"""The others are reserved, and route nowhere."""

_PART = "pirq"
_VERSION = 1
_FIELDS = Fields({"high": Numbers(128, 0xFFF)})
SOURCE_SLOT_SHIFT = 4
SOURCE_PIN_MASK = 0xF


def pirq_of(slot: int, pin: int) -> int:
    """Which PIRQ (0 to 3) pin 1 to 4 of `slot` is wired to on a 440FX board."""
    return (pin - 1 + slot - 1) % PIRQ_COUNT


class PIIX3(PciFunction):
    """The ISA bridge, 8086:7000. `irqs[n]` is an input of ISA interrupt line n."""

    def __init__(self, *, irqs: Sequence[InterruptLine]) -> None:
        super().__init__(
            name="piix3-isa",
            vendor=VENDOR_INTEL,
            device=DEVICE_PIIX3_ISA,
            class_code=CLASS_ISA_BRIDGE,
            multifunction=True,
        )
        self._irqs = irqs
        self.high: list[int] = []
        """The interrupt pins that are high, each as slot and pin."""
        fixed = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER
        self.config[COMMAND] = fixed
        self.writable[COMMAND] &= ~fixed
        self.config[XBCS : XBCS + 2] = XBCS_RESET.to_bytes(2, "little")
        self.allow(XBCS, 0xFFFF, 2)
        for register in range(PIRQRC, PIRQRC + PIRQ_COUNT):
            self.config[register] = PIRQ_DISABLED
            self.allow(register, PIRQ_DISABLED | PIRQ_IRQ, 1)
        self.config[TOM] = TOM_RESET
        self.allow(TOM, 0xFE, 1)
        self.allow(MSTAT, 0xFFFF, 2)

    def set_pin(self, slot: int, pin: int, level: bool) -> None:
        """Interrupt pin `pin` (1 to 4) of `slot` has this level."""
        source = slot << SOURCE_SLOT_SHIFT | pin
        if level and source not in self.high:
            self.high.append(source)
        elif not level and source in self.high:
            self.high.remove(source)
        self._route()

    def routed_to(self, pirq: int) -> int | None:
        """The ISA line of PIRQ 0 to 3; None while it goes nowhere."""
        register = self.config[PIRQRC + pirq]
        irq = register & PIRQ_IRQ
        return None if register & PIRQ_DISABLED or irq not in ROUTABLE else irq

    def _route(self) -> None:
        high = {pirq_of(source >> SOURCE_SLOT_SHIFT, source & SOURCE_PIN_MASK) for source in self.high}
        driven = {self.routed_to(pirq) for pirq in high}
        for irq in ROUTABLE:
            self._irqs[irq].set(irq in driven)

    def config_write(self, offset: int, value: int, size: int) -> None:
        """Routing takes effect at once."""
        super().config_write(offset, value, size)
        self._route()

    def reset(self) -> None:
        """Nothing is routed; the pins keep the levels that their functions give them."""
        super().reset()
        self._route()

    def save(self) -> SavedState:
        """The registers, and which pins are high, as plain data."""
        return super().save() | {_PART: save_fields(self, _PART, _VERSION, _FIELDS)}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        super().load(state)
        load_fields(self, saved_part(state, self.name, _PART), _PART, _VERSION, _FIELDS)
        self._route()
