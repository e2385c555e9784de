"""Tables for terminals and for files."""

import io
import sys

import pytest

from emuvisor.cli.tables import aligned, show_table

COLUMNS = ("name", "size", "note")
ROWS = [("a", "1", "x"), ("longer", "1000", "")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_aligned_text() -> None:
    assert aligned(COLUMNS, ROWS, right=("size",)) == (
        "name    size  note\n"
        "a          1  x\n"
        "longer  1000"
    )  # fmt: skip


def test_a_file_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(COLUMNS, ROWS)
    assert capsys.readouterr().out == aligned(COLUMNS, ROWS) + "\n"


def test_a_terminal_gets_a_drawn_table(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    show_table(COLUMNS, [("a", "[bold]", "x")], styles={"x": "green"})
    assert "│ a    │ [bold] │" in screen.getvalue()
