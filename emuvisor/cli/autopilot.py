"""`emuvisor autopilot`: what the autopilot changed, and why, from its log."""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.errors import UsageError

if TYPE_CHECKING:
    from emuvisor.host.autopilot.log import Entry

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Shows a log that 'emuvisor run --autopilot OBJECTIVE --autopilot-log FILE' writes or has written: for each change its
number, when it was made, of which guest, what it was before and is now, and why; and with --numbers what was seen."""
MAX_LINE = 1 << 16
"""Characters; what is longer is no line of a log."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "autopilot",
        help="show what the autopilot changed, from its log",
        description=DESCRIPTION,
        epilog="The exit code is 0 or, after one line that says what is wrong, 2.",
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("log", type=Path, metavar="FILE", help="a log")
    parser.add_argument("--guest", metavar="NAME", help="of the guests, this one only")
    parser.add_argument("--numbers", action="store_true", help="with the numbers of each decision")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def execute(args: argparse.Namespace) -> int:
    """Show the log `args.log`."""
    entries = (entry for entry in _read(args.log) if args.guest in (None, entry.guest))
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return 0
    entry = None
    for entry in entries:
        numbers = ", ".join(f"{name} {value:.6g}" for name, value in entry.numbers.items())
        clock = time.strftime("%H:%M:%S", time.localtime(max(0, min(int(entry.time), 1 << 32))))
        print(f"{clock}  {entry}" + (f"  [{numbers}]" if args.numbers and numbers else ""))
    if entry is None:
        print("no changes" if args.guest is None else f"no changes of {args.guest!r}")
    return 0


def _read(path: Path) -> "Iterator[Entry]":
    """The entries of a log. Raises UsageError, naming file and line, for what is none."""
    from emuvisor.host.autopilot.log import decode

    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                try:
                    yield decode(line)
                except UsageError as error:
                    raise UsageError(f"{path}: line {number}: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
