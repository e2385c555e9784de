"""The registers by which a machine with hardware-reduced ACPI is switched off and reset.

Source: ACPI specification 6.4, sections 4.8.3.7 (sleep control and status) and 4.8.3.6 (reset register).
"""

from collections.abc import Callable

from emuvisor.bus.device import SavedState, check_saved

__all__ = ["PORT_COUNT", "RESET_VALUE", "SLP_TYP_S5", "SleepControl"]

# Offsets on the bus.
SLEEP_CONTROL = 0
SLEEP_STATUS = 1
RESET = 2
PORT_COUNT = 3

SLP_EN = 1 << 5
SLP_TYP_SHIFT = 2
SLP_TYP_MASK = 0x1C
SLP_TYP_S5 = 5
"""The sleep type that means soft off; the DSDT's _S5 has it."""
RESET_VALUE = 1

_DEVICE = "sleep-control"
_VERSION = 1


class SleepControl:
    """Three 8-bit registers that read 0: sleep control, sleep status and reset.

    SLP_EN with the sleep type of S5 calls `on_shutdown`, the reset value `on_reset`. The machine never sleeps and so
    never wakes: the status register has nothing to tell.
    """

    name = _DEVICE

    def __init__(self, *, on_shutdown: Callable[[], None], on_reset: Callable[[], None]) -> None:
        self._on_shutdown = on_shutdown
        self._on_reset = on_reset

    def read(self, offset: int, size: int) -> int:
        """Always 0."""
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Switch off, reset, or do nothing."""
        if offset == SLEEP_CONTROL and value & SLP_EN and value & SLP_TYP_MASK == SLP_TYP_S5 << SLP_TYP_SHIFT:
            self._on_shutdown()
        elif offset == RESET and value == RESET_VALUE:
            self._on_reset()

    def reset(self) -> None:
        """Nothing to forget."""

    def save(self) -> SavedState:
        """Only who it is: the registers have no state."""
        return {"device": _DEVICE, "version": _VERSION}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
