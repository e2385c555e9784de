"""How short of memory the host is: four states by the frames that are available (Waldspurger, OSDI 2002, section 6.3).

| state | entered below | left, for the state before it, at |
|---|---|---|
| HIGH | | |
| SOFT | 4 % of the pool | 6.75 % |
| HARD | 2 % | 4.5 % |
| LOW  | 1 % | 2.25 % |

A state is left only when the threshold of the better state, 6 %, 4 % or 2 %, is exceeded by an eighth. This hysteresis
keeps a host that sits on a threshold from changing its mind at every look.
"""

from enum import IntEnum

__all__ = ["HostState", "next_state", "recovery_level", "threshold"]


class HostState(IntEnum):
    """How short the host is of memory; a greater number is worse."""

    HIGH = 0
    """Enough. Nothing is taken from anybody."""
    SOFT = 1
    """Guests are asked for memory."""
    HARD = 2
    """Memory is taken without asking."""
    LOW = 3
    """Guests that want more have to wait."""


_PERCENT = {HostState.HIGH: 6, HostState.SOFT: 4, HostState.HARD: 2, HostState.LOW: 1}
_MARGIN = 8
"""A threshold is exceeded significantly when it is by an eighth."""


def threshold(state: HostState, frames: int) -> int:
    """The threshold of `state` on a host of `frames`; at least one frame."""
    return max(1, -(-frames * _PERCENT[state] // 100))


def recovery_level(state: HostState, frames: int) -> int:
    """The available frames with which a host of `frames` comes back to `state` from a worse one."""
    level = threshold(state, frames)
    return level + level // _MARGIN


def next_state(before: HostState, available: int, frames: int) -> HostState:
    """The state of a host of `frames` that was in `before` and has `available` frames now."""
    fallen = max(
        (state for state in HostState if state and available < threshold(state, frames)),
        default=HostState.HIGH,
    )
    risen = min(
        (state for state in HostState if available >= recovery_level(state, frames)), default=HostState.LOW
    )
    # Between the level at which a state is entered and the one at which it is left, all stays as it was.
    return max(fallen, min(before, risen))
