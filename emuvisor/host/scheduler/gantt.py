"""Gantt charts of a recorded schedule: a row for each pCPU, and one for each guest with what it waited for.

A cell of the terminal, or a pixel of the SVG, shows who had most of it.
"""

from collections.abc import Sequence
from html import escape
from itertools import cycle

from rich.text import Text

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.recording import Stretch

__all__ = ["draw_svg", "draw_text"]

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#777777")
"""Told apart by people with colour blindness: P. Tol, *Colour Schemes*, SRON/EPS/TN/09-002, 2021, and one more."""
WAITS, THROTTLED = "#bbbbbb", "#ffaabb"
MAX_RECTANGLES = 20_000
"""More make an SVG that no viewer likes."""
LABEL, ROW, BAR, WIDTH = 110, 22, 16, 1000
"""Pixels of the SVG."""

_Bar = tuple[int, int, str, str]
"""From, to, who, what a tooltip says."""


def draw_text(stretches: Sequence[Stretch], width: int = 100, guests: int = 20) -> Text:
    """For a terminal of `width` columns, with rows for at most `guests` guests, those that ran most.

    A row of a guest has # where it ran, - where it waited, x where it was throttled.
    """
    start, end = _span(stretches)
    colours = _colours(stretches)
    label = min(20, max(len(name) for name in [*colours, "pCPU 00"])) + 1
    columns = max(10, width - label)
    text = Text(f"{'':{label}}0 ms{f'{(end - start) / 1e6:.3f} ms':>{columns - 4}}\n", no_wrap=True)
    for pcpu in sorted({stretch.pcpu for stretch in stretches}):
        bars = [(s.start_ns, s.end_ns, s.guest, "") for s in stretches if s.pcpu == pcpu]
        text.append(f"{f'pCPU {pcpu}':{label}}")
        for who in _cells(bars, start, end, columns):
            text.append("█" if who else " ", colours.get(who))
        text.append("\n")
    for name in list(colours)[:guests]:
        text.append(f"{name[: label - 1]:{label}}", colours[name])
        rows = _rows_of(name, stretches, start)
        marks = {"ran": "#", "waited": "-", "throttled": "x", "": " "}
        text.append("".join(marks[who] for who in _cells(rows, start, end, columns)), colours[name])
        text.append("\n")
    if len(colours) > guests:
        text.append(f"and {len(colours) - guests} more guests\n")
    return text


def draw_svg(stretches: Sequence[Stretch], title: str = "Schedule") -> str:
    """As an SVG document, with why each stretch ended as its tooltip.

    Raises UsageError for more than 20,000 bars: record a shorter time.
    """
    start, end = _span(stretches)
    colours = _colours(stretches)
    rows: list[tuple[str, list[_Bar]]] = []
    for pcpu in sorted({stretch.pcpu for stretch in stretches}):
        bars = [(s.start_ns, s.end_ns, s.guest, _tooltip(s)) for s in stretches if s.pcpu == pcpu]
        rows.append((f"pCPU {pcpu}", bars))
    rows += [(name, _rows_of(name, stretches, start)) for name in colours]
    count = sum(len(bars) for _, bars in rows)
    if count > MAX_RECTANGLES:
        raise UsageError(f"a chart of {count:,} bars is impossible; it has at most {MAX_RECTANGLES:,}")
    height = (len(rows) + 2) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 10}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="4" y="15">{escape(title)}, '
        f"{(end - start) / 1e6:g} ms</text>",
    ]
    for number, (label, bars) in enumerate(rows, 1):
        y = number * ROW
        parts.append(f'<text x="4" y="{y + 13}">{escape(label[:16])}</text>')
        for first, last, who, tooltip in bars:
            x = LABEL + WIDTH * (max(first, start) - start) / (end - start)
            wide = max(0.3, WIDTH * (last - max(first, start)) / (end - start))
            fill = {"waited": WAITS, "throttled": THROTTLED}.get(who) if label in colours else None
            fill = fill or colours[label if label in colours else who]
            parts.append(
                f'<rect x="{x:.2f}" y="{y}" width="{wide:.2f}" height="{BAR}" fill="{fill}">'
                f"<title>{escape(tooltip)}</title></rect>"
            )
    legend = f"grey: waited for a pCPU; pink: throttled by its cap or limit; {len(colours)} guests"
    parts.append(f'<text x="{LABEL}" y="{height - 7}">{legend}</text></svg>')
    return "\n".join(parts) + "\n"


def _span(stretches: Sequence[Stretch]) -> tuple[int, int]:
    if not stretches:
        raise UsageError("an empty schedule cannot be drawn")
    start = min(stretch.start_ns for stretch in stretches)
    return start, max(start + 1, *(stretch.end_ns for stretch in stretches))


def _colours(stretches: Sequence[Stretch]) -> dict[str, str]:
    """The guests, those that ran most first."""
    ran: dict[str, int] = {}
    for stretch in stretches:
        ran[stretch.guest] = ran.get(stretch.guest, 0) + stretch.end_ns - stretch.start_ns
    return dict(zip(sorted(ran, key=lambda name: (-ran[name], name)), cycle(COLOURS), strict=False))


def _rows_of(name: str, stretches: Sequence[Stretch], start_ns: int) -> list[_Bar]:
    """What a guest did; times before `start_ns` are left out."""
    bars: list[_Bar] = []
    for stretch in stretches:
        if stretch.guest != name:
            continue
        waits = stretch.start_ns - stretch.waited_ns
        throttled = waits - stretch.throttled_ns
        tooltip = _tooltip(stretch)
        bars.append((throttled, waits, "throttled", f"throttled for {stretch.throttled_ns / 1e6:g} ms"))
        bars.append((waits, stretch.start_ns, "waited", f"waited {stretch.waited_ns / 1e6:g} ms"))
        bars.append((stretch.start_ns, stretch.end_ns, "ran", tooltip))
    return [bar for bar in bars if bar[1] > max(bar[0], start_ns)]


def _tooltip(stretch: Stretch) -> str:
    ran = (stretch.end_ns - stretch.start_ns) / 1e6
    return f"{stretch.guest} on pCPU {stretch.pcpu} for {ran:g} ms; {stretch.why}"


def _cells(bars: Sequence[_Bar], start_ns: int, end_ns: int, columns: int) -> list[str]:
    """Who had most of each column; "" where nobody had any."""
    shares: list[dict[str, float]] = [{} for _ in range(columns)]
    scale = columns / (end_ns - start_ns)
    for first, last, who, _ in bars:
        begin, stop = max(0.0, (first - start_ns) * scale), (last - start_ns) * scale
        for column in range(int(begin), min(columns, int(stop) + 1)):
            part = min(stop, column + 1) - max(begin, column)
            if part > 0:
                shares[column][who] = shares[column].get(who, 0.0) + part
    return [max(share, key=lambda who: share[who]) if share else "" for share in shares]
