"""Numbers as text: the contents of the dashboard's panels, for a width in characters."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from emuvisor.metrics import GuestRates, HostRates
from emuvisor.tui.bars import blocks, shares_of, short_count, short_size, short_time, sparkline
from emuvisor.tui.plain import plain

__all__ = ["PLACES", "cpu", "exits", "header", "heading", "host", "memory", "row", "transfers"]

STATE_STYLES = {"running": "green", "paused": "yellow", "crashed": "bold red", "defined": "bright_black"}
PRESSURE_STYLES = {"high": "green", "soft": "yellow", "hard": "dark_orange", "low": "bold red"}
DIM = "bright_black"
CPU_STYLES = {"used": "green", "ready": "yellow", "capped": "magenta", "stolen": "red"}
LABEL = 7
"""Columns for what a bar in the panel of the processor is called."""
HOST_BAR = 20
LEAST_SPARKLINE = 8
EXIT_NAMES = {
    "port_read": "port read",
    "port_write": "port write",
    "mmio_read": "mmio read",
    "mmio_write": "mmio write",
    "page_fault": "page fault",
    "soft_interrupt": "soft int.",
    "tlb_fill": "TLB fill",
    "tlb_flush": "TLB flush",
    "cpuid": "CPUID",
    "rdtsc": "RDTSC",
}
"""Where the counter's own name is not what people read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest's memory can be: a field of its statistics, and how bars show it."""

    field: str
    mark: str
    style: str


PLACES = (
    Place("resident", "█", "green"),
    Place("shared", "▓", "cyan"),
    Place("zero", "░", "blue"),
    Place("ballooned", "○", "magenta"),
    Place("compressed", "▒", "yellow"),
    Place("swapped", "▞", "red"),
)


def header(now: HostRates, width: int) -> Text:
    """The title line: how many guests are in which state, and the time of the numbers (UTC)."""
    counts: dict[str, int] = {}
    for guest in now.guests:
        counts[guest.state] = counts.get(guest.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    left = f" emuvisor top   {len(now.guests)} guest{'' if len(now.guests) == 1 else 's'}"
    if states:
        left += f": {states}"
    right = time.strftime("%H:%M:%S UTC ", time.gmtime(now.time))
    return Text(left[: max(0, width - len(right) - 1)].ljust(width - len(right)) + right)


def host(now: HostRates, used: Sequence[float], width: int) -> Text:
    """Two lines: the processors with their past, and the memory with what overcommitting it gains."""
    pcpus = f"{now.pcpus} pCPU{'' if now.pcpus == 1 else 's'}"
    text = Text.assemble(
        " CPU    ",
        (blocks(now.used / 100, HOST_BAR), "green on grey23"),
        f" {now.used:3.0f} % of {pcpus:9}",
    )
    past = width - text.cell_len - 1
    if past >= LEAST_SPARKLINE:
        text.append(sparkline(used, past), "green")
    memory = now.memory
    taken = memory.pool - memory.free
    text.append("\n memory ")
    text.append(blocks(taken / memory.pool, HOST_BAR), "green on grey23")
    text.append(f" {short_size(taken)} of {short_size(memory.pool)}, ")
    text.append(memory.state, PRESSURE_STYLES.get(memory.state, ""))
    text.append(f", {memory.overcommit:.1f}x promised")
    saved = ", ".join(f"{rung} {short_size(size)}" for rung, size in memory.savings.items() if size > 0)
    if saved:
        text.append(f"; saved: {saved}")
    if memory.starving:
        text.append(f"; {memory.starving} wait for memory", "bold red")
    lines = text.split("\n")
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


# ---- the list of guests ----


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    cell: Callable[[GuestRates], str]
    from_width: int = 0
    """The list has the column from this width on."""


COLUMNS = (
    _Column("guest", -12, lambda guest: guest.name),
    _Column("state", -7, lambda guest: guest.state),
    _Column("used", 5, lambda guest: f"{guest.cpu.used:.0f} %"),
    _Column("ready", 5, lambda guest: f"{guest.cpu.ready:.0f} %"),
    _Column("stolen", 6, lambda guest: f"{guest.cpu.stolen:.0f} %"),
    _Column("memory", 6, lambda guest: short_size(guest.memory.resident)),
    _Column("disk/s", 6, lambda guest: short_size(guest.disk.read_bytes + guest.disk.written_bytes)),
    _Column("net/s", 6, lambda guest: short_size(guest.network.received_bytes + guest.network.sent_bytes)),
    _Column("exits/s", 7, lambda guest: short_count(guest.vm_exits)),
    _Column("weight", 6, lambda guest: str(guest.weight), 90),
    _Column("cap", 5, lambda guest: "-" if guest.cap is None else f"{guest.cap:g} %", 90),
    _Column("score", 5, lambda guest: f"{guest.score:.0f}", 110),
)
"""A negative width: aligned to the left."""


def heading(width: int) -> Text:
    """The titles of the columns."""
    columns = _columns(width)
    cells = [_fit(column.title, column.width) for column in columns]
    rest = width - _width_of(columns) - 1
    return Text(" ".join(cells) + (f" {'CPU used'.rjust(rest)}" if rest >= LEAST_SPARKLINE else ""), DIM)


def row(guest: GuestRates, used: Sequence[float], width: int) -> Text:
    """A guest's line; `used` are its last percents of a pCPU."""
    columns = _columns(width)
    text = Text(no_wrap=True)
    for number, column in enumerate(columns):
        style = STATE_STYLES.get(guest.state, "") if column.title == "state" else ""
        text.append(" " if number else "")
        text.append(_fit(plain(column.cell(guest)), column.width), style)
    rest = width - _width_of(columns) - 1
    if rest >= LEAST_SPARKLINE:
        text.append(" ")
        text.append(sparkline(used, rest), "green")
    return text


def _columns(width: int) -> list[_Column]:
    return [column for column in COLUMNS if width >= column.from_width]


def _width_of(columns: Sequence[_Column]) -> int:
    return sum(abs(column.width) for column in columns) + len(columns) - 1


def _fit(text: str, width: int) -> str:
    """`text` in exactly `width` columns, aligned to the left where that is negative."""
    cell = Text(text)
    cell.truncate(abs(width), overflow="ellipsis")
    blanks = " " * (abs(width) - cell.cell_len)
    return cell.plain + blanks if width < 0 else blanks + cell.plain


# ---- the panels of one guest ----


def cpu(guest: GuestRates, used: Sequence[float], ready: Sequence[float], width: int) -> Text:
    """What became of its time, with what it used and waited lately."""
    bars = {
        "used": guest.cpu.used,
        "ready": guest.cpu.ready,
        "capped": guest.cpu.throttled,
        "stolen": guest.cpu.stolen,
    }
    bar = max(0, width - LABEL - 5)
    lines = [
        Text.assemble(
            name.ljust(LABEL),
            (blocks(percent / 100, bar), f"{CPU_STYLES[name]} on grey23"),
            f"{percent:3.0f} %".rjust(5),
        )
        for name, percent in bars.items()
    ]
    past = width - LABEL
    lines += [
        Text.assemble("used".ljust(LABEL), (sparkline(used, past), CPU_STYLES["used"])),
        Text.assemble("ready".ljust(LABEL), (sparkline(ready, past), CPU_STYLES["ready"])),
        Text.assemble("code/s".ljust(LABEL), short_count(guest.code).rjust(past)),
    ]
    return Text("\n").join(lines)


def memory(guest: GuestRates, width: int) -> Text:
    """Where it is: a bar for its size, and bytes."""
    sizes = [getattr(guest.memory, place.field) for place in PLACES]
    bar = Text()
    for place, share in zip(PLACES, shares_of(width, sizes, guest.memory.configured), strict=True):
        bar.append(place.mark * share, place.style)
    bar.append("·" * (width - len(bar)), DIM)
    lines = [bar]
    for place, size in zip(PLACES, sizes, strict=True):
        text = short_size(size).rjust(width - 2 - len(place.field))
        lines.append(Text.assemble((place.mark, place.style), f" {place.field}{text}"))
    return Text("\n").join(lines)


def exits(guest: GuestRates, width: int, count: int) -> Text:
    """The `count` most frequent kinds, per second."""
    kinds = sorted(
        (item for item in guest.exits.items() if item[1] > 0), key=lambda item: (-item[1], item[0])
    )
    lines = [_pair(EXIT_NAMES.get(kind, kind), short_count(rate), width) for kind, rate in kinds[:count]]
    return Text("\n").join(lines) if lines else Text("none", DIM)


def transfers(guest: GuestRates, width: int) -> Text:
    """Disks and network cards: bytes and operations per second; what 99 % of reads and writes took at most."""
    disk, net, took = guest.disk, guest.network, guest.disk_latency
    lines = [
        _transfer("disk", "bytes", "ops", width, DIM),
        _transfer("read", short_size(disk.read_bytes), short_count(disk.reads), width),
        _transfer("write", short_size(disk.written_bytes), short_count(disk.writes), width),
        _transfer("99 %", short_time(took.read_ns), short_time(took.write_ns), width),
        _transfer("net", "bytes", "frames", width, DIM),
        _transfer("in", short_size(net.received_bytes), short_count(net.received_frames), width),
        _transfer("out", short_size(net.sent_bytes), short_count(net.sent_frames), width),
    ]
    return Text("\n").join(lines)


def _transfer(label: str, size: str, count: str, width: int, style: str = "") -> Text:
    """Three columns; the first two have at most five characters, the last six."""
    return Text(
        f"{label:5} {size.rjust(max(5, width // 2 - 4))}" + count.rjust(max(7, width - width // 2 - 2)), style
    )


def _pair(left: str, right: str, width: int) -> Text:
    return Text(left.ljust(width - len(right)) + right)
