"""Terminal input as keys of a PC's keyboard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.cli.screen_keys import chords


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("aZ 1", [("a", False), ("Z", False), (" ", False), ("1", False)]),
        (
            "\r\n\t\x7f\b",
            [("ret", True), ("ret", True), ("tab", True), ("backspace", True), ("backspace", True)],
        ),
        ("\x1b", [("esc", True)]),
        ("\x1b[A\x1bOB\x1b[C\x1b[D", [("up", True), ("down", True), ("right", True), ("left", True)]),
        ("\x1bOP\x1b[15~\x1b[24~\x1b[3~", [("f1", True), ("f5", True), ("f12", True), ("delete", True)]),
        ("\x03\x1a", [("ctrl-c", True), ("ctrl-z", True)]),
        ("\x1b[99~x", [("x", False)]),
        ("\x00é\x1c", []),
    ],
)
def test_what_a_terminal_sends(text: str, keys: list[tuple[str, bool]]) -> None:
    assert list(chords(text)) == keys


@given(st.text())
def test_any_text_ends_in_keys(text: str) -> None:
    assert all(key and (chord or len(key) == 1) for key, chord in chords(text))
