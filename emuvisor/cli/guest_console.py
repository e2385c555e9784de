"""`emuvisor console`, `logs` and `events`: what guests print, and what happens to them."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from emuvisor.cli.connect import connect
from emuvisor.cli.lifecycle import enter_console, parser_for
from emuvisor.cli.options import parse_size_option
from emuvisor.cli.terminal import leaving_on_signals

if TYPE_CHECKING:
    from emuvisor.cli.connect import Guests
    from emuvisor.manager import EventRecord

__all__ = ["add_to", "execute_console", "execute_events", "execute_logs"]

LOOK_S = 0.3
"""How often one who follows looks for more."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    console = parser_for(
        commands,
        "console",
        execute_console,
        "have a guest's console",
        "See what a guest prints and type to it; Ctrl-A X leaves, and the guest goes on. Several can be there at once.",
    )
    console.add_argument("name", metavar="NAME")
    console.add_argument("--port", metavar="PORT", help="a port of its virtio console (default: serial port)")
    logs = parser_for(commands, "logs", execute_logs, "print what a guest printed on its console")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it prints more")
    logs.add_argument("--tail", type=parse_size_option, metavar="SIZE", help="the end of it only, such as 4K")
    events = parser_for(commands, "events", execute_events, "say what happened to guests")
    events.add_argument("name", nargs="?", metavar="NAME", help="to this guest (default: to all)")
    events.add_argument("-f", "--follow", action="store_true", help="go on as more happens")
    which = events.add_mutually_exclusive_group()
    which.add_argument("--after", type=parse_count, default=0, metavar="N", help="those behind number N")
    which.add_argument("--tail", type=parse_count, metavar="N", help="the last N of them only")
    events.add_argument("--json", action="store_true", help="print a line of JSON for each")


def parse_count(text: str) -> int:
    """A number that is not negative."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on; '--tail 3' are the last three")
    return int(text)


def execute_console(args: argparse.Namespace) -> int:
    """Have the console."""
    with connect(args) as guests:
        return enter_console(guests, args.name, args.port)


def execute_logs(args: argparse.Namespace) -> int:
    """Print the log."""
    out = sys.stdout.buffer
    with connect(args) as guests, leaving_on_signals():
        if not args.follow:
            out.write(guests.logs(args.name, args.tail))
            return 0
        start = _end(guests, args.name) - args.tail if args.tail is not None else 0
        for data in _log(guests, args.name, max(0, start)):
            out.write(data)
            out.flush()
    return 0


def _end(guests: "Guests", name: str) -> int:
    """How much the log has had."""
    return guests.log_after(name, sys.maxsize).position


def _log(guests: "Guests", name: str, position: int) -> Iterator[bytes]:
    """What the log has behind `position`, for as long as the guest is on."""
    while True:
        on = guests.info(name)["state"] in ("running", "paused")  # before: then nothing is missed
        part = guests.log_after(name, position)
        position = part.position
        if part.data:
            yield part.data
        elif not on:
            return
        else:
            time.sleep(LOOK_S)


def execute_events(args: argparse.Namespace) -> int:
    """Print the events."""
    with connect(args) as guests, leaving_on_signals():
        for event in _events(guests, args.name, args.after, args.tail, args.follow):
            print(json.dumps(asdict(event)) if args.json else _line(event), flush=args.follow)
    return 0


def _events(
    guests: "Guests", name: str | None, after: int, tail: int | None, follow: bool
) -> "Iterable[EventRecord]":
    if tail is not None:
        there = list(_events(guests, name, after, None, False))
        yield from there[max(0, len(there) - tail) :]
        if not follow:
            return
        after = there[-1].number if there else 0
    while True:
        found = guests.events(after, name)
        yield from found
        if found:
            after = found[-1].number
        elif follow:
            time.sleep(LOOK_S)
        else:
            return


def _line(event: "EventRecord") -> str:
    when = datetime.fromtimestamp(event.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    details = dict(event.details)
    old, reason = details.pop("old", ""), details.pop("reason", "")
    told = [f"from {old}" if event.kind == "renamed" else f"was {old}"] if old else []
    told += [str(reason)] if reason else []
    told += [f"{key}: {value}" for key, value in details.items()]
    return f"{event.number:>6}  {when}  {event.guest}  {event.kind}" + (
        f" ({'; '.join(told)})" if told else ""
    )
