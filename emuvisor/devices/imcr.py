"""The interrupt mode configuration register at ports 22h and 23h.

Source: MultiProcessor Specification 1.4, section 3.6.2.1 (PIC mode).
"""

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Flag, InputLevel, Number, load_fields, save_fields

__all__ = ["Imcr"]

# Register offsets
ADDRESS = 0
DATA = 1

IMCR_ADDRESS = 0x70
THROUGH_APIC = 0x01

_DEVICE = "imcr"
_VERSION = 1
_FIELDS = Fields({"address": Number(0xFF), "through_apic": Flag(), "level": Flag()})


class Imcr:
    """Two registers: an address, and the data of what it selects, which is one bit.

    `pic_intr` is the 8259s' output. It leads to `direct` (the processor's INTR: PIC mode) or to `lint0`
    (virtual wire and symmetric I/O mode). The specification's power-on state is PIC mode; a board whose MP
    table does not mention the register resets to `through_apic_at_reset`, for no system would ever write it.
    """

    name = _DEVICE

    def __init__(
        self, *, direct: InterruptLine, lint0: InterruptLine, through_apic_at_reset: bool = False
    ) -> None:
        self._direct = direct
        self._lint0 = lint0
        self._at_reset = through_apic_at_reset
        self.pic_intr = InterruptLine(lambda _: self._route(), "8259 INTR")
        self.address = 0
        self.through_apic = through_apic_at_reset

    def reset(self) -> None:
        """The power-on mode."""
        self.address = 0
        self.through_apic = self._at_reset
        self._route()

    def read(self, offset: int, size: int) -> int:
        """The mode at the data register; 0 elsewhere."""
        return int(offset == DATA and self.address == IMCR_ADDRESS and self.through_apic)

    def write(self, offset: int, value: int, size: int) -> None:
        """Select the register, or set the mode."""
        if offset == ADDRESS:
            self.address = value & 0xFF
        elif self.address == IMCR_ADDRESS:
            self.through_apic = bool(value & THROUGH_APIC)
            self._route()

    def _route(self) -> None:
        level = self.pic_intr.level
        self._direct.set(level and not self.through_apic)
        self._lint0.set(level and self.through_apic)

    level = InputLevel("pic_intr")

    def save(self) -> SavedState:
        """The mode as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._route()
