"""pvpanic: a port by which a guest's kernel says that it panicked. Source: QEMU, docs/specs/pvpanic.rst."""

from collections.abc import Callable
from enum import IntFlag

from emuvisor.bus.device import SavedState, check_saved

__all__ = ["PanicEvent", "PvPanic"]

_DEVICE = "pvpanic"
_VERSION = 1


class PanicEvent(IntFlag):
    """What a guest can report: the bits of the port."""

    PANICKED = 0x01
    """It panicked, and the host decides what becomes of it."""
    CRASH_LOADED = 0x02
    """It panicked and runs its crash kernel."""


SUPPORTED = PanicEvent.PANICKED | PanicEvent.CRASH_LOADED


class PvPanic:
    """One register; `on_panic(event)` hears of each event that is written."""

    name = _DEVICE

    def __init__(self, *, on_panic: Callable[[PanicEvent], None]) -> None:
        self._on_panic = on_panic

    def read(self, offset: int, size: int) -> int:
        """The events that can be reported."""
        return SUPPORTED

    def write(self, offset: int, value: int, size: int) -> None:
        """Report events; unknown ones are not heard."""
        for event in PanicEvent:
            if value & event:
                self._on_panic(event)

    def reset(self) -> None:
        """Nothing to forget."""

    def save(self) -> SavedState:
        """Only who it is: the port has no state."""
        return {"device": _DEVICE, "version": _VERSION}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
