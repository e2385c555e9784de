"""The boards by name."""

from importlib import import_module

from emuvisor.machine.boards.wiring import Board, Wiring
from emuvisor.machine.choices import BoardName

__all__ = ["make_board"]

_BOARDS: dict[BoardName, tuple[str, str]] = {
    "pc": ("pc", "PcBoard"),
    "microvm": ("microvm", "MicrovmBoard"),
    "isa": ("isa", "IsaBoard"),
}
"""Module and class; imported when one is made, for a microvm needs a tenth of what a pc does."""


def make_board(name: BoardName, wiring: Wiring) -> Board:
    """Board `name`, wired. Raises ConfigError for devices of the user's that cannot be plugged into it."""
    module, class_name = _BOARDS[name]
    board: Board = getattr(import_module(f"emuvisor.machine.boards.{module}"), class_name)(wiring)
    return board
