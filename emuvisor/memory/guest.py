"""A guest's memory: which frames back it, and access to it by guest physical address."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import GuestAddressError, UsageError
from emuvisor.memory.pool import FramePool
from emuvisor.memory.region import Region
from emuvisor.memory.shadow import Shadow
from emuvisor.memory.slot import MAX_SLOTS, NOWHERE, Backing, Slot, pieces
from emuvisor.memory.stage2 import FRAME_MASK, STATE_SHIFT, FrameState, entry
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["GuestMemory", "PhysicalMemory"]

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


class GuestMemory(Backing):
    """RAM in `blocks` of (base, length) bytes, thinly provisioned from `pool`.

    A frame is taken when the guest first touches its page. `fault` is what the CPU calls when it meets a page
    that it cannot use as it is.
    """

    def __init__(self, pool: FramePool, blocks: Iterable[tuple[int, int]]) -> None:
        super().__init__(pool)
        self.slots: list[Slot] = []
        self.regions: list[Region] = []
        """In the order in which they were added; a clone has as many."""
        self.shadows: list[Shadow] = []
        self.on_slot: Callable[[Slot], None] | None = None
        self.on_log: Callable[[int, NDArray[np.uint8] | None], None] | None = None
        """The CPU's ear: a slot was added, the dirty log of slot number such changed."""
        self.size = 0
        self._logging = False
        for base, length in blocks:
            self._add_slot(Slot(base >> PAGE_SHIFT, np.zeros(length >> PAGE_SHIFT, np.uint32)))
            self.size += length

    # ---- layout ----

    def _add_slot(self, slot: Slot) -> int:
        """Add a slot; returns its number."""
        if len(self.slots) == MAX_SLOTS:
            raise UsageError(f"a guest has at most {MAX_SLOTS} blocks of memory, ROMs and regions together")
        number = len(self.slots)
        self.slots.append(slot)
        if self.on_slot is not None:
            self.on_slot(slot)
        if self._logging:
            self._start_log(number)
        return number

    def _find(self, gfn: int) -> tuple[Slot, int] | None:
        """The slot in which the guest sees frame `gfn`, and its place in it, as `stage2_slot` in the C core finds it:
        RAM and ROM first, then regions; a hole is nobody's."""
        region: tuple[Slot, int] | None = None
        for slot in self.slots:
            index = gfn - slot.first
            if (
                not 0 <= index < len(slot.entries)
                or int(slot.entries[index]) >> STATE_SHIFT == FrameState.HOLE
            ):
                continue
            if not slot.movable:
                return slot, index
            region = region or (slot, index)
        return region

    def _block(self, gfn: int) -> tuple[Slot, int] | None:
        """The block of RAM or ROM that `gfn` is in, hole or not, and its place in it."""
        for slot in self.slots:
            index = gfn - slot.first
            if not slot.movable and 0 <= index < len(slot.entries):
                return slot, index
        return None

    def add_hole(self, gpa: int, length: int) -> None:
        """Take RAM away from [gpa, gpa + length): a window for devices. Whole pages inside one block."""
        slot, index = self._inside(gpa, length)
        self.release(slot.entries[index : index + (length >> PAGE_SHIFT)], FrameState.HOLE)
        self.revoke()

    def add_rom(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` at `gpa` (page-aligned, padded to whole pages) as memory that guests cannot change.

        Raises GuestAddressError where it lies partly in RAM and partly not or in shadow RAM, OutOfFrames when it does
        not fit the pool.
        """
        count = -(-len(data) // PAGE_SIZE)
        length = count * PAGE_SIZE
        if all(self._block((gpa >> PAGE_SHIFT) + i) is None for i in range(count)):
            self._add_slot(Slot(gpa >> PAGE_SHIFT, np.full(count, entry(FrameState.HOLE), np.uint32)))
        slot, index = self._inside(gpa, length)
        self.release(slot.entries[index : index + count], FrameState.HOLE)
        for i in range(count):
            frame = self.pool.take()
            piece = data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            self.pool.frames[frame, : len(piece)] = np.frombuffer(piece, np.uint8)
            slot.entries[index + i] = entry(FrameState.ROM, frame)
            slot.mark(index + i)
        self.revoke()

    def change_rom(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` into ROM at `gpa`, as a flash chip does; code there is translated anew.

        Raises GuestAddressError where there is no ROM or in shadow RAM, and then changes nothing; OutOfFrames when
        a clone's ROM has to be copied and the pool is empty.
        """
        source = np.frombuffer(data, np.uint8)
        self._refuse_shadows(gpa, len(source))
        found = []
        for piece in pieces(gpa, len(source)):
            place = self._find(piece.page)
            if place is None or int(place[0].entries[place[1]]) >> STATE_SHIFT != FrameState.ROM:
                raise GuestAddressError(f"guest physical address {gpa + piece.start:#x} is not ROM")
            found.append((piece, *place))
        for piece, slot, index in found:
            frame = self.own(int(slot.entries[index]) & FRAME_MASK)
            slot.entries[index] = entry(FrameState.ROM, frame)
            slot.mark(index)
            self.fill(frame, piece.offset, source[piece.start : piece.end])

    def add_region(self, length: int) -> Region:
        """`length` bytes (whole pages) of RAM for a device, placed nowhere.

        Raises UsageError for an odd length, and when the guest has too many slots.
        """
        if length <= 0 or length % PAGE_SIZE:
            raise UsageError(f"a region of {length} bytes is impossible; it has whole pages of 4 KiB")
        slot = Slot(NOWHERE, np.zeros(length >> PAGE_SHIFT, np.uint32), movable=True)
        region = Region(self, slot, self._add_slot(slot))
        self.regions.append(region)
        return region

    def add_shadow(self, base: int, length: int) -> Shadow:
        """Shadow RAM over [base, base + length), whole pages inside one block; see `Shadow`. At first there is no ROM,
        and the RAM cannot be reached.

        Raises GuestAddressError where it does not lie in one block or has a shadow already, OutOfFrames.
        """
        slot, index = self._inside(base, length)
        shadow = Shadow(self, slot, index, length >> PAGE_SHIFT)
        self.shadows.append(shadow)
        return shadow

    def _inside(self, gpa: int, length: int) -> tuple[Slot, int]:
        """The block that holds all of [gpa, gpa + length), and the first page's place in it."""
        found = self._block(gpa >> PAGE_SHIFT)
        last = self._block((gpa + length - 1) >> PAGE_SHIFT)
        if found is None or last is None or found[0] is not last[0]:
            raise GuestAddressError(
                f"{gpa:#x}..{gpa + length - 1:#x} is not inside one block of the guest's memory"
            )
        self._refuse_shadows(gpa, length)
        return found

    def _refuse_shadows(self, gpa: int, length: int) -> None:
        if any(shadow.overlaps(gpa, length) for shadow in self.shadows):
            raise GuestAddressError(f"{gpa:#x}..{gpa + length - 1:#x} is in shadow RAM")

    # ---- stage-2 faults ----

    def fault(self, gfn: int, write: bool) -> bool:
        """Make guest frame `gfn` usable: give it a frame, or for a write a frame of its own.

        False when that is not possible now (`starved` says whether for want of a frame).
        """
        found = self._find(gfn)
        return found is not None and self.supply(*found, write)

    # ---- access by guest physical address ----

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from `gpa`. Pages never touched read as zeros and stay absent."""
        out = bytearray(length)
        for piece in pieces(gpa, length):
            found = self._find(piece.page)
            frame = None if found is None else self.readable(*found)
            if frame is None:
                raise GuestAddressError(f"guest physical address {gpa + piece.start:#x} is not memory")
            if frame:
                end = piece.offset + piece.end - piece.start
                out[piece.start : piece.end] = self.pool.frames[frame, piece.offset : end].tobytes()
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
            found = self._find(gfn)
            if found is None or int(found[0].entries[found[1]]) >> STATE_SHIFT == FrameState.ROM:
                raise GuestAddressError(f"guest physical address {gpa + done:#x} is not RAM")
            self.put(*found, offset, source[done : done + count])
            done += count

    def _write_untouched(self, gpa: int, source: NDArray[np.uint8]) -> int:
        """Write the whole pages that `source` begins with, while they go to pages that were never touched; returns
        how many bytes that was. One step for many pages: a kernel has ten thousand."""
        found = self._find(gpa >> PAGE_SHIFT)
        if gpa & _PAGE_MASK or len(source) < PAGE_SIZE or found is None:
            return 0
        slot, index = found
        if slot.movable or slot.entries[index] != _ABSENT:  # over a region's next pages RAM may lie
            return 0
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

    # ---- dirty log ----

    def start_log(self) -> None:
        """From now on remember which pages are written."""
        self._logging = True
        for number in range(len(self.slots)):
            self._start_log(number)

    def _start_log(self, number: int) -> None:
        slot = self.slots[number]
        slot.dirty = np.zeros(len(slot.entries), np.uint8)
        if self.on_log is not None:
            self.on_log(number, slot.dirty)

    def collect_log(self) -> NDArray[np.int64]:
        """Guest frame numbers written since the log was started or last collected, ascending. A page of shadow RAM
        counts when either of its sets changes or it shows the other one; regions have a log of their own."""
        parts: list[NDArray[np.int64]] = []
        for slot in self._blocks():
            if slot.dirty is not None:
                hits = np.flatnonzero(slot.dirty)
                slot.dirty[hits] = 0
                parts.append(hits + slot.first)
        self.revoke()
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def stop_log(self) -> None:
        """Forget the log; it costs nothing from here on."""
        self._logging = False
        for number, slot in enumerate(self.slots):
            slot.dirty = None
            if self.on_log is not None:
                self.on_log(number, None)

    # ---- the whole guest ----

    def _blocks(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.movable]

    def clone(self) -> "GuestMemory":
        """A second guest's memory with the same content; every page is shared until one of the two writes it. Its
        regions are placed as this one's, its shadow RAM shows the same."""
        twin = GuestMemory(self.pool, ())
        twin.size = self.size
        for slot in self.slots:
            number = twin._add_slot(Slot(slot.first, self.share(slot.entries), slot.movable))
            if slot.movable:
                twin.regions.append(Region(twin, twin.slots[number], number))
        for shadow in self.shadows:
            found = twin._block(shadow.base >> PAGE_SHIFT)
            assert found is not None
            twin.shadows.append(shadow.clone(twin, found[0]))
        self.revoke()
        return twin

    def reset(self) -> None:
        """Forget all RAM content, as after power-off; ROM stays, and shadow RAM shows it. Regions stay in place."""
        for shadow in self.shadows:
            shadow.forget()
        for slot in self.slots:
            states = slot.entries >> STATE_SHIFT
            ram = (states != FrameState.ROM) & (states != FrameState.HOLE)
            self.release(slot.entries[ram], FrameState.ABSENT)
            slot.entries[ram] = entry(FrameState.ABSENT)
        self.revoke()

    def close(self) -> int:
        """Give all frames back; returns how many became free."""
        freed = sum(shadow.close() for shadow in self.shadows)
        freed += sum(self.release(slot.entries, FrameState.HOLE) for slot in self.slots)
        self.revoke()
        return freed

    def census(self) -> dict[str, int]:
        """How many guest frames are in each state, by the state's name in small letters; regions and what lies under
        shadowed addresses included."""
        counts = np.zeros(256, np.int64)
        for entries in [*(slot.entries for slot in self.slots), *(shadow.hidden for shadow in self.shadows)]:
            counts += np.bincount(entries >> STATE_SHIFT, minlength=256)
        return {state.name.lower(): int(counts[state]) for state in FrameState}

    def written_pages(self) -> Sequence[int]:
        """Guest frame numbers of RAM that have a frame, ascending; without regions."""
        pages: list[int] = []
        for slot in sorted(self._blocks(), key=lambda s: s.first):
            states = slot.entries >> STATE_SHIFT
            backed = (states == FrameState.RESIDENT) | (states == FrameState.SHARED)
            pages.extend((np.flatnonzero(backed) + slot.first).tolist())
        return pages
