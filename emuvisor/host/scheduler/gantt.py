"""Gantt charts of a recorded schedule: a row for each pCPU, and one for each guest with what it waited for.

A cell of the terminal shows who had most of it. So does a pixel of the SVG in rows of more stretches than pixels.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import cycle, groupby
from string import ascii_uppercase
from typing import NamedTuple

from rich.text import Text

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.recording import Stretch

__all__ = ["draw_svg", "draw_text"]

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#777777")
"""Told apart by people with colour blindness: P. Tol, *Colour Schemes*, SRON/EPS/TN/09-002, 2021, and one more."""
MANY = "*"
"""A guest without a letter of its own, in the terminal."""
MARKS = {"ran": "#", "waited": "-", "throttled": "x", "": " "}
LEGEND = "#: ran  .: ran a little  -: waited for a pCPU  x: throttled"
TICK_COLUMNS = 20
"""At least between two times on the axis."""
TICK_PIXELS = 100

WAITS, THROTTLED, INK, PALE = "#bbbbbb", "#ffaabb", "#1f2933", "#e4e7eb"
LABEL, ROW, BAR, WIDTH, MARGIN = 130, 22, 16, 1000, 30
"""Pixels of the SVG."""
MAX_BARS = 2 * WIDTH
"""In a row; of more, each pixel shows who had most of it."""
MAX_ROWS = 200
MAX_LABEL = 18


class _Bar(NamedTuple):
    first: float
    last: float
    who: str
    tooltip: str = ""


def draw_text(
    stretches: Sequence[Stretch],
    width: int = 100,
    guests: int = 20,
    span: tuple[int, int] | None = None,
    zero_ns: int | None = None,
) -> Text:
    """For a terminal of `width` columns, with rows for at most `guests` guests, those that ran most.

    `span`: from when to when, in nanoseconds; without it, from the first stretch to the last. `zero_ns`: what times on
    the axis count from; without it, where it begins. Raises UsageError when there is nothing to be drawn.
    """
    start, end = span or _span(stretches)
    zero = start if zero_ns is None else zero_ns
    colours = _colours(stretches)
    letters = dict(zip(colours, ascii_uppercase[:guests], strict=False))
    label = min(MAX_LABEL, max(len(name) for name in ["pCPU 00", *(f"A {name}" for name in letters)])) + 1
    columns = max(10, width - label)
    text = Text(no_wrap=True)
    text.append(" " * label + _axis(start - zero, end - zero, columns) + "\n", "dim")
    for pcpu, bars in _by_pcpu(stretches):
        text.append(f"{f'pCPU {pcpu}':{label}}")
        shown = (_shown(cell, letters, colours) for cell in _cells(bars, start, end, columns))
        for (letter, style), those in groupby(shown):
            text.append(letter * len(list(those)), style)
        text.append("\n")
    bars_of = _by_guest(stretches, list(colours)[:guests])
    for name, bars in bars_of.items():
        text.append(f"{f'{letters.get(name, MANY)} {name}'[: label - 1]:{label}}", colours[name])
        cells = _cells(bars, start, end, columns)
        marks = ("." if cell.who == "ran" and cell.part < 0.5 else MARKS[cell.who] for cell in cells)
        text.append("".join(marks), colours[name])
        text.append("\n")
    if len(colours) > guests:
        text.append(f"and {len(colours) - guests} more guests\n")
    text.append(f"{LEGEND}\n", "dim")
    return text


def _shown(cell: "_Cell", letters: Mapping[str, str], colours: Mapping[str, str]) -> tuple[str, str]:
    """Letter and style of a pCPU's cell."""
    if not cell.who:
        return " ", ""
    letter, colour = letters.get(cell.who, MANY), colours[cell.who]
    return (letter.lower(), colour) if cell.used < 0.5 else (letter, f"{colour} reverse")


def draw_svg(
    stretches: Sequence[Stretch],
    title: str = "Schedule",
    span: tuple[int, int] | None = None,
    zero_ns: int | None = None,
) -> str:
    """As an SVG document, with why each stretch ended as its tooltip; at most 200 guests, those that ran most.

    `span`, `zero_ns`, and what is raised, as for `draw_text`.
    """
    start, end = span or _span(stretches)
    zero = start if zero_ns is None else zero_ns
    colours = _colours(stretches)
    rows = [(f"pCPU {pcpu}", "", bars) for pcpu, bars in _by_pcpu(stretches)]
    rows += [(name, name, bars) for name, bars in _by_guest(stretches, list(colours)[:MAX_ROWS]).items()]
    bottom = (len(rows) + 2) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + MARGIN}" height="{bottom + ROW}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="4" y="15" font-weight="bold">{escape(title)}</text>',
    ]
    free = 0.0
    for time_ns, tick in _ticks(start - zero, end - zero, WIDTH // TICK_PIXELS):
        x = LABEL + WIDTH * (zero + time_ns - start) / (end - start)
        if x < free:  # its text would be on the other one's
            continue
        free = x + TICK_PIXELS / 2
        parts.append(
            f'<path d="M{x:.1f} {2 * ROW - 4}V{bottom}" stroke="{PALE}"/>'
            f'<text x="{x:.1f}" y="{2 * ROW - 8}" text-anchor="middle">{tick}</text>'
        )
    for number, (label, guest, bars) in enumerate(rows, 2):
        y = number * ROW
        parts.append(f'<text x="4" y="{y + 13}">{escape(label[:MAX_LABEL])}</text>')
        for bar in _few(bars, start, end):
            first, last = max(bar.first, start), min(bar.last, end)
            if last <= first:
                continue
            fill = {"waited": WAITS, "throttled": THROTTLED}.get(bar.who) if guest else None
            parts.append(
                f'<rect x="{LABEL + WIDTH * (first - start) / (end - start):.2f}" y="{y}" '
                f'width="{max(0.3, WIDTH * (last - first) / (end - start)):.2f}" height="{BAR}" '
                f'fill="{fill or colours[guest or bar.who]}"><title>{escape(bar.tooltip)}</title></rect>'
            )
    legend = f"grey: waited for a pCPU; pink: throttled by its cap or limit; {_guests(len(colours))}"
    if len(colours) > MAX_ROWS:
        legend += f", of which {MAX_ROWS} are shown"
    parts.append(f'<text x="{LABEL}" y="{bottom + 13}">{legend}</text></svg>')
    return "\n".join(parts) + "\n"


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"


def _span(stretches: Sequence[Stretch]) -> tuple[int, int]:
    if not stretches:
        raise UsageError("an empty schedule cannot be drawn")
    start = min(stretch.start_ns for stretch in stretches)
    return start, max(start + 1, *(stretch.end_ns for stretch in stretches))


def _colours(stretches: Sequence[Stretch]) -> dict[str, str]:
    """The guests, those that ran most first."""
    ran: Counter[str] = Counter()
    for stretch in stretches:
        ran[stretch.guest] += stretch.ran_ns
    return dict(zip(sorted(ran, key=lambda name: (-ran[name], name)), cycle(COLOURS), strict=False))


# ---- the axis ----


def _ticks(first_ns: int, last_ns: int, most: int) -> Iterator[tuple[float, str]]:
    """Times between the two, and how they are written: the first, and at most `most` + 1 multiples of 1, 2 or 5 times
    a power of ten."""
    least = (last_ns - first_ns) / max(1, most)
    power = 1.0
    while power * 10 <= least:
        power *= 10
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    units = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
    unit, name = next((unit, name) for unit, name in units if max(last_ns, 1) >= unit)
    yield first_ns, f"{first_ns / unit:.9g} {name}"
    for number in range(math.floor(first_ns / step) + 1, math.floor(last_ns / step) + 1):
        yield number * step, f"{number * step / unit:.9g} {name}"


def _axis(first_ns: int, last_ns: int, columns: int) -> str:
    """Times, each beginning above the column that it is at; those that have room."""
    line = ""
    for time_ns, tick in _ticks(first_ns, last_ns, columns // TICK_COLUMNS):
        column = int(columns * (time_ns - first_ns) / (last_ns - first_ns))
        if (not line or column > len(line)) and column + len(tick) < columns:
            line = line.ljust(column) + "|" + tick
    return line


# ---- rows ----


def _by_pcpu(stretches: Sequence[Stretch]) -> Iterator[tuple[int, list[_Bar]]]:
    ordered = sorted((s for s in stretches if s.ran_ns), key=lambda s: (s.pcpu, s.start_ns))
    for pcpu, those in groupby(ordered, key=lambda s: s.pcpu):
        yield pcpu, [_Bar(s.start_ns, s.end_ns, s.guest, _tooltip(s)) for s in those]


def _by_guest(stretches: Sequence[Stretch], names: Sequence[str]) -> dict[str, list[_Bar]]:
    """What each of the guests `names` did."""
    found: dict[str, list[_Bar]] = {name: [] for name in names}
    for stretch in stretches:
        bars = found.get(stretch.guest)
        if bars is None:
            continue
        queued = stretch.start_ns - stretch.waited_ns
        throttled_ns, waited_ns = stretch.throttled_ns, stretch.waited_ns
        if throttled_ns:
            bars.append(
                _Bar(queued - throttled_ns, queued, "throttled", f"throttled for {_ms(throttled_ns)}")
            )
        if waited_ns:
            bars.append(_Bar(queued, stretch.start_ns, "waited", f"waited {_ms(waited_ns)}"))
        if stretch.ran_ns:
            bars.append(_Bar(stretch.start_ns, stretch.end_ns, "ran", _tooltip(stretch)))
    return found


def _tooltip(stretch: Stretch) -> str:
    return f"{stretch.guest} on pCPU {stretch.pcpu} for {_ms(stretch.ran_ns)}; {stretch.why}"


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.6g} ms"


def _few(bars: Sequence[_Bar], start_ns: int, end_ns: int) -> Sequence[_Bar]:
    """`bars`, or when they are too many, one for each row of pixels that the same had most of."""
    if len(bars) <= MAX_BARS:
        return bars
    pixel = (end_ns - start_ns) / WIDTH
    few = []
    cells = enumerate(_cells(bars, start_ns, end_ns, WIDTH))
    for who, those in groupby(cells, key=lambda cell: cell[1].who):
        columns = [column for column, _ in those]
        if who:
            first, last = start_ns + columns[0] * pixel, start_ns + (columns[-1] + 1) * pixel
            few.append(_Bar(first, last, who, f"mostly {who}; there are too many to be shown one by one"))
    return few


class _Cell(NamedTuple):
    who: str = ""
    """Who had most of it; "" where nobody had any."""
    part: float = 0.0
    used: float = 0.0
    """What part of it that one had, and what part all had together."""


def _cells(bars: Sequence[_Bar], start_ns: int, end_ns: int, columns: int) -> list[_Cell]:
    """The time from start to end as so many columns."""
    parts: list[dict[str, float]] = [{} for _ in range(columns)]
    scale = columns / (end_ns - start_ns)
    for first, last, who, _ in bars:
        begin, stop = max(0.0, (first - start_ns) * scale), (last - start_ns) * scale
        for column in range(int(begin), min(columns, int(stop) + 1)):
            part = min(stop, column + 1) - max(begin, column)
            if part > 0:
                parts[column][who] = parts[column].get(who, 0.0) + part
    return [_cell(part) if part else _Cell() for part in parts]


def _cell(parts: dict[str, float]) -> _Cell:
    who = max(parts, key=lambda name: parts[name])
    return _Cell(who, parts[who], sum(parts.values()))
