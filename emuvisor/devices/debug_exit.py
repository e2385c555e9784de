"""Debug exit: a write ends the run with an exit code, as QEMU's isa-debug-exit does (port F4h by custom)."""

from collections.abc import Callable

from emuvisor.bus.device import SavedState, check_saved

__all__ = ["DebugExit"]

_DEVICE = "debug-exit"
_VERSION = 1


class DebugExit:
    """One register; a write of `value` calls `on_exit(value << 1 | 1)`, so that 0 is never an exit code."""

    name = _DEVICE

    def __init__(self, *, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def read(self, offset: int, size: int) -> int:
        """Always 0."""
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        """End the run."""
        self._on_exit(value << 1 | 1)

    def reset(self) -> None:
        """Nothing to forget."""

    def save(self) -> SavedState:
        """Only who it is: the port has no state."""
        return {"device": _DEVICE, "version": _VERSION}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
