"""The screens of `emuvisor demo`: a live table, plain lines, and the summary."""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from emuvisor.cli.screen import LinePrefixer
from emuvisor.cli.tables import show_table
from emuvisor.cli.workloads import Show, Summary, Workload
from emuvisor.host import Guest
from emuvisor.units import NS_PER_S, PAGE_SIZE, format_size

__all__ = ["LiveShow", "PlainShow", "Show", "document", "show_summary", "sparkline"]

SPARKS = "▁▂▃▄▅▆▇█"
HISTORY = 16
"""Samples in a sparkline."""
SAMPLE_S = 0.2
STATE_STYLES = {"running": "green", "idle": "cyan", "done": "dim", "crashed": "bold red"}


def sparkline(shares: Sequence[float]) -> str:
    """Shares between 0 and 1 as bars from left to right."""
    top = len(SPARKS) - 1
    return "".join(SPARKS[min(top, max(0, round(share * top)))] for share in shares)


def _time(nanoseconds: int) -> str:
    return f"{nanoseconds / NS_PER_S:.2f} s"


class _Meter:
    """A guest's share of the CPU over the last samples."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._cpu_ns = 0
        self.shares = deque([0.0] * HISTORY, HISTORY)

    def sample(self, elapsed_ns: int) -> None:
        """`elapsed_ns` of one pCPU have passed since the last sample."""
        cpu_ns = self._guest.cpu_ns
        self.shares.append(min(1.0, (cpu_ns - self._cpu_ns) / max(1, elapsed_ns)))
        self._cpu_ns = cpu_ns


class LiveShow:
    """A table that is redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._guests: list[tuple[Workload, Guest, _Meter]] = []
        self._start = self._sampled = 0

    def begin(self, guests: Sequence[tuple[Workload, Guest]]) -> None:
        """Start with an empty table."""
        self._guests = [(workload, guest, _Meter(guest)) for workload, guest in guests]
        self._start = self._sampled = time.monotonic_ns()
        self._live.start()

    def refresh(self) -> None:
        """Draw the table with the numbers of now."""
        now = time.monotonic_ns()
        if now - self._sampled >= SAMPLE_S * NS_PER_S:
            for _, _, meter in self._guests:
                meter.sample(now - self._sampled)
            self._sampled = now
        self._live.update(self._table(now - self._start), refresh=True)

    def end(self) -> None:
        """Take the table away; the summary comes in its place."""
        self._live.stop()

    def _table(self, elapsed_ns: int) -> Table:
        host = self._guests[0][1].host
        pool = f"{format_size(host.pool.used * PAGE_SIZE)} of {format_size(host.pool.limit * PAGE_SIZE)}"
        table = Table(
            title=f"emuvisor: {len(self._guests)} guests on {host.pcpus} pCPU, {pool}, {_time(elapsed_ns)}",
            expand=True,
        )
        table.add_column("guest", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=7)
        table.add_column("share of CPU", no_wrap=True, min_width=HISTORY + 5)
        for heading in ("waited", "frames", "exits", "guest time"):
            table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
        table.add_column("last console line", no_wrap=True, ratio=1, min_width=20)
        for workload, guest, meter in self._guests:
            statistics = guest.statistics()
            state = _state(guest)
            share = Text(sparkline(meter.shares), "green").append(f" {meter.shares[-1]:4.0%}", "default")
            table.add_row(
                Text(guest.name, "bold").append(f" {workload.does}", "not bold dim"),
                Text(state, STATE_STYLES.get(state, "")),
                share,
                _time(statistics.waited_ns),
                f"{statistics.resident:,}",
                f"{statistics.exit_count:,}",
                _time(statistics.guest_ns),
                Text(statistics.last_line, overflow="ellipsis"),
            )
        return table


def _state(guest: Guest) -> str:
    """The state for people: "done" is a guest that has switched itself off, "idle" one that sleeps."""
    if guest.outcome is not None:
        return "crashed" if guest.outcome.crashed else "done"
    return "idle" if guest.is_idle else str(guest.state)


class PlainShow:
    """Lines of text: what guests print, and when they start and end."""

    def __init__(self) -> None:
        self._start = 0.0
        self._lines: deque[bytes] = deque()
        self._lock = threading.Lock()

    def begin(self, guests: Sequence[tuple[Workload, Guest]]) -> None:
        """Listen to the guests' consoles and states."""
        self._start = time.monotonic()
        width = max(len(guest.name) for _, guest in guests)
        for workload, guest in guests:
            prefixer = LinePrefixer(f"{guest.name:{width}} | ")
            guest.console.listeners.append(self._listener(prefixer))
            self._say(f"{guest.name:{width}}   boots; it {workload.does}\n".encode())
        guests[0][1].host.listeners.append(
            lambda event: self._say(f"{event.guest:{width}}   {event.new}: {event.reason}\n".encode())
        )

    def _listener(self, prefixer: LinePrefixer) -> Callable[[bytes], None]:
        def listen(data: bytes) -> None:
            if lines := prefixer.feed(data):
                self._say(lines)

        return listen

    def _say(self, lines: bytes) -> None:
        seconds = time.monotonic() - self._start
        with self._lock:
            self._lines.extend(
                f"{seconds:6.2f} s  ".encode() + line for line in lines.splitlines(keepends=True)
            )

    def refresh(self) -> None:
        """Print what has come."""
        with self._lock:
            lines = b"".join(self._lines)
            self._lines.clear()
        sys.stdout.write(lines.decode())
        sys.stdout.flush()

    def end(self) -> None:
        """Print the rest."""
        self.refresh()


def show_summary(summary: Summary) -> None:
    """Print the table of results and a line about all of them."""
    rows = []
    for result in summary.guests:
        statistics = result.statistics
        share = statistics.cpu_ns / (summary.seconds * NS_PER_S * summary.pcpus)
        rows.append(
            (
                statistics.name,
                result.ending or "did not end",
                f"{result.seconds:.2f} s",
                f"{share:.0%}",
                _time(statistics.waited_ns),
                f"{statistics.retired:,}",
                f"{statistics.exit_count:,}",
                f"{statistics.exits['switch']:,}",
                f"{statistics.resident:,}",
                _time(statistics.guest_ns),
            )
        )
    columns = (
        "guest",
        "ended by",
        "after",
        "CPU",
        "waited",
        "retired",
        "exits",
        "switches",
        "frames",
        "guest time",
    )
    show_table(columns, rows, right=columns[2:], styles={"power-off": "green", "did not end": "bold red"})
    frames = sum(result.statistics.resident for result in summary.guests)
    pcpus = "one pCPU" if summary.pcpus == 1 else f"{summary.pcpus} pCPUs"
    print(
        f"{len(summary.guests)} guests, {pcpus}, {summary.seconds:.1f} s: {summary.switches:,} switches "
        f"between guests, {frames:,} frames ({format_size(frames * PAGE_SIZE)})."
    )
    if not summary.all_well:
        bad = ", ".join(result.statistics.name for result in summary.guests if not result.well)
        print(f"emuvisor: these did not end well: {bad}", file=sys.stderr)


def document(summary: Summary) -> str:
    """The JSON document of a demo."""
    guests = [
        {
            "name": result.statistics.name,
            "does": result.workload.does,
            "ending": result.ending,
            "well": result.well,
            "seconds": round(result.seconds, 6),
            "statistics": result.statistics.as_dict(),
        }
        for result in summary.guests
    ]
    return json.dumps(
        {
            "all_well": summary.all_well,
            "seconds": round(summary.seconds, 6),
            "pcpus": summary.pcpus,
            "switches": summary.switches,
            "guests": guests,
        },
        indent=2,
    )
