"""A board's state: its parts by name, each as its chip saves it."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emuvisor.bus.device import SavedState, Stateful, check_saved
from emuvisor.bus.saved import saved_part
from emuvisor.errors import SnapshotError

__all__ = ["Parts", "UserDevice", "load_parts", "save_parts", "user_parts"]

_VERSION = 1

Parts = Mapping[str, Stateful]
"""By name, in the order in which they are loaded: whoever drives an interrupt line before the one that it leads to.
What a driver's change does to an interrupt controller on the way is thus overwritten by the controller's own state."""


def save_parts(board: str, parts: Parts) -> SavedState:
    """The state of all `parts` of the board called `board`. Raises SnapshotError."""
    return {
        "device": board,
        "version": _VERSION,
        "parts": {name: part.save() for name, part in parts.items()},
    }


def load_parts(board: str, parts: Parts, state: SavedState) -> None:
    """Take over what `save_parts` gave. Raises SnapshotError; the board is then to be reset before it is used."""
    check_saved(state, board, _VERSION)
    saved = saved_part(state, board, "parts")
    for name in parts:
        if not isinstance(saved.get(name), dict):
            raise SnapshotError(f"{board}: the saved state has no part {name!r}")
    for name in saved:
        if name not in parts:
            raise SnapshotError(
                f"{board}: the saved state has a part {reprlib.repr(name)} that this guest does not have"
            )
    for name, part in parts.items():
        part.load(saved[name])


def user_parts(names: Sequence[str], devices: Sequence[Any], known: Parts) -> Iterator[tuple[str, Stateful]]:
    """The user's `devices` as parts; `names` are what the configuration calls them. One that is among the `known`
    parts, a PCI function, is not listed twice."""
    there = {id(part) for part in known.values()}
    for number, (name, device) in enumerate(zip(names, devices, strict=True)):
        if id(device) not in there:
            yield f"user device {number}", UserDevice(name, device)


class UserDevice:
    """A device of the user's, whose code may do anything: what goes wrong is a SnapshotError with its name."""

    def __init__(self, name: str, device: Any) -> None:
        self._name = name
        self._device = device

    def save(self) -> SavedState:
        """What the device saves. Raises SnapshotError."""
        state = self._call("save")
        if not isinstance(state, dict):
            raise SnapshotError(f"device {self._name}: save() gave {reprlib.repr(state)}; expected a dict")
        return state

    def load(self, state: SavedState) -> None:
        """Give the device its state. Raises SnapshotError."""
        self._call("load", state)

    def _call(self, method: str, *arguments: SavedState) -> Any:
        function = getattr(self._device, method, None)
        if not callable(function):
            raise SnapshotError(
                f"device {self._name}: it has no method {method}(), so its guest cannot be saved"
            )
        try:
            return function(*arguments)
        except SnapshotError:
            raise
        except Exception as error:
            raise SnapshotError(
                f"device {self._name}: {method}() failed: {type(error).__name__}: {error}"
            ) from error
