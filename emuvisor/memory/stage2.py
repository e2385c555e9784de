"""The second stage of address translation: guest frame number to host frame (EPT or NPT on hardware).

An entry is 32 bits: the state in bits 31 to 24, and in bits 23 to 0 the host frame, or the number under which a store
keeps the page. A page of 4 KiB and 24 bits of frame number make 64 GiB the largest pool.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FRAMED",
    "FRAME_MASK",
    "MAX_FRAMES",
    "STATE_SHIFT",
    "STORED",
    "UNBACKED",
    "WRITTEN",
    "Entries",
    "FrameState",
    "entry",
    "in_states",
]

STATE_SHIFT = 24
FRAME_MASK = (1 << STATE_SHIFT) - 1
MAX_FRAMES = 1 << STATE_SHIFT

Entries = NDArray[np.uint32]
"""One entry per guest frame of a memory slot."""


class FrameState(IntEnum):
    """What a guest frame is at the moment. The first five are known to the C core by number; for the others it asks
    for the page."""

    ABSENT = 0
    """RAM that was never touched: costs nothing, reads as zeros."""
    RESIDENT = 1
    """Has a host frame of its own."""
    SHARED = 2
    """Has a host frame that others have too; the first write copies it."""
    ROM = 3
    """Has a host frame; writes go nowhere."""
    HOLE = 4
    """No memory: a device, or nobody."""
    BALLOONED = 5
    """As ABSENT; the guest put it into its balloon."""
    COMPRESSED = 6
    """The host keeps its content compressed."""
    SWAPPED = 7
    """Its content is in a file of the host's."""
    SAVED = 8
    """Its content is in a snapshot of the host's store, from which the guest was restored."""
    REMOTE = 9
    """Its content is still on the other side of a migration."""


FRAMED = (FrameState.RESIDENT, FrameState.SHARED, FrameState.ROM)
"""The entry has a host frame."""
UNBACKED = (FrameState.ABSENT, FrameState.BALLOONED)
"""RAM that reads as zeros and has no frame."""
STORED = (FrameState.COMPRESSED, FrameState.SWAPPED, FrameState.SAVED, FrameState.REMOTE)
"""RAM whose content a store keeps: the entry has the number that the store gave the page."""
WRITTEN = (FrameState.RESIDENT, FrameState.SHARED, *STORED)
"""RAM that holds something."""


def entry(state: FrameState, frame: int = 0) -> int:
    """The entry for `state` with host frame (or number in a store) `frame`."""
    return state << STATE_SHIFT | frame


def in_states(entries: Entries, states: Sequence[FrameState]) -> NDArray[np.bool_]:
    """Which of `entries` are in one of `states`."""
    now = entries >> STATE_SHIFT
    found: NDArray[np.bool_] = now == states[0]
    for state in states[1:]:
        found |= now == state
    return found
