"""A guest's memory: which frames back it, and access to it by guest physical address."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import GuestAddressError, UsageError
from emuvisor.memory.layout import check_alike
from emuvisor.memory.pluggable import PluggableRam
from emuvisor.memory.pool import ZERO_FRAME, FramePool
from emuvisor.memory.reclaim import Reclaimable
from emuvisor.memory.region import Region
from emuvisor.memory.shadow import Shadow
from emuvisor.memory.slot import MAX_SLOTS, NOWHERE, Slot, pieces
from emuvisor.memory.stage2 import FRAME_MASK, STATE_SHIFT, WRITTEN, FrameState, entry, in_states
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

__all__ = ["DmaMemory", "GuestMemory", "PhysicalMemory"]

_ABSENT = entry(FrameState.ABSENT)
_RESIDENT = entry(FrameState.RESIDENT)
_ZERO = entry(FrameState.SHARED, ZERO_FRAME)
_PAGE_MASK = PAGE_SIZE - 1
BULK_PAGES = 256
"""Pages written in one step."""
KNOWN_PAGES = 4096
"""Pages of which it is remembered where they lie."""
_ZEROS = memoryview(bytes(PAGE_SIZE))
"""What a page that was never touched reads as."""


class PhysicalMemory(Protocol):
    """Guest memory as its users see it: by address, whatever state the frames are in."""

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from guest physical address `gpa`. Raises GuestAddressError outside RAM and ROM."""
        ...

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` at `gpa`. Raises GuestAddressError outside RAM, OutOfFrames when the pool is empty."""
        ...


class DmaMemory(PhysicalMemory, Protocol):
    """Guest memory for devices that move much data, or little data often: without copies.

    `host` is the host's memory. What `place` and `views` answer is valid until `epoch` changes or the guest runs
    again, whichever is first; only a page placed for writing keeps its place until `epoch` changes.
    """

    @property
    def host(self) -> memoryview:
        """All frames, one behind the other."""
        ...

    @property
    def epoch(self) -> int:
        """Changes when a page lies elsewhere than before, may no longer be written, or has to be logged again."""
        ...

    def place(self, gfn: int, write: bool) -> int:
        """Where in `host` the page `gfn` of RAM or ROM begins. 0, which is nobody's, when it is to be read and was
        never touched. For a write it gets a frame of its own first, and the dirty log notes it.

        Raises GuestAddressError where there is no RAM (or, for reading, ROM), OutOfFrames.
        """
        ...

    def wrote(self, place: int, length: int) -> None:
        """`length` bytes at `place` of `host`, in one page, were written: code there is translated anew."""
        ...

    def views(self, gpa: int, length: int, *, write: bool) -> list[memoryview]:
        """[gpa, gpa + length) as it lies in the host, in order. Pages never touched read as zeros and stay absent; for
        a write each page gets a frame of its own, the dirty log notes it, and code there is translated anew.

        Raises GuestAddressError where there is no RAM (or, for reading, ROM), OutOfFrames.
        """
        ...

    def gather(self, parts: Iterable[tuple[int, int]], *, write: bool) -> list[memoryview]:
        """The views of all `parts`, each an address and a length, one behind the other."""
        ...


class GuestMemory(Reclaimable):
    """RAM in `blocks` of (base, length) bytes, thinly provisioned from `pool`.

    A frame is taken when the guest first touches its page. `fault` is what the CPU calls when it meets a page
    that it cannot use as it is.
    """

    def __init__(self, pool: FramePool, blocks: Iterable[tuple[int, int]]) -> None:
        super().__init__(pool)
        self.regions: list[Region] = []
        """In the order in which they were added; a clone has as many."""
        self.pluggable: list[PluggableRam] = []
        """As the regions."""
        self.on_slot: Callable[[Slot], None] | None = None
        self.on_log: Callable[[int, NDArray[np.uint8] | None], None] | None = None
        """The CPU's ear: a slot was added, the dirty log of slot number such changed."""
        self.size = 0
        """Bytes of RAM that the guest can have: the blocks, and what can be plugged."""
        self._fetched = pool.fetched.data
        self._readable: dict[int, int] = {}
        self._writable: dict[int, int] = {}
        """Where pages of RAM and ROM lie in `host`, by frame number; forgotten at each revocation."""
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
        if self._sampling:
            self._sample_slot(number)
        return number

    def _find(self, gfn: int) -> tuple[Slot, int] | None:
        """The slot in which the guest sees frame `gfn`, and its place in it, as `stage2_slot` in the C core finds it:
        RAM and ROM first, then regions; a hole is nobody's."""
        region: tuple[Slot, int] | None = None
        if gfn >= NOWHERE:  # an access that wraps around must not find what is placed nowhere
            return None
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
            self.frames_taken += 1
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
            self.frames_taken += int(slot.entries[index]) != entry(FrameState.ROM, frame)
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

    def add_pluggable(self, gpa: int, length: int, block_size: int) -> PluggableRam:
        """`length` bytes from `gpa` where RAM can be plugged in blocks of `block_size`; whole blocks, whole pages.

        The guest's entries for it take a thousandth of `length` of the host's memory from the beginning. Raises
        UsageError for odd sizes, where RAM or ROM is already, and when the guest has too many slots.
        """
        if block_size <= 0 or length <= 0 or block_size % PAGE_SIZE or gpa % PAGE_SIZE or length % block_size:
            raise UsageError(
                f"pluggable RAM of {length} bytes in blocks of {block_size} at {gpa:#x} is impossible; it has whole "
                "pages and whole blocks"
            )
        first, count = gpa >> PAGE_SHIFT, length >> PAGE_SHIFT
        if any(s.first < first + count and first < s.first + len(s.entries) for s in self._blocks()):
            raise UsageError(f"pluggable RAM at {gpa:#x}..{gpa + length - 1:#x}: there is memory already")
        slot = Slot(first, np.full(count, entry(FrameState.HOLE), np.uint32))
        self._add_slot(slot)
        self.size += length
        self.pluggable.append(PluggableRam(self, slot, block_size))
        return self.pluggable[-1]

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
        """Make guest frame `gfn` usable: give it a frame with its content, or for a write a frame of its own.

        False when there is no frame (`starved`). Raises PageLost.
        """
        found = self._find(gfn)
        return found is not None and self.supply(*found, write)

    def revoke(self) -> None:
        """Forget where pages lie, and tell whoever else remembers it."""
        self._readable.clear()
        self._writable.clear()
        super().revoke()

    # ---- access by guest physical address ----

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from `gpa`. Pages never touched read as zeros and stay absent."""
        offset = gpa & _PAGE_MASK
        place = self._readable.get(gpa >> PAGE_SHIFT)
        if place is not None and offset + length <= PAGE_SIZE:
            return bytes(self.host[place + offset : place + offset + length])
        return b"".join(self.views(gpa, length, write=False))

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Put `data` at `gpa`, as DMA does: code there is translated anew, the dirty log notes it. Zeros for a page
        that was never touched leave it absent."""
        place = self._writable.get(gpa >> PAGE_SHIFT)
        if (
            place is not None and (gpa & _PAGE_MASK) + len(data) <= PAGE_SIZE
        ):  # most often: a status, a header
            place += gpa & _PAGE_MASK
            self.host[place : place + len(data)] = data
            self.wrote(place, len(data))
            return
        view, done = memoryview(data), 0
        while done < len(view):
            gfn, offset = (gpa + done) >> PAGE_SHIFT, (gpa + done) & _PAGE_MASK
            count = min(PAGE_SIZE - offset, len(view) - done)
            place = self._writable.get(gfn)
            if place is not None:
                self.host[place + offset : place + offset + count] = view[done : done + count]
                self.wrote(place + offset, count)
                done += count
                continue
            source = np.frombuffer(view[done:], np.uint8)
            new = self._write_untouched(gpa + done, source)
            if new:
                done += new
                continue
            found = self._find(gfn)
            if found is None or int(found[0].entries[found[1]]) >> STATE_SHIFT == FrameState.ROM:
                raise GuestAddressError(f"guest physical address {gpa + done:#x} is not RAM")
            slot, index = found
            self.put(slot, index, offset, source[:count])
            value = int(slot.entries[index])
            if value >> STATE_SHIFT == FrameState.RESIDENT:
                self._remember(self._writable, gfn, slot, value & FRAME_MASK)
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
        if self.pool.free < len(entries) or not self._allows(len(entries)):
            return 0  # near the end of the pool, or the guest's limit, page by page: what fits is written
        frames = self.pool.take_many(int(wanted.sum()))
        self.frames_taken += len(frames)
        self.pool.frames[frames] = pages[wanted]
        entries[wanted] = np.uint32(_RESIDENT) | frames
        for noted in (slot.dirty, slot.accessed):
            if noted is not None:
                noted[index : index + len(entries)][wanted] = 1
        return len(entries) << PAGE_SHIFT

    # ---- access without copies ----

    def place(self, gfn: int, write: bool) -> int:
        """Where in `host` page `gfn` begins; see `DmaMemory`."""
        known = self._writable if write else self._readable
        return known.get(gfn) or self._place(gfn, 0, write)

    def _place(self, gfn: int, offset: int, write: bool) -> int:
        """As `place`, for a page that is not known; `offset` is for the error's message."""
        found = self._find(gfn)
        frame = None
        if found is not None:
            frame = self._own_frame(*found) if write else self.readable(*found)
        if found is None or frame is None:
            kind = "RAM" if write else "memory"
            raise GuestAddressError(f"guest physical address {(gfn << PAGE_SHIFT) + offset:#x} is not {kind}")
        if frame:
            self._remember(self._writable if write else self._readable, gfn, found[0], frame)
        return frame << PAGE_SHIFT

    def _remember(self, places: dict[int, int], gfn: int, slot: Slot, frame: int) -> None:
        """Page `gfn` of `slot` lies in `frame`. Regions are not remembered: they move without a revocation."""
        if not slot.movable:
            if len(places) >= KNOWN_PAGES:
                places.clear()
            places[gfn] = frame << PAGE_SHIFT

    def _own_frame(self, slot: Slot, index: int) -> int | None:
        """A frame of the page's own, noted in the dirty log; None for ROM. Raises OutOfFrames, PageLost."""
        if int(slot.entries[index]) >> STATE_SHIFT == FrameState.ROM:
            return None
        return self.make_own(slot, index)

    def wrote(self, place: int, length: int) -> None:
        """Bytes at `place` of `host` were written by a device; see `DmaMemory`."""
        frame = place >> PAGE_SHIFT
        if self._fetched[frame] and self.pool.users is not None:
            self.pool.users.changed(frame, place & _PAGE_MASK, length)

    def views(self, gpa: int, length: int, *, write: bool) -> list[memoryview]:
        """[gpa, gpa + length) as it lies in the host, neighbouring frames as one view; see `DmaMemory`."""
        return self.gather(((gpa, length),), write=write)

    def gather(self, parts: Iterable[tuple[int, int]], *, write: bool) -> list[memoryview]:
        """The views of each of `parts`; see `DmaMemory`. One loop over all pages: a disk's request has hundreds."""
        host, fetched = self.host, self._fetched
        known = (self._writable if write else self._readable).get
        out: list[memoryview] = []
        start = end = 0  # of the run of frames that is being put together
        for first, length in parts:
            gpa, last = first, first + length
            while gpa < last:
                next_page = (gpa | _PAGE_MASK) + 1
                size = (next_page if next_page < last else last) - gpa
                place = known(gpa >> PAGE_SHIFT) or self._place(gpa >> PAGE_SHIFT, gpa & _PAGE_MASK, write)
                if not place:
                    if end:
                        out.append(host[start:end])
                        start = end = 0
                    out.append(_ZEROS[:size])
                else:
                    place += gpa & _PAGE_MASK
                    if write and fetched[place >> PAGE_SHIFT]:
                        self.wrote(place, size)
                    if place != end:
                        if end:
                            out.append(host[start:end])
                        start = end = place
                    end += size
                gpa = next_page
        if end:
            out.append(host[start:end])
        return out

    def ram_pages(self, pages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the guest frame numbers in `pages` are RAM now, touched or not."""
        found = np.zeros(len(pages), np.bool_)
        for slot in self._blocks():
            inside = np.flatnonzero((pages >= slot.first) & (pages < slot.first + len(slot.entries)))
            states = slot.entries[pages[inside] - slot.first] >> STATE_SHIFT
            found[inside] |= (states != FrameState.ROM) & (states != FrameState.HOLE)
        return found

    # ---- dirty log ----

    def start_log(self) -> None:
        """From now on remember which pages are written."""
        self._logging = True
        for number in range(len(self.slots)):
            self._start_log(number)
        self.revoke()

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

    def collect_pages(self) -> NDArray[np.int64]:
        """As `collect_log`, but numbers of pages as `sets` counts them, ascending: those of regions too, and both pages
        of shadow RAM when one of them has changed."""
        bases = np.cumsum([0, *(len(pages.entries) for pages in self.sets)])
        parts = [np.zeros(0, np.int64)]
        for number, slot in enumerate(self.slots):
            if slot.dirty is None:
                continue
            hits = np.flatnonzero(slot.dirty)
            slot.dirty[hits] = 0
            parts.append(hits + bases[number])
            for place, shadow in enumerate(self.shadows, len(self.slots)):
                if slot.first <= shadow.hidden.first < slot.first + len(slot.entries) and not slot.movable:
                    beneath = hits - (shadow.hidden.first - slot.first)
                    inside = (beneath >= 0) & (beneath < len(shadow.hidden.entries))
                    parts.append(beneath[inside] + bases[place])
        self.revoke()
        return np.sort(np.concatenate(parts))

    def stop_log(self) -> None:
        """Forget the log; it costs nothing from here on."""
        self._logging = False
        for number, slot in enumerate(self.slots):
            slot.dirty = None
            if self.on_log is not None:
                self.on_log(number, None)

    # ---- the whole guest ----

    def clone(self) -> "GuestMemory":
        """A second guest's memory with the same content; every page is shared until one of the two writes it. Its
        regions are placed as this one's, its shadow RAM shows the same. It begins without a limit of its own."""
        twin = GuestMemory(self.pool, ())
        twin.size = self.size
        twin.stores = self.stores
        for slot in self.slots:
            number = twin._add_slot(Slot(slot.first, self.share(slot.entries), slot.movable))
            if slot.movable:
                twin.regions.append(Region(twin, twin.slots[number], number))
        for ram in self.pluggable:
            found = twin._block(ram.gpa >> PAGE_SHIFT)
            assert found is not None
            twin.pluggable.append(ram.clone(twin, found[0]))
        for shadow in self.shadows:
            found = twin._block(shadow.base >> PAGE_SHIFT)
            assert found is not None
            twin.shadows.append(shadow.clone(twin, found[0]))
        self.revoke()
        return twin

    def take_over(self, other: "GuestMemory") -> int:
        """Hold what `other` holds, a clone of this memory or one that is laid out alike in the same pool; every page is
        shared until one of the two writes it. Regions are placed as there, shadow RAM shows the same. Only pages that
        differ are touched, so that going back to one's own clone costs by what was written since. Neither guest runs.

        ROM where this memory has none yet, for its guest has not booted, is added; where `other` has none there is
        none. Returns how many pages were other ones. Raises SnapshotError for another layout, and then nothing has
        changed.
        """
        check_alike(self, other)
        for theirs in other.slots[len(self.slots) :]:
            self._add_slot(
                Slot(theirs.first, np.full(len(theirs.entries), entry(FrameState.HOLE), np.uint32))
            )
        changed = 0
        for slot, theirs in zip(self.slots, other.slots, strict=False):
            changed += self.adopt(slot, theirs.entries)
        for slot in self.slots[len(other.slots) :]:
            self.release(slot.entries, FrameState.HOLE)
        for shadow, their_shadow in zip(self.shadows, other.shadows, strict=True):
            changed += shadow.take_over(their_shadow)
        for region, their_region in zip(self.regions, other.regions, strict=True):
            region.place(their_region.gpa)
        for ram, their_ram in zip(self.pluggable, other.pluggable, strict=True):
            ram.take_over(their_ram)
        if changed:
            other.revoke()  # its pages may have been its own until now
        return changed

    def reset(self) -> None:
        """Forget all RAM content, as after power-off; ROM stays, and shadow RAM shows it. Regions stay in place;
        pluggable RAM is unplugged."""
        for ram in self.pluggable:
            ram.unplug_all()
        for shadow in self.shadows:
            shadow.forget()
        for slot in self.slots:
            places = ~in_states(slot.entries, (FrameState.ROM, FrameState.HOLE))
            old = slot.entries[places]
            slot.entries[places] = entry(FrameState.ABSENT)
            if slot.dirty is not None:
                slot.dirty[places] = 1
            self.revoke()
            self.give_back(old)

    def close(self) -> int:
        """Give all frames back; returns how many became free."""
        freed = sum(shadow.close() for shadow in self.shadows)
        return freed + sum(self.release(slot.entries, FrameState.HOLE) for slot in self.slots)

    def census(self) -> dict[str, int]:
        """How many guest frames are in each state, by the state's name in small letters; regions and what lies under
        shadowed addresses included. Pages that show the zero frame are "zero" and not "shared"."""
        counts = dict.fromkeys([*(state.name.lower() for state in FrameState), "zero"], 0)
        for entries in [pages.entries for pages in self.sets]:
            states = entries >> STATE_SHIFT
            for state in FrameState:  # quicker than bincount, which widens the states first
                counts[state.name.lower()] += int(np.count_nonzero(states == state))
            counts["zero"] += int(np.count_nonzero(entries == _ZERO))
        counts["shared"] -= counts["zero"]
        return counts

    def written_pages(self) -> Sequence[int]:
        """Guest frame numbers of RAM that holds something, wherever it is, ascending; without regions."""
        pages: list[int] = []
        for slot in sorted(self._blocks(), key=lambda s: s.first):
            pages.extend((np.flatnonzero(in_states(slot.entries, WRITTEN)) + slot.first).tolist())
        return pages
