"""What a guest printed, as lines that are safe to show: the guest has no way to our terminal.

It understands what a shell's line editing needs: carriage return, backspace, tab, and from ECMA-48 erasing in a line
and the cursor's way left and right in it. Colours and positions on a screen are left out, so full-screen programs do
not look right.
"""

import re

__all__ = ["console_lines"]

TAB = 8
MAX_COLUMN = 1000
"""How far tabs and sequences move the cursor to the right."""

# ECMA-48: control sequences (5.4), strings such as a window's title (5.6) as far as they have come, other escapes
_TOKENS = re.compile(
    r"\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b\[[0-?]*[ -/]*|\x1b[ -/]*[0-~]?"
    r"|(?P<text>[^\x00-\x1f\x7f]+)|(?P<control>[\x00-\x1f\x7f])"
)


def console_lines(text: str, width: int, count: int) -> list[str]:
    """The last `count` (at least 1) lines of `text`, without blanks at their ends; those longer than `width` go on in
    the next one. The last one is where the cursor is."""
    shown: list[str] = []
    for line in text.rsplit("\n", count)[-count:]:
        whole = _render(line)
        shown.extend(whole[at : at + width] for at in range(0, max(1, len(whole)), width))
    return shown[-count:]


def _render(line: str) -> str:
    cells: list[str] = []
    column = 0
    for token in _TOKENS.finditer(line):
        if token["text"] is not None:
            part = [char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in token["text"]]
            cells += " " * (column - len(cells))
            cells[column : column + len(part)] = part
            column += len(part)
        elif token["control"] is not None:
            column = _control(token["control"], column)
        elif token["final"] is not None:
            column = _sequence(cells, column, token["final"], token["parameters"])
    return "".join(cells).rstrip()


def _control(char: str, column: int) -> int:
    if char == "\r":
        return 0
    if char == "\b":
        return max(0, column - 1)
    if char == "\t":
        return min(MAX_COLUMN, (column // TAB + 1) * TAB)
    return column


def _sequence(cells: list[str], column: int, final: str, parameters: str) -> int:
    """Carry out a control sequence; returns the new column."""
    number = int(parameters) if parameters.isascii() and parameters.isdecimal() and len(parameters) < 5 else 0
    if final == "C":
        return min(MAX_COLUMN, column + max(1, number))
    if final == "D":
        return max(0, column - max(1, number))
    if final == "K" and number == 0:
        del cells[column:]
    elif final == "K":
        end = len(cells) if number == 2 else min(column + 1, len(cells))
        cells[:end] = " " * end
    return column
