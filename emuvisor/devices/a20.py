"""The A20 gate: one line that the keyboard controller and port 92h both drive."""

from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.saved import Fields, Flag, load_fields, save_fields

__all__ = ["A20Gate"]

_DEVICE = "a20-gate"
_VERSION = 1
_FIELDS = Fields({"enabled": Flag()})


class A20Gate:
    """Whether address bit 20 reaches memory. The last writer wins; `on_change(enabled)` hears of changes.

    Open after a reset: the reset vector lies above 1 MiB.
    """

    name = _DEVICE

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self.enabled = True

    def set(self, enabled: bool) -> None:
        """Open or close the gate."""
        if enabled != self.enabled:
            self.enabled = enabled
            self._on_change(enabled)

    def reset(self) -> None:
        """Open the gate."""
        self.set(True)

    def save(self) -> SavedState:
        """The gate as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        before = self.enabled
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        if self.enabled != before:
            self._on_change(self.enabled)
