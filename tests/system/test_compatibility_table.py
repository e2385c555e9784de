"""The table itself; these tests boot nothing."""

import pytest
from compatibility import HEADER, Compatibility, Plugin, Row, merge

pytest_plugins = ["pytester"]


def keyed(*rows: Row) -> dict[tuple[str, str], Row]:
    return {row.key: row for row in rows}


def test_rows_are_merged_and_sorted() -> None:
    first = merge("", keyed(Row("b", "disk", "shell", 7), Row("a", "floppy", "shell", 3)))
    assert first == HEADER + "| a | floppy | shell | 3 |\n| b | disk | shell | 7 |\n"
    second = merge(first, keyed(Row("b", "disk", "shell and power-off", 8), Row("b", "CD", "shell", 9)))
    assert second == HEADER + (
        "| a | floppy | shell | 3 |\n| b | CD | shell | 9 |\n| b | disk | shell and power-off | 8 |\n"
    )
    assert merge(second, {}) == second


def test_a_row_has_no_column_marks() -> None:
    with pytest.raises(AssertionError, match=r"a\|b"):
        Compatibility().row(guest="a|b", boots="", checked="")


def test_only_tests_that_pass_write_rows(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from compatibility import compatibility")
    pytester.makepyfile(
        """
        def test_passes(compatibility):
            compatibility.row(guest="works", boots="disk", checked="shell")

        def test_fails(compatibility):
            compatibility.row(guest="fails", boots="disk", checked="shell")
            assert False

        def test_has_none():
            pass
        """
    )
    table = pytester.path / "table.md"
    pytester.inline_run("-p", "no:cacheprovider", plugins=[Plugin(table)])
    assert table.read_text() == HEADER + "| works | disk | shell | 1 |\n"
