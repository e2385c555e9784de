"""The window at A0000h: where a byte goes, and what the data path makes of it."""

import pytest
from display_rig import GRAPHICS, SEQUENCER, Bench

A0000, B0000, B8000 = 0xA0000, 0xB0000, 0xB8000


def plane_bytes(bench: Bench, address: int) -> list[int]:
    return bench.vga.window.planes[address].tolist()


@pytest.fixture
def planar(bench: Bench) -> Bench:
    bench.mode_12h()
    return bench


def test_text_goes_to_planes_0_and_1(bench: Bench) -> None:
    bench.memory.write(B8000, 0x1741, 2)
    bench.memory.write(B8000 + 3, 0x2A, 1)
    bench.memory.write(B8000 + 4, 0x0807060504030201, 8)
    assert plane_bytes(bench, 0) == [0x41, 0x17, 0, 0]
    assert plane_bytes(bench, 2) == [0x00, 0x2A, 0, 0]
    assert [plane_bytes(bench, a)[:2] for a in (4, 6, 8, 10)] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert plane_bytes(bench, 1) == [0, 0, 0, 0]
    assert bench.memory.read(B8000, 4) == 0x2A00_1741
    assert bench.memory.read(B8000 + 1, 2) == 0x0017
    assert bench.memory.read(B8000 + 4, 8) == 0x0807060504030201
    bench.memory.write(B8000 + 1, 0xBBAA, 2)
    assert bench.memory.read(B8000, 4) == 0x2ABB_AA41


@pytest.mark.parametrize(
    ("memory_map", "inside", "outside"),
    [
        (0, (0xA0000, 0xBFFFE), ()),
        (1, (0xA0000, 0xAFFFE), (0xB0000, 0xB8000, 0xBFFFE)),
        (2, (0xB0000, 0xB7FFE), (0xA0000, 0xB8000)),
        (3, (0xB8000, 0xBFFFE), (0xA0000, 0xB7FFE)),
    ],
)
def test_the_memory_map_register_says_where(
    bench: Bench, memory_map: int, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    bench.set(GRAPHICS, 6, memory_map << 2)
    for address in inside + outside:
        bench.memory.write(address, 0x1234, 2)
    assert [bench.memory.read(address, 2) for address in inside] == [0x1234] * len(inside)
    assert [bench.memory.read(address, 2) for address in outside] == [0xFFFF] * len(outside)


@pytest.mark.parametrize("read_mode", [0x00, 0x08, 0x10])
@pytest.mark.parametrize(("memory_mode", "write_mode"), [(0x06, 0), (0x06, 2), (0x02, 0), (0x0E, 0)])
def test_nothing_reaches_outside_the_window(
    bench: Bench, memory_mode: int, write_mode: int, read_mode: int
) -> None:
    bench.set(SEQUENCER, 4, memory_mode)
    bench.set(SEQUENCER, 2, 0x03 if memory_mode == 2 else 0x0F)
    bench.set(GRAPHICS, 5, write_mode | read_mode)
    bench.memory.write(A0000, 0x5A, 1)
    assert bench.memory.read(A0000, 4) == 0xFFFF_FFFF
    assert not bench.vga.window.planes.any()


def test_memory_can_be_switched_off(bench: Bench) -> None:
    bench.ports.write(0x3C2, 0x65, 1)
    bench.memory.write(B8000, 0x41, 1)
    assert bench.memory.read(B8000, 8) == 0xFFFF_FFFF_FFFF_FFFF
    bench.ports.write(0x3C2, 0x67, 1)
    assert bench.memory.read(B8000, 1) == 0


def test_chained_addresses_go_through_the_planes(bench: Bench) -> None:
    bench.mode_13h()
    bench.memory.write(A0000, 0x44332211, 4)
    bench.memory.write(A0000 + 4, 0x8877665544332211, 8)
    bench.memory.write(A0000 + 13, 0xBBAA, 2)
    assert plane_bytes(bench, 0) == [0x11, 0x22, 0x33, 0x44]
    assert plane_bytes(bench, 4) == [0x11, 0x22, 0x33, 0x44]
    assert plane_bytes(bench, 8) == [0x55, 0x66, 0x77, 0x88]
    assert plane_bytes(bench, 12) == [0, 0xAA, 0xBB, 0]
    assert bench.memory.read(A0000 + 2, 1) == 0x33
    assert bench.memory.read(A0000 + 1, 4) == 0x11443322
    assert bench.memory.read(A0000 + 4, 8) == 0x8877665544332211
    bench.set(SEQUENCER, 2, 0x02)  # only plane 1
    bench.memory.write(A0000, 0xFFFFFFFF, 4)
    assert plane_bytes(bench, 0) == [0x11, 0xFF, 0x33, 0x44]


def test_odd_addresses_reach_odd_planes_only(bench: Bench) -> None:
    bench.set(SEQUENCER, 2, 0x0F)
    bench.memory.write(B8000, 0x1741, 2)
    assert plane_bytes(bench, 0) == [0x41, 0x17, 0x41, 0x17]
    bench.set(GRAPHICS, 4, 2)
    assert bench.memory.read(B8000 + 1, 1) == 0x17


def test_write_mode_0_writes_the_masked_planes(planar: Bench) -> None:
    planar.set(SEQUENCER, 2, 0b0101)
    planar.memory.write(A0000 + 5, 0x1234, 2)
    assert plane_bytes(planar, 5) == [0x34, 0, 0x34, 0]
    assert plane_bytes(planar, 6) == [0x12, 0, 0x12, 0]
    planar.set(GRAPHICS, 4, 2)
    assert planar.memory.read(A0000 + 5, 2) == 0x1234
    planar.set(GRAPHICS, 4, 1)
    assert planar.memory.read(A0000 + 5, 2) == 0


def test_rotate_set_reset_and_bit_mask(planar: Bench) -> None:
    planar.memory.write(A0000, 0xFF, 1)
    planar.memory.read(A0000, 1)
    planar.set(GRAPHICS, 3, 4)  # rotated by 4
    planar.set(GRAPHICS, 1, 0b0011)  # planes 0 and 1 from set/reset
    planar.set(GRAPHICS, 0, 0b0001)
    planar.set(GRAPHICS, 8, 0x7E)
    planar.memory.write(A0000, 0x21, 1)
    # 21h rotated is 12h; bits 7 and 0 stay ones.
    assert plane_bytes(planar, 0) == [0xFF, 0x81, 0x93, 0x93]


@pytest.mark.parametrize(("function", "result"), [(0, 0x0F), (1, 0x05), (2, 0x5F), (3, 0x5A)])
def test_functions_meet_the_latches(planar: Bench, function: int, result: int) -> None:
    planar.memory.write(A0000, 0x55, 1)
    planar.memory.read(A0000, 1)
    planar.set(GRAPHICS, 3, function << 3)
    planar.memory.write(A0000 + 1, 0x0F, 1)
    assert plane_bytes(planar, 1) == [result] * 4


def test_write_mode_1_copies_the_latches(planar: Bench) -> None:
    planar.vga.window.planes[0] = (1, 2, 3, 4)
    planar.set(GRAPHICS, 5, 1)
    planar.memory.read(A0000, 1)
    planar.memory.write(A0000 + 7, 0xEE, 1)
    assert plane_bytes(planar, 7) == [1, 2, 3, 4]


def test_write_mode_2_writes_a_colour(planar: Bench) -> None:
    planar.set(GRAPHICS, 5, 2)
    planar.set(GRAPHICS, 8, 0x3C)
    planar.memory.write(A0000, 0xFA, 1)
    assert plane_bytes(planar, 0) == [0, 0x3C, 0, 0x3C]


def test_write_mode_3_masks_the_set_reset_colour(planar: Bench) -> None:
    planar.set(GRAPHICS, 0, 0b0110)
    planar.set(GRAPHICS, 5, 3)
    planar.set(GRAPHICS, 8, 0xF0)
    planar.memory.write(A0000, 0x3C, 1)
    assert plane_bytes(planar, 0) == [0, 0x30, 0x30, 0]


def test_read_mode_1_compares_colours(planar: Bench) -> None:
    planar.vga.window.planes[0] = (0b1100, 0b1010, 0, 0)
    planar.set(GRAPHICS, 5, 0x08)
    planar.set(GRAPHICS, 2, 0b0011)
    planar.set(GRAPHICS, 7, 0b0011)
    assert planar.memory.read(A0000, 1) == 0b1000
    planar.set(GRAPHICS, 7, 0b0001)
    assert planar.memory.read(A0000, 2) == 0b1100
    planar.set(GRAPHICS, 7, 0)
    assert planar.memory.read(A0000, 1) == 0xFF


def test_the_font_is_written_through_the_window(bench: Bench) -> None:
    """As a video BIOS loads a font: planes one after the other, plane 2 only."""
    bench.set(SEQUENCER, 2, 0x04)
    bench.set(SEQUENCER, 4, 0x06)
    bench.set(GRAPHICS, 4, 2)
    bench.set(GRAPHICS, 5, 0)
    bench.set(GRAPHICS, 6, 0)
    bench.memory.write(A0000 + 0x41 * 32, 0xAA55, 2)
    assert plane_bytes(bench, 0x41 * 32) == [0, 0, 0x55, 0]
    assert plane_bytes(bench, 0x41 * 32 + 1) == [0, 0, 0xAA, 0]
    assert bench.memory.read(A0000 + 0x41 * 32, 2) == 0xAA55


def test_restored_memory_is_the_same(planar: Bench) -> None:
    planar.memory.write(A0000, 0x3C, 1)
    planar.memory.read(A0000, 1)
    planar.set(GRAPHICS, 5, 1)
    again = planar.restored()
    again.memory.write(A0000 + 1, 0, 1)  # from the restored latches
    assert plane_bytes(again, 1) == [0x3C] * 4


def test_memory_goes_back_and_forth_without_being_looked_at(planar: Bench) -> None:
    """What is loaded is in the planes when somebody reads, writes or shows them, and not before."""
    planar.memory.write(A0000, 0x3C, 1)
    first = planar.vga.save()
    planar.memory.write(A0000, 0xC3, 1)
    planar.memory.write(A0000 + 0xFFFF, 0x55, 1)
    second = planar.vga.save()
    planar.vga.load(first)
    assert planar.vga.save() == first
    planar.vga.load(second)
    assert planar.vga.save() == second
    assert planar.memory.read(A0000, 1) == 0xC3
    planar.vga.load(first)
    assert plane_bytes(planar, 0) == [0x3C] * 4
    assert plane_bytes(planar, 0xFFFF) == [0] * 4
    planar.vga.load(second)
    planar.memory.write(A0000 + 1, 0x11, 1)
    assert [planar.memory.read(A0000 + place, 1) for place in (0, 1, 2, 0xFFFF)] == [0xC3, 0x11, 0, 0x55]


def test_zeros_at_the_end_are_not_saved(planar: Bench) -> None:
    """In version 1 they were; both are loaded, also over a screen that has something there."""
    assert planar.vga.window.save()["content"] == b""
    planar.memory.write(A0000 + 9, 0x3C, 1)
    state = planar.vga.window.save()
    assert state["content"] == bytes(36) + b"\x3c" * 4
    planar.memory.write(A0000 + 0xFFFF, 0x55, 1)
    for content in (state["content"], state["content"].ljust(256 * 1024, b"\0")):
        planar.vga.window.load({**state, "version": 1, "content": content})
        assert (plane_bytes(planar, 9), plane_bytes(planar, 0xFFFF)) == ([0x3C] * 4, [0] * 4)
        planar.memory.write(A0000 + 0xFFFF, 0x55, 1)
