"""The font: every character that matters is drawn, and looks like nothing else."""

import string

import numpy as np
import pytest

from emuvisor.devices.display.cp437 import CP437, decode
from emuvisor.devices.display.font import font


def glyph(character: str) -> bytes:
    return font()[CP437.index(character)].tobytes()


PLACEHOLDER = glyph("∩")


def test_code_page_437() -> None:
    assert len(CP437) == 256
    assert len(set(CP437)) == 255  # codes 0 and 20h are both blank
    assert decode(np.array([0, 1, 0x41, 0x7F, 0x80, 0xDB, 0xFE], np.uint8)) == " ☺A⌂Ç█■"


def test_printable_characters_have_pictures_of_their_own() -> None:
    characters = string.digits + string.ascii_letters + string.punctuation + "►◄↕▲▼↑↓→←↔"
    pictures = {glyph(character) for character in characters}
    assert len(pictures) == len(characters)
    assert PLACEHOLDER not in pictures
    assert glyph(" ") == bytes(16)


def test_boxes_meet_their_neighbours() -> None:
    boxes = CP437[0xB3:0xDB]
    assert len({glyph(box) for box in boxes}) == len(boxes)
    dots = np.unpackbits(font()[:, :, np.newaxis], axis=2)

    def edges(character: str) -> list[list[int]]:
        cell = dots[CP437.index(character)]
        return [np.flatnonzero(edge).tolist() for edge in (cell[:, 0], cell[:, 7], cell[0], cell[15])]

    assert edges("┼") == [[7], [7], [3], [3]]
    assert edges("╬") == [[6, 9], [6, 9], [2, 5], [2, 5]]
    assert edges("╒") == [[], [6, 9], [], [3]]
    assert edges("╜") == [[7], [], [2, 5], []]


@pytest.mark.parametrize(
    ("block", "share"), [("█", 128), ("▄", 64), ("▌", 64), ("░", 16), ("▒", 32), ("▓", 64)]
)
def test_blocks_and_shades(block: str, share: int) -> None:
    assert sum(byte.bit_count() for byte in glyph(block)) == share


def test_halves_make_a_whole() -> None:
    for one, other in (("▄", "▀"), ("▌", "▐")):
        assert bytes(a ^ b for a, b in zip(glyph(one), glyph(other), strict=True)) == b"\xff" * 16
