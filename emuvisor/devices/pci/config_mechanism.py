"""Configuration mechanism 1: the address register at port CF8h and the data window at CFCh.

Source: PCI Local Bus Specification 3.0, section 3.2.2.3.2. Only a write of a double word reaches CONFIG_ADDRESS; the
PC's reset control register lies among its ports, at CF9h, and takes bytes.
"""

from emuvisor.bus.device import Device, SavedState
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields
from emuvisor.devices.pci.pci_bus import PciBus

__all__ = ["ConfigAddress", "ConfigData"]

REGISTER_SIZE = 4
ENABLE = 0x8000_0000
WRITABLE = 0x80FF_FFFC
BUS_SHIFT = 16
BUS_MASK = 0xFF
SLOT_SHIFT = 11
SLOT_MASK = 0x1F
FUNCTION_SHIFT = 8
FUNCTION_MASK = 0x7
REGISTER_MASK = 0xFC
RESET_CONTROL = 1
"""Offset of port CF9h."""

_DEVICE = "pci-config-address"
_VERSION = 1
_FIELDS = Fields({"address": Number(WRITABLE)})


class ConfigAddress:
    """CONFIG_ADDRESS, four ports. `reset_control` is the chip at CF9h, which this one stands in front of."""

    name = _DEVICE

    def __init__(self, *, reset_control: Device) -> None:
        self._reset_control = reset_control
        self.address = 0

    @property
    def place(self) -> tuple[int, int] | None:
        """Slot and function number selected on bus 0; None for another bus, or while access is disabled."""
        if not self.address & ENABLE or self.address >> BUS_SHIFT & BUS_MASK:
            return None
        return self.address >> SLOT_SHIFT & SLOT_MASK, self.address >> FUNCTION_SHIFT & FUNCTION_MASK

    @property
    def register(self) -> int:
        """Offset of the double word selected."""
        return self.address & REGISTER_MASK

    def read(self, offset: int, size: int) -> int:
        """Bytes of the register, or the reset control register."""
        if offset == RESET_CONTROL and size == 1:
            return self._reset_control.read(0, 1)
        return self.address >> 8 * offset

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the register by a double word, or the reset control register by a byte; nothing else is heard."""
        if size == REGISTER_SIZE:
            self.address = value & WRITABLE
        elif offset == RESET_CONTROL and size == 1:
            self._reset_control.write(0, value, 1)

    def reset(self) -> None:
        """Access disabled."""
        self.address = 0
        self._reset_control.reset()

    def save(self) -> SavedState:
        """The register as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)


class ConfigData:
    """CONFIG_DATA, four ports: the register of a function on `bus` that `address` selects. Nobody reads as ones."""

    name = "pci-config-data"

    def __init__(self, *, bus: PciBus, address: ConfigAddress) -> None:
        self._bus = bus
        self._address = address

    def read(self, offset: int, size: int) -> int:
        """Bytes of the double word selected."""
        place = self._address.place
        if place is None:
            return (1 << 8 * size) - 1
        return self._bus.config_read(*place, self._address.register + offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        """Write bytes of the double word selected."""
        place = self._address.place
        if place is not None:
            self._bus.config_write(*place, self._address.register + offset, value, size)

    def reset(self) -> None:
        """It has no state."""
