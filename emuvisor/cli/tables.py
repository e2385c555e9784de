"""A table for people: with rich on a terminal, as aligned text in a file or pipe."""

import sys
from collections.abc import Mapping, Sequence

__all__ = ["aligned", "show_table"]

GAP = "  "


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """`rows` under the headings `columns` as text, the columns named in `right` aligned to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        )
        return GAP.join(cells).rstrip()

    return "\n".join(line(row) for row in [columns, *rows])


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print a table. `styles` maps the text of a cell to rich's style for it."""
    if not sys.stdout.isatty():
        print(aligned(columns, rows, right))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in row))
    Console().print(table)
