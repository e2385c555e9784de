"""Everything that takes frames from guests and brings pages back, at once, against plain copies of every page.

Each guest has a model of a CPU whose TLB remembers a translation until it is revoked, as an engine does: a frame that
is given to somebody else while a translation of it is left would show.
"""

import numpy as np
import pytest
from fake_store import FakeStore
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from page_merging import PageRef, merge

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.pool import RESERVED
from emuvisor.memory.shared_frames import evictable_shared, send_shared_away
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STORED, in_states
from emuvisor.units import PAGE_SIZE

FRAMES = 11
GUESTS = 3
LOW, HIGH = 0, 1 << 32
LOW_PAGES, HIGH_PAGES = 4, 1
ROM_PAGE, SHADOW_PAGE = 2, 3
REGION_PAGES = 1
RAM = [*range(ROM_PAGE), SHADOW_PAGE, *(HIGH // PAGE_SIZE + page for page in range(HIGH_PAGES))]
ROM = bytes([0, 0, 0, 0, 0, 1]).ljust(PAGE_SIZE, b"\0")
"""What a page of RAM can hold too."""
STORES = (FrameState.COMPRESSED, FrameState.SWAPPED)

numbers = st.integers(0, GUESTS - 1)
gfns = st.sampled_from(RAM)
fills = st.integers(0, 1)
few = st.lists(st.integers(-1, LOW_PAGES), max_size=2)


class Guest:
    """A guest's memory, what must be in it, and its CPU."""

    def __init__(self, memory):
        self.memory = memory
        self.pages = {gfn: bytearray(PAGE_SIZE) for gfn in [*RAM, ROM_PAGE]}
        self.region = bytearray(REGION_PAGES * PAGE_SIZE)
        self.locked = False
        self.written = None
        self.used = None
        self.tlb = {}
        memory.on_revoke = self.tlb.clear
        self.start_log()
        self.start_sampling()

    def twin(self):
        other = Guest(self.memory.clone())
        other.pages = {gfn: bytearray(page) for gfn, page in self.pages.items()}
        other.region = bytearray(self.region)
        other.locked = self.locked
        return other

    def may_write(self, gfn):
        return not (self.locked and gfn == SHADOW_PAGE)

    def wrote(self, gfn, offset, data):
        changed = self.pages[gfn][offset : offset + len(data)] != data
        self.pages[gfn][offset : offset + len(data)] = data
        if self.written is not None and changed:
            self.written.add(gfn)

    def cleared(self, gfn):
        if any(self.pages[gfn]):
            self.wrote(gfn, 0, bytes(PAGE_SIZE))

    def start_log(self):
        self.memory.start_log()
        self.written = set()

    def start_sampling(self):
        self.memory.start_sampling()
        self.used = set()

    def warm(self):
        """Have a translation of every page that the CPU can use without asking."""
        for gfn in self.pages:
            slot, index = self.place(gfn)
            state = int(self.memory.slots[slot].entries[index]) >> 24
            dirty = self.memory.slots[slot].dirty
            writable = state == FrameState.RESIDENT and (dirty is None or dirty[index] == 1)
            if state in FRAMED and gfn not in self.tlb:
                self.tlb[gfn] = self.translate(gfn, writable), writable

    def place(self, gfn):
        number = gfn >= HIGH // PAGE_SIZE
        return int(number), gfn - self.memory.slots[number].first

    def translate(self, gfn, write):
        """As stage2_translate in the C core; None when there is no frame."""
        number, index = self.place(gfn)
        slot = self.memory.slots[number]
        while True:
            state = int(slot.entries[index]) >> 24
            ready = state in (FrameState.RESIDENT, FrameState.ROM) or (
                state == FrameState.SHARED and not write
            )
            if ready:
                slot.touch(index)
                if write and state == FrameState.RESIDENT:
                    slot.mark(index)
                return int(slot.entries[index]) & FRAME_MASK
            if not self.memory.fault(gfn, write):
                assert self.memory.starved
                return None


class Reclaim(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pool = FramePool(FRAMES * PAGE_SIZE)
        self.stores = {state: FakeStore(room) for state, room in zip(STORES, (2, 6), strict=True)}
        self.guests = {}
        for number in range(2):
            self.new(number)
            for gfn in RAM[1:]:
                self.store(number, gfn, 1)

    def new(self, number):
        memory = GuestMemory(self.pool, [(LOW, LOW_PAGES * PAGE_SIZE), (HIGH, HIGH_PAGES * PAGE_SIZE)])
        memory.stores.update(self.stores)
        memory.add_region(REGION_PAGES * PAGE_SIZE).place(1 << 20)
        try:
            memory.add_rom(ROM_PAGE * PAGE_SIZE, ROM)
        except OutOfFrames:
            memory.close()
            return
        memory.add_shadow(SHADOW_PAGE * PAGE_SIZE, PAGE_SIZE).set(
            SHADOW_PAGE * PAGE_SIZE, PAGE_SIZE, read_ram=True, write_ram=True
        )
        guest = self.guests[number] = Guest(memory)
        guest.pages[ROM_PAGE][:] = ROM

    def guest(self, number):
        if number not in self.guests:
            number = min(self.guests)
        return self.guests[number]

    # ---- guests come and go ----

    @rule(number=numbers)
    def create(self, number):
        if number not in self.guests:
            self.new(number)

    @rule(of=numbers, number=numbers)
    def clone(self, of, number):
        of = self.guest(of)
        if self.guests.get(number) is not of:
            self.close(number)
            self.guests[number] = of.twin()

    def close(self, number):
        guest = self.guests.pop(number, None)
        if guest is not None:
            used = self.pool.used
            assert guest.memory.close() == used - self.pool.used

    @rule(number=numbers)
    def power_off(self, number):
        if len(self.guests) > 1:
            self.close(number)

    @rule(number=numbers)
    def reset(self, number):
        guest = self.guest(number)
        guest.memory.reset()
        for gfn in RAM:
            guest.pages[gfn][:] = bytes(PAGE_SIZE)
        guest.region[:] = bytes(len(guest.region))
        guest.memory.shadows[0].set(SHADOW_PAGE * PAGE_SIZE, PAGE_SIZE, read_ram=True, write_ram=True)
        guest.locked = False
        if guest.written is not None:  # power-off is not a write
            guest.written = set()

    # ---- the guest and its devices ----

    @rule(number=numbers, gfn=gfns, fill=fills)
    def store(self, number, gfn, fill):
        guest = self.guest(number)
        frame, writable = guest.tlb.get(gfn, (None, False))
        if not writable:
            frame = guest.translate(gfn, True)
            if frame is None or not guest.may_write(gfn):
                return
            guest.tlb[gfn] = frame, True
        self.pool.frames[frame, 5] = fill
        guest.wrote(gfn, 5, bytes([fill]))
        if guest.used is not None:
            guest.used.add(gfn)

    @rule(number=numbers, gfn=gfns)
    def load(self, number, gfn):
        guest = self.guest(number)
        frame, writable = guest.tlb.get(gfn, (None, False))
        if frame is None:
            frame = guest.translate(gfn, False)
            if frame is None:
                return
            if guest.used is not None:
                guest.used.add(gfn)
        guest.tlb[gfn] = frame, writable
        assert self.pool.frames[frame].tobytes() == guest.pages[gfn]

    @rule(number=numbers, gfn=gfns, fill=fills, length=st.sampled_from([6, PAGE_SIZE]))
    def write(self, number, gfn, fill, length):
        guest = self.guest(number)
        data = bytes([fill]) * length
        try:
            guest.memory.write(gfn * PAGE_SIZE, data)
        except OutOfFrames:
            return
        except GuestAddressError:
            assert not guest.may_write(gfn)
            return
        guest.wrote(gfn, 0, data)
        if guest.used is not None and any(data):
            guest.used.add(gfn)

    @rule(number=numbers, gfn=gfns, fill=fills, write=st.booleans())
    def dma(self, number, gfn, fill, write):
        guest = self.guest(number)
        try:
            views = guest.memory.views(gfn * PAGE_SIZE + 5, 1, write=write)
        except OutOfFrames:
            return
        except GuestAddressError:
            assert write
            assert not guest.may_write(gfn)
            return
        assert b"".join(views) == guest.pages[gfn][5:6]
        if write:
            views[0][0] = fill
            guest.wrote(gfn, 5, bytes([fill]))
            if guest.used is not None:
                guest.used.add(gfn)

    @rule(number=numbers, page=st.integers(0, REGION_PAGES - 1), fill=fills)
    def draw(self, number, page, fill):
        guest = self.guest(number)
        try:
            guest.memory.regions[0].write(page * PAGE_SIZE, bytes([fill]) * 8)
        except OutOfFrames:
            return
        guest.region[page * PAGE_SIZE : page * PAGE_SIZE + 8] = bytes([fill]) * 8

    @rule(number=numbers, locked=st.booleans())
    def lock_shadow(self, number, locked):
        guest = self.guest(number)
        guest.memory.shadows[0].set(SHADOW_PAGE * PAGE_SIZE, PAGE_SIZE, read_ram=True, write_ram=not locked)
        guest.locked = locked

    # ---- what the guest gives ----

    @rule(number=numbers, first=st.integers(0, 3), count=st.integers(0, 2))
    def discard(self, number, first, count):
        guest = self.guest(number)
        guest.memory.discard(first * PAGE_SIZE, count * PAGE_SIZE)
        for gfn in range(first, first + count):
            if gfn in RAM and guest.may_write(gfn):
                guest.cleared(gfn)

    @rule(number=numbers, pages=few)
    def inflate(self, number, pages):
        guest = self.guest(number)
        guest.memory.inflate(np.array(pages, np.int64))
        for gfn in pages:
            if gfn in RAM and guest.may_write(gfn):
                guest.cleared(gfn)

    @rule(number=numbers, pages=few)
    def deflate(self, number, pages):
        self.guest(number).memory.deflate(np.array(pages, np.int64))

    @rule(number=numbers)
    def empty_balloon(self, number):
        guest = self.guest(number)
        guest.memory.empty_balloon()
        assert guest.memory.census()["ballooned"] == 0

    # ---- what the host takes ----

    @rule(number=numbers, state=st.sampled_from(STORES), count=st.integers(1, 4))
    def send_away(self, number, state, count):
        memory = self.guest(number).memory
        pages = memory.evictable(count)
        free, room = self.pool.free, self.stores[state].room - self.stores[state].pages
        assert memory.send_away(state, pages) == min(len(pages), room)
        assert self.pool.free - free == min(len(pages), room)

    @rule(number=numbers, state=st.sampled_from(STORES), gfn=st.sampled_from([*RAM, ROM_PAGE]))
    def send_any_page_away(self, number, state, gfn):
        guest = self.guest(number)
        guest.memory.send_away(state, [guest.place(gfn), guest.place(gfn), (2, 0)])

    @rule(one=numbers, other=numbers, gfn=gfns, state=st.sampled_from(STORES), absent=st.none() | numbers)
    def send_shared_away(self, one, other, gfn, state, absent):
        one, other = self.guest(one), self.guest(other)
        merge(PageRef(one.memory, *one.place(gfn)), PageRef(other.memory, *other.place(gfn)))
        self.every_tlb_is_warm()
        memories = [guest.memory for number, guest in self.guests.items() if number != absent]
        frames = evictable_shared(memories, 2)
        assert (self.pool.references[frames] >= 2).all()
        free, room = self.pool.free, self.stores[state].room - self.stores[state].pages
        assert send_shared_away(memories, state, frames) == min(len(frames), room)
        assert self.pool.free - free == min(len(frames), room)

    @rule(absent=st.none() | numbers, state=st.sampled_from(STORES), first=st.integers(0, FRAMES + 1))
    def send_any_shared_frame_away(self, absent, state, first):
        memories = [guest.memory for number, guest in self.guests.items() if number != absent]
        send_shared_away(memories, state, np.arange(first, FRAMES + 2).astype(np.uint32))

    @rule(number=numbers)
    def share_zero(self, number):
        memory = self.guest(number).memory
        for slot in range(len(memory.slots)):
            memory.share_zero(slot, np.arange(len(memory.slots[slot].entries)))

    @rule(
        one=numbers,
        other=numbers,
        gfn=st.sampled_from([*RAM, ROM_PAGE]),
        to=st.sampled_from([*RAM, ROM_PAGE]),
    )
    def merge(self, one, other, gfn, to):
        one, other = self.guest(one), self.guest(other)
        same = one.pages[gfn] == other.pages[to]
        merged = merge(PageRef(one.memory, *one.place(gfn)), PageRef(other.memory, *other.place(to)))
        assert same or not merged

    @rule(number=numbers, slot=st.integers(0, 2), first=st.integers(2, FRAMES + 1))
    def share_frames(self, number, slot, first):
        """Any frames at all: what does not hold the same, or could change, is refused."""
        memory = self.guest(number).memory
        count = min(len(memory.slots[slot].entries), FRAMES + 2 - first)
        frames = np.arange(first, first + count).astype(np.uint32)
        memory.share_frames(slot, np.arange(count), frames)

    @rule(number=numbers, more=st.none() | st.integers(0, 1))
    def take_limit(self, number, more):
        memory = self.guest(number).memory
        memory.take_limit = None if more is None else memory.frames_taken + more

    # ---- what is noted ----

    @rule(number=numbers)
    def collect_log(self, number):
        guest = self.guest(number)
        found = set(guest.memory.collect_log().tolist())
        if guest.written is not None:
            assert found >= guest.written
            guest.written = set()

    @rule(number=numbers)
    def collect_accessed(self, number):
        guest = self.guest(number)
        assert guest.memory.collect_accessed() >= len(guest.used or ())
        guest.used = None if guest.used is None else set()

    @rule(number=numbers)
    def note_nothing(self, number):
        guest = self.guest(number)
        guest.memory.stop_log()
        guest.memory.stop_sampling()
        guest.written = guest.used = None

    @rule(number=numbers)
    def note_again(self, number):
        self.guest(number).start_log()
        self.guest(number).start_sampling()

    # ---- what must always be ----

    def content(self, value):
        state, number = value >> 24, value & FRAME_MASK
        if state in FRAMED:
            return self.pool.frames[number].tobytes()
        return self.stores[state].contents[number] if state in STORED else bytes(PAGE_SIZE)

    @invariant()
    def every_page_is_as_the_model_says(self):
        for guest in self.guests.values():
            for gfn, page in guest.pages.items():
                slot, index = guest.place(gfn)
                assert self.content(int(guest.memory.slots[slot].entries[index])) == page
            assert guest.memory.regions[0].snapshot().tobytes() == guest.region

    @invariant()
    def nobody_holds_a_stale_translation(self):
        for guest in self.guests.values():
            for gfn, (frame, writable) in guest.tlb.items():
                slot, index = guest.place(gfn)
                value = int(guest.memory.slots[slot].entries[index])
                assert value & FRAME_MASK == frame
                assert value >> 24 in ((FrameState.RESIDENT,) if writable else FRAMED)

    @invariant()
    def owners_add_up(self):
        owners = np.zeros(FRAMES + RESERVED, int)
        kept = {state: {} for state in STORES}
        for guest in self.guests.values():
            for entries in [
                *(slot.entries for slot in guest.memory.slots),
                guest.memory.shadows[0].hidden.entries,
            ]:
                np.add.at(owners, entries[in_states(entries, FRAMED)] & FRAME_MASK, 1)
                own = entries[in_states(entries, (FrameState.RESIDENT,))] & FRAME_MASK
                assert (self.pool.references[own] == 1).all()
                for value in entries[in_states(entries, STORED)].tolist():
                    count = kept[value >> 24]
                    count[value & FRAME_MASK] = count.get(value & FRAME_MASK, 0) + 1
        assert owners[RESERVED:].tolist() == self.pool.references[RESERVED:].tolist()
        assert int((owners[RESERVED:] > 0).sum()) == self.pool.used <= FRAMES
        for state, store in self.stores.items():
            assert kept[state].keys() == store.contents.keys()
            shared = {number: count - 1 for number, count in kept[state].items() if count > 1}
            assert store.owners._more == shared

    @invariant()
    def reserved_frames_stay_as_they_are(self):
        assert not self.pool.references[:RESERVED].any()
        assert (self.pool.frames[0] == 0xFF).all()
        assert not self.pool.frames[self.pool.zero_frame].any()

    @invariant()
    def what_happened_was_noted(self):
        for guest in self.guests.values():
            for gfn in guest.written or ():
                slot, index = guest.place(gfn)
                assert guest.memory.slots[slot].dirty[index]
            for gfn in guest.used or ():
                slot, index = guest.place(gfn)
                assert guest.memory.slots[slot].accessed[index]

    @invariant()
    def every_tlb_is_warm(self):
        """Last of all, for the next step: what is revoked too late, or not at all, is stale then."""
        for guest in self.guests.values():
            guest.warm()

    @invariant()
    def nobody_takes_more_than_allowed(self):
        for guest in self.guests.values():
            memory = guest.memory
            assert memory.take_limit is None or memory.frames_taken <= memory.take_limit

    def teardown(self):
        for guest in self.guests.values():
            guest.memory.close()
        assert self.pool.used == 0
        assert not any(store.pages for store in self.stores.values())


TestReclaim = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(Reclaim.TestCase)
TestReclaim.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
