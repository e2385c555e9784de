"""Lines as an SVG picture, for docs/performance.md."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Result

__all__ = ["Curve", "Points", "draw"]

Points = Sequence[tuple[float, float | None]]
"""Place on the axis, and height; None where there is nothing to show."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a benchmark shows as a picture: `lines` makes points of its figures, by the line's name."""

    lines: Callable[[Result], Mapping[str, Points]]
    x_label: str
    y_label: str
    x_unit: str = ""
    """Behind each number of the axis."""
    logarithmic: bool = False
    """Whether the axis goes by factors, not by steps."""


SIZE = (8.0, 4.2)
"""Inches."""
INK, PALE = "#1f2933", "#d7dce1"
COLORS = ("#0f766e", "#7c3aed", "#2563eb", "#c2410c", "#1f2933")
MARKERS = "osD^v"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": PALE,
    "text.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "emuvisor",  # the same figures give the same file
}


def draw(curve: Curve, result: Result, path: Path) -> None:
    """Draw `result` into the SVG file `path`. A line has a gap where it has no height; a cross at the bottom shows
    where the first one is. Raises ImportError without matplotlib."""
    from matplotlib import rc_context  # noqa: PLC0415  # the other benchmarks do without it
    from matplotlib.figure import Figure  # noqa: PLC0415

    lines = curve.lines(result)
    with rc_context(STYLE):  # type: ignore[arg-type]  # its keys are an enumeration of literals
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        if curve.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        for number, (name, points) in enumerate(lines.items()):
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            heights = [float("nan") if y is None else y for _, y in points]
            axes.plot([x for x, _ in points], heights, color=color, marker=marker, label=name, markersize=5)
            missing = [x for x, y in points if y is None]
            if missing:
                x = missing[0] + (number - len(lines) / 2) * 0.015  # beside those of the other lines
                axes.plot([x], [0], color=color, marker="x", linestyle="", markersize=7, clip_on=False)
        places = sorted({x for points in lines.values() for x, _ in points})
        axes.set_xticks(places, [f"{x:,g}{curve.x_unit}" for x in places])
        axes.set_xlabel(curve.x_label)
        axes.set_ylabel(curve.y_label)
        axes.set_ylim(bottom=0)
        axes.grid(color=PALE, linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
