"""Lines over a ratio as an SVG picture, for docs/performance.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Points", "draw"]

Points = Sequence[tuple[float, float | None]]
"""Ratio, and height; None where there is nothing to show."""

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


def draw(lines: Mapping[str, Points], path: Path, x_label: str, y_label: str) -> None:
    """Draw `lines` by name into the SVG file `path`. A line has a gap where it has no height; a cross at the
    bottom shows where the first one is. Raises ImportError without matplotlib."""
    from matplotlib import rc_context  # noqa: PLC0415  # the other benchmarks do without it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context(STYLE):  # type: ignore[arg-type]  # its keys are an enumeration of literals
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(lines.items()):
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            heights = [float("nan") if y is None else y for _, y in points]
            axes.plot([x for x, _ in points], heights, color=color, marker=marker, label=name, markersize=5)
            missing = [x for x, y in points if y is None]
            if missing:
                x = missing[0] + (number - len(lines) / 2) * 0.015  # beside those of the other lines
                axes.plot([x], [0], color=color, marker="x", linestyle="", markersize=7, clip_on=False)
        ratios = sorted({x for points in lines.values() for x, _ in points})
        axes.set_xticks(ratios, [f"{x:g}x" for x in ratios])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(bottom=0)
        axes.grid(color=PALE, linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
