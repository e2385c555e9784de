"""Chips that begin with a saved state."""

from typing import TypeVar

from emuvisor.bus.device import SavedState, Stateful

Chip = TypeVar("Chip", bound=Stateful)


def loaded(chip: Chip, state: SavedState) -> Chip:
    """`chip`, which has just been made, with `state` in it."""
    chip.load(state)
    return chip
