"""`emuvisor start`, `stop`, `shutdown`, `reset`, `pause`, `resume`, `save`, `rm`, `rename`, `set`: a guest's life."""

import argparse
import sys
import tomllib
from typing import TYPE_CHECKING, Any

from emuvisor.cli.connect import add_store_option, connect, is_embedded
from emuvisor.cli.options import parse_seconds
from emuvisor.errors import UsageError
from emuvisor.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from emuvisor.cli.connect import Guests

__all__ = ["EXIT_CRASHED", "add_to", "enter_console", "parser_for"]

EXIT_CRASHED = 4
START = """\
Switch guests on; a saved one goes on where it was. With a daemon they run there, and the command returns.
Without one, one guest runs in this process and its console is yours: Ctrl-A X leaves, and the guest is
saved, to go on with the next 'emuvisor start'."""
SAVED = ": the guest is saved"


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    start = parser_for(commands, "start", execute_start, "switch guests on", START)
    start.add_argument("names", nargs="+", metavar="NAME")
    start.add_argument("--paused", action="store_true", help="they stand before their next instruction")
    start.add_argument("--attach", action="store_true", help="have its console, also when a daemon runs it")
    for verb, what, more in (
        ("stop", "switch guests off at once", "As pulling the plug; 'shutdown' asks them first."),
        ("reset", "press the reset button", ""),
        ("pause", "stop guests where they are", ""),
        ("resume", "let paused guests go on", ""),
        ("save", "put running guests with all their state into the store", "'start' lets them go on."),
    ):
        parser = parser_for(
            commands, verb, execute_verb, what, f"{what[0].upper()}{what[1:]}. {more}".strip()
        )
        parser.set_defaults(verb=verb)
        parser.add_argument("names", nargs="+", metavar="NAME")
    shutdown = parser_for(
        commands,
        "shutdown",
        execute_shutdown,
        "ask guests to switch themselves off",
        "Press the power button, wait, and switch those off that have not gone by themselves.",
    )
    shutdown.add_argument("names", nargs="+", metavar="NAME")
    shutdown.add_argument(
        "--timeout", type=parse_seconds, default=60.0, metavar="SECONDS", help="to wait (default: 60)"
    )
    remove = parser_for(
        commands,
        "rm",
        execute_rm,
        "delete guests with their snapshots",
        "Delete guests with their snapshots, logs, and disks that are in the store. Files of yours stay.",
    )
    remove.add_argument("names", nargs="+", metavar="NAME")
    remove.add_argument(
        "--force", action="store_true", help="also those that are on, or of which others still need pages"
    )
    rename = parser_for(commands, "rename", execute_rename, "give a guest that is off another name")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new", metavar="NEW")
    change = parser_for(
        commands,
        "set",
        execute_set,
        "change a guest, also while it runs",
        "Change what the guest is, and in its definition: cpu_weight=200, memory=512M (of a guest with a memory_max), "
        "disks.0.read_bytes=10M:64M, nics.0.in_bytes=1M, balloon_size=64M, autostart=true. KEY= is the default.",
    )
    change.add_argument("name", metavar="NAME")
    change.add_argument("changes", nargs="+", type=parse_change, metavar="KEY=VALUE")


def parser_for(
    commands: "argparse._SubParsersAction[Any]", verb: str, execute: Any, what: str, text: str = ""
) -> argparse.ArgumentParser:
    """A command about guests."""
    parser: argparse.ArgumentParser = commands.add_parser(
        verb, help=what, description=text or f"{what[0].upper()}{what[1:]}."
    )
    parser.set_defaults(execute=execute)
    add_store_option(parser)
    return parser


def parse_change(text: str) -> tuple[str, Any]:
    """KEY=VALUE: a number, true, false, a list or a text; nothing is the default."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if not value:
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        return key, value


def execute_start(args: argparse.Namespace) -> int:
    """Switch guests on; returns the exit code."""
    with connect(args, args.names) as guests:
        here = is_embedded(guests)
        if (here or args.attach) and len(args.names) > 1:
            raise UsageError("without a daemon one guest is started at a time, and --attach is for one")
        for name in args.names:
            guests.start(name, paused=args.paused)
            if not (here or args.attach):
                print(f"{name}: {'paused' if args.paused else 'running'}")
        if (here and not args.paused) or args.attach:
            return enter_console(guests, args.names[0])
    if here:
        print(f"{args.names[0]}: saved")
    return 0


def enter_console(guests: "Guests", name: str, port: str | None = None) -> int:
    """Have a guest's console until it ends or one leaves; returns the exit code."""
    from emuvisor.cli.attach import End, attach
    from emuvisor.cli.keyboard import Keyboard, stdin_descriptor

    stdin = stdin_descriptor()
    keyboard = None if stdin is None else Keyboard(stdin, sys.stdin.isatty())
    here = is_embedded(guests)
    end = attach(guests.console(name, port), keyboard, sys.stdout.buffer, SAVED if here else "")
    if end is End.LEFT:
        print(f"\nemuvisor: {name}: {'is being saved' if here else 'goes on'}", file=sys.stderr)
        return 0
    info = guests.info(name)
    print(f"emuvisor: {name}: {info['reason']}", file=sys.stderr)
    return EXIT_CRASHED if info["state"] == "crashed" else 0


def execute_verb(args: argparse.Namespace) -> int:
    """Do `args.verb` to the guests."""
    done = {"stop": "off", "reset": "reset", "pause": "paused", "resume": "running", "save": "saved"}
    with connect(args) as guests:
        for name in args.names:
            getattr(guests, args.verb)(name)
            print(f"{name}: {done[args.verb]}")
    return 0


def execute_shutdown(args: argparse.Namespace) -> int:
    """Ask the guests to go."""
    with connect(args) as guests:
        for name in args.names:
            by_itself = guests.shutdown(name, args.timeout)
            print(f"{name}: {'off' if by_itself else f'switched off after {args.timeout:g} s'}")
    return 0


def execute_rm(args: argparse.Namespace) -> int:
    """Delete the guests."""
    with connect(args) as guests:
        for name in args.names:
            freed = guests.remove(name, force=args.force)
            memory, disk = format_size(freed.frames * PAGE_SIZE), format_size(freed.bytes)
            print(f"{name}: deleted; {memory} of memory and {disk} of the store are free")
    return 0


def execute_rename(args: argparse.Namespace) -> int:
    """Give it another name."""
    with connect(args) as guests:
        guests.rename(args.name, args.new)
    return 0


def execute_set(args: argparse.Namespace) -> int:
    """Change it."""
    with connect(args) as guests:
        guests.set(args.name, dict(args.changes))
    return 0
