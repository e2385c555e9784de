"""RAM under ROM, and the four ways to mix them; changing ROM."""

import re

import pytest

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import GIB, KIB, MIB, PAGE_SIZE

PAGE = PAGE_SIZE
BASE, LENGTH = 0xC0000, 256 * KIB


def exactly(text):
    return f"^{re.escape(text)}$"


@pytest.fixture
def pool():
    return FramePool(512 * PAGE)


@pytest.fixture
def memory(pool):
    return GuestMemory(pool, [(0, 2 * MIB)])


@pytest.fixture
def shadow(memory):
    shadow = memory.add_shadow(BASE, LENGTH)
    shadow.load_rom(0xF0000, b"ROM" * 1000)
    return shadow


def store(memory, shadow, gpa, data):
    """What a guest's store does: into the page that it sees, or to the bus where that is ROM or nothing."""
    try:
        memory.write(gpa, data)
    except GuestAddressError:
        shadow.write(gpa - BASE, int.from_bytes(data, "little"), len(data))


def test_at_first_there_is_only_rom(memory, shadow):
    assert (shadow.base, shadow.length, shadow.name) == (BASE, LENGTH, "shadow RAM")
    assert memory.read(0xF0000, 6) == b"ROMROM"
    assert memory.read(0xF0000 + 3000, PAGE - 3000) == bytes(PAGE - 3000)
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0xc0000 is not memory")):
        memory.read(BASE, 1)
    assert shadow.read(0, 4) == 0xFFFFFFFF, "nobody there"
    store(memory, shadow, 0xF0000, b"xyz!")
    assert memory.read(0xF0000, 4) == b"ROMR"


def test_the_four_combinations(memory, shadow):
    at = 0xF0000
    shadow.set(at, PAGE, read_ram=False, write_ram=True)
    store(memory, shadow, at, b"shad")
    assert memory.read(at, 4) == b"ROMR"
    shadow.set(at, PAGE, read_ram=True, write_ram=False)
    assert memory.read(at, 5) == b"shad\0"
    store(memory, shadow, at, b"lost")
    assert memory.read(at, 4) == b"shad"
    shadow.set(at, PAGE, read_ram=True, write_ram=True)
    store(memory, shadow, at, b"kept")
    assert memory.read(at, 4) == b"kept"
    shadow.set(at, PAGE, read_ram=False, write_ram=False)
    assert memory.read(at, 4) == b"ROMR"
    store(memory, shadow, at, b"lost")
    shadow.set(at, PAGE, read_ram=True, write_ram=True)
    assert memory.read(at, 4) == b"kept"


def test_what_is_set_already_revokes_nothing(memory, shadow):
    shadow.set(BASE, LENGTH, read_ram=True, write_ram=True)
    epoch = memory.epoch
    shadow.set(BASE, 2 * PAGE, read_ram=True, write_ram=True)
    assert memory.epoch == epoch
    shadow.set(BASE, 2 * PAGE, read_ram=True, write_ram=False)
    assert memory.epoch != epoch


def test_a_store_across_pages_goes_where_each_page_says(memory, shadow):
    shadow.set(0xF0000, 2 * PAGE, read_ram=False, write_ram=True)
    shadow.set(0xF1000, PAGE, read_ram=False, write_ram=False)
    shadow.write(0xF1000 - BASE - 2, 0x44332211, 4)
    shadow.set(0xF0000, 2 * PAGE, read_ram=True, write_ram=True)
    assert memory.read(0xF1000 - 2, 4) == b"\x11\x22\0\0"


def test_untouched_ram_that_must_not_be_written_reads_as_zeros(pool, memory, shadow):
    used = pool.used
    shadow.set(BASE, LENGTH, read_ram=True, write_ram=False)
    assert memory.read(BASE, LENGTH) == bytes(LENGTH)
    assert pool.used == used, "all pages show the same zeros"
    shadow.set(BASE, LENGTH, read_ram=True, write_ram=True)
    memory.write(BASE, b"x")
    assert memory.read(BASE, 2 * PAGE) == b"x" + bytes(2 * PAGE - 1)
    assert pool.used == used + 1
    shadow.set(BASE, LENGTH, read_ram=False, write_ram=False)
    memory.close()
    assert pool.used == 0


def test_what_ram_held_before_is_under_the_rom(memory):
    memory.write(0xE0000, b"before")
    shadow = memory.add_shadow(BASE, LENGTH)
    shadow.set(0xE0000, PAGE, read_ram=True, write_ram=False)
    assert memory.read(0xE0000, 6) == b"before"


def test_rom_is_replaced_wherever_it_is(pool, memory, shadow):
    used = pool.used
    shadow.load_rom(0xF0000, b"new")
    assert memory.read(0xF0000, 4) == b"new\0"
    shadow.set(0xF0000, PAGE, read_ram=True, write_ram=True)
    memory.write(0xF0000, b"ram")
    shadow.load_rom(0xF0000, b"newer")
    assert memory.read(0xF0000, 4) == b"ram\0"
    shadow.reset()
    assert memory.read(0xF0000, 5) == b"newer"
    assert pool.used == used + 1


def test_rom_that_does_not_fit_the_pool_changes_nothing(pool, memory, shadow):
    pool.take_many(pool.free - 1)
    with pytest.raises(OutOfFrames):
        shadow.load_rom(0xF0000, b"\2" * (2 * PAGE))
    assert memory.read(0xF0000, 3) == b"ROM"


@pytest.mark.parametrize(
    ("gpa", "length", "last"),
    [(BASE - PAGE, PAGE, BASE - 1), (BASE + 1, PAGE, BASE + PAGE), (0xFF000, 2 * PAGE, 0x100FFF)],
)
def test_pages_outside(shadow, gpa, length, last):
    message = f"{gpa:#x}..{last:#x} is not pages of the shadow RAM at 0xc0000..0xfffff"
    with pytest.raises(GuestAddressError, match=exactly(message)):
        shadow.set(gpa, length, read_ram=True, write_ram=True)
    with pytest.raises(GuestAddressError, match=exactly(message)):
        shadow.load_rom(gpa, bytes(length))


def test_nothing_else_is_put_over_it(memory, shadow):
    message = exactly("0xf0000..0xf0fff is in shadow RAM")
    with pytest.raises(GuestAddressError, match=message):
        memory.add_rom(0xF0000, b"x")
    with pytest.raises(GuestAddressError, match=message):
        memory.add_hole(0xF0000, PAGE)
    with pytest.raises(GuestAddressError, match=message):
        memory.add_shadow(0xF0000, PAGE)
    with pytest.raises(GuestAddressError, match=exactly("0xf0000..0xf0000 is in shadow RAM")):
        memory.change_rom(0xF0000, b"x")
    with pytest.raises(
        GuestAddressError, match=exactly("0x1ff000..0x200fff is not inside one block of the guest's memory")
    ):
        memory.add_shadow(2 * MIB - PAGE, 2 * PAGE)


def test_a_region_shows_where_there_is_no_rom(memory, shadow):
    region = memory.add_region(PAGE)
    region.write(0, b"video BIOS")
    region.place(BASE)
    assert memory.read(BASE, 5) == b"video"
    shadow.set(BASE, PAGE, read_ram=True, write_ram=True)
    assert memory.read(BASE, 5) == bytes(5)


def test_reset_empties_ram_and_shows_rom(pool, memory, shadow):
    used = pool.used
    shadow.set(BASE, LENGTH, read_ram=True, write_ram=True)
    memory.write(BASE, b"\1" * LENGTH)
    shadow.set(0xE0000, 4 * PAGE, read_ram=True, write_ram=False)
    shadow.set(0xF0000, 4 * PAGE, read_ram=False, write_ram=True)
    memory.reset()
    assert memory.read(0xF0000, 3) == b"ROM"
    assert pool.used == used
    shadow.set(BASE, LENGTH, read_ram=True, write_ram=True)
    assert memory.read(BASE, LENGTH) == bytes(LENGTH)


def test_census_counts_both_sets(memory, shadow):
    assert memory.census()["absent"] == 512
    assert (memory.census()["rom"], memory.census()["hole"]) == (1, 63)
    shadow.set(0xF0000, PAGE, read_ram=True, write_ram=True)
    assert (memory.census()["absent"], memory.census()["rom"]) == (512, 1)


def test_a_clone_goes_its_own_way(pool, memory, shadow):
    shadow.set(0xF0000, 2 * PAGE, read_ram=False, write_ram=True)
    shadow.write(0xF0000 - BASE, 0x61, 1)
    shadow.set(0xE0000, PAGE, read_ram=True, write_ram=False)
    twin = memory.clone()
    (other,) = twin.shadows
    assert twin.read(0xF0000, 3) == b"ROM"
    assert twin.read(0xE0000, PAGE) == bytes(PAGE)
    other.write(0xF0000 - BASE, 0x62, 1)
    for machine, name in ((shadow, b"a"), (other, b"b")):
        machine.set(0xE0000, 18 * PAGE, read_ram=True, write_ram=True)
        guest = memory if machine is shadow else twin
        assert guest.read(0xF0000, 1) == name
        guest.write(0xE0000, name)
    assert (memory.read(0xE0000, 1), twin.read(0xE0000, 1)) == (b"a", b"b")
    shadow.reset()
    assert twin.read(0xF0000, 1) == b"b"
    memory.close()
    other.load_rom(0xF0000, b"rom")
    other.reset()
    assert twin.read(0xF0000, 3) == b"rom"
    assert twin.close() > 0
    assert (pool.used, twin.close()) == (0, 0)


def test_the_dirty_log_has_what_changes(memory, shadow):
    memory.start_log()
    shadow.set(0xF0000, PAGE, read_ram=False, write_ram=True)
    assert memory.collect_log().tolist() == [0xF0]
    shadow.set(0xF0000, PAGE, read_ram=False, write_ram=True)
    assert memory.collect_log().tolist() == []
    shadow.write(0xF0000 - BASE, 1, 4)
    assert memory.collect_log().tolist() == [0xF0]
    shadow.load_rom(0xE0000, b"x")
    assert memory.collect_log().tolist() == [0xE0]


# ---- ROM that changes ----


def test_rom_changes_in_place(pool, memory):
    memory.add_rom(GIB, b"\1" * (3 * PAGE))
    memory.change_rom(GIB + PAGE - 1, b"xyz")
    assert memory.read(GIB + PAGE - 2, 5) == b"\1xyz\1"
    assert (pool.used, memory.census()["rom"]) == (3, 3)


def test_a_clones_rom_is_its_own_when_it_changes(pool, memory):
    memory.add_rom(GIB, b"flash")
    twin = memory.clone()
    memory.change_rom(GIB, b"F")
    assert (memory.read(GIB, 5), twin.read(GIB, 5), pool.used) == (b"Flash", b"flash", 2)
    memory.change_rom(GIB, b"f")
    assert pool.used == 2


def test_translated_code_in_a_changed_rom_is_dropped(pool, memory):
    told = []

    class Users:
        def changed(self, frame, offset, length):
            told.append((offset, length))

    memory.add_rom(GIB, b"flash")
    pool.users = Users()
    pool.fetched[:] = 1
    memory.change_rom(GIB + 3, b"ab")
    assert told == [(3, 2)]


def test_the_dirty_log_has_changed_rom(memory):
    memory.add_rom(GIB, b"flash")
    memory.start_log()
    memory.change_rom(GIB, b"x")
    assert memory.collect_log().tolist() == [GIB // PAGE]


def test_only_rom_is_changed(memory):
    memory.add_rom(GIB, b"flash")
    message = exactly(f"guest physical address {GIB + PAGE:#x} is not ROM")
    with pytest.raises(GuestAddressError, match=message):
        memory.change_rom(GIB + PAGE - 1, b"xy")
    assert memory.read(GIB + PAGE - 1, 1) == b"\0", "nothing was changed"
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x0 is not ROM")):
        memory.change_rom(0, b"x")
