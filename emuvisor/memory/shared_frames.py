"""Taking away frames that several pages show, from all of their owners at once.

Which pages show a frame (a "reverse mapping") is not kept, as it would cost with each fault; it is worked out from the
stage-2 tables when it is needed, which is when nothing else gains a frame. The pool's count of references tells whether
all owners were found. Who touches such a page again gets a copy of its own, so that it may cost more frames afterwards
than it did before.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emuvisor.memory.pool import ZERO_FRAME
from emuvisor.memory.reclaim import Reclaimable
from emuvisor.memory.slot import MAX_AGE, backed_frames
from emuvisor.memory.stage2 import FRAME_MASK, FrameState, entry, in_states
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["evictable_shared", "held_by", "send_shared_away"]

_Numbers = NDArray[np.int64]


class _Showing(NamedTuple):
    """Pages of one slot, and the number in a list of frames of the frame that each shows."""

    memory: Reclaimable
    slot: int
    places: _Numbers
    frames: _Numbers


def evictable_shared(
    memories: Sequence[Reclaimable], count: int, state: FrameState = FrameState.SWAPPED
) -> NDArray[np.uint32]:
    """At most `count` frames that `send_shared_away` can bring into `state` while all of `memories`, which are of one
    pool, are on no pCPU; those first that were unused by all their owners for longest.

    Frames with two references at least, all of them from pages of RAM of `memories`; for compression none of which
    it is known that they do not compress. Guests may run: then these are hints.
    """
    frames, showing = _owned(memories, state)
    ages = np.full(len(frames), MAX_AGE)
    for pages in showing:
        np.minimum.at(ages, pages.frames, pages.memory.slots[pages.slot].ages(pages.places))
    return frames[np.argsort(MAX_AGE - ages, kind="stable")[:count]]


def send_shared_away(memories: Sequence[Reclaimable], state: FrameState, frames: NDArray[np.uint32]) -> int:
    """Let the store for `state`, which all of `memories` have, keep `frames` once for all pages that show them; returns
    how many became free. All of `memories` are on no pCPU. Frames that the store does not take, and those of which
    somebody else is an owner, stay."""
    owned, showing = _owned(memories, state, frames)
    if not len(owned):
        return 0
    pool, store = memories[0].pool, memories[0].stores[state]
    starts = (owned.astype(np.int64) << PAGE_SHIFT).tolist()
    numbers = store.store([memories[0].host[start : start + PAGE_SIZE] for start in starts])
    kept = [number for number in numbers if number is not None]
    try:
        taken = np.array([number is not None for number in numbers], np.bool_)
        new = np.array([entry(state, number or 0) for number in numbers], np.uint32)
        released = np.repeat(owned[taken], pool.references[owned[taken]])
        store.share(np.repeat(kept, pool.references[owned[taken]] - np.uint32(1)).tolist())
    except MemoryError:  # the host's own is out: the pages stay where they are
        store.free(kept)
        raise
    for memory, number, places, shown in showing:
        slot, gone = memory.slots[number], taken[shown]
        if state == FrameState.COMPRESSED and slot.dense is not None:
            slot.dense[places[~gone]] = 1
        slot.entries[places[gone]] = new[shown[gone]]
        memory.revoke()
    return pool.release(released)


def held_by(memories: Sequence[Reclaimable]) -> int:
    """Frames that nobody but `memories`, which are of one pool, refers to: those that are theirs alone."""
    if not memories:
        return 0
    references = memories[0].pool.references
    found = np.zeros(len(references), np.uint32)
    for memory in memories:
        for pages in memory.sets:
            np.add.at(found, backed_frames(pages.entries), np.uint32(1))
    found[ZERO_FRAME] = 0
    return int(np.count_nonzero((found > 0) & (found == references)))


def _owned(
    memories: Sequence[Reclaimable], state: FrameState, only: NDArray[np.uint32] | None = None
) -> tuple[NDArray[np.uint32], list[_Showing]]:
    """The frames (of `only`, if given), ascending, whose owners are all pages of `memories` that can be brought into
    `state`; and these pages."""
    if not memories:
        return np.zeros(0, np.uint32), []
    references = memories[0].pool.references
    found = np.zeros(len(references), np.uint32)
    shown = []
    for memory in memories:
        for number, slot in enumerate(memory.slots):
            places = memory.shared_places(number)
            if state == FrameState.COMPRESSED:
                places = slot.compressible(places)
            values = slot.entries[places]
            still = in_states(values, (FrameState.SHARED,))  # a guest that runs may have left one meanwhile
            places, shows = places[still], values[still] & np.uint32(FRAME_MASK)
            np.add.at(found, shows, np.uint32(1))
            shown.append((memory, number, places, shows))
    complete = (found >= 2) & (found == references)
    if only is not None:
        wanted = np.zeros(len(references), np.bool_)
        wanted[only] = True
        complete &= wanted
    frames = np.flatnonzero(complete).astype(np.uint32)
    order = np.cumsum(complete) - 1
    showing = []
    for memory, number, places, shows in shown:
        ours = complete[shows]
        if ours.any():
            showing.append(_Showing(memory, number, places[ours], order[shows[ours]]))
    return frames, showing
