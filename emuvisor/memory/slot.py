"""Slots, runs of guest frames with their stage-2 entries, and putting frames of the pool behind them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import OutOfFrames
from emuvisor.memory.pool import FramePool
from emuvisor.memory.stage2 import FRAME_MASK, STATE_SHIFT, Entries, FrameState, entry
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["MAX_SLOTS", "NOWHERE", "Backing", "Piece", "Slot", "backed_frames", "pieces"]

MAX_SLOTS = 32
"""Slots that a guest can have (stage2.h)."""
NOWHERE = 1 << 52
"""First frame number of a slot that is not placed: behind every guest physical address."""

_ABSENT = entry(FrameState.ABSENT)
_RESIDENT = entry(FrameState.RESIDENT)


@dataclass(slots=True)
class Slot:
    """A run of guest frames from `first` with one stage-2 entry each; `dirty` while the log is on.

    A movable slot is a device's: it shows only where no other slot has memory.
    """

    first: int
    entries: Entries
    movable: bool = False
    dirty: NDArray[np.uint8] | None = None

    def mark(self, index: int) -> None:
        """Note in the dirty log, if it is on, that the page was written."""
        if self.dirty is not None:
            self.dirty[index] = 1

    def page_name(self, index: int) -> str:
        """What messages call a page."""
        if self.movable:
            return f"page {index} of a device's memory"
        return f"guest physical address {self.first + index << PAGE_SHIFT:#x}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a range that lies in one page: bytes `start` to `end` of the range, at `offset` of page `page`."""

    page: int
    offset: int
    start: int
    end: int


def pieces(address: int, length: int) -> Iterator[Piece]:
    """The range of `length` bytes from `address`, page by page."""
    start = 0
    while start < length:
        page, offset = divmod(address + start, PAGE_SIZE)
        end = min(length, start + PAGE_SIZE - offset)
        yield Piece(page, offset, start, end)
        start = end


def backed_frames(entries: Entries) -> NDArray[np.uint32]:
    """The host frames that `entries` refer to."""
    states = entries >> STATE_SHIFT
    backed = (states == FrameState.RESIDENT) | (states == FrameState.SHARED) | (states == FrameState.ROM)
    frames: NDArray[np.uint32] = entries[backed] & np.uint32(FRAME_MASK)
    return frames


class Backing:
    """Frames of `pool` behind the entries of slots: thin provisioning and copy on write.

    `sources` gives the handlers for states that others add (ballooned, swapped, ...): state number to a function
    of (guest frame number, write) that answers whether the page can be used now.
    """

    def __init__(self, pool: FramePool) -> None:
        self.pool = pool
        self.sources: dict[int, Callable[[int, bool], bool]] = {}
        self.starved = False
        """The pool had no frame when this guest last asked."""
        self.on_move: Callable[[int, int], None] | None = None
        self.on_revoke: Callable[[], None] | None = None
        """The CPU's ear: slot number such begins at another frame number, an entry lost a right."""
        self.epoch = 0
        """Counts revocations: what somebody found out about where pages lie is true until it changes."""

    def revoke(self) -> None:
        """Tell the CPU, and whoever watches `epoch`, that an entry lost a right or shows another frame."""
        self.epoch += 1
        if self.on_revoke is not None:
            self.on_revoke()

    def supply(self, slot: Slot, index: int, write: bool) -> bool:
        """Make a page usable: give it a frame, or for a write a frame of its own.

        False when that is not possible now (`starved` says whether for want of a frame).
        """
        value = int(slot.entries[index])
        state = value >> STATE_SHIFT
        try:
            if state == FrameState.ABSENT:
                slot.entries[index] = _RESIDENT | self.pool.take()
            elif state == FrameState.SHARED and write:
                slot.entries[index] = _RESIDENT | self.own(value & FRAME_MASK)
            elif state in self.sources:
                return self.sources[state](slot.first + index, write)
            elif state > FrameState.HOLE:
                return False  # nobody here knows where its content is
        except OutOfFrames:
            self.starved = True
            return False
        self.starved = False
        return True

    def own(self, frame: int) -> int:
        """A frame with the content of `frame` and no other owner, in exchange for one reference to `frame`: the last
        one that refers to a frame keeps it. Raises OutOfFrames."""
        if self.pool.references[frame] == 1:
            return frame
        copy = self.pool.copy(frame)
        self.pool.release(np.array([frame], np.uint32))
        self.revoke()
        return copy

    def readable(self, slot: Slot, index: int) -> int | None:
        """The frame behind a page; 0 for a page of zeros that has none, None for a hole."""
        value = int(slot.entries[index])
        state = value >> STATE_SHIFT
        if state == FrameState.ABSENT:
            return 0
        if state in (FrameState.RESIDENT, FrameState.SHARED, FrameState.ROM):
            return value & FRAME_MASK
        if state != FrameState.HOLE and self.supply(slot, index, False):
            return int(slot.entries[index]) & FRAME_MASK
        return None

    def put(self, slot: Slot, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Write into one page of RAM, as DMA does. Zeros for a page that was never touched leave it absent.

        Raises OutOfFrames.
        """
        if slot.entries[index] == _ABSENT and not data.any():
            return
        self.make_own(slot, index)
        slot.mark(index)
        self.fill(int(slot.entries[index]) & FRAME_MASK, offset, data)

    def make_own(self, slot: Slot, index: int) -> None:
        """Give a page of RAM a frame of its own. Raises OutOfFrames."""
        if int(slot.entries[index]) >> STATE_SHIFT != FrameState.RESIDENT and not self.supply(
            slot, index, True
        ):
            raise OutOfFrames(f"no frame for {slot.page_name(index)}: the pool's {self.pool.limit} are taken")

    def fill(self, frame: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Change the content of a frame; code there is translated anew."""
        self.pool.frames[frame, offset : offset + len(data)] = data
        if self.pool.users is not None and self.pool.fetched[frame]:
            self.pool.users.changed(frame, offset, len(data))

    def share(self, entries: Entries) -> Entries:
        """`entries` once more for a second owner; in both, pages are copied at the first write."""
        own = entries >> STATE_SHIFT == FrameState.RESIDENT
        entries[own] += np.uint32((FrameState.SHARED - FrameState.RESIDENT) << STATE_SHIFT)
        self.pool.share(backed_frames(entries))
        return entries.copy()

    def release(self, entries: Entries, state: FrameState) -> int:
        """Give the frames of `entries` back and leave the pages in `state`; returns how many frames became free."""
        freed = self.pool.release(backed_frames(entries))
        entries[:] = entry(state)
        return freed
