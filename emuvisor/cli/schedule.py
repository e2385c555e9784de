"""`emuvisor schedule`: what a recorded schedule says."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.errors import HostError, UsageError
from emuvisor.units import NS_PER_S

if TYPE_CHECKING:
    from emuvisor.host.scheduler.recording import Stretch

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Shows who ran on which pCPU and who waited, from a recording that 'emuvisor run --schedule-record FILE' wrote: a
Gantt chart, and for each guest what it ran, waited and was throttled, how often it got a pCPU, and why it left.

The chart has a row for each pCPU with the letter of who had it, in lower case where it was idle for most of the
time, and a row for each guest. Waiting is drawn right before the guest ran, throttling before that."""
PLAIN_WIDTH = 100
MIN_WIDTH, MAX_WIDTH = 40, 1000
MAX_GUESTS = 20
"""Rows of the chart in the terminal; the table has all."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "schedule",
        help="draw who ran where when, from a recording",
        description=DESCRIPTION,
        epilog="The exit code is 0 or, after one line that says what is wrong, 2.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("recording", type=Path, metavar="FILE", help="a recording")
    parser.add_argument(
        "--svg", type=_svg_path, metavar="OUT.svg", help="draw it as SVG, with why each stretch ended"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document with the sums")
    parser.add_argument(
        "--width", type=int, metavar="COLUMNS", help="of the chart (default: the terminal's, or 100)"
    )
    parser.add_argument(
        "--guest", action="append", metavar="NAME", help="of the guests, this one only (repeatable)"
    )
    parser.add_argument(
        "--from", type=_parse_time, dest="first", metavar="SECONDS", help="since the recording began"
    )
    parser.add_argument("--to", type=_parse_time, dest="last", metavar="SECONDS", help="until then")


def _svg_path(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".svg":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .svg")
    return path


def _parse_time(text: str) -> int:
    """Seconds from 0 to a thousand years, in nanoseconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 3e10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return round(seconds * NS_PER_S)


def execute(args: argparse.Namespace) -> int:
    """Show the recording `args.recording`."""
    from emuvisor.host.scheduler.recording import cut, read_recording

    if args.width is not None and not MIN_WIDTH <= args.width <= MAX_WIDTH:
        raise UsageError(f"--width {args.width}: it is {MIN_WIDTH} to {MAX_WIDTH}")
    stretches = read_recording(args.recording)
    if not stretches:
        raise UsageError(f"{args.recording}: nobody ran")
    zero_ns = min(stretch.start_ns for stretch in stretches)
    span = _span(args, stretches, zero_ns)
    stretches = cut(_of_guests(args, stretches), *span)
    if not stretches:
        raise UsageError(f"{args.recording}: nobody ran or waited in that time")
    if args.svg:
        _write_svg(args, stretches, span, zero_ns)
    if args.json:
        from emuvisor.cli.schedule_table import document

        print(json.dumps(document(stretches, span[1] - span[0]), indent=2))
    elif not args.svg:
        _print(args, stretches, span, zero_ns)
    return 0


def _span(args: argparse.Namespace, stretches: "Sequence[Stretch]", zero_ns: int) -> tuple[int, int]:
    """From when to when it is shown."""
    first = 0 if args.first is None else args.first
    end = max(1, max(stretch.end_ns for stretch in stretches) - zero_ns)
    last = end if args.last is None else args.last
    if first >= last and args.last is not None:
        raise UsageError(f"--from {first / NS_PER_S:g} --to {last / NS_PER_S:g}: that is no time at all")
    if first >= end:
        raise UsageError(f"--from {first / NS_PER_S:g}: the recording ends after {end / NS_PER_S:.3f} s")
    return zero_ns + first, zero_ns + min(last, end)


def _of_guests(args: argparse.Namespace, stretches: "Sequence[Stretch]") -> "Sequence[Stretch]":
    """The stretches of the guests that are asked for."""
    if args.guest is None:
        return stretches
    names = {stretch.guest for stretch in stretches}
    for name in args.guest:
        if name not in names:
            known = ", ".join(sorted(names))
            raise UsageError(f"{args.recording}: there is no guest {name!r}; there are: {known}")
    return [stretch for stretch in stretches if stretch.guest in args.guest]


def _write_svg(
    args: argparse.Namespace, stretches: "Sequence[Stretch]", span: tuple[int, int], zero_ns: int
) -> None:
    from emuvisor.host.scheduler.gantt import draw_svg

    try:
        args.svg.write_text(draw_svg(stretches, args.recording.name, span, zero_ns), encoding="utf-8")
    except OSError as error:
        raise HostError(f"{args.svg}: cannot be written: {error.strerror}") from error


def _print(
    args: argparse.Namespace, stretches: "Sequence[Stretch]", span: tuple[int, int], zero_ns: int
) -> None:
    """The chart and the table."""
    from emuvisor.cli.schedule_table import as_text
    from emuvisor.host.scheduler.gantt import draw_text

    terminal = sys.stdout.isatty()
    width = args.width or (shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH)
    chart = draw_text(stretches, max(MIN_WIDTH, min(width, MAX_WIDTH)), MAX_GUESTS, span, zero_ns)
    if terminal:
        from rich.console import Console

        Console(width=width).print(chart, no_wrap=True, crop=False)
    else:
        print(chart.plain)
    print(as_text(stretches, span[1] - span[0]))
