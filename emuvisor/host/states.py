"""The states of a guest's life, and the events between them."""

from dataclasses import dataclass
from enum import StrEnum

from emuvisor.errors import StateError

__all__ = ["Event", "GuestState", "require"]


class GuestState(StrEnum):
    """Where a guest is in its life.

    defined -> running <-> paused; running -> defined (switched off) or crashed; anything -> gone. Saved is a guest
    that is not in memory but in the store, from where it goes on (`emuvisor.manager`): running or paused -> saved ->
    running.
    Migrating is one that stands still here because it may be, or soon be, on another host (`emuvisor.migration`).
    """

    DEFINED = "defined"
    RUNNING = "running"
    PAUSED = "paused"
    SAVED = "saved"
    MIGRATING = "migrating"
    CRASHED = "crashed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Event:
    """`guest` went from state `old` to `new` for `reason`, at `time` (seconds since 1970)."""

    time: float
    guest: str
    old: GuestState
    new: GuestState
    reason: str = ""


def require(name: str, state: GuestState, allowed: tuple[GuestState, ...], verb: str) -> None:
    """Raises StateError when guest `name` is not in one of the `allowed` states for what `verb` says."""
    if state not in allowed:
        wanted = " or ".join(allowed)
        raise StateError(f"guest {name!r} is {state}; {verb} needs it {wanted}")
