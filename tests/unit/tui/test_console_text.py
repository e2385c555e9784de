"""What guests print, as lines that do no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.tui.console_text import console_lines


def lines(text: str, width: int = 80, count: int = 10) -> list[str]:
    return console_lines(text, width, count)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", [""]),
        ("a\r\nb\r\n", ["a", "b", ""]),
        ("10 %\r100 %\rdone", ["done%"]),  # what is longer stays
        ("sl\b\bls\b\b\b\b!", ["!s"]),
        ("a\b \b# ", ["#"]),
        ("a\tb\t\tc", ["a       b               c"]),
        ("ab\rc\x1b[Kd", ["cd"]),
        ("abcd\x1b[2D\x1b[1Kx", ["  xd"]),
        ("abcd\x1b[2Kx", ["    x"]),
        ("ab\x1b[Cc\x1b[3Cd", ["ab c   d"]),
        ("a\x1b[99999999999999999999Cb", ["a b"]),
        ("\x1b[1;31mred\x1b[0m \x1b[?25lx\x1b[2J\x1b[H", ["red x"]),
        ("\x1b]0;a title\x07a\x1b]2;another\x1b\\b\x1bPq#1\x1b\\c\x1b(Bd", ["abcd"]),
        ("\x1b]0;no end", [""]),
        ("a\x1b[3", ["a"]),
        ("a\x1b", ["a"]),
        ("\0a\x07\x7fb\x9b31m\u202ec", ["ab�31m�c"]),
        ("ä€\N{GRINNING FACE}", ["ä€\N{GRINNING FACE}"]),
    ],
)
def test_lines(text: str, shown: list[str]) -> None:
    assert lines(text) == shown


def test_the_last_lines_count() -> None:
    assert lines("a\nb\nc\nd", count=2) == ["c", "d"]
    assert lines("a\nb\nc\n", count=1) == [""]


def test_long_lines_go_on_in_the_next() -> None:
    assert lines("abcdefgh\nij", width=3) == ["abc", "def", "gh", "ij"]
    assert lines("abcdefgh", width=3, count=2) == ["def", "gh"]


@given(
    st.text(st.sampled_from("ab \t\r\n\b\x1b[]0129;?CDKm\x07\\\x9b\u202e"), max_size=60),
    st.integers(1, 20),
    st.integers(1, 5),
)
def test_whatever_comes_is_printable_and_fits(text: str, width: int, count: int) -> None:
    shown = console_lines(text, width, count)
    assert 1 <= len(shown) <= count
    assert all(len(line) <= width and (line.isprintable() or not line) for line in shown)


def test_a_cursor_far_to_the_right_costs_little() -> None:
    assert len(lines("\x1b[9999C" * 10_000 + "x", width=10_000)[0]) == 1001
