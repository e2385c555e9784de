"""The two ways in which a guest without ACPI tables switches its PC off.

`PowerManagementControl` is the PM1a control register of ACPI (section 4.8.3.2.1) as on QEMU's default PC;
`ShutdownPort` is Bochs' port 8900h, which waits for a word.
"""

from collections.abc import Callable

from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.saved import Fields, Number, load_fields, save_fields

__all__ = ["SLP_EN", "SLP_TYP_MASK", "PowerManagementControl", "ShutdownPort", "is_soft_off"]

SLP_EN = 0x2000
SLP_TYP_MASK = 0x1C00
SLP_TYP_S5 = 0x0000
"""The sleep type that means soft off; the DSDT tells it to ACPI guests, others know it from QEMU."""

PASSWORD = b"Shutdown"

_PM1A = "pm1a-control"
_SHUTDOWN = "shutdown-port"
_VERSION = 1
_SHUTDOWN_FIELDS = Fields({"matched": Number(len(PASSWORD) - 1)})


def is_soft_off(register: int) -> bool:
    """Whether this value, written to PM1a control, switches the PC off."""
    return bool(register & SLP_EN) and register & SLP_TYP_MASK == SLP_TYP_S5


class PowerManagementControl:
    """A 16-bit register; SLP_EN with the sleep type of S5 calls `on_shutdown`, and it reads 0."""

    name = _PM1A

    def __init__(self, *, on_shutdown: Callable[[], None]) -> None:
        self._on_shutdown = on_shutdown

    def read(self, offset: int, size: int) -> int:
        """Always 0."""
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Switch off, or do nothing."""
        if is_soft_off(value << 8 * offset):
            self._on_shutdown()

    def reset(self) -> None:
        """Nothing to forget."""

    def save(self) -> SavedState:
        """Only who it is: the register has no state."""
        return {"device": _PM1A, "version": _VERSION}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _PM1A, _VERSION)


class ShutdownPort:
    """One 8-bit register; the bytes of "Shutdown" in a row call `on_shutdown`."""

    name = _SHUTDOWN

    def __init__(self, *, on_shutdown: Callable[[], None]) -> None:
        self._on_shutdown = on_shutdown
        self.matched = 0

    def read(self, offset: int, size: int) -> int:
        """Always 0."""
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Compare with the next letter; a wrong one starts over."""
        letter = value & 0xFF
        if letter == PASSWORD[self.matched]:
            self.matched += 1
        else:
            self.matched = 1 if letter == PASSWORD[0] else 0
        if self.matched == len(PASSWORD):
            self.matched = 0
            self._on_shutdown()

    def reset(self) -> None:
        """Start over."""
        self.matched = 0

    def save(self) -> SavedState:
        """How much of the word has come, as plain data."""
        return save_fields(self, _SHUTDOWN, _VERSION, _SHUTDOWN_FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _SHUTDOWN, _VERSION, _SHUTDOWN_FIELDS)
