"""The screen in a terminal."""

import io

import numpy as np
from rich.console import Console

from emuvisor.cli.display_text import TextDisplay, block_picture, scaled, text_picture
from emuvisor.devices.display.screen import Screen

WHITE = (0xF8, 0xF8, 0xF8)


def black(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_text_is_cut_to_the_terminal() -> None:
    picture = text_picture(["[bold]one", "two", "three"], None, 7, 2)
    assert picture.plain == "[bold]o\ntwo"
    assert not picture.spans


def test_the_cursor_is_reverse_even_behind_the_text() -> None:
    picture = text_picture(["one", "two"], (5, 1), 80, 25)
    assert picture.plain == "one\ntwo   "
    assert [(span.start, span.end, span.style) for span in picture.spans] == [(9, 10, "reverse")]
    assert not text_picture(["one"], (5, 0), 5, 25).spans


def test_graphics_are_half_blocks() -> None:
    pixels = black(4, 4)
    pixels[0, :2] = 255
    pixels[3, 3] = 255
    picture = block_picture(pixels, 4, 2)
    assert picture.plain == "▀▀▀▀\n▀▀▀▀"
    found = [
        (span.start, span.end, tuple(span.style.color.triplet), tuple(span.style.bgcolor.triplet))  # type: ignore
        for span in picture.spans
    ]
    assert found == [
        (0, 2, WHITE, (0, 0, 0)),
        (2, 4, (0, 0, 0), (0, 0, 0)),
        (5, 8, (0, 0, 0), (0, 0, 0)),
        (8, 9, (0, 0, 0), WHITE),
    ]


def test_the_picture_keeps_its_shape() -> None:
    wide = block_picture(black(1000, 10), 80, 24).plain.split("\n")
    assert [len(line) for line in wide] == [80]
    tall = block_picture(black(10, 1000), 80, 24).plain.split("\n")
    assert [len(line) for line in tall] == [1] * 24
    whole = block_picture(black(640, 480), 80, 24).plain.split("\n")
    assert [len(line) for line in whole] == [64] * 24


def test_scaling_takes_means_or_copies() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert scaled(pixels, 2, 2)[..., 0].tolist() == [[7, 13], [31, 37]]
    assert (scaled(pixels, 8, 8) == pixels.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert (scaled(pixels, 4, 4) == pixels).all()


def test_it_is_shown_while_it_is_entered() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=40, height=10, color_system="truecolor")
    with TextDisplay(console) as display:
        display.update(Screen(720, 400, black(720, 400), ["login: root"], (12, 0)))
        assert "login: root" in stream.getvalue()
        display.update(Screen(320, 200, black(320, 200)))
        assert "▀" in stream.getvalue()
    assert "\x1b[?1049h" in stream.getvalue()  # the alternate screen
    assert stream.getvalue().count("\x1b[?1049l") == 1
