"""`emuvisor memory`: what a recording of a host's memory says."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.errors import UsageError

if TYPE_CHECKING:
    from emuvisor.cli.memory_overview import Overview
    from emuvisor.host.memory.decisions import Decision
    from emuvisor.host.memory.recording import Item, RecordingReader

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Shows where the memory of guests and of their host is, from a recording that 'emuvisor run --memory-record FILE'
writes or has written: per guest its size, reservation and limit, what it uses (active), its own frames (resident),
shared and zero pages, and what is in its balloon, compressed, swapped, or on its way there."""
POLL_S = 0.1
SILENCE_S = 10.0
"""A recording to which nothing is added for so long is followed no further: whoever wrote it is gone."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "memory",
        help="show where guests' memory is, from a recording",
        description=DESCRIPTION,
        epilog="The exit code is 0 or, after one line that says what is wrong, 2.",
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("recording", type=Path, metavar="FILE", help="a recording")
    parser.add_argument(
        "--follow", action="store_true", help="show it live until it ends, while a run still writes it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document with the last sample")
    parser.add_argument(
        "--log",
        action="store_true",
        help="print every decision, and its numbers; with --json in the document",
    )
    parser.add_argument(
        "--chart", type=_chart_path, metavar="OUT.svg|OUT.png", help="draw it over time (needs matplotlib)"
    )
    parser.add_argument("--guest", metavar="NAME", help="of the guests, this one only")


def _chart_path(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither .svg nor .png")
    return path


def execute(args: argparse.Namespace) -> int:
    """Show the recording `args.recording`."""
    from emuvisor.host.memory.recording import RecordingReader

    if args.follow and (args.json or args.chart):
        raise UsageError(
            f"--follow with {'--json' if args.json else '--chart'}: that is made when all is there"
        )
    with RecordingReader(args.recording) as reader:
        if args.follow:
            _follow(args, reader)
        else:
            _show(args, reader)
    return 0


def _show(args: argparse.Namespace, reader: "RecordingReader") -> None:
    """What is there now."""
    from emuvisor.cli.memory_overview import Overview
    from emuvisor.host.memory.decisions import Decision
    from emuvisor.host.memory.recording import Sample

    overview = Overview()
    samples: list[Sample] = []
    decisions: list[Decision] = []
    guests: set[str] = set()
    for item in reader.read():
        if isinstance(item, Sample):
            guests.update(guest.name for guest in item.guests)
        for part in _of_guest(item, args.guest):
            overview.add(part)
            if isinstance(part, Sample) and args.chart:
                samples.append(part)
            elif isinstance(part, Decision) and args.log:
                if args.json:
                    decisions.append(part)
                else:
                    print(_log_text(part))
    if overview.sample is None:
        raise UsageError(f"{args.recording}: has no samples")
    if args.guest is not None and args.guest not in guests:
        known = ", ".join(sorted(guests)) or "none"
        raise UsageError(f"{args.recording}: there is no guest {args.guest!r}; there are: {known}")
    if reader.cut_line is not None:
        print(f"emuvisor: {args.recording}: line {reader.cut_line} is cut; it is left out", file=sys.stderr)
    if args.chart:
        from emuvisor.cli.memory_chart import draw

        draw(samples, args.chart)
    if args.json:
        print(_document(overview, decisions if args.log else None))
    elif not (args.log or args.chart):
        _print_overview(overview)


def _of_guest(item: "Item", name: str | None) -> Iterator["Item"]:
    """`item`, with nothing of other guests than `name`."""
    from emuvisor.host.memory.decisions import Decision
    from emuvisor.host.memory.recording import Sample

    if name is None:
        yield item
    elif isinstance(item, Sample):
        guests = tuple(guest for guest in item.guests if guest.name == name)
        yield Sample(item.time, item.host, guests)
    elif not isinstance(item, Decision) or item.guest == name:
        yield item


def _log_text(decision: "Decision") -> str:
    """One line: when, by which rung, from whom, how many frames, why; and the numbers."""
    from emuvisor.cli.memory_table import log_line

    seconds, _, parts = f"{decision.time:.3f}".partition(".")
    clock = time.strftime("%H:%M:%S", time.localtime(min(int(seconds), 1 << 32)))
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in decision.numbers.items())
    return f"{clock}.{parts}  {log_line(decision)}" + (f"  [{numbers}]" if numbers else "")


def _print_overview(overview: "Overview") -> None:
    from emuvisor.cli.memory_table import as_text, view

    if not sys.stdout.isatty():
        print(as_text(overview))
        return
    from rich.console import Console

    console = Console()
    console.print(view(overview, console.width))


def _document(overview: "Overview", decisions: "list[Decision] | None") -> str:
    """The JSON document: sizes are bytes, times seconds since 1970."""
    from emuvisor.host.memory.recording import decision_as_json

    document = overview.as_dict()
    if decisions is not None:
        document["decisions"] = [decision_as_json(decision) for decision in decisions]
    return json.dumps(document, indent=2)


def _follow(args: argparse.Namespace, reader: "RecordingReader") -> None:
    """A live table, or the log line by line, until the recording ends or nobody writes it any more."""
    from contextlib import ExitStack

    from emuvisor.cli.memory_live import LiveView
    from emuvisor.cli.memory_overview import Overview
    from emuvisor.host.memory.decisions import Decision

    overview = Overview()
    terminal = sys.stdout.isatty() and not args.log
    with ExitStack() as stack:
        show = stack.enter_context(LiveView()) if terminal else None
        heard = time.monotonic()
        while not overview.ended:
            some = False
            for item in reader.read():
                some = True
                for part in _of_guest(item, args.guest):
                    overview.add(part)
                    if args.log and isinstance(part, Decision):
                        print(_log_text(part), flush=True)
            if some:
                heard = time.monotonic()
                if show is not None:
                    show.update(overview)
            elif time.monotonic() - heard >= SILENCE_S:
                break
            else:
                time.sleep(POLL_S)
    if not args.log:
        _print_overview(overview)
    if not overview.ended:
        print(f"emuvisor: {args.recording}: nothing was added for {SILENCE_S:g} s", file=sys.stderr)
