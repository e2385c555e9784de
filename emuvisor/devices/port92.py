"""Port 92h: fast A20 and fast reset. Source: PORT92 in the Intel 82801 (ICH) data sheet."""

from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Flag, load_fields, save_fields
from emuvisor.devices.a20 import A20Gate

__all__ = ["Port92"]

INIT_NOW = 0x01
ALT_A20_GATE = 0x02

_DEVICE = "port92"
_VERSION = 1
_FIELDS = Fields({"init_now": Flag()})


class Port92:
    """One register: bit 1 is the A20 gate, a rising bit 0 calls `on_reset`."""

    name = _DEVICE

    def __init__(self, *, a20: A20Gate, on_reset: Callable[[], None]) -> None:
        self._a20 = a20
        self._on_reset = on_reset
        self.init_now = False

    def read(self, offset: int, size: int) -> int:
        """The A20 gate as it is, and the reset bit as it was written."""
        return (ALT_A20_GATE if self._a20.enabled else 0) | (INIT_NOW if self.init_now else 0)

    def write(self, offset: int, value: int, size: int) -> None:
        """Set the gate; reset where bit 0 goes from 0 to 1."""
        self._a20.set(bool(value & ALT_A20_GATE))
        requested = bool(value & INIT_NOW)
        rising = requested and not self.init_now
        self.init_now = requested
        if rising:
            self._on_reset()

    def reset(self) -> None:
        """The reset bit is clear again; the gate has its own reset."""
        self.init_now = False

    def save(self) -> SavedState:
        """The reset bit as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
