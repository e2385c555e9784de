"""A recording as a chart over time: a panel for each guest, and one for the host."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.cli.memory_table import KINDS
from emuvisor.errors import HostError, UsageError
from emuvisor.host.memory.host_state import HostState
from emuvisor.host.memory.recording import Sample
from emuvisor.units import GIB, MIB, format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

MAX_GUESTS = 24
MAX_POINTS = 1500
"""Samples that are drawn; of more, every so manyth."""
WIDTH, GUEST_HEIGHT, HOST_HEIGHT, REST = 10.0, 1.5, 1.9, 1.1
"""Inches: of the chart, of a guest's panel, of the host's, of title, legend and axis."""
DPI = 130
INK, PALE = "#1f2933", "#d7dce1"
FREE = "#3b5b92"
BANDS = {"high": "#dcefe2", "soft": "#fdf3cf", "hard": "#fbdcc0", "low": "#f5c1c1"}
"""What the host's panel has behind it while the host is in a state."""
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "emuvisor",  # the same recording gives the same file
}


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Draw `samples` into the file `path`, as its suffix says: .svg or .png.

    Raises UsageError without matplotlib and for too many guests, HostError for a file that cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a chart needs matplotlib: pip install 'emuvisor[charts]'") from None
    names = list(dict.fromkeys(guest.name for sample in samples for guest in sample.guests))
    if len(names) > MAX_GUESTS:
        raise UsageError(
            f"a chart has room for {MAX_GUESTS} guests, and there are {len(names)}; --guest picks one"
        )
    step = -(-len(samples) // MAX_POINTS)
    drawn = sorted([*samples[:-1:step], samples[-1]], key=lambda sample: sample.time)
    with rc_context(STYLE):  # type: ignore[arg-type]  # its keys are an enumeration of literals
        figure = Figure(figsize=(WIDTH, GUEST_HEIGHT * len(names) + HOST_HEIGHT + REST), dpi=DPI)
        _fill(figure, drawn, names)
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        try:
            figure.savefig(path, metadata=metadata)
        except OSError as error:
            raise HostError(f"{path}: cannot be written: {error.strerror}") from error


def _fill(figure: "Figure", samples: Sequence[Sample], names: Sequence[str]) -> None:
    times = [sample.time - samples[0].time for sample in samples]
    panels = figure.subplots(
        len(names) + 1,
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": [GUEST_HEIGHT] * len(names) + [HOST_HEIGHT]},
    )[:, 0]
    for name, panel in zip(names, panels, strict=False):
        _guest(panel, name, times, samples)
    _host(panels[-1], times, samples)
    panels[-1].set_xlabel("seconds")
    panels[-1].set_xlim(0, max(times[-1], 0.001))
    if names:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper center", ncol=len(labels), frameon=False, handlelength=1.2,
            columnspacing=1.2,
        )  # fmt: skip
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(
        left=0.09, right=0.98, top=1 - 0.45 / height, bottom=0.5 / height, hspace=0.16
    )  # fmt: skip


def _guest(panel: "Axes", name: str, times: Sequence[float], samples: Sequence[Sample]) -> None:
    found = [next((g for g in sample.guests if g.name == name), None) for sample in samples]
    largest = max(guest.configured for guest in found if guest is not None)
    unit, unit_name = _unit(largest)
    panel.stackplot(
        times,
        [[0 if guest is None else getattr(guest, kind.field) / unit for guest in found] for kind in KINDS],
        labels=[kind.field for kind in KINDS],
        colors=[kind.colour for kind in KINDS],
        linewidth=0,
    )
    not_a_number = float("nan")
    for label, width, line, values in (
        ("active", 1.1, "-", [g.active if g else None for g in found]),
        ("limit", 0.9, ":", [g.limit if g else None for g in found]),
        ("reservation", 0.9, "--", [(g.reservation or None) if g else None for g in found]),
    ):
        heights = [not_a_number if value is None else value / unit for value in values]
        panel.plot(times, heights, label=label, color=INK, linewidth=width, linestyle=line)
    panel.set_ylim(0, largest * 1.25 / unit)  # room for the title
    _decorate(panel, f"{name}, {format_size(largest)}", unit_name)


def _host(panel: "Axes", times: Sequence[float], samples: Sequence[Sample]) -> None:
    unit, unit_name = _unit(max(sample.host.pool for sample in samples))
    for state, begin, end in _spans(times, samples):
        panel.axvspan(begin, end, color=BANDS.get(state, "white"), linewidth=0)
    free = [sample.host.free / unit for sample in samples]
    panel.plot(times, free, color=FREE, linewidth=1.4)
    panel.fill_between(times, free, color=FREE, alpha=0.25, linewidth=0)
    panel.set_ylim(0, max(*free, samples[-1].host.pool / unit / 10) * 1.2)
    _decorate(panel, f"host, free of {format_size(samples[-1].host.pool)}", unit_name)
    seen = {sample.host.state for sample in samples}
    for state in (state.name.lower() for state in HostState):
        if state in seen:
            panel.fill_between([], [], color=BANDS[state], label=state)
    panel.legend(
        title="state", loc="upper right", ncol=len(BANDS), fontsize=8, title_fontsize=8, frameon=True,
        framealpha=0.8, edgecolor=PALE, handlelength=1.0, columnspacing=1.0,
    )  # fmt: skip


def _spans(times: Sequence[float], samples: Sequence[Sample]) -> Iterator[tuple[str, float, float]]:
    """States with the times from which and to which they lasted."""
    runs = [(state, list(run)) for state, run in groupby(range(len(times)), lambda i: samples[i].host.state)]
    for (state, run), (_, after) in zip(runs, [*runs[1:], ("", [len(times) - 1])], strict=True):
        yield state, times[run[0]], times[after[0]]


def _decorate(panel: "Axes", title: str, unit_name: str) -> None:
    panel.set_ylabel(unit_name)
    panel.set_title(
        title, loc="left", x=0.006, y=1.0, pad=-10, fontweight="bold", fontsize=9, parse_math=False
    )
    panel.grid(axis="y", color=PALE, linewidth=0.5)
    panel.set_axisbelow(True)
    panel.tick_params(length=2)
    panel.locator_params(axis="y", nbins=4)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _unit(largest: int) -> tuple[int, str]:
    return (GIB, "GiB") if largest >= 4 * GIB else (MIB, "MiB")
