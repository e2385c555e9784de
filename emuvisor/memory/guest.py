"""A guest's memory: which frames back it, and access to it by guest physical address."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory.pool import FramePool
from emuvisor.memory.stage2 import FRAME_MASK, STATE_SHIFT, Entries, FrameState, entry
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["GuestMemory", "PhysicalMemory", "Slot"]

_ABSENT = entry(FrameState.ABSENT)
_RESIDENT = entry(FrameState.RESIDENT)
_PAGE_MASK = PAGE_SIZE - 1
BULK_PAGES = 256
"""Pages written in one step."""


class PhysicalMemory(Protocol):
    """Guest memory as its users see it: by address, whatever state the frames are in."""

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from guest physical address `gpa`. Raises GuestAddressError outside RAM and ROM."""
        ...

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` at `gpa`. Raises GuestAddressError outside RAM, OutOfFrames when the pool is empty."""
        ...


@dataclass(slots=True)
class Slot:
    """A run of guest frames from `first` with one stage-2 entry each; `dirty` while the log is on."""

    first: int
    entries: Entries
    dirty: NDArray[np.uint8] | None = None


class GuestMemory:
    """RAM in `blocks` of (base, length) bytes, thinly provisioned from `pool`.

    A frame is taken when the guest first touches its page. `fault` is what the CPU calls when it meets a page
    that it cannot use as it is; `sources` gives the handlers for states that others add (ballooned, swapped, ...):
    state number to a function of (guest frame number, write) that answers whether the page can be used now.
    """

    def __init__(self, pool: FramePool, blocks: Iterable[tuple[int, int]]) -> None:
        self.pool = pool
        self.slots: list[Slot] = []
        self.sources: dict[int, Callable[[int, bool], bool]] = {}
        self.starved = False
        """The pool had no frame when this guest last asked."""
        self.on_slot: Callable[[Slot], None] | None = None
        self.on_log: Callable[[int, NDArray[np.uint8] | None], None] | None = None
        self.on_revoke: Callable[[], None] | None = None
        """The CPU's ear: a slot was added, the dirty log changed, an entry lost a right."""
        self.size = 0
        for base, length in blocks:
            self._add_slot(base >> PAGE_SHIFT, length >> PAGE_SHIFT)
            self.size += length

    # ---- layout ----

    def _add_slot(self, first: int, frames: int) -> Slot:
        slot = Slot(first, np.zeros(frames, np.uint32))
        self.slots.append(slot)
        if self.on_slot is not None:
            self.on_slot(slot)
        return slot

    def _find(self, gfn: int) -> tuple[Slot, int] | None:
        for slot in self.slots:
            index = gfn - slot.first
            if 0 <= index < len(slot.entries):
                return slot, index
        return None

    def add_hole(self, gpa: int, length: int) -> None:
        """Take RAM away from [gpa, gpa + length): a window for devices. Whole pages inside one block."""
        self._set_range(gpa, length, entry(FrameState.HOLE))

    def add_rom(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` at `gpa` (page-aligned, padded to whole pages) as memory that guests cannot change.

        Raises GuestAddressError where it lies partly in RAM and partly not, OutOfFrames when it does not fit the pool.
        """
        count = -(-len(data) // PAGE_SIZE)
        length = count * PAGE_SIZE
        if all(self._find((gpa >> PAGE_SHIFT) + i) is None for i in range(count)):
            self._add_slot(gpa >> PAGE_SHIFT, count)
        slot, index = self._inside(gpa, length)
        self._set_range(gpa, length, entry(FrameState.HOLE))
        for i in range(count):
            frame = self.pool.take()
            piece = data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            self.pool.frames[frame, : len(piece)] = np.frombuffer(piece, np.uint8)
            slot.entries[index + i] = entry(FrameState.ROM, frame)
        self._revoke()

    def _inside(self, gpa: int, length: int) -> tuple[Slot, int]:
        """The slot that holds all of [gpa, gpa + length), and the first page's place in it."""
        found = self._find(gpa >> PAGE_SHIFT)
        last = self._find((gpa + length - 1) >> PAGE_SHIFT)
        if found is None or last is None or found[0] is not last[0]:
            raise GuestAddressError(
                f"{gpa:#x}..{gpa + length - 1:#x} is not inside one block of the guest's memory"
            )
        return found

    def _set_range(self, gpa: int, length: int, value: int) -> None:
        slot, index = self._inside(gpa, length)
        span = slot.entries[index : index + (length >> PAGE_SHIFT)]
        self._release(span)
        span[:] = value
        self._revoke()

    def _revoke(self) -> None:
        if self.on_revoke is not None:
            self.on_revoke()

    # ---- stage-2 faults ----

    def fault(self, gfn: int, write: bool) -> bool:
        """Make guest frame `gfn` usable: give it a frame, or for a write a frame of its own.

        False when that is not possible now (`starved` says whether for want of a frame).
        """
        found = self._find(gfn)
        if found is None:
            return False
        slot, index = found
        value = int(slot.entries[index])
        state = value >> STATE_SHIFT
        try:
            if state == FrameState.ABSENT:
                slot.entries[index] = _RESIDENT | self.pool.take()
            elif state == FrameState.SHARED and write:
                self._own(slot, index, value & FRAME_MASK)
            elif state in self.sources:
                return self.sources[state](gfn, write)
            elif state > FrameState.HOLE:
                return False  # nobody here knows where its content is
        except OutOfFrames:
            self.starved = True
            return False
        self.starved = False
        return True

    def _own(self, slot: Slot, index: int, frame: int) -> None:
        """Copy on write; the last one that refers to a frame keeps it."""
        if self.pool.references[frame] > 1:
            copy = self.pool.copy(frame)
            self.pool.release(np.array([frame], np.uint32))
            frame = copy
            self._revoke()
        slot.entries[index] = _RESIDENT | frame

    # ---- access by guest physical address ----

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from `gpa`. Pages never touched read as zeros and stay absent."""
        out = bytearray(length)
        done = 0
        while done < length:
            gfn, offset = (gpa + done) >> PAGE_SHIFT, (gpa + done) & _PAGE_MASK
            count = min(PAGE_SIZE - offset, length - done)
            frame = self._readable(gfn, gpa + done)
            if frame:
                out[done : done + count] = self.pool.frames[frame, offset : offset + count].tobytes()
            done += count
        return bytes(out)

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` at `gpa`, as DMA does: code there is translated anew, the dirty log notes it. Zeros for a page
        that was never touched leave it absent."""
        source = np.frombuffer(data, np.uint8)
        done = 0
        while done < len(source):
            new = self._write_untouched(gpa + done, source[done:])
            if new:
                done += new
                continue
            gfn, offset = (gpa + done) >> PAGE_SHIFT, (gpa + done) & _PAGE_MASK
            count = min(PAGE_SIZE - offset, len(source) - done)
            piece = source[done : done + count]
            slot, index = self._ram(gfn, gpa + done)
            done += count
            if slot.entries[index] == _ABSENT and not piece.any():
                continue
            frame = self._writable(slot, index, gfn)
            self.pool.frames[frame, offset : offset + count] = piece
            if self.pool.users is not None and self.pool.fetched[frame]:
                self.pool.users.changed(frame, offset, count)

    def _write_untouched(self, gpa: int, source: NDArray[np.uint8]) -> int:
        """Write the whole pages that `source` begins with, while they go to pages that were never touched; returns
        how many bytes that was. One step for many pages: a kernel has ten thousand."""
        found = self._find(gpa >> PAGE_SHIFT)
        if gpa & _PAGE_MASK or len(source) < PAGE_SIZE or found is None:
            return 0
        slot, index = found
        entries = slot.entries[index : index + min(len(source) >> PAGE_SHIFT, BULK_PAGES)]
        touched = np.flatnonzero(entries != _ABSENT)
        if len(touched):
            entries = entries[: touched[0]]
        pages = source[: len(entries) << PAGE_SHIFT].reshape(-1, PAGE_SIZE)
        wanted = pages.any(axis=1)
        if self.pool.free < len(entries):  # near the end of the pool, page by page: what fits is written
            return 0
        frames = self.pool.take_many(int(wanted.sum()))
        self.pool.frames[frames] = pages[wanted]
        entries[wanted] = np.uint32(_RESIDENT) | frames
        if slot.dirty is not None:
            slot.dirty[index : index + len(entries)][wanted] = 1
        return len(entries) << PAGE_SHIFT

    def _readable(self, gfn: int, gpa: int) -> int:
        """The frame behind `gfn`; 0 for a page of zeros."""
        found = self._find(gfn)
        if found is not None:
            slot, index = found
            value = int(slot.entries[index])
            state = value >> STATE_SHIFT
            if state == FrameState.ABSENT:
                return 0
            if state in (FrameState.RESIDENT, FrameState.SHARED, FrameState.ROM):
                return value & FRAME_MASK
            if state != FrameState.HOLE and self.fault(gfn, False):
                return int(slot.entries[index]) & FRAME_MASK
        raise GuestAddressError(f"guest physical address {gpa:#x} is not memory")

    def _ram(self, gfn: int, gpa: int) -> tuple[Slot, int]:
        found = self._find(gfn)
        if found is None or int(found[0].entries[found[1]]) >> STATE_SHIFT in (
            FrameState.HOLE,
            FrameState.ROM,
        ):
            raise GuestAddressError(f"guest physical address {gpa:#x} is not RAM")
        return found

    def _writable(self, slot: Slot, index: int, gfn: int) -> int:
        if int(slot.entries[index]) >> STATE_SHIFT != FrameState.RESIDENT and not self.fault(gfn, True):
            raise OutOfFrames(
                f"no frame for guest physical address {gfn << PAGE_SHIFT:#x}: the pool's {self.pool.limit} are taken"
            )
        if slot.dirty is not None:
            slot.dirty[index] = 1
        return int(slot.entries[index]) & FRAME_MASK

    # ---- dirty log ----

    def start_log(self) -> None:
        """From now on remember which pages are written."""
        for number, slot in enumerate(self.slots):
            slot.dirty = np.zeros(len(slot.entries), np.uint8)
            if self.on_log is not None:
                self.on_log(number, slot.dirty)

    def collect_log(self) -> NDArray[np.int64]:
        """Guest frame numbers written since the log was started or last collected, ascending."""
        parts: list[NDArray[np.int64]] = []
        for slot in self.slots:
            if slot.dirty is not None:
                hits = np.flatnonzero(slot.dirty)
                slot.dirty[hits] = 0
                parts.append(hits + slot.first)
        self._revoke()
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def stop_log(self) -> None:
        """Forget the log; it costs nothing from here on."""
        for number, slot in enumerate(self.slots):
            slot.dirty = None
            if self.on_log is not None:
                self.on_log(number, None)

    # ---- the whole guest ----

    def clone(self) -> "GuestMemory":
        """A second guest's memory with the same content; every page is shared until one of the two writes it."""
        twin = GuestMemory(self.pool, ())
        twin.size = self.size
        for slot in self.slots:
            states = slot.entries >> STATE_SHIFT
            slot.entries[states == FrameState.RESIDENT] += np.uint32(
                (FrameState.SHARED - FrameState.RESIDENT) << STATE_SHIFT
            )
            self.pool.share(self._frames(slot.entries))
            twin.slots.append(Slot(slot.first, slot.entries.copy()))
        self._revoke()
        return twin

    @staticmethod
    def _frames(entries: Entries) -> NDArray[np.uint32]:
        states = entries >> STATE_SHIFT
        backed = (states == FrameState.RESIDENT) | (states == FrameState.SHARED) | (states == FrameState.ROM)
        frames: NDArray[np.uint32] = entries[backed] & np.uint32(FRAME_MASK)
        return frames

    def _release(self, entries: Entries) -> int:
        return self.pool.release(self._frames(entries))

    def reset(self) -> None:
        """Forget all RAM content, as after power-off; ROM stays."""
        for slot in self.slots:
            states = slot.entries >> STATE_SHIFT
            ram = (states != FrameState.ROM) & (states != FrameState.HOLE)
            self._release(slot.entries[ram])
            slot.entries[ram] = entry(FrameState.ABSENT)
        self._revoke()

    def close(self) -> int:
        """Give all frames back; returns how many became free."""
        freed = 0
        for slot in self.slots:
            freed += self._release(slot.entries)
            slot.entries[:] = entry(FrameState.HOLE)
        self._revoke()
        return freed

    def census(self) -> dict[str, int]:
        """How many guest frames are in each state, by the state's name in small letters."""
        counts = np.zeros(256, np.int64)
        for slot in self.slots:
            counts += np.bincount(slot.entries >> STATE_SHIFT, minlength=256)
        return {state.name.lower(): int(counts[state]) for state in FrameState}

    def written_pages(self) -> Sequence[int]:
        """Guest frame numbers that have a frame, ascending."""
        pages: list[int] = []
        for slot in sorted(self.slots, key=lambda s: s.first):
            states = slot.entries >> STATE_SHIFT
            backed = (states == FrameState.RESIDENT) | (states == FrameState.SHARED)
            pages.extend((np.flatnonzero(backed) + slot.first).tolist())
        return pages
