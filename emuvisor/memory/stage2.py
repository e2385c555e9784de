"""The second stage of address translation: guest frame number to host frame (EPT or NPT on hardware).

An entry is 32 bits: the state in bits 31 to 24, the host frame in bits 23 to 0. A page of 4 KiB and 24 bits of
frame number make 64 GiB the largest pool.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRAME_MASK", "MAX_FRAMES", "STATE_SHIFT", "Entries", "FrameState", "entry"]

STATE_SHIFT = 24
FRAME_MASK = (1 << STATE_SHIFT) - 1
MAX_FRAMES = 1 << STATE_SHIFT

Entries = NDArray[np.uint32]
"""One entry per guest frame of a memory slot."""


class FrameState(IntEnum):
    """What a guest frame is at the moment. The first five are known to the C core by number."""

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


def entry(state: FrameState, frame: int = 0) -> int:
    """The entry for `state` with host frame `frame`."""
    return state << STATE_SHIFT | frame
