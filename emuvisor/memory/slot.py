"""Slots: runs of guest frames with their stage-2 entries, and what is noted about each page."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STATE_SHIFT, Entries
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["MAX_AGE", "MAX_SLOTS", "NOWHERE", "Piece", "Slot", "backed_frames", "pieces"]

MAX_SLOTS = 32
"""Slots that a guest can have (stage2.h)."""
NOWHERE = 1 << 52
"""First frame number of a slot that is not placed: behind every guest physical address."""
MAX_AGE = np.uint8(255)
DENSE_SAMPLES = 64
"""After so many samples it is tried again whether a page compresses: the store may have refused it for want of room."""


@dataclass(slots=True)
class Slot:
    """A run of guest frames from `first` with one stage-2 entry each; `dirty` while the log is on, `accessed`,
    `age` and `dense` while accesses are sampled.

    A movable slot is a device's: it shows only where no other slot has memory.
    """

    first: int
    entries: Entries
    movable: bool = False
    dirty: NDArray[np.uint8] | None = None
    accessed: NDArray[np.uint8] | None = None
    """1 for each page used since the last sample."""
    age: NDArray[np.uint8] | None = None
    """How many samples ago each page was last used, as far as the log goes back; at most `MAX_AGE`."""
    dense: NDArray[np.uint8] | None = None
    """1 for each page that did not compress and, as far as samples tell, holds what it held then."""

    def mark(self, index: int) -> None:
        """Note in the dirty log, if it is on, that the page was written."""
        if self.dirty is not None:
            self.dirty[index] = 1

    def touch(self, index: int) -> None:
        """Note for the next sample, if there is one, that the page was used."""
        if self.accessed is not None:
            self.accessed[index] = 1

    def sample(self) -> int:
        """How many pages were used since the last sample; the others grow older."""
        if self.accessed is None or self.age is None or self.dense is None:
            return 0
        used = self.accessed != 0
        self.age[self.age < MAX_AGE] += 1
        self.age[used] = 0
        self.dense[used | (self.age % DENSE_SAMPLES == DENSE_SAMPLES - 1)] = 0
        self.accessed[:] = 0
        return int(np.count_nonzero(used))

    def ages(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`age` of the pages `places`, 0 for those used since the last sample; 0 for all when nobody samples."""
        if self.accessed is None or self.age is None:
            return np.zeros(len(places), np.uint8)
        ages: NDArray[np.uint8] = np.where(self.accessed[places] != 0, np.uint8(0), self.age[places])
        return ages

    def compressible(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the pages `places` that may compress."""
        return places if self.dense is None else places[self.dense[places] == 0]

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
    # These states are neighbours: one comparison, for who goes back to a checkpoint calls this with a few entries.
    framed = (entries >> STATE_SHIFT) - np.uint32(FRAMED[0]) < np.uint32(len(FRAMED))
    frames: NDArray[np.uint32] = entries[framed] & np.uint32(FRAME_MASK)
    return frames
