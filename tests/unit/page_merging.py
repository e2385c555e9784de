"""Two pages that are equal, made one without a search for them."""

from typing import NamedTuple

import numpy as np

from emuvisor.memory.reclaim import Reclaimable
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STATE_SHIFT, FrameState, entry, in_states


class PageRef(NamedTuple):
    """A page of a guest."""

    memory: Reclaimable
    slot: int
    page: int


def merge(one: PageRef, other: PageRef) -> bool:
    """Let both pages show the frame of `one`, if they hold the same and have a frame each; both guests are on no pCPU.
    False when they do not, or did so before."""
    entries = one.memory.slots[one.slot].entries
    value = entries[one.page : one.page + 1]
    if not in_states(value, FRAMED)[0]:
        return False
    frame = value & np.uint32(FRAME_MASK)
    if value[0] >> STATE_SHIFT == FrameState.RESIDENT:
        entries[one.page] = np.uint32(entry(FrameState.SHARED)) | frame[0]
        one.memory.revoke()
    # Lent for a moment, so that the frame has the second reference that makes it unchanging.
    one.memory.pool.share(frame)
    merged = other.memory.share_frames(other.slot, np.array([other.page]), frame)
    one.memory.pool.release(frame)
    return bool(merged[0])
