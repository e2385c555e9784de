"""Putting frames of the pool behind a guest's pages: thin provisioning, copy on write, pages that a store keeps."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import OutOfFrames, PageLost
from emuvisor.memory.pool import ZERO_FRAME, FramePool
from emuvisor.memory.slot import Slot, backed_frames
from emuvisor.memory.stage2 import (
    FRAME_MASK,
    STATE_SHIFT,
    STORED,
    UNBACKED,
    Entries,
    FrameState,
    entry,
)
from emuvisor.memory.store import PageStore
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.memory.shadow import Shadow

__all__ = ["Backing"]

_RESIDENT = entry(FrameState.RESIDENT)
_ZEROS = (entry(FrameState.ABSENT), entry(FrameState.BALLOONED), entry(FrameState.SHARED, ZERO_FRAME))
"""RAM that is known to be zeros."""
MANY = 8
"""When one entry in so many is another one, all are exchanged."""


class Backing:
    """A guest's slots, and the frames of `pool` behind them."""

    def __init__(self, pool: FramePool) -> None:
        self.pool = pool
        self.host = memoryview(pool.memory)
        """All frames of the pool, one behind the other."""
        self.slots: list[Slot] = []
        self.shadows: list[Shadow] = []
        self.stores: dict[FrameState, PageStore] = {}
        """Who keeps the content of pages in the states of `STORED`."""
        self.starved = False
        """There was no frame when this guest last asked."""
        self.at_limit = False
        """It was because of `take_limit`, not because the pool is empty."""
        self.frames_taken = 0
        """Frames that became the guest's own since it was made; never less than before."""
        self.refaults = dict.fromkeys(STORED, 0)
        """Pages that came back from where they were kept, by the state that they were in."""
        self.take_limit: int | None = None
        """What `frames_taken` must not pass. A guest that has reached it starves as if the pool were empty."""
        self.on_move: Callable[[int, int], None] | None = None
        self.on_revoke: Callable[[], None] | None = None
        """The CPU's ear: slot number such begins at another frame number, an entry lost a right."""
        self.epoch = 0
        """Counts revocations: what somebody found out about where pages lie is true until it changes."""

    @property
    def sets(self) -> list[Slot]:
        """All sets of pages: the slots, then the hidden sets of shadow RAM. Who names pages of a guest by numbers
        (snapshots, migration) counts through these."""
        return [*self.slots, *(shadow.hidden for shadow in self.shadows)]

    @property
    def page_count(self) -> int:
        """Pages of all `sets`."""
        return sum(len(pages.entries) for pages in self.sets)

    def revoke(self) -> None:
        """Tell the CPU, and whoever watches `epoch`, that an entry lost a right or shows another frame."""
        self.epoch += 1
        if self.on_revoke is not None:
            self.on_revoke()

    def _allows(self, count: int) -> bool:
        """Whether `take_limit` leaves the guest `count` frames more."""
        return self.take_limit is None or self.frames_taken + count <= self.take_limit

    def _require(self, count: int) -> None:
        """Raises OutOfFrames when the guest may not take `count` frames more."""
        self.at_limit = not self._allows(count)
        if self.at_limit:
            raise OutOfFrames("its guest may take no more")

    # ---- making pages usable ----

    def supply(self, slot: Slot, index: int, write: bool) -> bool:
        """Make a page of RAM usable: give it a frame with its content, or for a write a frame of its own.

        False when there is no frame (`starved`). Raises PageLost.
        """
        try:
            self._bring(slot, index, write)
        except OutOfFrames:
            return False
        return True

    def _bring(self, slot: Slot, index: int, write: bool, content: bool = True) -> None:
        """As `supply`; raises OutOfFrames too. Without `content` the page is about to be overwritten as a whole: what
        a store keeps of it, or has lost, does not matter."""
        value = int(slot.entries[index])
        state = value >> STATE_SHIFT
        self.starved = self.at_limit = False
        try:
            if state in UNBACKED:
                self._require(1)
                slot.entries[index] = _RESIDENT | self.pool.take()
                self.frames_taken += 1
            elif state == FrameState.SHARED and write:
                copies = int(self.pool.references[value & FRAME_MASK] != 1)  # the last owner keeps it
                self._require(copies)
                slot.entries[index] = _RESIDENT | self.own(value & FRAME_MASK)
                self.frames_taken += copies
            elif state in STORED:
                self._load(slot, index, content)
        except OutOfFrames:
            self.starved = True
            raise

    def _load(self, slot: Slot, index: int, content: bool) -> None:
        """Bring a page back from where it is kept, or without `content` only forget what is kept. Raises OutOfFrames,
        PageLost; then it stays there."""
        value = int(slot.entries[index])
        store = self.stores[FrameState(value >> STATE_SHIFT)]
        self._require(1)
        frame = self.pool.take()
        try:
            if content:
                store.load(value & FRAME_MASK, self.host[frame << PAGE_SHIFT : frame + 1 << PAGE_SHIFT])
        except (PageLost, MemoryError) as error:
            self.pool.release_one(frame)
            if isinstance(error, PageLost):
                raise PageLost(f"{slot.page_name(index)} is lost: {error}") from error
            raise OutOfFrames(str(error) or "the host has no memory to bring it back") from None
        slot.entries[index] = _RESIDENT | frame
        self.frames_taken += 1
        self.refaults[FrameState(value >> STATE_SHIFT)] += 1
        store.free([value & FRAME_MASK])

    def own(self, frame: int) -> int:
        """A frame with the content of `frame` and no other owner, in exchange for one reference to `frame`: the last
        one that refers to a frame keeps it. Raises OutOfFrames."""
        if self.pool.references[frame] == 1:
            return frame
        copy = self.pool.copy(frame)
        self.revoke()
        self.pool.release_one(frame)
        return copy

    def readable(self, slot: Slot, index: int) -> int:
        """The frame behind a page of RAM or ROM; 0 for a page of zeros that has none. Raises OutOfFrames and PageLost
        for a page that a store keeps."""
        state = int(slot.entries[index]) >> STATE_SHIFT
        if state in UNBACKED:
            return 0
        if state in STORED:
            self._bring_or_say(slot, index, False)
        slot.touch(index)
        return int(slot.entries[index]) & FRAME_MASK

    def put(self, slot: Slot, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Write into one page of RAM, as DMA does. Zeros for a page of zeros leave it as it is; a page that is written
        as a whole need not come back from where it is kept.

        Raises OutOfFrames, PageLost.
        """
        if int(slot.entries[index]) in _ZEROS and not data.any():
            return
        self.fill(self.make_own(slot, index, content=len(data) < PAGE_SIZE), offset, data)

    def make_own(self, slot: Slot, index: int, content: bool = True) -> int:
        """Give a page of RAM a frame of its own, to be written, as a whole if without `content`; returns the frame.
        Raises OutOfFrames, PageLost."""
        if int(slot.entries[index]) >> STATE_SHIFT != FrameState.RESIDENT:
            self._bring_or_say(slot, index, True, content)
        slot.mark(index)
        slot.touch(index)
        return int(slot.entries[index]) & FRAME_MASK

    def _bring_or_say(self, slot: Slot, index: int, write: bool, content: bool = True) -> None:
        """As `_bring`, for a caller who knows nothing of states: OutOfFrames names the page."""
        try:
            self._bring(slot, index, write, content)
        except OutOfFrames as error:
            why = str(error) if self.at_limit or self.pool.free else f"the pool's {self.pool.limit} are taken"
            raise OutOfFrames(f"no frame for {slot.page_name(index)}: {why}") from None

    def fill(self, frame: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Change the content of a frame; code there is translated anew."""
        self.pool.frames[frame, offset : offset + len(data)] = data
        if self.pool.users is not None and self.pool.fetched[frame]:
            self.pool.users.changed(frame, offset, len(data))

    # ---- owners ----

    def adopt(self, slot: Slot, theirs: Entries) -> int:
        """Let the pages of `slot` hold what the same pages of another guest hold, whose entries are `theirs`; in both,
        they are copied at the first write. Returns how many pages were other ones.

        Where both entries are the same they show the same frame, or the same page of a store, already.
        """
        differs = slot.entries != theirs
        count = int(np.count_nonzero(differs))
        if not count:
            return 0
        for noted in (slot.dirty, slot.accessed):
            if noted is not None:
                noted[differs] = 1
        if count * MANY > len(theirs):  # as in a new guest: quicker than picking them out
            old = slot.entries.copy()
            slot.entries[:] = self.share(theirs)
        else:
            places = np.flatnonzero(differs)
            shared = theirs[places]
            new = self.share(shared)
            theirs[places] = shared
            old = slot.entries[places]
            slot.entries[places] = new
        self.revoke()
        self.give_back(old, soon=True)
        return count

    def share(self, entries: Entries) -> Entries:
        """`entries` once more for a second owner; in both, pages are copied at the first write."""
        own = entries >> STATE_SHIFT == FrameState.RESIDENT
        if own.any():
            entries[own] += np.uint32((FrameState.SHARED - FrameState.RESIDENT) << STATE_SHIFT)
        self.pool.share(backed_frames(entries))
        for store, numbers in self._stored(entries):
            store.share(numbers)
        return entries.copy()

    def release(self, entries: Entries, state: FrameState) -> int:
        """Give back what `entries` refer to and leave the pages in `state`; returns how many frames became free."""
        old = entries.copy()
        entries[:] = entry(state)
        self.revoke()
        return self.give_back(old)

    def give_back(self, entries: Entries, *, soon: bool = False) -> int:
        """Give up the frames, and the pages in stores, of entries that are no longer used, and were revoked; returns
        how many frames became free. As many are wanted again `soon`."""
        if not entries.any():  # RAM that nobody has touched has nothing
            return 0
        for store, numbers in self._stored(entries):
            store.free(numbers)
        return self.pool.release(backed_frames(entries), keep=soon)

    def _stored(self, entries: Entries) -> list[tuple[PageStore, list[int]]]:
        """Which pages of which stores `entries` refer to."""
        states = entries >> STATE_SHIFT
        return [
            (store, (entries[states == state] & np.uint32(FRAME_MASK)).tolist())
            for state, store in self.stores.items()
            if (states == state).any()
        ]
