"""What of a guest's memory is not content: which pages there are, of what kind, and what is placed or shown where.

With the content of each page by its number, a guest's memory can be made again: from a snapshot, or on another host.
Pages are numbered through the sets of `GuestMemory.sets`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import SnapshotError
from emuvisor.memory.pool import ZERO_FRAME
from emuvisor.memory.shadow import Shadow
from emuvisor.memory.slot import MAX_SLOTS, NOWHERE, Slot
from emuvisor.memory.stage2 import FRAME_MASK, STATE_SHIFT, STORED, Entries, FrameState, entry, in_states
from emuvisor.units import MIB, PAGE_SHIFT

if TYPE_CHECKING:
    from emuvisor.memory.guest import GuestMemory

__all__ = ["Layout", "MemoryLoader"]

_KINDS = (FrameState.ABSENT, FrameState.ROM, FrameState.HOLE, FrameState.BALLOONED)
"""A page is RAM (ABSENT, wherever its content is), or one of the others."""
_KIND_OF = np.full(256, FrameState.ABSENT, np.uint8)
_KIND_OF[list(_KINDS)] = _KINDS
_EMPTY = np.zeros(256, np.uint32)
"""By kind, the entry of a page without content."""
_EMPTY[list(_KINDS)] = [entry(kind, ZERO_FRAME if kind is FrameState.ROM else 0) for kind in _KINDS]
MAX_ROM_PAGES = 64 * MIB >> PAGE_SHIFT
"""Of ROM outside RAM: what a state that somebody made up can ask for at most."""
_READ, _WRITE = 1, 2


@dataclass(frozen=True, slots=True)
class Layout:
    """A guest's memory without what is in it."""

    slots: tuple[tuple[int, int, bool], ...]
    """Of each: first guest frame number, pages, whether it is movable; those of regions that are placed nowhere begin
    at `NOWHERE`."""
    kinds: NDArray[np.uint8]
    """By page: RAM (`ABSENT`), `ROM`, `HOLE` or `BALLOONED`."""
    shadows: tuple[NDArray[np.uint8], ...]
    """By page of each shadow: 1 when reads go to RAM, and 2 when writes do."""
    plugged: tuple[NDArray[np.bool_], ...]
    """Of each pluggable RAM, which blocks are."""

    @classmethod
    def of(cls, memory: "GuestMemory") -> Self:
        """The layout of `memory`, which nobody changes meanwhile."""
        states = [(part.entries >> STATE_SHIFT).astype(np.uint8) for part in memory.sets]
        return cls(
            tuple((slot.first, len(slot.entries), slot.movable) for slot in memory.slots),
            _KIND_OF[np.concatenate(states)],
            tuple(_shown(shadow) for shadow in memory.shadows),
            tuple(ram.plugged(0, ram.blocks) for ram in memory.pluggable),
        )

    def as_plain(self) -> dict[str, Any]:
        """As plain data; of pages, the runs of one kind: where each ends (u32, little-endian), and its kind."""
        ends = np.append(np.flatnonzero(np.diff(self.kinds)) + 1, len(self.kinds))
        return {
            "slots": [list(slot) for slot in self.slots],
            "ends": ends.astype("<u4").tobytes(),
            "kinds": self.kinds[ends - 1].tobytes(),
            "shadows": [shown.tobytes() for shown in self.shadows],
            "plugged": [np.packbits(blocks, bitorder="little").tobytes() for blocks in self.plugged],
        }

    @classmethod
    def from_plain(cls, data: Any, memory: "GuestMemory") -> Self:
        """What `as_plain` made `data` from, for `memory`: one of the same configuration, booted or not. It has ROM
        that `memory` may still be without; everything else must be there. Raises SnapshotError for anything else."""
        try:
            slots = tuple((first, count, movable) for first, count, movable in data["slots"])
            _check_slots(slots, memory)
            hidden = sum(shadow.length >> PAGE_SHIFT for shadow in memory.shadows)
            kinds = _expand(data["ends"], data["kinds"], sum(count for _, count, _ in slots) + hidden)
            shadows = [np.frombuffer(shown, np.uint8) for shown in data["shadows"]]
            plugged = [np.frombuffer(bits, np.uint8) for bits in data["plugged"]]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, SnapshotError):
                raise
            raise _refused(f"it cannot be read ({type(error).__name__})") from None
        if [len(shown) << PAGE_SHIFT for shown in shadows] != [shadow.length for shadow in memory.shadows]:
            raise _refused("its shadow RAM is another one")
        if [len(bits) for bits in plugged] != [-(-ram.blocks // 8) for ram in memory.pluggable]:
            raise _refused("its pluggable RAM is another one")
        blocks = (
            np.unpackbits(bits, count=ram.blocks, bitorder="little").astype(np.bool_)
            for bits, ram in zip(plugged, memory.pluggable, strict=True)
        )
        return cls(slots, kinds, tuple(shadows), tuple(blocks))


def _shown(shadow: Shadow) -> NDArray[np.uint8]:
    read, write = shadow._read_ram.astype(np.uint8), shadow._write_ram.astype(np.uint8)
    return read * np.uint8(_READ) | write * np.uint8(_WRITE)


def _refused(why: str) -> SnapshotError:
    return SnapshotError(f"the saved layout of memory is not this guest's: {why}")


def _check_slots(slots: Sequence[tuple[Any, Any, Any]], memory: "GuestMemory") -> None:
    """They must be those of `memory`, but for where regions are, and ROM that comes behind."""
    for first, count, movable in slots:
        if type(first) is not int or type(count) is not int or type(movable) is not bool:
            raise _refused("a block of memory that is none")
    there = memory.slots
    if not len(there) <= len(slots) <= MAX_SLOTS:
        raise _refused(f"it has {len(slots)} blocks of memory, this guest has {len(there)}")
    for (first, count, movable), slot in zip(slots, there, strict=False):
        if (count, movable) != (len(slot.entries), slot.movable) or (not movable and first != slot.first):
            raise _refused(f"a block of {count} pages at {first << PAGE_SHIFT:#x}")
        if not 0 <= first <= NOWHERE:
            raise _refused("a region at an impossible address")
    taken = [(slot.first, slot.first + len(slot.entries)) for slot in there if not slot.movable]
    for first, count, movable in slots[len(there) :]:
        overlaps = any(first < end and start < first + count for start, end in taken)
        if movable or overlaps or not (0 < count <= MAX_ROM_PAGES and 0 <= first < NOWHERE - count):
            raise _refused("ROM where there can be none")
        taken.append((first, first + count))


def _expand(ends: bytes, kinds: bytes, count: int) -> NDArray[np.uint8]:
    """The kind of each of `count` pages."""
    last = np.frombuffer(ends, "<u4").astype(np.int64)
    lengths = last - np.concatenate([[0], last[:-1]])
    values = np.frombuffer(kinds, np.uint8)
    if len(values) != len(lengths) or (lengths <= 0).any() or lengths.sum() != count:
        raise _refused(f"it does not say of what kind its {count} pages are")
    if not np.isin(values, _KINDS).all():
        raise _refused("there are pages of no kind")
    expanded: NDArray[np.uint8] = np.repeat(values, lengths)
    return expanded


class MemoryLoader:
    """Lays `memory` out as `layout`, which came from `Layout.from_plain` for it; what was in it is forgotten.

    Then `place` says who keeps the content of which pages, and `finish` brings those that need a frame.
    """

    def __init__(self, memory: "GuestMemory", layout: Layout) -> None:
        self._memory = memory
        self._kinds = layout.kinds
        for first, count, movable in layout.slots[len(memory.slots) :]:
            memory._add_slot(Slot(first, np.full(count, entry(FrameState.HOLE), np.uint32), movable))
        old = [part.entries.copy() for part in memory.sets]
        at = 0
        for part in memory.sets:
            part.entries[:] = _EMPTY[layout.kinds[at : at + len(part.entries)]]
            at += len(part.entries)
        for shadow, shown in zip(memory.shadows, layout.shadows, strict=True):
            shadow._read_ram[:] = shown & _READ != 0
            shadow._write_ram[:] = shown & _WRITE != 0
        for ram, blocks in zip(memory.pluggable, layout.plugged, strict=True):
            ram._plugged[:] = blocks
        movable_slots = (first for first, _, movable in layout.slots if movable)
        for region, first in zip(memory.regions, movable_slots, strict=True):
            region.place(None if first == NOWHERE else first << PAGE_SHIFT)
        memory.revoke()
        for entries in old:
            memory.give_back(entries)

    def place(self, pages: NDArray[np.integer[Any]], entries: Entries) -> None:
        """Page `pages[i]` (ascending) has the content that `entries[i]`, in a state of `STORED`, stands for; the memory
        owns it from now on. Raises SnapshotError, and then owns nothing, for a page that can have no content."""
        if len(pages) and not 0 <= pages[0] <= pages[-1] < len(self._kinds):
            raise SnapshotError(
                f"page {pages[-1]:#x} of the snapshot is outside the guest's {len(self._kinds):#x} pages"
            )
        kinds = self._kinds[pages]
        wrong = np.flatnonzero((kinds == FrameState.HOLE) | (kinds == FrameState.BALLOONED))
        if len(wrong):
            raise SnapshotError(f"page {pages[wrong[0]]:#x} of the snapshot is where the guest has no memory")
        at = 0
        for part in self._memory.sets:
            low, high = np.searchsorted(pages, (at, at + len(part.entries)))
            part.entries[pages[low:high] - at] = entries[low:high]
            at += len(part.entries)
        self._memory.revoke()

    def finish(self) -> None:
        """Bring what cannot stay in a store: ROM, devices' memory, and RAM with ROM at the same addresses. Raises
        OutOfFrames and PageLost."""
        at = 0
        for part in self._memory.sets:
            kinds = self._kinds[at : at + len(part.entries)]
            at += len(part.entries)
            for index in np.flatnonzero(self._must_have_frames(part, kinds)).tolist():
                self._memory._bring_or_say(part, index, False)
                if kinds[index] == FrameState.ROM:
                    part.entries[index] = entry(FrameState.ROM, int(part.entries[index]) & FRAME_MASK)
        self._memory.revoke()

    def _must_have_frames(self, part: Slot, kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which pages of `part` are in a store and must not be."""
        stored = in_states(part.entries, STORED)
        if part.movable or not any(part is slot for slot in self._memory.slots):
            return stored
        fixed: NDArray[np.bool_] = kinds == FrameState.ROM
        for shadow in self._memory.shadows:
            first = (shadow.base >> PAGE_SHIFT) - part.first
            fixed[max(0, first) : max(0, first + (shadow.length >> PAGE_SHIFT))] = True
        return stored & fixed
