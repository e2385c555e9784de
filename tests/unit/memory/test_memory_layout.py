"""RAM, holes, ROM, shadow RAM and moving regions together, against a model that is a list of plain pages."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.memory.pool import RESERVED
from emuvisor.memory.stage2 import FRAME_MASK, FrameState
from emuvisor.units import PAGE_SIZE

FRAMES = 40
RAM, SHADOW, SHADOW_PAGES, ROM, SPACE = range(10), 3, 4, 12, 16
"""Page numbers: RAM at 0, shadow RAM in it, a ROM behind it, and some pages where only regions can be."""
REGIONS = (2, 5)

ONES = None
"""What the model says of a page where nothing is."""

pages = st.integers(0, SPACE - 1)
fills = st.integers(1, 255)


def page_of(fill):
    return bytes([fill]) * PAGE_SIZE


class Model:
    """What the guest must see, page by page, as the byte that fills the page."""

    def __init__(self):
        self.ram = dict.fromkeys(RAM, 0)
        self.holes = set()
        self.rom = ONES
        self.under = dict.fromkeys(range(SHADOW, SHADOW + SHADOW_PAGES), ONES)
        self.modes = dict.fromkeys(self.under, (False, False))
        self.regions = [[0] * count for count in REGIONS]
        self.places = [None] * len(REGIONS)

    def copy(self):
        twin = Model()
        twin.ram, twin.holes, twin.rom = dict(self.ram), set(self.holes), self.rom
        twin.under, twin.modes = dict(self.under), dict(self.modes)
        twin.regions, twin.places = [list(r) for r in self.regions], list(self.places)
        return twin

    def region_at(self, page):
        for region, place in zip(self.regions, self.places, strict=True):
            if place is not None and 0 <= page - place < len(region):
                return region, page - place
        return None

    def chips(self, page):
        """(the container of what is read at `page`, key, writable), or None."""
        if page in self.modes:
            read_ram, write_ram = self.modes[page]
            if read_ram:
                return self.ram, page, write_ram
            if self.under[page] is not ONES:
                return self.under, page, False
        elif page in self.ram and page not in self.holes:
            return self.ram, page, True
        elif page == ROM and self.rom is not ONES:
            return {ROM: self.rom}, ROM, False
        found = self.region_at(page)
        return (*found, True) if found else None


class Layout(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pool = FramePool(FRAMES * PAGE_SIZE)
        memory = GuestMemory(self.pool, [(0, len(RAM) * PAGE_SIZE)])
        memory.add_shadow(SHADOW * PAGE_SIZE, SHADOW_PAGES * PAGE_SIZE)
        for count in REGIONS:
            memory.add_region(count * PAGE_SIZE)
        self.guests = [(memory, Model())]

    def guest(self, number):
        return self.guests[number % len(self.guests)]

    @rule(g=st.integers(0, 3), page=pages, fill=fills)
    def write(self, g, page, fill):
        memory, model = self.guest(g)
        place = model.chips(page)
        try:
            memory.write(page * PAGE_SIZE, page_of(fill))
        except GuestAddressError:
            assert place is None or not place[2]
            if page in model.modes:  # the guest's store goes to the bus
                self.store(memory, model, page, fill)
            return
        except OutOfFrames:
            assert self.pool.free == 0
            return
        assert place is not None
        container, key, writable = place
        assert writable
        container[key] = fill

    def store(self, memory, model, page, fill):
        try:
            for at in range(0, PAGE_SIZE, 8):
                value = int.from_bytes(bytes([fill]) * 8, "little")
                memory.shadows[0].write((page - SHADOW) * PAGE_SIZE + at, value, 8)
        except OutOfFrames:
            assert self.pool.free == 0
            return
        if model.modes[page] == (False, True):
            model.ram[page] = fill

    @rule(g=st.integers(0, 3), region=st.integers(0, 1), page=st.integers(0, 4), fill=fills)
    def draw(self, g, region, page, fill):
        memory, model = self.guest(g)
        page %= REGIONS[region]
        try:
            memory.regions[region].write(page * PAGE_SIZE, page_of(fill))
        except OutOfFrames:
            assert self.pool.free == 0
            return
        model.regions[region][page] = fill

    @rule(g=st.integers(0, 3), region=st.integers(0, 1), page=st.none() | pages)
    def place(self, g, region, page):
        memory, model = self.guest(g)
        memory.regions[region].place(None if page is None else page * PAGE_SIZE)
        model.places[region] = page

    @rule(
        g=st.integers(0, 3),
        page=st.integers(0, SHADOW_PAGES - 1),
        count=st.integers(1, SHADOW_PAGES),
        read=st.booleans(),
        write=st.booleans(),
    )
    def set_shadow(self, g, page, count, read, write):
        memory, model = self.guest(g)
        count = min(count, SHADOW_PAGES - page)
        memory.shadows[0].set((SHADOW + page) * PAGE_SIZE, count * PAGE_SIZE, read_ram=read, write_ram=write)
        for n in range(count):
            model.modes[SHADOW + page + n] = (read, write)

    @rule(g=st.integers(0, 3), page=st.integers(0, SHADOW_PAGES - 1), fill=fills)
    def load_shadow(self, g, page, fill):
        memory, model = self.guest(g)
        try:
            memory.shadows[0].load_rom((SHADOW + page) * PAGE_SIZE, page_of(fill))
        except OutOfFrames:
            assert self.pool.free == 0
            return
        model.under[SHADOW + page] = fill

    @rule(g=st.integers(0, 3), fill=fills, change=st.booleans())
    def rom(self, g, fill, change):
        memory, model = self.guest(g)
        try:
            if change and model.rom is not ONES:
                memory.change_rom(ROM * PAGE_SIZE, page_of(fill))
            elif self.pool.free:
                memory.add_rom(ROM * PAGE_SIZE, page_of(fill))
            else:
                return
        except OutOfFrames:
            assert self.pool.free == 0
            return
        model.rom = fill

    @rule(g=st.integers(0, 3), page=st.sampled_from([0, 1, 8, 9]))
    def hole(self, g, page):
        memory, model = self.guest(g)
        memory.add_hole(page * PAGE_SIZE, PAGE_SIZE)
        model.holes.add(page)

    @rule(g=st.integers(0, 3))
    def reset(self, g):
        memory, model = self.guest(g)
        memory.reset()
        model.ram = dict.fromkeys(RAM, 0)
        model.modes = dict.fromkeys(model.modes, (False, False))
        model.regions = [[0] * count for count in REGIONS]

    @precondition(lambda self: len(self.guests) < 3)
    @rule(g=st.integers(0, 3))
    def clone(self, g):
        memory, model = self.guest(g)
        self.guests.append((memory.clone(), model.copy()))

    @rule(g=st.integers(0, 3), other=st.integers(0, 3))
    def take_over(self, g, other):
        memory, _ = self.guest(g)
        source, model = self.guest(other)
        memory.take_over(source)
        self.guests[g % len(self.guests)] = (memory, model.copy())
        assert memory.take_over(source) == 0, "it holds the same now"

    @precondition(lambda self: len(self.guests) > 1)
    @rule(g=st.integers(0, 3))
    def close(self, g):
        memory, _ = self.guests.pop(g % len(self.guests))
        used = self.pool.used
        assert memory.close() == used - self.pool.used

    @invariant()
    def every_page_is_as_the_model_says(self):
        for memory, model in self.guests:
            for page in range(SPACE):
                place = model.chips(page)
                try:
                    seen = memory.read(page * PAGE_SIZE, PAGE_SIZE)
                except GuestAddressError:
                    assert place is None
                    continue
                assert place is not None
                assert seen == page_of(place[0][place[1]])
            for region, content in zip(memory.regions, model.regions, strict=True):
                assert region.snapshot()[::PAGE_SIZE].tolist() == content

    @invariant()
    def references_add_up(self):
        owners = np.zeros(FRAMES + RESERVED, int)
        own = np.zeros(FRAMES + RESERVED, int)
        for memory, _ in self.guests:
            for entries in [*(slot.entries for slot in memory.slots), memory.shadows[0].hidden.entries]:
                states = entries >> 24
                backed = np.isin(states, [FrameState.RESIDENT, FrameState.SHARED, FrameState.ROM])
                np.add.at(owners, entries[backed] & FRAME_MASK, 1)
                np.add.at(own, entries[states == FrameState.RESIDENT] & FRAME_MASK, 1)
        assert owners[RESERVED:].tolist() == self.pool.references[RESERVED:].tolist()
        assert int((owners[RESERVED:] > 0).sum()) == self.pool.used
        assert not own[owners > 1].any(), "a frame of its own has another owner"

    def teardown(self):
        for memory, _ in self.guests:
            memory.close()
        assert self.pool.used == 0


TestLayout = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(Layout.TestCase)
TestLayout.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
