"""Guests on real vCPUs and pCPUs over one small pool, and everything that moves their pages, against plain copies.

`run(folder, seed, steps)` is deterministic: a seed that fails is a test case.
"""

import random
from contextlib import suppress

import numpy as np
from cpu_guest import protected
from run_rig import Devices

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.cpu.vcpu import Vcpu, bind
from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.pool import RESERVED
from emuvisor.memory.shared_frames import evictable_shared, send_shared_away
from emuvisor.memory.sharing import PageSharing
from emuvisor.memory.slabs import SLAB_SIZE
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, in_states
from emuvisor.memory.swapfile import SwapFile
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

FRAMES = 34
GUESTS = 4
LOW_PAGES, HIGH_PAGES = 11, 3
HIGH = 0x100000 >> PAGE_SHIFT
HOLE, ROM, STACK, ROUTINES = 2, 3, 4, 5
REGION_PAGES = 2
REGION_PLACES = (None, 0x40, 0x41, LOW_PAGES - 1, HIGH - 1)
RAM = [gfn for gfn in range(LOW_PAGES) if gfn not in (HOLE, ROM)] + list(range(HIGH, HIGH + HIGH_PAGES))
PLAIN = [gfn for gfn in RAM if gfn not in (STACK, ROUTINES)]
"""RAM that the guest's code does not need for itself."""

STORE = ROUTINES * PAGE_SIZE
LOAD, CALL = STORE + 16, STORE + 32
STACK_TOP = (STACK + 1) * PAGE_SIZE
RETURN = (CALL + 2).to_bytes(4, "little")
ROUTINE_PAGE = (b"\x89\x07\xf4".ljust(16, b"\x90")  # mov [edi], eax; hlt
                + b"\x8b\x07\xf4".ljust(16, b"\x90")  # mov eax, [edi]; hlt
                + b"\xff\xd7\xf4").ljust(PAGE_SIZE, b"\0")  # call edi; hlt  # fmt: skip
NUMBER = 4
"""Offset of the number in a page of code: inc dword ptr [edi + 4]; mov eax, number; ret, or the first a longer NOP."""
COUNTS = b"\xff\x47\x04"
RET = 0xC3
BUDGET = 1000


def content(kind, number):
    """A page: zeros, code, what compresses, what does not."""
    if kind == "zero":
        return bytes(PAGE_SIZE)
    if kind == "noise":
        return random.Random(number).randbytes(PAGE_SIZE)
    if kind == "fill":
        return bytes([number]) * PAGE_SIZE
    head = COUNTS if kind == "counter" else b"\x0f\x1f\x00"
    return (head + b"\xb8" + number.to_bytes(4, "little") + b"\xc3").ljust(PAGE_SIZE, b"\0")


def is_code(page):
    """Whether it is still such code; its number may have changed."""
    return any(content(kind, 0)[:NUMBER] == page[:NUMBER] for kind in ("code", "counter")) and page[8] == RET


KINDS = ("zero", "noise", "fill", "code", "code", "counter")


class Guest:
    """A guest, what must be in its memory, and a device that remembers where pages lie."""

    def __init__(self, memory, pages, region):
        self.memory = memory
        self.pages = pages
        self.region = region
        self.stage2 = bind(memory)
        self.vcpu = Vcpu(self.stage2, Devices())
        self.pcpu = None
        self.known = {}
        self.epoch = -1
        self.written = None
        self.used = None
        self.taken = memory.frames_taken

    def note(self, gfn, *, write):
        if self.used is not None:
            self.used.add(gfn)
        if write and self.written is not None:
            self.written.add(gfn)

    def put(self, gfn, offset, data):
        if self.pages[gfn][offset : offset + len(data)] != data:
            self.pages[gfn][offset : offset + len(data)] = data
            if self.written is not None:
                self.written.add(gfn)


STORES = (FrameState.COMPRESSED, FrameState.SWAPPED)
"""Where pages are sent away to."""


class World:
    """A host's memory and all who use it."""

    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        self.pool = FramePool(FRAMES * PAGE_SIZE)
        self.pcpus = [Pcpu(self.pool) for _ in range(2)]
        self.stores = {
            FrameState.COMPRESSED: CompressedStore(3 * SLAB_SIZE),
            FrameState.SWAPPED: SwapFile(folder / f"swap{seed}", 16 * PAGE_SIZE),
        }
        self.sharing = PageSharing(self.pool, seed=seed)
        self.guests = []
        self.favourite = None
        self.snapshots = []
        self.findings = []
        self.counts = dict.fromkeys(
            ("stored", "shared away", "loaded", "shared", "starved", "run", "called", "restored", "cached"), 0
        )
        self.create()

    @property
    def everybody(self):
        return [*self.guests, *self.snapshots]

    # ---- guests ----

    def add(self, guest):
        self.guests.append(guest)
        self.sharing.join(guest.memory, self.random.choice(["", "", "", "other"]))

    def create(self):
        if len(self.guests) == GUESTS or self.pool.free < 2:
            return
        memory = GuestMemory(
            self.pool, [(0, LOW_PAGES * PAGE_SIZE), (HIGH * PAGE_SIZE, HIGH_PAGES * PAGE_SIZE)]
        )
        memory.stores = self.stores
        memory.add_hole(HOLE * PAGE_SIZE, PAGE_SIZE)
        rom = content("code", 7)
        memory.add_rom(ROM * PAGE_SIZE, rom)
        memory.add_region(REGION_PAGES * PAGE_SIZE)
        memory.write(ROUTINES * PAGE_SIZE, ROUTINE_PAGE)
        pages = {gfn: bytearray(PAGE_SIZE) for gfn in RAM}
        pages[ROM], pages[ROUTINES] = bytearray(rom), bytearray(ROUTINE_PAGE)
        self.add(Guest(memory, pages, bytearray(REGION_PAGES * PAGE_SIZE)))

    def copy(self, guest):
        pages = {gfn: bytearray(page) for gfn, page in guest.pages.items()}
        return Guest(guest.memory.clone(), pages, bytearray(guest.region))

    def clone(self):
        if len(self.guests) < GUESTS:
            self.add(self.copy(self.pick()))

    def snapshot(self):
        if len(self.snapshots) < 2:
            self.snapshots.append(self.copy(self.pick()))

    def restore(self):
        if self.snapshots and len(self.guests) < GUESTS:
            self.counts["restored"] += 1
            self.add(self.copy(self.random.choice(self.snapshots)))

    def drop_snapshot(self):
        if self.snapshots:
            self.end(self.snapshots.pop(self.random.randrange(len(self.snapshots))))

    def close(self):
        if len(self.guests) > 1:
            guest = self.pick()
            self.guests.remove(guest)
            self.findings = [f for f in self.findings if guest.memory not in f.guests]
            self.sharing.forget(guest.memory)
            self.end(guest)

    def end(self, guest):
        used = self.pool.used
        assert guest.memory.close() == used - self.pool.used
        self.counts["loaded"] += sum(guest.memory.refaults.values())

    def pick(self):
        """Mostly the same one as before: what its TLB and its device know is still true then, or should not be."""
        if self.favourite not in self.guests or self.random.random() < 0.3:
            self.favourite = self.random.choice(self.guests)
        return self.favourite

    # ---- the CPU ----

    def run(self, guest, routine, gfn, offset, number=0):
        """Returns EAX, None when there was no frame."""
        address = gfn * PAGE_SIZE + offset
        guest.vcpu.state = protected(rip=routine, rsp=STACK_TOP, rdi=address, rax=number)
        self.counts["run"] += 1
        if self.random.random() < 0.2:
            guest.pcpu = self.random.choice(self.pcpus)
        end = (guest.pcpu or self.pcpus[0]).run(guest.vcpu, BUDGET)
        if end.reason is ExitReason.MEMORY:
            assert guest.memory.starved
            self.counts["starved"] += 1
            return None
        assert end.reason is ExitReason.HALT, end
        guest.note(ROUTINES, write=False)
        return guest.vcpu.state.rax

    def cpu_store(self):
        guest, gfn, number = self.pick(), self.random.choice(PLAIN), self.random.choice([0, 1, 2])
        offset = self.random.choice([NUMBER, NUMBER, 0, 0x800])
        if self.run(guest, STORE, gfn, offset, number) is not None:
            guest.put(gfn, offset, number.to_bytes(4, "little"))
            guest.note(gfn, write=True)

    def cpu_load(self):
        guest, gfn = self.pick(), self.random.choice([*PLAIN, ROM])
        offset = self.random.choice([NUMBER, 0, 0x800])
        found = self.run(guest, LOAD, gfn, offset)
        if found is not None:
            assert found == int.from_bytes(guest.pages[gfn][offset : offset + 4], "little")
            guest.note(gfn, write=False)

    def cpu_call(self):
        guest = self.pick()
        code = [gfn for gfn in [*PLAIN, ROM] if is_code(guest.pages[gfn])]
        if not code:
            return
        gfn = self.random.choice(code)
        number = int.from_bytes(guest.pages[gfn][NUMBER : NUMBER + 4], "little")
        counts = guest.pages[gfn].startswith(COUNTS)
        found = self.run(guest, CALL, gfn, 0)
        if found is None:
            self.adopt(guest, STACK, PAGE_SIZE - 4, RETURN)
            return
        self.counts["called"] += 1
        guest.put(STACK, PAGE_SIZE - 4, RETURN)
        if counts:
            number = number + 1 & 0xFFFFFFFF
            guest.put(gfn, NUMBER, number.to_bytes(4, "little"))
        assert found == number, "old code"
        guest.note(gfn, write=counts)

    def adopt(self, guest, gfn, offset, data):
        """`data` was written, or not."""
        now = self.content(self.value(guest, gfn))
        if now != guest.pages[gfn]:
            guest.put(gfn, offset, data)

    # ---- devices ----

    def dma_page(self):
        guest, gfn = self.pick(), self.random.choice(PLAIN)
        data = content(self.random.choice(KINDS), self.random.randrange(1, 5))
        with suppress(OutOfFrames):
            guest.memory.write(gfn * PAGE_SIZE, data)
            guest.put(gfn, 0, data)

    def dma_range(self):
        """From one page into the next."""
        guest, gfn = self.pick(), self.random.choice([HIGH, HIGH + 1, 8, 9])
        data = self.random.choice([bytes(600), b"\1" * 600])
        first = PAGE_SIZE - 300
        try:
            guest.memory.write(gfn * PAGE_SIZE + first, data)
        except OutOfFrames:
            self.adopt(guest, gfn, first, data[:300])
            self.adopt(guest, gfn + 1, 0, data[300:])
            return
        guest.put(gfn, first, data[:300])
        guest.put(gfn + 1, 0, data[300:])

    def dma_gather(self):
        guest, write = self.pick(), self.random.random() < 0.5
        places = [(self.random.choice(PLAIN if write else [*PLAIN, ROM]), self.random.randrange(0, 4000, 500))
                  for _ in range(self.random.randrange(1, 5))]  # fmt: skip
        try:
            views = guest.memory.gather([(gfn * PAGE_SIZE + at, 96) for gfn, at in places], write=write)
        except OutOfFrames:
            return
        expected = b"".join(guest.pages[gfn][at : at + 96] for gfn, at in places)
        assert b"".join(views) == expected
        if write:
            for view in views:
                view[:] = bytes([self.random.randrange(3)]) * len(view)
            data = b"".join(views)
            for (gfn, at), start in zip(places, range(0, len(data), 96), strict=True):
                guest.put(gfn, at, data[start : start + 96])

    def dma_place(self):
        """As a queue does with its rings: where a page lies is found out once in an epoch."""
        guest, gfn = self.pick(), self.random.choice(PLAIN)
        memory = guest.memory
        if guest.epoch != memory.epoch:
            guest.known.clear()
        elif guest.known and self.random.random() < 0.7:
            gfn = self.random.choice(list(guest.known))
            self.counts["cached"] += 1
        if gfn not in guest.known:
            with suppress(OutOfFrames):
                place = memory.place(gfn, True)
                if guest.epoch != memory.epoch:
                    guest.known.clear()
                guest.known[gfn], guest.epoch = place, memory.epoch
        if gfn in guest.known:
            place = guest.known[gfn] + NUMBER
            data = self.random.randrange(3).to_bytes(4, "little")
            assert memory.host[place : place + 4] == guest.pages[gfn][NUMBER : NUMBER + 4]
            memory.host[place : place + 4] = data
            memory.wrote(place, 4)
            guest.put(gfn, NUMBER, data)

    def not_ram(self):
        memory = self.pick().memory
        for gfn, write in ((HOLE, True), (HOLE, False), (ROM, True)):
            with suppress(GuestAddressError):
                memory.views(gfn * PAGE_SIZE, 8, write=write)
                raise AssertionError(gfn)

    def draw(self):
        guest, page = self.pick(), self.random.randrange(REGION_PAGES)
        data = bytes([self.random.randrange(3)]) * 64
        with suppress(OutOfFrames):
            guest.memory.regions[0].write(page * PAGE_SIZE, data)
            guest.region[page * PAGE_SIZE : page * PAGE_SIZE + 64] = data

    def move_region(self):
        gfn = self.random.choice(REGION_PLACES)
        self.pick().memory.regions[0].place(None if gfn is None else gfn * PAGE_SIZE)

    def cpu_draw(self):
        """A store to the region, where it is seen."""
        guest = self.pick()
        gpa = guest.memory.regions[0].gpa
        if gpa is None:
            return
        page = self.random.randrange(REGION_PAGES)
        gfn = (gpa >> PAGE_SHIFT) + page
        if gfn in RAM:
            return
        number = self.random.randrange(3)
        if self.run(guest, STORE, gfn, 8, number) is not None:
            start = page * PAGE_SIZE + 8
            guest.region[start : start + 4] = number.to_bytes(4, "little")

    # ---- what guests give ----

    def some(self):
        return [gfn for gfn in [*RAM, HOLE, ROM, 99, -1]
                if gfn not in (STACK, ROUTINES) and self.random.random() < 0.2]  # fmt: skip

    def emptied(self, guest, gfns):
        for gfn in gfns:
            if gfn in RAM:
                guest.put(gfn, 0, bytes(PAGE_SIZE))

    def inflate(self):
        guest, gfns = self.pick(), self.some()
        guest.memory.inflate(np.array(gfns, np.int64))
        self.emptied(guest, gfns)

    def deflate(self):
        self.pick().memory.deflate(np.array(self.some(), np.int64))

    def empty_balloon(self):
        self.pick().memory.empty_balloon()

    def discard(self):
        guest, first = self.pick(), self.random.choice([6, 7, 8, HIGH])
        guest.memory.discard(first * PAGE_SIZE, 2 * PAGE_SIZE)
        self.emptied(guest, [first, first + 1])

    # ---- what the host does ----

    def send_away(self):
        memory, state = self.pick().memory, self.random.choice(STORES)
        self.counts["stored"] += memory.send_away(state, memory.evictable(self.random.choice([2, 8, 30])))

    def send_shared_away(self):
        held = [guest.memory for guest in self.everybody if self.random.random() < 0.8]
        state = self.random.choice(STORES)
        frames = evictable_shared(held, self.random.choice([2, 8, 30]))
        self.counts["shared away"] += send_shared_away(held, state, frames)

    def find(self):
        if len(self.findings) < 3:
            self.findings.append(self.sharing.find(self.pick().memory, self.random.choice([3, 10, 100])))

    def share(self):
        if self.findings:
            result = self.sharing.share(self.findings.pop(0))
            self.counts["shared"] += result.shared + result.zero

    def scan(self):
        result = self.sharing.scan(self.pick().memory, 100)
        self.counts["shared"] += result.shared + result.zero

    def limit(self):
        memory = self.pick().memory
        memory.take_limit = self.random.choice([None, None, memory.frames_taken + 1])

    def log(self):
        guest = self.pick()
        if guest.written is None:
            guest.memory.start_log()
            guest.written = set()
        elif self.random.random() < 0.3:
            guest.memory.stop_log()
            guest.written = None
        else:
            assert set(guest.memory.collect_log().tolist()) >= guest.written
            guest.written = set()

    def sample(self):
        guest = self.pick()
        if guest.used is None:
            guest.memory.start_sampling()
            guest.used = set()
        elif self.random.random() < 0.3:
            guest.memory.stop_sampling()
            guest.used = None
        else:
            assert guest.memory.collect_accessed() >= len(guest.used)
            guest.used = set()

    # ---- what must always be ----

    def value(self, guest, gfn):
        slot = guest.memory.slots[int(gfn >= HIGH)]
        return int(slot.entries[gfn - slot.first])

    def content(self, value):
        state, number = value >> 24, value & FRAME_MASK
        if state in FRAMED:
            return self.pool.frames[number].tobytes()
        page = bytearray(PAGE_SIZE)
        if state in STORES:
            self.stores[state].load(number, memoryview(page))
        return bytes(page)

    def check(self):
        everybody = self.everybody
        for guest in everybody:
            for gfn, page in guest.pages.items():
                assert self.content(self.value(guest, gfn)) == page, gfn
            for page, value in enumerate(guest.memory.slots[2].entries.tolist()):
                assert self.content(value) == guest.region[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
            memory = guest.memory
            assert memory.frames_taken >= guest.taken
            assert memory.take_limit is None or memory.frames_taken <= memory.take_limit
            guest.taken = memory.frames_taken
        self.check_owners([slot.entries for guest in everybody for slot in guest.memory.slots])

    def check_owners(self, tables):
        entries = np.concatenate(tables)
        frames = entries[in_states(entries, FRAMED)] & np.uint32(FRAME_MASK)
        owners = np.bincount(frames, minlength=FRAMES + RESERVED)[RESERVED:]
        assert owners.tolist() == self.pool.references[RESERVED:].tolist()
        assert np.count_nonzero(owners) == self.pool.used == FRAMES - self.pool.free
        own = entries[in_states(entries, (FrameState.RESIDENT,))] & np.uint32(FRAME_MASK)
        assert (self.pool.references[own] == 1).all()
        assert not self.pool.references[:RESERVED].any()
        assert (self.pool.frames[0] == 0xFF).all()
        assert not self.pool.frames[self.pool.zero_frame].any()
        for state, store in self.stores.items():
            numbers, counts = np.unique(entries[in_states(entries, (state,))] & np.uint32(FRAME_MASK),
                                        return_counts=True)  # fmt: skip
            assert store.pages == len(numbers)
            more = {n: c - 1 for n, c in zip(numbers.tolist(), counts.tolist(), strict=True) if c > 1}
            assert store._owners._more == more
            assert store.used_bytes <= store.limit_bytes

    def finish(self):
        for guest in self.everybody:
            self.end(guest)
        assert self.pool.used == 0
        assert not any(store.pages for store in self.stores.values())
        for store in self.stores.values():
            store.close()


OFTEN = (
    "cpu_store",
    "cpu_load",
    "cpu_call",
    "cpu_call",
    "dma_page",
    "dma_place",
    "send_away",
    "send_shared_away",
    "scan",
    "find",
    "share",
)
SELDOM = ("create", "clone", "snapshot", "restore", "drop_snapshot", "close", "dma_range", "dma_gather", "not_ram",
          "draw", "move_region", "cpu_draw", "inflate", "deflate", "empty_balloon", "discard", "limit", "log",
          "sample")  # fmt: skip


def run(folder, seed, steps):
    """Returns how often things happened."""
    world = World(folder, seed)
    names = [*OFTEN * 4, *SELDOM]
    for _ in range(steps):
        getattr(world, world.random.choice(names))()
        world.check()
    world.finish()
    return world.counts
