"""The compatibility table: what the system tests saw working, written to docs/compatibility.md.

A test asks for the fixture `compatibility` and names its row; when it has passed, the row is merged into the
table with the seconds that the test took. Rows of tests that did not run stay as they are.
"""

import fcntl
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[2] / "docs" / "compatibility.md"
COLUMNS = ("guest", "how it boots", "what was checked", "seconds")
HEADER = f"""\
# What boots

Written by `pytest tests/system`: each row is a test that passed, with the seconds that it took on the machine that ran
it last. A row stays until its test runs again; to be rid of old ones, delete this file before.

| {" | ".join(COLUMNS)} |
|---|---|---|---:|
"""
ROW = re.compile(r"\| (?P<guest>[^|]+) \| (?P<boots>[^|]+) \| (?P<checked>[^|]+) \| (?P<seconds>\d+) \|")


@dataclass
class Row:
    guest: str
    boots: str
    checked: str
    seconds: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """One row for each way in which a guest boots."""
        return self.guest, self.boots


@dataclass
class Compatibility:
    """The row of the test that asked for it."""

    _row: Row | None = None

    def row(self, *, guest: str, boots: str, checked: str) -> None:
        for text in (guest, boots, checked):
            assert "|" not in text, text
        self._row = Row(guest, boots, checked)


@dataclass(eq=False)  # pytest wants plugins hashable
class Plugin:
    """Collects the rows of tests that passed and merges them at the end of the session."""

    table: Path
    passed: dict[tuple[str, str], Row] = field(default_factory=dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        report = yield
        used = getattr(item, "funcargs", {}).get("compatibility")
        if report.when == "call" and report.passed and used is not None:
            row = used._row
            assert row is not None, f"{item.nodeid} has the fixture compatibility and names no row"
            assert row.key not in self.passed, f"{item.nodeid}: two tests have the row {row.key}"
            row.seconds = max(1, round(report.duration))
            self.passed[row.key] = row
        return report

    def pytest_sessionfinish(self) -> None:
        if not self.passed:
            return
        with self.table.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # each of pytest-xdist's workers merges its own rows
            file.seek(0)
            table = merge(file.read(), self.passed)
            file.truncate(0)
            file.write(table)


def merge(table: str, passed: dict[tuple[str, str], Row]) -> str:
    """The text of the table with the rows `passed` in place of or beside those of the text `table`."""
    rows = {}
    for match in ROW.finditer(table):
        row = Row(match["guest"], match["boots"], match["checked"], int(match["seconds"]))
        rows[row.key] = row
    rows |= passed
    lines = (f"| {r.guest} | {r.boots} | {r.checked} | {r.seconds} |\n" for _, r in sorted(rows.items()))
    return HEADER + "".join(lines)


@pytest.fixture
def compatibility() -> Compatibility:
    return Compatibility()
