"""Keys as bytes; numbers, bars and names as text; pictures as files."""

from pathlib import Path

import pytest

from emuvisor.errors import HostError
from emuvisor.tui import pictures
from emuvisor.tui.bars import blocks, shares_of, short_count, short_size, short_time, sparkline
from emuvisor.tui.keys import key_bytes
from emuvisor.tui.pictures import keep_picture
from emuvisor.tui.plain import plain


@pytest.mark.parametrize(
    ("key", "character", "data"),
    [
        ("a", "a", b"a"),
        ("A", "A", b"A"),
        ("space", " ", b" "),
        ("adiaeresis", "ä", "ä".encode()),
        ("enter", "\r", b"\r"),
        ("backspace", "\x7f", b"\x7f"),
        ("up", None, b"\x1b[A"),
        ("ctrl+c", "\x03", b"\x03"),
        ("ctrl+z", None, b"\x1a"),
        ("ctrl+at", None, b""),
        ("ctrl+1", None, b""),
        ("f1", None, b""),
        ("x", "\ud800", b""),
    ],
)
def test_keys(key: str, character: str | None, data: bytes) -> None:
    assert key_bytes(key, character) == data


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (0.04, "0"), (0.5, "0.5"), (7, "7"), (9.96, "10"), (999, "999"), (999.7, "1k"), (1000, "1k"),
        (1500, "1.5k"), (12_345, "12k"), (999_999, "1M"), (3.4e6, "3.4M"), (5e18, "5E"), (7e21, "7000E"),
    ],
)  # fmt: skip
def test_counts(number: float, text: str) -> None:
    assert short_count(number) == text


def test_sizes_go_by_1024() -> None:
    assert [short_size(size) for size in (1000, 1024, 1536, 64 << 20, 5 << 30)] == [
        *("1000", "1k", "1.5k", "64M", "5G")
    ]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0"), (1, "1us"), (1_499, "1.5us"), (120_000, "120us"), (999_499, "999us"), (999_500, "1ms"),
        (3_141_592, "3.1ms"), (9_950_000, "10ms"), (999_600_000, "1s"), (20_000_000_000, "20s"),
    ],
)  # fmt: skip
def test_times(ns: int, text: str) -> None:
    assert short_time(ns) == text


def test_a_sparkline() -> None:
    assert sparkline([0, 50, 100, 500, -1], 4) == "▅██▁"
    assert sparkline([100], 3) == "  █"
    assert sparkline([], 2) == "  "


def test_blocks() -> None:
    assert [blocks(part, 2) for part in (0, 0.1, 0.5, 0.99, 1, 7, -1)] == [
        *("  ", "▎ ", "█ ", "██", "██", "██", "  ")
    ]


def test_shares_of_a_bar() -> None:
    assert shares_of(10, [50, 1, 0, 49], 100) == [5, 1, 0, 4]
    assert shares_of(2, [1, 1, 1], 3) == [1, 1, 0]
    assert shares_of(5, [1], 0) == [0]


def test_plain() -> None:
    assert plain("a\x1b[31m\nb\tc\u202e ä") == "a�[31m b�c� ä"


def test_pictures_have_numbers(tmp_path: Path) -> None:
    assert keep_picture(tmp_path, "../a b/ä", b"1") == tmp_path / "___a_b__-1.png"
    assert keep_picture(tmp_path, "../a b/ä", b"2") == tmp_path / "___a_b__-2.png"
    assert (tmp_path / "___a_b__-1.png").read_bytes() == b"1"


def test_pictures_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError) as error:
        keep_picture(tmp_path / "none", "a", b"")
    assert str(error.value) == f"{tmp_path}/none/a-1.png: cannot be written: No such file or directory"
    monkeypatch.setattr(pictures, "MAX_PICTURES", 2)
    keep_picture(tmp_path, "a", b"")
    with pytest.raises(HostError) as error:
        keep_picture(tmp_path, "a", b"")
    assert str(error.value) == f"{tmp_path}: there are 1 pictures of 'a' already"
