"""What came out of a run: as JSON, as a table for the terminal, and as markdown for docs/performance.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from rich.table import Table

from benchmarks.figures import Verdict, pairwise_ratio, ratio_of_medians, summarize
from benchmarks.harness import Result, Row
from benchmarks.machine import Machine

__all__ = ["Line", "as_json", "as_markdown", "as_table", "lines"]

COLUMNS = ("what", "contender", "median", "min to max", "spread", "n", "ratio", "pairwise", "goal", "verdict")
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: a contender's figures, ready to print."""

    what: str
    contender: str
    median: str
    extent: str
    spread: str
    count: str
    ratio: str
    pairwise: str
    goal: str
    verdict: str

    def cells(self) -> tuple[str, ...]:
        """In the order of COLUMNS."""
        return (
            self.what,
            self.contender,
            self.median,
            self.extent,
            self.spread,
            self.count,
            self.ratio,
            self.pairwise,
            self.goal,
            self.verdict,
        )


def number(value: float) -> str:
    """`value` with four significant digits at most, never in exponential form: "12.35", "0.004", "3214"."""
    if value == 0:
        return "0"
    digits = 4
    magnitude = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, digits - max(1, magnitude))}f}"


def lines(result: Result) -> Iterator[Line]:
    """The result's rows, a line for each contender. A goal without a figure has a line, too."""
    for row in result.rows:
        for contender in row.values:
            yield _line(row, contender)


def _line(row: Row, contender: str) -> Line:
    values = row.values[contender]
    summary = summarize(values)
    base = row.values.get(row.against) if row.against is not None and row.against != contender else None
    goal = row.goal if row.goal is not None and row.goal.contender == contender else None
    return Line(
        what=row.name,
        contender=contender,
        median=f"{number(summary.median)} {row.unit}",
        extent=f"{number(summary.minimum)} to {number(summary.maximum)}",
        spread=number(summary.spread),
        count=str(summary.count),
        ratio=_ratio(ratio_of_medians(values, base)) if base else "",
        pairwise=_ratio(pairwise_ratio(values, base)) if base else "",
        goal=goal.text(row.unit) if goal else "",
        verdict=str(goal.verdict(row.values)) if goal else "",
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def as_table(result: Result) -> Table:
    """For the terminal."""
    table = Table(title=f"{result.name}: {result.measures}", title_justify="left")
    for column in COLUMNS:
        table.add_column(
            column, justify="left" if column in ("what", "contender", "goal", "verdict") else "right"
        )
    last = ""
    for line in lines(result):
        style = (
            {Verdict.MET: "green", Verdict.NOT_MET: "yellow"}.get(Verdict(line.verdict))
            if line.verdict
            else None
        )
        cells = line.cells()
        table.add_row("" if line.what == last else cells[0], *cells[1:], style=style)
        last = line.what
    return table


def as_json(machine: Machine, command: str, results: Sequence[Result]) -> dict[str, Any]:
    """Everything, every single figure included."""
    return {
        "version": FORMAT_VERSION,
        "command": command,
        "machine": asdict(machine),
        "benchmarks": [_result_json(result) for result in results],
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "measures": result.measures,
        "seconds": result.seconds,
        "failed": result.failed,
        "notes": result.notes,
        "notices": result.notices,
        "rows": [_row_json(row) for row in result.rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    contenders = {}
    for name, values in row.values.items():
        base = row.values.get(row.against) if row.against is not None and row.against != name else None
        contenders[name] = {
            "values": values,
            **asdict(summarize(values)),
            "ratio": ratio_of_medians(values, base) if base else None,
            "pairwise_ratio": pairwise_ratio(values, base) if base else None,
        }
    goal = row.goal
    return {
        "name": row.name,
        "unit": row.unit,
        "against": row.against,
        "goal": None if goal is None else {**asdict(goal), "verdict": str(goal.verdict(row.values))},
        "contenders": contenders,
    }


INTRODUCTION = """\
# Performance

Made by `{command}`; [benchmarks/README.md](../benchmarks/README.md) says what each figure is.

Figures are medians, no measurement is left out, and "spread" is the median absolute deviation. "Ratio" is the
ratio of the medians, "pairwise" the median of the ratios of neighbours in time: when they differ much, the
machine was not quiet. Ratios can be compared between machines, seconds cannot.

"""


def as_markdown(
    machine: Machine,
    command: str,
    results: Sequence[Result],
    chart: str = "",
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The whole of docs/performance.md; `chart` is the name of the picture of disks and networks beside it, `pictures`
    are those of single benchmarks, by the benchmark's name."""
    parts = [INTRODUCTION.format(command=command), "## Machine\n\n| | |\n|---|---|\n"]
    parts += [f"| {name} | {value} |\n" for name, value in machine.lines()]
    parts += [f"\nWarning: {text}.\n" for text in machine.warnings]
    parts.append(_goals(results))
    if chart:
        parts.append(
            f"\n## Disks and networks\n\n![Disks and networks beside QEMU, whose bars are 1x]({chart})\n"
        )
    for result in results:
        parts.append(f"\n## {result.name}\n\n{_sentence(result.measures)}\n")
        if result.name in pictures:
            parts.append(f"\n![{_sentence(result.measures)}]({pictures[result.name]})\n")
        if result.rows:
            parts.append(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
            parts += [f"| {' | '.join(line.cells())} |\n" for line in lines(result)]
        parts += [f"\n{note}\n" for note in result.notes]
        parts += [f"\nSkipped: {_one_line(notice)}\n" for notice in result.notices]
    return "".join(parts)


def _goals(results: Sequence[Result]) -> str:
    rows = [(result, row, row.goal) for result in results for row in result.rows if row.goal is not None]
    if not rows:
        return ""
    parts = ["\n## Goals\n\n| benchmark | what | goal | figure | verdict |\n|---|---|---|---|---|\n"]
    for result, row, goal in rows:
        figure = goal.figure(row.values)
        shown = "" if figure is None else f"{figure:.2f}x" if goal.against else f"{number(figure)} {row.unit}"
        verdict = goal.verdict(row.values)
        parts.append(f"| {result.name} | {row.name} | {goal.text(row.unit)} | {shown} | {verdict} |\n")
    return "".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _one_line(text: str) -> str:
    return " ".join(text.split())
