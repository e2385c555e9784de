"""The reset control register at port CF9h. Source: Intel 82371SB (PIIX3) data sheet, section 2.5.4.2 (RC)."""

from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields

__all__ = ["FULL_RESET", "ResetControl"]

SYSTEM_RESET = 0x02
"""SRST: a hard reset, and not only the processor's; for a guest here they are one."""
RESET_CPU = 0x04
"""RCPU: its rising edge resets."""

FULL_RESET = SYSTEM_RESET | RESET_CPU
"""What the ACPI reset register of a board with this chip is to be written with."""

_DEVICE = "reset-control"
_VERSION = 1
_FIELDS = Fields({"control": Number(FULL_RESET)})


class ResetControl:
    """One register; a rising RCPU bit calls `on_reset`."""

    name = _DEVICE

    def __init__(self, *, on_reset: Callable[[], None]) -> None:
        self._on_reset = on_reset
        self.control = 0

    def read(self, offset: int, size: int) -> int:
        """The bits as they were written."""
        return self.control

    def write(self, offset: int, value: int, size: int) -> None:
        """Choose the kind of reset; reset where RCPU goes from 0 to 1."""
        rising = value & ~self.control & RESET_CPU
        self.control = value & FULL_RESET
        if rising:
            self._on_reset()

    def reset(self) -> None:
        """Both bits clear."""
        self.control = 0

    def save(self) -> SavedState:
        """The bits as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
