"""Several guests over one pool against a model that keeps plain copies of every page."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.memory.pool import RESERVED
from emuvisor.memory.stage2 import FRAME_MASK, FrameState
from emuvisor.units import PAGE_SIZE

FRAMES = 24
PAGES = 8
HIGH = 1 << 32
BLOCKS = ((0, PAGES * PAGE_SIZE), (HIGH, PAGES * PAGE_SIZE))

bases = st.sampled_from([0, HIGH])
offsets = st.integers(0, PAGES * PAGE_SIZE - 1) | st.sampled_from(
    [i * PAGE_SIZE - 1 for i in range(1, PAGES)]
)
lengths = st.sampled_from([1, 2, 100, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])


class Model:
    """What a guest must see: its two blocks as plain bytes."""

    def __init__(self):
        self.blocks = {base: bytearray(length) for base, length in BLOCKS}
        self.rom = set()
        self.log = None

    def copy(self):
        twin = Model()
        twin.blocks = {base: bytearray(data) for base, data in self.blocks.items()}
        twin.rom = set(self.rom)
        return twin


class ManyGuests(RuleBasedStateMachine):
    guests = Bundle("guests")

    def __init__(self):
        super().__init__()
        self.pool = FramePool(FRAMES * PAGE_SIZE)
        self.pool.users = self
        self.told = set()
        self.alive = []

    def changed(self, frame, offset, length):
        self.told.add(frame)

    def _new(self, memory, model):
        guest = (memory, model)
        self.alive.append(guest)
        return guest

    def create_now(self):
        return self._new(GuestMemory(self.pool, BLOCKS), Model())

    @rule(target=guests)
    def create(self):
        return self.create_now()

    @rule(target=guests, guest=guests)
    def clone(self, guest):
        memory, model = guest if guest in self.alive else self.create_now()
        return self._new(memory.clone(), model.copy())

    @rule(guest=guests, base=bases, offset=offsets, length=lengths, fill=st.integers(0, 255))
    def write(self, guest, base, offset, length, fill):
        memory, model = guest
        if guest not in self.alive:
            return
        length = min(length, PAGES * PAGE_SIZE - offset)
        pages = range(offset // PAGE_SIZE, (offset + length - 1) // PAGE_SIZE + 1)
        try:
            memory.write(base + offset, bytes([fill]) * length)
            outcome = None
        except (OutOfFrames, GuestAddressError) as error:
            outcome = type(error)
        # page after page, up to the one that failed
        for page in pages:
            start, end = max(offset, page * PAGE_SIZE), min(offset + length, (page + 1) * PAGE_SIZE)
            now = memory.read(base + start, end - start)
            if outcome is not None and (base, page) in model.rom:
                assert outcome is GuestAddressError
                break
            if outcome is OutOfFrames and now == model.blocks[base][start:end]:
                # either the page that failed, or one with the same content; if it failed the pool was full
                assert self.pool.free == 0
                if now != bytes([fill]) * (end - start):
                    break
            model.blocks[base][start:end] = bytes([fill]) * (end - start)
            assert now == model.blocks[base][start:end]
            if model.log is not None and memory.slots[base > 0].entries[page] >> 24 == FrameState.RESIDENT:
                model.log.add((base >> 12) + page)

    @rule(guest=guests, base=bases, offset=offsets, length=lengths)
    def read(self, guest, base, offset, length):
        memory, model = guest
        if guest not in self.alive:
            return
        length = min(length, PAGES * PAGE_SIZE - offset)
        before = self.pool.used
        assert memory.read(base + offset, length) == model.blocks[base][offset : offset + length]
        assert self.pool.used == before

    @rule(guest=guests, base=bases, page=st.integers(0, PAGES - 1), fill=st.integers(1, 255))
    def add_rom(self, guest, base, page, fill):
        memory, model = guest
        if guest not in self.alive:
            return
        try:
            memory.add_rom(base + page * PAGE_SIZE, bytes([fill]) * 5)
        except OutOfFrames:
            assert self.pool.free == 0
            self._drop(guest)
            return
        model.blocks[base][page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = (bytes([fill]) * 5).ljust(
            PAGE_SIZE, b"\0"
        )
        model.rom.add((base, page))
        if model.log is not None:
            model.log.add((base >> 12) + page)

    @rule(guest=guests)
    def start_log(self, guest):
        memory, model = guest
        if guest not in self.alive:
            return
        memory.start_log()
        model.log = set()

    @rule(guest=guests)
    def collect_log(self, guest):
        memory, model = guest
        if guest not in self.alive:
            return
        found = set(memory.collect_log().tolist())
        if model.log is None:
            assert not found
        else:
            assert found == model.log
            model.log = set()

    @rule(guest=guests)
    def stop_log(self, guest):
        memory, model = guest
        if guest not in self.alive:
            return
        memory.stop_log()
        model.log = None

    @rule(guest=guests)
    def reset(self, guest):
        memory, model = guest
        if guest not in self.alive:
            return
        memory.reset()
        for base, data in model.blocks.items():
            for page in range(PAGES):
                if (base, page) not in model.rom:
                    data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = bytes(PAGE_SIZE)

    @rule(guest=consumes(guests))
    def close(self, guest):
        if guest in self.alive:
            self._drop(guest)

    def _drop(self, guest):
        memory, _ = guest
        used = self.pool.used
        assert memory.close() == used - self.pool.used
        self.alive.remove(guest)

    @invariant()
    def the_pool_keeps_its_limit(self):
        assert 0 <= self.pool.used <= FRAMES

    @invariant()
    def references_add_up(self):
        owners = np.zeros(FRAMES + RESERVED, int)
        own = np.zeros(FRAMES + RESERVED, int)
        for memory, _ in self.alive:
            for slot in memory.slots:
                states = slot.entries >> 24
                backed = (
                    (states == FrameState.RESIDENT)
                    | (states == FrameState.SHARED)
                    | (states == FrameState.ROM)
                )
                np.add.at(owners, slot.entries[backed] & FRAME_MASK, 1)
                np.add.at(own, slot.entries[states == FrameState.RESIDENT] & FRAME_MASK, 1)
        assert owners[RESERVED:].tolist() == self.pool.references[RESERVED:].tolist()
        assert int((owners[RESERVED:] > 0).sum()) == self.pool.used
        assert not owners[:RESERVED].any()
        assert not (own[owners > 1]).any(), "a frame of its own has another owner"

    @invariant()
    def frame_0_stays_ones(self):
        assert (self.pool.frames[0] == 0xFF).all()

    def teardown(self):
        for guest in list(self.alive):
            self._drop(guest)
        assert self.pool.used == 0


TestManyGuests = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(
    ManyGuests.TestCase
)
TestManyGuests.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
