"""Guest memory without copies: `views`, `place`, and what is remembered about where pages lie."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import GuestAddressError, OutOfFrames
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.memory.guest import KNOWN_PAGES
from emuvisor.units import MIB, PAGE_SIZE

RAM = 64 * PAGE_SIZE
TOP = 1 << 64


def guest(frames: int = 256, ram: int = RAM) -> GuestMemory:
    return GuestMemory(FramePool(frames * PAGE_SIZE), [(0, ram)])


def content(memory: GuestMemory, gpa: int, length: int) -> bytes:
    return b"".join(memory.views(gpa, length, write=False))


def fill(memory: GuestMemory, gpa: int, data: bytes) -> None:
    for view in memory.views(gpa, len(data), write=True):
        view[:] = data[: len(view)]
        data = data[len(view) :]
    assert not data


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def test_a_view_is_the_memory_itself() -> None:
    memory = guest()
    memory.write(0x1000, b"before")
    (view,) = memory.views(0x1000, 6, write=False)
    assert bytes(view) == b"before"
    memory.write(0x1000, b"after!")
    assert bytes(view) == b"after!"
    (view,) = memory.views(0x1002, 3, write=True)
    view[:] = b"xyz"
    assert memory.read(0x1000, 6) == b"afxyz!"


def test_neighbouring_frames_are_one_view() -> None:
    memory = guest()
    assert [len(v) for v in memory.views(0x1800, 3 * PAGE_SIZE, write=True)] == [3 * PAGE_SIZE]
    fill(memory, 0x8000, b"\x01")
    fill(memory, 0x7000, b"\x02")
    fill(memory, 0x6000, b"\x03")
    views = memory.views(0x6FFF, PAGE_SIZE + 2, write=False)
    assert [len(v) for v in views] == [1, PAGE_SIZE, 1]
    assert bytes(views[2]) == b"\x01"


def test_parts_are_gathered_in_their_order() -> None:
    memory = guest()
    memory.write(0x1000, bytes(range(256)) * 64)  # neighbours in the pool
    parts = [(0x3FFE, 2), (0x1000, 0x1100), (0x2100, 0x10), (0x20000, 3), (0x1000, 1)]
    views = memory.gather(parts, write=False)
    assert [len(view) for view in views] == [2, 0x1110, 3, 1]
    assert b"".join(views) == b"".join(memory.read(gpa, length) for gpa, length in parts)
    for number, view in enumerate(memory.gather([(0x5000, 2), (0x9000, 2)], write=True), 1):
        view[:] = bytes([number, number])
    assert memory.read(0x5000, 2) + memory.read(0x9000, 2) == b"\1\1\2\2"
    assert memory.gather([], write=True) == []


def test_nothing_has_no_views() -> None:
    assert guest().views(0x1000, 0, write=True) == []


def test_what_was_never_touched_reads_as_zeros_and_stays_absent() -> None:
    memory = guest()
    fill(memory, 0x2000, b"\xff" * PAGE_SIZE)
    views = memory.views(0x1000, 3 * PAGE_SIZE, write=False)
    assert [bytes(v) for v in views] == [bytes(PAGE_SIZE), b"\xff" * PAGE_SIZE, bytes(PAGE_SIZE)]
    assert views[0].readonly
    assert memory.census()["resident"] == 1
    assert memory.place(1, False) == 0


def test_a_clone_never_sees_the_others_writes() -> None:
    memory = guest()
    fill(memory, 0x1000, b"common")
    memory.read(0x1000, 1)  # both now know where the page lies
    twin = memory.clone()
    assert content(twin, 0x1000, 6) == b"common"
    fill(twin, 0x1000, b"twin's")
    assert content(memory, 0x1000, 6) == memory.read(0x1000, 6) == b"common"
    fill(memory, 0x1000, b"first!")
    memory.write(0x1004, b"??")
    assert content(twin, 0x1000, 6) == twin.read(0x1000, 6) == b"twin's"
    assert content(memory, 0x1000, 6) == b"firs??"


@pytest.mark.parametrize(
    "change",
    [
        lambda memory: memory.reset(),
        lambda memory: memory.add_hole(0x1000, PAGE_SIZE),
        lambda memory: memory.add_rom(0x1000, b"rom"),
        lambda memory: memory.clone(),
        lambda memory: memory.close(),
        lambda memory: memory.start_log(),
    ],
    ids=["reset", "hole", "rom", "clone", "close", "log"],
)
def test_what_moves_or_locks_a_page_changes_the_epoch(change: Callable[[GuestMemory], object]) -> None:
    memory = guest()
    fill(memory, 0x1000, b"x")
    before = memory.epoch
    change(memory)
    assert memory.epoch != before


def test_what_was_remembered_is_forgotten_with_the_page() -> None:
    memory = guest()
    fill(memory, 0x1000, b"old")
    memory.read(0x1000, 3)
    memory.add_rom(0x1000, b"rom")
    assert memory.read(0x1000, 3) == b"rom"
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x1000 is not RAM")):
        memory.write(0x1000, b"new")
    with pytest.raises(GuestAddressError, match=exactly("guest physical address 0x1000 is not RAM")):
        memory.views(0x1000, 3, write=True)
    assert content(memory, 0x1000, 3) == b"rom"


def test_regions_have_views_where_they_are_now() -> None:
    memory = guest()
    region = memory.add_region(2 * PAGE_SIZE)
    region.place(16 * MIB)
    fill(memory, 16 * MIB + 0x10, b"pixels")
    assert region.read(0x10, 6) == content(memory, 16 * MIB + 0x10, 6) == b"pixels"
    memory.write(16 * MIB + 0x10, b"PIXELS")
    region.place(32 * MIB)
    assert content(memory, 32 * MIB + 0x10, 6) == b"PIXELS"
    for write in (False, True):
        with pytest.raises(GuestAddressError):
            memory.views(16 * MIB, 1, write=write)


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("gpa", [RAM - 1, RAM, TOP - 1, TOP - PAGE_SIZE])
def test_views_outside(gpa: int, write: bool) -> None:
    memory = guest()
    memory.add_region(PAGE_SIZE)  # placed nowhere, which is no address
    with pytest.raises(GuestAddressError):
        memory.views(gpa, PAGE_SIZE + 1, write=write)


def test_an_address_behind_the_last_does_not_lead_into_a_region_that_is_nowhere() -> None:
    memory = guest()
    memory.add_region(PAGE_SIZE)
    for access in (lambda: memory.read(TOP, 1), lambda: memory.write(TOP, b"x")):
        with pytest.raises(GuestAddressError):
            access()


def test_an_empty_pool() -> None:
    memory = guest(frames=1)
    fill(memory, 0, b"the only frame")
    with pytest.raises(
        OutOfFrames, match=exactly("no frame for guest physical address 0x1000: the pool's 1 are taken")
    ):
        memory.views(0, 2 * PAGE_SIZE, write=True)
    assert content(memory, 0, 2 * PAGE_SIZE)[:16] == b"the only frame\0\0"


def test_the_dirty_log_notes_each_way_of_writing_in_each_round() -> None:
    memory = guest()
    fill(memory, 0, bytes(4 * PAGE_SIZE))
    memory.start_log()
    for _ in range(2):
        fill(memory, 0x1000, b"a")
        memory.write(0x2000, b"b")
        memory.place(3, True)
        memory.read(0, 1)
        assert memory.collect_log().tolist() == [1, 2, 3]


class Ears:
    def __init__(self) -> None:
        self.heard: list[tuple[int, int, int]] = []

    def changed(self, frame: int, offset: int, length: int, /) -> None:
        self.heard.append((frame, offset, length))


def test_code_is_translated_anew() -> None:
    memory = guest()
    fill(memory, 0x1000, bytes(PAGE_SIZE))
    fill(memory, 0x2000, bytes(PAGE_SIZE))
    code = memory.place(1, True) // PAGE_SIZE
    memory.pool.fetched[code] = 1
    memory.pool.users = ears = Ears()
    memory.views(0x1FF0, 0x20, write=True)
    memory.write(0x1234, b"abc")
    memory.write(0x2234, b"abc")
    memory.views(0x1000, 8, write=False)
    assert ears.heard == [(code, 0xFF0, 0x10), (code, 0x234, 3)]


def test_more_pages_than_are_remembered() -> None:
    memory = guest(frames=KNOWN_PAGES + 8, ram=(KNOWN_PAGES + 8) * PAGE_SIZE)
    for gfn in range(KNOWN_PAGES + 8):
        memory.place(gfn, True)
    memory.write(0, b"first")
    assert content(memory, 0, 5) == b"first"


ADDRESSES = st.integers(0, 5 * PAGE_SIZE)
STEP = st.tuples(
    st.sampled_from(["views", "write", "read", "clone", "log"]),
    st.booleans(),
    ADDRESSES,
    st.integers(0, 3 * PAGE_SIZE),
    st.integers(0, 255),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_any_accesses_of_two_clones_against_bytearrays(steps: list[tuple[str, bool, int, int, int]]) -> None:
    memories = [guest()]
    models = [bytearray(8 * PAGE_SIZE)]
    for kind, other, gpa, length, byte in steps:
        who = int(other and len(memories) > 1)
        memory, model = memories[who], models[who]
        data = bytes([byte]) * length
        match kind:
            case "views":
                fill(memory, gpa, data)
                model[gpa : gpa + length] = data
            case "write":
                memory.write(gpa, data)
                model[gpa : gpa + length] = data
            case "clone":
                memories = [memory, memory.clone()]
                models = [model, bytearray(model)]
            case "log":
                memory.start_log()
                memory.collect_log()
            case _:
                assert memory.read(gpa, length) == model[gpa : gpa + length]
        for one, expected in zip(memories, models, strict=True):
            assert content(one, 0, 8 * PAGE_SIZE) == expected
