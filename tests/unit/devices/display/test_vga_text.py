"""Text modes: characters, attributes, fonts, cursor, panning, the split screen."""

import numpy as np
import pytest
from display_rig import ATTRIBUTE, CRTC, GRAPHICS, SEQUENCER, Bench

from emuvisor.devices.display.cp437 import CP437
from emuvisor.devices.display.font import font
from emuvisor.units import NS_PER_S

BLACK, GREY, WHITE, BLUE, YELLOW = (0, 0, 0), (170, 170, 170), (255, 255, 255), (0, 0, 170), (255, 255, 85)


def cell(bench: Bench, column: int, row: int, width: int = 9) -> np.ndarray:
    return bench.vga.screen().pixels[16 * row : 16 * row + 16, width * column : width * column + width]


def drawn(cell: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the cell has that colour."""
    return (cell == colour).all(axis=2)


def glyph(character: str) -> np.ndarray:
    return np.unpackbits(font()[CP437.index(character)][:, np.newaxis], axis=1).astype(bool)


def test_after_power_on_the_screen_is_black(bench: Bench) -> None:
    bench.type(0, 0, "A")
    screen = bench.vga.screen()
    assert (screen.width, screen.height) == (720, 400)
    assert screen.pixels.shape == (400, 720, 3)
    assert screen.pixels.dtype == np.uint8
    assert not screen.pixels.any()
    assert screen.text == [""] * 25
    assert screen.cursor is None


def test_text_as_unicode(text_bench: Bench) -> None:
    text_bench.type(0, 0, "Hello, world")
    text_bench.type(78, 1, "┘█")
    text_bench.memory.write(0xB8000 + 2 * 80 * 24, 0x0700, 2)
    text_bench.memory.write(0xB8000 + 2 * 80 * 24 + 2, 0x0701, 2)
    text = text_bench.vga.screen().text
    assert text is not None
    assert text[0] == "Hello, world"
    assert text[1] == " " * 78 + "┘█"
    assert text[24] == " ☺"
    assert text[2:24] == [""] * 22


def test_a_character_is_its_glyph_in_its_colours(text_bench: Bench) -> None:
    text_bench.type(3, 2, "A", 0x1E)
    shown = cell(text_bench, 3, 2)
    assert (drawn(shown, YELLOW)[:, :8] == glyph("A")).all()
    assert (drawn(shown, BLUE)[:, :8] == ~glyph("A")).all()
    assert drawn(shown, BLUE)[:, 8].all()


def test_the_ninth_dot_of_line_graphics_repeats_the_eighth(text_bench: Bench) -> None:
    text_bench.type(0, 0, "─│")
    assert (cell(text_bench, 0, 0)[:, 8] == cell(text_bench, 0, 0)[:, 7]).all()
    assert drawn(cell(text_bench, 0, 0), GREY)[7].all()
    text_bench.set(ATTRIBUTE, 0x10, 0x08)
    assert not drawn(cell(text_bench, 0, 0), GREY)[:, 8].any()


def test_eight_dots(text_bench: Bench) -> None:
    text_bench.type(1, 0, "B")
    text_bench.set(SEQUENCER, 1, 0x01)
    assert text_bench.vga.screen().width == 640
    assert (drawn(cell(text_bench, 1, 0, 8), GREY) == glyph("B")).all()


def test_attribute_bit_7_blinks_or_is_bright(text_bench: Bench) -> None:
    text_bench.type(0, 0, "█", 0x87)
    assert drawn(cell(text_bench, 0, 0), GREY).all()
    text_bench.clock.skip(NS_PER_S // 70 * 17)
    assert drawn(cell(text_bench, 0, 0), BLACK).all()
    text_bench.clock.skip(NS_PER_S // 70 * 16)
    assert drawn(cell(text_bench, 0, 0), GREY).all()
    text_bench.set(ATTRIBUTE, 0x10, 0x04)
    text_bench.type(0, 0, " ", 0xF7)
    assert drawn(cell(text_bench, 0, 0), WHITE).all()


def test_attribute_bit_3_chooses_the_second_font(text_bench: Bench) -> None:
    text_bench.vga.window.planes[0x4000 + ord("A") * 32 : 0x4000 + ord("A") * 32 + 16, 2] = 0xFF
    text_bench.set(SEQUENCER, 3, 0x04)  # map A is font 1, map B font 0
    text_bench.type(0, 0, "A", 0x0F)
    text_bench.type(1, 0, "A", 0x07)
    assert drawn(cell(text_bench, 0, 0), WHITE)[:, :8].all()
    assert (drawn(cell(text_bench, 1, 0), GREY)[:, :8] == glyph("A")).all()
    text_bench.vga.window.planes[0xA000 + ord("A") * 32, 2] = 0xFF
    text_bench.set(SEQUENCER, 3, 0x12)  # map B is font 6
    assert drawn(cell(text_bench, 1, 0), GREY)[0, :8].all()
    text_bench.vga.window.planes[0x2000 + ord("A") * 32 + 1, 2] = 0xFF
    text_bench.set(SEQUENCER, 3, 0x20)  # map A is font 4
    assert drawn(cell(text_bench, 0, 0), WHITE)[1, :8].all()


def test_underline_of_monochrome_attributes(text_bench: Bench) -> None:
    text_bench.type(0, 0, " ", 0x01)
    text_bench.set(CRTC, 0x14, 0x0D)
    assert drawn(cell(text_bench, 0, 0), BLUE)[:, :8].nonzero()[0].tolist() == [13] * 8


def test_the_cursor_covers_its_lines_and_blinks(text_bench: Bench) -> None:
    text_bench.set(CRTC, 0x0A, 0x0D)
    text_bench.set(CRTC, 0x0B, 0x0E)
    text_bench.set(CRTC, 0x0F, 80 + 5)
    assert text_bench.vga.screen().cursor == (5, 1)
    assert sorted(set(drawn(cell(text_bench, 5, 1), GREY).nonzero()[0].tolist())) == [13, 14]
    text_bench.clock.skip(NS_PER_S // 70 * 9)
    assert not drawn(cell(text_bench, 5, 1), GREY).any()
    assert text_bench.vga.screen().cursor == (5, 1)
    text_bench.set(CRTC, 0x0B, 0x0C)  # ends before it begins
    assert text_bench.vga.screen().cursor is None
    text_bench.set(CRTC, 0x0E, 0xFF)  # elsewhere
    text_bench.set(CRTC, 0x0B, 0x0E)
    assert text_bench.vga.screen().cursor is None


def test_the_start_address_scrolls(text_bench: Bench) -> None:
    for row in range(30):
        text_bench.type(0, row, f"row {row}")
    text_bench.set(CRTC, 0x0D, 3 * 80)
    assert text_bench.vga.screen().text == [f"row {row}" for row in range(3, 28)]


def test_the_line_compare_splits_the_screen(text_bench: Bench) -> None:
    for row in range(60):
        text_bench.type(0, row, f"row {row}")
    text_bench.set(CRTC, 0x0C, 30 * 80 >> 8)
    text_bench.set(CRTC, 0x0D, 30 * 80 & 0xFF)
    text_bench.set(CRTC, 0x18, 0x3F)  # 320 lines above
    text_bench.set(CRTC, 0x07, 0x1F)
    text_bench.set(CRTC, 0x09, 0x0F)
    assert text_bench.vga.screen().text == [f"row {row}" for row in (*range(30, 50), *range(5))]


def test_the_preset_row_scan_scrolls_by_lines(text_bench: Bench) -> None:
    text_bench.type(0, 0, "A")
    text_bench.set(CRTC, 0x08, 0x02)
    top = text_bench.vga.screen().pixels[:14, :8]
    assert (drawn(top, GREY) == glyph("A")[2:]).all()
    text_bench.set(CRTC, 0x08, 0x20)  # byte panning: one character
    assert not text_bench.vga.screen().pixels[:14, :8].any()


@pytest.mark.parametrize(
    ("nine", "register", "dots"), [(True, 8, 0), (True, 0, 1), (True, 2, 3), (False, 3, 3)]
)
def test_panning(text_bench: Bench, nine: bool, register: int, dots: int) -> None:
    text_bench.set(SEQUENCER, 1, 0 if nine else 1)
    text_bench.set(ATTRIBUTE, 0x13, 8 if nine else 0)
    for column in range(80):
        text_bench.type(column, 0, chr(0x41 + column % 26))
    before = text_bench.vga.screen().pixels
    text_bench.set(ATTRIBUTE, 0x13, register)
    after = text_bench.vga.screen().pixels
    assert after.shape == before.shape
    assert (after[:16, : 640 - dots] == before[:16, dots:640]).all()


def test_panning_may_end_at_the_split(text_bench: Bench) -> None:
    text_bench.set(CRTC, 0x18, 15)
    text_bench.set(CRTC, 0x07, 0x0F)
    text_bench.set(CRTC, 0x09, 0x0F)
    text_bench.type(0, 0, "AAAA")
    text_bench.set(ATTRIBUTE, 0x13, 2)
    panned = text_bench.vga.screen().pixels
    assert (panned[:16] == panned[16:32]).all()
    text_bench.set(ATTRIBUTE, 0x10, 0x2C)
    half = text_bench.vga.screen().pixels
    assert (half[:16] == panned[:16]).all()
    assert (half[16:32, 3:30] == panned[16:32, :27]).all()


def test_forty_columns_and_double_scanned_rows(text_bench: Bench) -> None:
    """Mode 1 with the rows of a CGA: 40 by 25 characters of 8 lines, each shown twice."""
    text_bench.set(SEQUENCER, 1, 0x08)
    text_bench.set(CRTC, 0x11, 0)
    text_bench.set(CRTC, 0x01, 39)
    text_bench.set(CRTC, 0x13, 20)
    text_bench.set(CRTC, 0x09, 0xC7)
    text_bench.type(0, 0, "A" * 40 + "B")
    screen = text_bench.vga.screen()
    assert screen.width == 360
    assert screen.text is not None
    assert screen.text[:3] == ["A" * 40, "B", ""]
    assert len(screen.text) == 25
    assert (screen.pixels[0:16:2] == screen.pixels[1:16:2]).all()


def test_the_picture_is_black_while_the_palette_is_the_processors(text_bench: Bench) -> None:
    text_bench.type(0, 0, "A")
    text_bench.ports.read(0x3DA, 1)
    text_bench.ports.write(0x3C0, 0x00, 1)
    assert text_bench.vga.screen().text == [""] * 25
    assert not text_bench.vga.screen().pixels.any()
    text_bench.picture_on()
    assert text_bench.vga.screen().text == ["A"] + [""] * 24
    text_bench.set(SEQUENCER, 1, 0x20)
    assert not text_bench.vga.screen().pixels.any()


def test_planes_and_palette_choose_the_colours(text_bench: Bench) -> None:
    text_bench.type(0, 0, " ", 0x70)
    text_bench.set(ATTRIBUTE, 0x12, 0x01)  # only the blue bit counts
    assert drawn(cell(text_bench, 0, 0), BLUE).all()
    text_bench.set(ATTRIBUTE, 0x12, 0x0F)
    text_bench.set_colours(0x97, [(63, 0, 0)])
    text_bench.set(ATTRIBUTE, 0x14, 0x09)  # bits 7 and 6 are 2, bits 5 and 4 are 1
    text_bench.set(ATTRIBUTE, 0x10, 0x8C)
    assert drawn(cell(text_bench, 0, 0), (255, 0, 0)).all()
    text_bench.ports.write(0x3C6, 0x00, 1)
    assert drawn(cell(text_bench, 0, 0), BLACK).all()


def test_a_restored_screen_is_the_same(text_bench: Bench) -> None:
    text_bench.type(10, 10, "restored", 0x4E)
    text_bench.set(CRTC, 0x0A, 0x0D)
    before, after = text_bench.vga.screen(), text_bench.restored().vga.screen()
    assert (after.text, after.cursor) == (before.text, before.cursor)
    assert (after.pixels == before.pixels).all()
    assert text_bench.restored().vga.save() == text_bench.vga.save()


def test_text_mode_is_what_a_bios_leaves(text_bench: Bench) -> None:
    assert text_bench.ports.read(0x3CC, 1) == 0x67
    assert [text_bench.get(GRAPHICS, i) for i in range(9)] == [0, 0, 0, 0, 0, 0x10, 0x0E, 0, 0xFF]
    assert text_bench.memory.read(0xB8000, 4) == 0x0720_0720
    assert text_bench.memory.read(0xBFFFC, 4) == 0x0720_0720
    text_bench.ports.write(0x3C7, 0x14, 1)
    assert [text_bench.ports.read(0x3C9, 1) for _ in range(3)] == [42, 21, 0]  # brown
