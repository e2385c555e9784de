"""How a recipe tells what it is doing."""

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with what begins now, how many steps are done, and how many there are."""


def silent(_step: str, _done: int, _total: int) -> None:
    """Tells nobody."""
