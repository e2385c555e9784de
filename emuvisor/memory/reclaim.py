"""Taking frames away from a guest: mechanisms without policy. The guest is on no pCPU meanwhile.

Which pages were used lately is sampled as hardware does with accessed bits: the C core sets a byte per page when it
fills a TLB entry, and a sample clears them and the TLB. Pages that were unused for longest go first, those of the same
age in the order of a clock's hand, so that pages used since the last sample get a second chance.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from emuvisor.memory.backing import Backing
from emuvisor.memory.pool import ZERO_FRAME
from emuvisor.memory.slot import MAX_AGE, Slot
from emuvisor.memory.stage2 import (
    FRAME_MASK,
    FRAMED,
    STATE_SHIFT,
    WRITTEN,
    Entries,
    FrameState,
    entry,
    in_states,
)
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["Reclaimable"]

COMPARED_PAGES = 256
"""Pages compared in one step."""
_RAM_WITH_FRAME = (FrameState.RESIDENT, FrameState.SHARED)
_SHARED = entry(FrameState.SHARED)
_ZERO = entry(FrameState.SHARED, ZERO_FRAME)


class Reclaimable(Backing):
    """A guest's slots, from which frames can be taken: by stores, by sharing, and by what the guest itself gives."""

    on_sampling: Callable[[int, NDArray[np.uint8] | None], None] | None = None
    """The CPU's ear: where the accesses to slot number such are noted changed."""
    frames_merged = 0
    """Frames that became free because others had their content."""
    frames_ballooned = 0
    """Frames that became free because the guest put their pages into its balloon."""
    frames_discarded = 0
    """Frames that became free because the guest said that it does not use their pages."""
    _sampling = False
    _hand = (0, 0)
    """Slot number and page at which the clock's hand stands."""

    def _blocks(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.movable]

    # ---- which pages are used ----

    def start_sampling(self) -> None:
        """From now on note which pages are used."""
        self._sampling = True
        for number in range(len(self.slots)):
            self._sample_slot(number)
        self.revoke()

    def _sample_slot(self, number: int) -> None:
        slot = self.slots[number]
        slot.accessed = np.zeros(len(slot.entries), np.uint8)
        slot.age = np.zeros(len(slot.entries), np.uint8)
        slot.dense = np.zeros(len(slot.entries), np.uint8)
        if self.on_sampling is not None:
            self.on_sampling(number, slot.accessed)

    def collect_accessed(self) -> int:
        """How many pages of RAM and ROM were used since the last sample, or since sampling began."""
        used = sum(slot.sample() for slot in self._blocks())
        self.revoke()
        return used

    def stop_sampling(self) -> None:
        """Forget what was noted; it costs nothing from here on."""
        self._sampling = False
        for number, slot in enumerate(self.slots):
            slot.accessed = slot.age = slot.dense = None
            if self.on_sampling is not None:
                self.on_sampling(number, None)

    # ---- to stores ----

    def evictable(self, count: int, state: FrameState = FrameState.SWAPPED) -> list[tuple[int, int]]:
        """At most `count` pages that `send_away` can bring into `state`, as slot number and index, those first that
        were unused for longest. Pages of RAM with a frame that nobody else has; none of regions and of shadow RAM; for
        compression none of which it is known that they do not compress."""
        found = [self._takeable(slot, np.arange(len(slot.entries))) for slot in self.slots]
        if state == FrameState.COMPRESSED:
            found = [slot.compressible(places) for slot, places in zip(self.slots, found, strict=True)]
        numbers = np.repeat(np.arange(len(found)), [len(places) for places in found])
        indices = np.concatenate(found)
        ages = np.concatenate([slot.ages(places) for slot, places in zip(self.slots, found, strict=True)])
        behind = (numbers < self._hand[0]) | ((numbers == self._hand[0]) & (indices < self._hand[1]))
        turned = np.roll(np.arange(len(indices)), -int(np.count_nonzero(behind)))
        chosen = turned[np.argsort(MAX_AGE - ages[turned], kind="stable")[:count]]
        if len(chosen):
            self._hand = int(numbers[chosen[-1]]), int(indices[chosen[-1]]) + 1
        return list(zip(numbers[chosen].tolist(), indices[chosen].tolist(), strict=True))

    def _takeable(self, slot: Slot, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `places` of `slot` that can go to a store."""
        places = self._storable(slot, places, _RAM_WITH_FRAME)
        sole: NDArray[np.bool_] = self.pool.references[slot.entries[places] & np.uint32(FRAME_MASK)] == 1
        return places[sole]

    def _storable(
        self, slot: Slot, places: NDArray[np.int64], states: Sequence[FrameState]
    ) -> NDArray[np.int64]:
        """Those of `places` of `slot` in one of `states`; none of regions and of shadow RAM, whose pages have to be
        where they are."""
        if slot.movable:
            return places[:0]
        places = places[in_states(slot.entries[places], states)]
        for shadow in self.shadows:
            gpa = slot.first + places << PAGE_SHIFT
            places = places[(gpa < shadow.base) | (gpa >= shadow.base + shadow.length)]
        return places

    def shared_places(self, number: int) -> NDArray[np.int64]:
        """The pages of slot `number` that show a frame which others may have too, and which a store could keep; those
        of zeros are not among them."""
        slot = self.slots[number]
        places = self._storable(slot, np.arange(len(slot.entries)), (FrameState.SHARED,))
        holding: NDArray[np.bool_] = slot.entries[places] != _ZERO
        return places[holding]

    def send_away(self, state: FrameState, pages: Sequence[tuple[int, int]]) -> int:
        """Let the store for `state` keep `pages` (slot number, index); returns how many frames became free. Those that
        it does not take, and those that are not like `evictable` gives them, stay."""
        freed = 0
        for number in dict.fromkeys(number for number, _ in pages):
            slot = self.slots[number]
            wanted = np.array([index for other, index in pages if other == number])
            freed += self._send_away(state, slot, self._takeable(slot, np.unique(wanted)))
        return freed

    def _send_away(self, state: FrameState, slot: Slot, places: NDArray[np.int64]) -> int:
        frames = slot.entries[places] & np.uint32(FRAME_MASK)
        starts = (frames.astype(np.int64) << PAGE_SHIFT).tolist()
        store = self.stores[state]
        numbers = store.store([self.host[start : start + PAGE_SIZE] for start in starts])
        try:
            taken = np.array([number is not None for number in numbers], np.bool_)
            new = np.array([entry(state, number) for number in numbers if number is not None], np.uint32)
            if state == FrameState.COMPRESSED and slot.dense is not None:
                slot.dense[places[~taken]] = 1
            places, frames = places[taken], frames[taken]
        except MemoryError:  # the host's own is out: the pages stay where they are
            store.free([number for number in numbers if number is not None])
            raise
        slot.entries[places] = new
        self.revoke()
        return self.pool.release(frames)

    # ---- to others, who have the same ----

    def sole_pages(self) -> int:
        """Pages that were shared, and whose frame nobody else has any more."""
        count = 0
        for slot in self.slots:
            shared = slot.entries[in_states(slot.entries, (FrameState.SHARED,))] & np.uint32(FRAME_MASK)
            count += int(np.count_nonzero(self.pool.references[shared] == 1))
        return count

    def share_frames(
        self, number: int, places: NDArray[np.int64], frames: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        """Let the pages `places` of slot `number`, RAM or ROM, each named once, show `frames` in place of frames of
        their own that hold the same; returns which do now. RAM is copied when it is next written.

        A frame must have two references at least, so that nobody writes it, or be the zero frame; its owners may run.
        """
        done = np.zeros(len(places), np.bool_)
        for start in range(0, len(places), COMPARED_PAGES):
            part = slice(start, start + COMPARED_PAGES)
            done[part] = self._share_frames(self.slots[number], places[part], frames[part])
        return done

    def _share_frames(
        self, slot: Slot, places: NDArray[np.int64], frames: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        old = slot.entries[places]
        own = old & np.uint32(FRAME_MASK)
        wanted: NDArray[np.bool_] = in_states(old, FRAMED) & (own != frames)
        wanted[wanted] = self.pool.share_unchanging(frames[wanted])
        held = frames[wanted]
        same = self.pool.equal(own[wanted], held)
        wanted[wanted] = same
        rom = np.uint32(FrameState.ROM << STATE_SHIFT)
        states = np.where(old >> STATE_SHIFT == FrameState.ROM, rom, np.uint32(_SHARED))
        slot.entries[places[wanted]] = states[wanted] | frames[wanted]
        self.revoke()
        self.pool.release(held[~same])
        self.frames_merged += self.pool.release(own[wanted])
        return wanted

    def share_zero(self, number: int, places: NDArray[np.int64]) -> int:
        """Let those of the pages `places` of slot `number` that hold nothing but zeros show the zero frame; returns
        how many frames became free."""
        free = self.pool.free
        self.share_frames(number, places, np.full(len(places), ZERO_FRAME, np.uint32))
        return self.pool.free - free

    # ---- what the guest gives ----

    def discard(self, gpa: int, length: int) -> int:
        """Forget what the whole pages inside [gpa, gpa + length) hold: they read as zeros and have no frame until they
        are touched again. ROM, holes and regions are left alone. Returns how many frames became free."""
        first, end = -(-gpa // PAGE_SIZE), (gpa + length) // PAGE_SIZE
        freed = 0
        for slot in self._blocks():
            low, high = max(first - slot.first, 0), min(end - slot.first, len(slot.entries))
            if low < high:
                places = low + np.flatnonzero(in_states(slot.entries[low:high], WRITTEN))
                freed += self._empty(slot, places, FrameState.ABSENT)
        self.frames_discarded += freed
        return freed

    def inflate(self, pages: NDArray[np.int64]) -> int:
        """The guest puts the guest frame numbers `pages`, in any order, whatever they are, into its balloon: what is
        RAM among them is forgotten as by `discard`. Returns how many frames became free."""
        freed = 0
        for slot in self._blocks():
            places = self._places(slot, pages)
            entries = slot.entries[places]
            freed += self._empty(slot, places[in_states(entries, WRITTEN)], FrameState.BALLOONED)
            slot.entries[places[in_states(entries, (FrameState.ABSENT,))]] = entry(FrameState.BALLOONED)
        self.frames_ballooned += freed
        return freed

    def deflate(self, pages: NDArray[np.int64]) -> None:
        """The guest takes `pages`, whatever they are, out of its balloon."""
        for slot in self._blocks():
            places = self._places(slot, pages)
            self._deflate(slot.entries, places)

    def empty_balloon(self) -> None:
        """No page is in the guest's balloon any more."""
        for slot in self._blocks():
            self._deflate(slot.entries, np.arange(len(slot.entries)))

    def _deflate(self, entries: Entries, places: NDArray[np.int64]) -> None:
        ballooned = in_states(entries[places], (FrameState.BALLOONED,))
        entries[places[ballooned]] = entry(FrameState.ABSENT)

    def _places(self, slot: Slot, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in `slot` those of `pages` are that lie in it, each once."""
        inside = (pages >= slot.first) & (pages < slot.first + len(slot.entries))
        places: NDArray[np.int64] = np.unique(pages[inside] - slot.first)
        return places

    def _empty(self, slot: Slot, places: NDArray[np.int64], state: FrameState) -> int:
        """Forget what pages of RAM hold; returns how many frames became free."""
        if not len(places):
            return 0
        old = slot.entries[places]
        slot.entries[places] = entry(state)
        if slot.dirty is not None:
            slot.dirty[places] = 1
        self.revoke()
        return self.give_back(old)
