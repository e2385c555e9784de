"""Debug console: each byte written is a byte of output (port E9h of Bochs, port 402h of SeaBIOS on QEMU)."""

from collections.abc import Callable

from emuvisor.bus.device import SavedState, check_saved

__all__ = ["DebugConsole"]

PRESENT = 0xE9
"""What a read returns, by which software finds the console."""

_DEVICE = "debugcon"
_VERSION = 1


class DebugConsole:
    """One register; `sink` gets each byte at once."""

    name = _DEVICE

    def __init__(self, *, sink: Callable[[bytes], None]) -> None:
        self._sink = sink

    def read(self, offset: int, size: int) -> int:
        """The value that says that the console is there."""
        return PRESENT

    def write(self, offset: int, value: int, size: int) -> None:
        """Print `value`; a wider one byte by byte, the lowest first."""
        self._sink(value.to_bytes(size, "little"))

    def reset(self) -> None:
        """Nothing to forget."""

    def save(self) -> SavedState:
        """Only who it is: the console has no state."""
        return {"device": _DEVICE, "version": _VERSION}

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
