"""The device protocol, and what a device needs in order to be saved."""

from typing import Any, Protocol

from emuvisor.errors import SnapshotError

__all__ = ["Device", "SavedState", "Stateful", "check_saved"]

SavedState = dict[str, Any]
"""Plain data (numbers, strings, bytes, lists, dicts) by field name, with "device" and "version"."""


class Device(Protocol):
    """A chip reached through port or memory-mapped I/O.

    `offset` counts bytes from the start of the attached range; the bus guarantees that
    `offset + size` stays inside it, that `size` is 1, 2, 4 or 8, and that `value` fits `size`.
    What a guest writes is hostile: a device never raises because of it.
    """

    @property
    def name(self) -> str:
        """What the chip is called in messages and statistics."""
        ...

    def read(self, offset: int, size: int) -> int:
        """The value a guest's read of `size` bytes at `offset` returns."""
        ...

    def write(self, offset: int, value: int, size: int) -> None:
        """A guest's write of `size` bytes at `offset`."""
        ...

    def reset(self) -> None:
        """Back to the state after power-on."""
        ...


class Stateful(Protocol):
    """What can be saved apart from its wiring, and put back in place."""

    def save(self) -> SavedState:
        """The state as plain data."""
        ...

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave, whatever the present state is. The wiring stays: outputs are driven to their
        levels then, timers are armed as they were, containers are refilled.

        Raises SnapshotError for a state that is not this device's; the device is then to be reset.
        """
        ...


def check_saved(state: SavedState, device: str, version: int) -> None:
    """Refuse a state that is not `device`'s or is newer than `version`.

    Raises SnapshotError.
    """
    found, saved_version = state.get("device"), state.get("version")
    if found != device:
        raise SnapshotError(f"the saved state is of device {found!r}, not {device!r}")
    if type(saved_version) is not int or not 1 <= saved_version <= version:
        raise SnapshotError(
            f"{device}: saved state has version {saved_version!r}; this emuvisor reads 1 to {version}"
        )
