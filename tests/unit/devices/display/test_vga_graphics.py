"""The VGA's own graphics modes: a byte in memory becomes pixels at its place."""

import numpy as np
import pytest
from display_rig import ATTRIBUTE, CRTC, GRAPHICS, SEQUENCER, Bench

A0000, B8000 = 0xA0000, 0xB8000


def greys(bench: Bench) -> np.ndarray:
    """The picture as entries of the DAC, with `grey_palette`; they are told apart by steps of four."""
    return bench.vga.screen().pixels[..., 0] >> 2 << 2


def test_mode_12h(bench: Bench) -> None:
    bench.mode_12h()
    bench.set_colours(0, [(n, n, n) for n in range(64)])
    for plane in range(4):
        bench.set(SEQUENCER, 2, 1 << plane)
        bench.memory.write(A0000 + 80 * 100 + 7, (0b10000001, 0b01000001, 0b00100001, 0b00010001)[plane], 1)
    screen = bench.vga.screen()
    assert (screen.width, screen.height, screen.text, screen.cursor) == (640, 480, None, None)
    row = screen.pixels[100, 56:64, 0] >> 2
    assert row.tolist() == [1, 2, 4, 0x38, 0, 0, 0, 0x3F]  # 8 is 38h in the palette, 15 is 3Fh
    assert screen.pixels.astype(bool).any(axis=2).sum() == 5


def test_mode_13h(bench: Bench) -> None:
    bench.mode_13h()
    bench.grey_palette()
    for x, y, colour in ((0, 0, 0x10), (319, 0, 0x20), (0, 199, 0x30), (161, 100, 0xFC)):
        bench.memory.write(A0000 + 320 * y + x, colour, 1)
    screen = bench.vga.screen()
    assert (screen.width, screen.height, screen.text) == (320, 200, None)
    picture = greys(bench)
    assert [picture[0, 0], picture[0, 319], picture[199, 0], picture[100, 161]] == [0x10, 0x20, 0x30, 0xFC]
    assert np.count_nonzero(picture) == 4


@pytest.fixture
def mode_x(bench: Bench) -> Bench:
    """Mode 13h with the planes apart, 320 by 240."""
    bench.mode_13h()
    bench.grey_palette()
    bench.set(SEQUENCER, 4, 0x06)
    bench.set(CRTC, 0x14, 0x00)
    bench.set(CRTC, 0x17, 0xE3)
    for register, value in ((0x06, 0x0D), (0x07, 0x3E), (0x10, 0xEA), (0x11, 0x2C), (0x12, 0xDF)):
        bench.set(CRTC, register, value)
    return bench


def test_mode_x(mode_x: Bench) -> None:
    for plane in range(4):
        mode_x.set(SEQUENCER, 2, 1 << plane)
        mode_x.memory.write(A0000 + 80 * 239 + 5, 0x40 * plane + 0x20, 1)
    picture = greys(mode_x)
    assert picture.shape == (240, 320)
    assert picture[239, 20:24].tolist() == [0x20, 0x60, 0xA0, 0xE0]
    assert np.count_nonzero(picture) == 4


def test_mode_x_pans_by_pixels_and_starts_anywhere(mode_x: Bench) -> None:
    mode_x.memory.write(A0000 + 400, 0x80, 1)  # four pixels
    mode_x.set(CRTC, 0x0C, 399 >> 8)
    mode_x.set(CRTC, 0x0D, 399 & 0xFF)
    assert greys(mode_x)[0, :10].tolist() == [0] * 4 + [0x80] * 4 + [0] * 2
    mode_x.set(ATTRIBUTE, 0x13, 6)  # in half pixels
    assert greys(mode_x)[0, :10].tolist() == [0] + [0x80] * 4 + [0] * 5


def test_the_split_shows_the_beginning(mode_x: Bench) -> None:
    mode_x.memory.write(A0000, 0x44, 1)
    mode_x.set(CRTC, 0x0C, 0x80)
    mode_x.set(CRTC, 0x18, 199)
    mode_x.set(CRTC, 0x07, 0x2E)
    mode_x.set(CRTC, 0x09, 0x01)
    picture = greys(mode_x)
    assert picture[100, :4].tolist() == [0x44] * 4
    assert np.count_nonzero(picture) == 4


def test_mode_4_interleaves_lines(bench: Bench) -> None:
    bench.mode_4()
    bench.set_colours(0x10, [(n, n, n) for n in range(0x10, 0x20)])
    bench.memory.write(B8000, 0b00_01_10_11, 1)
    bench.memory.write(B8000 + 1, 0b01_00_00_00, 1)
    bench.memory.write(B8000 + 0x2000, 0b11_00_00_00, 1)
    bench.memory.write(B8000 + 80, 0b10_00_00_00, 1)
    bench.set_colours(0, [(n, n, n) for n in range(4)])
    for entry in range(4):
        bench.set(ATTRIBUTE, entry, entry)
    screen = bench.vga.screen()
    assert (screen.width, screen.height) == (320, 200)
    picture = screen.pixels[..., 0] >> 2
    assert picture[0, :6].tolist() == [0, 1, 2, 3, 1, 0]
    assert picture[1, :2].tolist() == [3, 0]
    assert picture[2, :2].tolist() == [2, 0]
    assert np.count_nonzero(picture) == 6


def test_mode_6_has_two_colours(bench: Bench) -> None:
    bench.mode_6()
    bench.set_colours(0x17, [(63, 63, 63)])
    bench.memory.write(B8000, 0xA0, 1)
    bench.memory.write(B8000 + 0x2000 + 79, 0x01, 1)
    screen = bench.vga.screen()
    assert (screen.width, screen.height) == (640, 200)
    assert np.argwhere(screen.pixels[..., 0] == 255).tolist() == [[0, 0], [0, 2], [1, 639]]


def test_hercules_lines_come_from_four_banks(bench: Bench) -> None:
    bench.mode_6()
    bench.set_colours(0x17, [(63, 63, 63)])
    bench.set(CRTC, 0x17, 0xC0)
    bench.set(CRTC, 0x09, 0x03)
    bench.set(GRAPHICS, 6, 0x05)
    bench.memory.write(A0000 + 0x6000, 0x80, 1)
    assert np.argwhere(bench.vga.screen().pixels[..., 0] == 255).tolist() == [[3, 0]]


@pytest.mark.parametrize(("register", "value", "shift"), [(0x14, 0x20, 2), (0x17, 0xEB, 1)])
def test_the_address_may_count_slower(bench: Bench, register: int, value: int, shift: int) -> None:
    bench.mode_12h()
    bench.set_colours(0, [(n, n, n) for n in range(64)])
    bench.memory.write(A0000 + 1, 0xFF, 1)
    bench.set(CRTC, register, value)
    shown = np.flatnonzero(bench.vga.screen().pixels[0, :, 0])
    assert shown.tolist() == list(range(8 << shift, 16 << shift))


def test_word_mode_wraps_where_the_register_says(bench: Bench) -> None:
    bench.mode_12h()
    bench.set_colours(0, [(n, n, n) for n in range(64)])
    bench.memory.write(A0000 + 1, 0xFF, 1)
    bench.set(CRTC, 0x0C, 0x20)  # bit 13 of the counter
    bench.set(CRTC, 0x17, 0x83)
    bench.memory.write(A0000 + 0x4001, 0x80, 1)
    assert np.flatnonzero(bench.vga.screen().pixels[0, :, 0]).tolist() == [0]


@pytest.mark.parametrize("mode", ["mode_12h", "mode_13h", "mode_4", "mode_6"])
def test_a_restored_picture_is_the_same(bench: Bench, mode: str) -> None:
    getattr(bench, mode)()
    bench.grey_palette()
    for address in range(0, 0x8000, 97):
        bench.memory.write(B8000 + address, address & 0xFF, 1)
        bench.memory.write(A0000 + address, address & 0xFF, 1)
    before = bench.vga.screen().pixels
    assert before.any()
    assert (bench.restored().vga.screen().pixels == before).all()
