"""Where guests' memory is: a table of numbers, and lines about the host, as text and for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emuvisor.cli.memory_overview import Overview
from emuvisor.cli.tables import aligned
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.statistics import GuestMemoryStatistics, HostMemoryStatistics
from emuvisor.units import GIB, KIB, MIB, PAGE_SIZE, TIB

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["COLUMNS", "KINDS", "Kind", "as_text", "host_lines", "row", "short_size", "sums", "view"]

COLUMNS = (
    *("guest", "size", "reserved", "limit", "active", "resident"),
    *("shared", "zero", "balloon", "compressed", "swapped", "in flight"),
)
BAR = 60
"""Characters of a guest's bar, at most."""
STATE_STYLES = {"high": "green", "soft": "yellow", "hard": "dark_orange", "low": "bold red"}
SAVINGS = {
    "sharing": "sharing",
    "zero": "zero pages",
    "balloon": "balloons",
    "compression": "compression",
    "swap": "swap",
}
"""How the host's savings are called, in the order of the ladder."""
RUNG = 11
"""Width of a rung's name in the log."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the places in which a guest's memory can be: a field of its statistics, how bars and charts show it."""

    field: str
    mark: str
    style: str
    colour: str


KINDS = (
    Kind("resident", "█", "green", "#2f9e5b"),
    Kind("shared", "▓", "cyan", "#2aa7b8"),
    Kind("zero", "░", "blue", "#8fb4e3"),
    Kind("ballooned", "○", "magenta", "#b06fc4"),
    Kind("compressed", "▒", "yellow", "#e0a526"),
    Kind("swapped", "▞", "red", "#cf4f4f"),
)


def short_size(size: int) -> str:
    """`size` bytes in at most six characters: "512M", "1.5G", "64K", "-" for none."""
    for unit, name in ((TIB, "T"), (GIB, "G"), (MIB, "M"), (KIB, "K")):
        if abs(size) >= unit:
            number = size / unit
            text = f"{number:.0f}" if abs(number) >= 100 else f"{number:.1f}".removesuffix(".0")
            return f"{text}{name}"
    return str(size) if size else "-"


def row(guest: GuestMemoryStatistics) -> tuple[str, ...]:
    """A guest's cells, in the order of COLUMNS."""
    return (
        guest.name,
        short_size(guest.configured),
        short_size(guest.reservation),
        "-" if guest.limit is None else short_size(guest.limit),
        "?" if guest.active is None else short_size(guest.active),
        *(short_size(getattr(guest, kind.field)) for kind in KINDS),
        short_size(guest.in_flight),
    )


def host_lines(host: HostMemoryStatistics, guests: int) -> tuple[str, str]:
    """What the host has and has promised, and what is saved, a line each."""
    count = "1 guest" if guests == 1 else f"{guests} guests"
    demand = (
        f"{count} of {short_size(host.configured)}: {host.overcommit:.2f} x the host"
        if host.configured
        else "no guest is on"
    )
    starving = f", {host.starving} without a frame" if host.starving else ""
    free = short_size(host.free) if host.free else "nothing"
    saved = [
        f"{SAVINGS.get(name, name)} {short_size(size)}" for name, size in host.savings.items() if size > 0
    ]
    taken = f"; compressed pages take {short_size(host.compression_used)}" if host.compression_used else ""
    return (
        f"host: {short_size(host.pool)}, {free} free ({host.free / host.pool:.1%}), state {host.state}; "
        f"{demand}{starving}",
        f"saved: {', '.join(saved) or 'nothing'}{taken}",
    )


def sums(overview: Overview) -> list[str]:
    """What the memory manager did in all, a line for each rung."""
    lines = []
    for name, rung in sorted(overview.rungs.items(), key=lambda item: -item[1].gained):
        gained = f"{rung.gained:,} frames ({short_size(rung.gained * PAGE_SIZE)}) gained"
        given = f", {rung.given:,} given back" if rung.given else ""
        times = "1 decision" if rung.decisions == 1 else f"{rung.decisions:,} decisions"
        lines.append(f"{name:{RUNG}} {gained}{given} in {times}")
    return lines


def extremes(overview: Overview) -> str:
    """How far it went."""
    samples = "1 sample" if overview.samples == 1 else f"{overview.samples:,} samples"
    lowest = short_size(overview.lowest_free) if overview.lowest_free else "nothing"
    return (
        f"{samples} in {overview.seconds:.1f} s: the guests were at most {overview.overcommit:.2f} x the host, "
        f"{lowest} was free at least"
    )


def log_line(decision: Decision) -> str:
    """A decision without its time and numbers."""
    return f"{decision.rung:{RUNG}} {decision.guest}  {decision.frames:+d}  {decision.why}"


def as_text(overview: Overview, *, fullest: bool = False) -> str:
    """All of it for a file or pipe: the last sample, or the `fullest`, and sums."""
    sample = overview.fullest if fullest else overview.sample
    if sample is None:
        return "no samples yet"
    rows = [row(guest) for guest in sample.guests]
    gone = () if fullest else overview.gone.values()
    rows += [(f"({guest.name})", *row(guest)[1:]) for guest in gone]
    lines = [aligned(COLUMNS, rows, right=COLUMNS[1:]), *host_lines(sample.host, len(sample.guests))]
    if gone:
        lines.append("in parentheses: guests that are gone, and what they had at last")
    return "\n".join([*lines, *sums(overview), extremes(overview)])


# ---- for a terminal ----


def view(overview: Overview, width: int, *, live: bool = False, fullest: bool = False) -> "RenderableType":
    """All of it for a terminal of `width` columns: the last sample, or the `fullest`; with the latest decisions while
    it is `live`, and with the sums of all afterwards."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    sample = overview.fullest if fullest else overview.sample
    if sample is None:
        return Text("no samples yet", "dim")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    styles = ["", "", "", "", *(kind.style for kind in KINDS), "bold"]
    for guest in sample.guests:
        name, *cells = row(guest)
        texts = [Text(c, "dim" if c in "-?" else s) for c, s in zip(cells, styles, strict=True)]
        table.add_row(Text(name, "bold", overflow="ellipsis"), *texts)
    for guest in () if fullest else overview.gone.values():
        table.add_row(*map(Text, row(guest)), style="dim")
    free, saved = host_lines(sample.host, len(sample.guests))
    parts: list[RenderableType] = [_host(free, sample.host.state), Text(saved), Text(), table]
    if sample.guests:
        parts += [Text(), *_bars(sample.guests, width)]
    if live:
        parts += [Text(), *map(_log, overview.latest)]
    else:
        parts += [Text(), *map(Text, sums(overview)), Text(extremes(overview))]
    return Group(*parts)


def _host(line: str, state: str) -> "Text":
    from rich.text import Text

    text = Text(line, "bold")
    text.highlight_words([f"state {state}"], STATE_STYLES.get(state, ""))
    return text


def _log(decision: Decision) -> "Text":
    from rich.text import Text

    return Text(log_line(decision), "dim", no_wrap=True, overflow="ellipsis")


def _bars(guests: Sequence[GuestMemoryStatistics], width: int) -> Iterator["Text"]:
    """A bar for each guest, the largest as long as there is room, and what the marks mean."""
    from rich.text import Text

    names = min(max(len(guest.name) for guest in guests), 16)
    largest = max(guest.configured for guest in guests) or 1
    room = max(10, min(BAR, width - names - 2))
    for guest in guests:
        text = Text(f"{guest.name[:names]:{names}}  ", no_wrap=True, overflow="crop")
        for kind, length in zip(KINDS, _lengths(guest, room / largest), strict=True):
            text.append(kind.mark * length, kind.style)
        text.append("·" * (round(guest.configured * room / largest) + names + 2 - len(text)), "dim")
        yield text
    legend = Text(" " * (names + 2), no_wrap=True, overflow="crop")
    for kind in KINDS:
        legend.append(kind.mark, kind.style).append(f" {kind.field}  ", "dim")
    yield legend.append("· untouched", "dim")


def _lengths(guest: GuestMemoryStatistics, scale: float) -> Iterator[int]:
    """Characters for each kind; their sum is rounded, not each of them, so that bars do not dance."""
    total = drawn = 0
    for kind in KINDS:
        total += getattr(guest, kind.field)
        end = round(total * scale)
        yield end - drawn
        drawn = end
