"""`emuvisor export`, `import`, `migrate` and `receive`: guests on their way to other hosts."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.cli.connect import connect, is_embedded
from emuvisor.cli.lifecycle import enter_console, parser_for
from emuvisor.cli.options import parse_seconds, parse_size_option
from emuvisor.cli.transfer import transfer_bar
from emuvisor.errors import UsageError
from emuvisor.units import GIB, format_size

if TYPE_CHECKING:
    from emuvisor.manager import MigrationStatus

__all__ = ["add_to", "execute_export", "execute_import", "execute_migrate", "execute_receive"]

_OF_GUESTS = ("mode", "downtime", "compression", "disks", "token_file", "certificate", "key", "ca", "peer")
"""Options of `migrate` that say how a whole guest moves."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    export = parser_for(
        commands,
        "export",
        execute_export,
        "write a guest to a file",
        "Write a guest to one file: its definition, its disks, its kernel and the like; not its memory.",
    )
    export.add_argument("name", metavar="NAME")
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument("--snapshot", metavar="SNAPSHOT", help="its disks as they were then")
    imports = parser_for(commands, "import", execute_import, "define a guest by a file that 'export' wrote")
    imports.add_argument("file", type=Path, metavar="FILE")
    imports.add_argument("--as", dest="new", metavar="NAME", help="call it so")
    migrate = parser_for(
        commands,
        "migrate",
        execute_migrate,
        "move a guest to another host while it runs",
        "Move a guest to where 'emuvisor receive' waits, while it runs (docs/migration.md); or, with --disk, only one "
        "of its disks to another file (docs/disks.md). --cancel ends what a daemon is at of that.",
    )
    migrate.add_argument("name", metavar="NAME")
    migrate.add_argument("to", nargs="?", metavar="tcp:HOST:PORT|unix:PATH")
    migrate.add_argument(
        "--disk",
        type=parse_disk_move,
        metavar="DISK=PATH",
        help="the guest stays; this disk, by number or name, moves to the new file PATH",
    )
    migrate.add_argument(
        "--cancel", action="store_true", help="let the guest, or its disk, stay where it is after all"
    )
    migrate.add_argument(
        "--format",
        choices=("raw", "qcow2", "overlay"),
        help="of that file (default: by its name); overlay: only what is above the disk's base",
    )
    migrate.add_argument("--mode", choices=("pre-copy", "post-copy", "hybrid"))
    migrate.add_argument("--bandwidth", type=parse_size_option, metavar="SIZE", help="a second, at most")
    migrate.add_argument("--downtime", type=parse_seconds, metavar="SECONDS", help="at most (default: 0.3)")
    migrate.add_argument("--compression", metavar="NAME")
    migrate.add_argument("--disks", choices=("shared", "copy"), help="(default: shared)")
    _add_security(migrate)
    receive = parser_for(
        commands,
        "receive",
        execute_receive,
        "take a guest that another host sends",
        "Wait for a guest of another host, and run it. Without a daemon its console is yours then.",
    )
    receive.add_argument("listen", metavar="tcp:HOST:PORT|unix:PATH")
    receive.add_argument("--timeout", type=parse_seconds, metavar="SECONDS", help="to wait for it")
    receive.add_argument(
        "--memory", type=parse_size_option, metavar="SIZE", help="of the host, without a daemon (default: 1G)"
    )
    _add_security(receive)


def _add_security(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may take part", "beyond a Unix socket or this very machine")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a secret of both sides, for one guest"
    )
    group.add_argument("--certificate", type=Path, metavar="FILE", help="this side's, in PEM")
    group.add_argument("--key", type=Path, metavar="FILE", help="its key")
    group.add_argument("--ca", type=Path, metavar="FILE", help="who signed the other side's")
    group.add_argument("--peer", metavar="NAME", help="the name in the other side's certificate")


def _security(args: argparse.Namespace) -> dict[str, Any]:
    """What the manager wants to know of it."""
    from emuvisor.cli.viewers import read_password

    files = {key: getattr(args, key) for key in ("certificate", "key", "ca")}
    found: dict[str, Any] = {key: str(path.absolute()) for key, path in files.items() if path is not None}
    if args.peer is not None:
        found["peer"] = args.peer
    if args.token_file is not None:
        found["token"] = read_password(args.token_file)
    return found


def execute_export(args: argparse.Namespace) -> int:
    """Write the file."""
    path = args.file.absolute()
    with connect(args) as guests, transfer_bar(path.name) as show:
        size = guests.export(args.name, path, snapshot=args.snapshot, progress=show)
    print(f"{args.file}: {args.name}, {format_size(size)}; its memory is not in it, an imported guest boots")
    return 0


def execute_import(args: argparse.Namespace) -> int:
    """Define the guest."""
    path = args.file.absolute()
    with connect(args) as guests, transfer_bar(path.name) as show:
        info = guests.import_(path, args.new, progress=show)
    print(f"{info.name}: defined")
    return 0


def parse_disk_move(text: str) -> tuple[int | str, Path]:
    """DISK=PATH."""
    disk, _, path = text.partition("=")
    if not disk or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not DISK=PATH")
    return int(disk) if disk.isascii() and disk.isdecimal() else disk, Path(path).absolute()


def execute_migrate(args: argparse.Namespace) -> int:
    """Move the guest, or a disk of it, or let it stay."""
    if args.cancel:
        return _cancel(args)
    if (args.to is None) == (args.disk is None):
        raise UsageError("migrate: say either where the guest is to go, or --disk DISK=PATH")
    if args.disk is not None:
        return _move_disk(args)
    if args.format is not None:
        raise UsageError("migrate: --format goes with --disk")
    options = {key: getattr(args, key) for key in ("mode", "bandwidth", "compression", "disks")}
    options = {key: value for key, value in options.items() if value is not None} | _security(args)
    if args.downtime is not None:
        options["downtime_ms"] = max(1, round(args.downtime * 1000))
    with connect(args, [args.name]) as guests:
        if is_embedded(guests):
            if guests.info(args.name)["state"] != "saved":
                raise UsageError(
                    f"guest {args.name!r} does not run; without a daemon, a saved one can be migrated"
                )
            guests.start(args.name)
        with _progress() as show:
            status = guests.migrate(args.name, args.to, progress=show, **options)
    downtime = "" if status.downtime_ms is None else f", stood for {status.downtime_ms:.0f} ms"
    print(f"{args.name}: at {args.to}; {format_size(status.bytes_sent)} in {status.round} rounds{downtime}")
    return 0


def _cancel(args: argparse.Namespace) -> int:
    if args.to is not None:
        raise UsageError("migrate: --cancel needs the name of the guest only")
    _refuse(args, "cancel", ("disk", "format", "bandwidth", *_OF_GUESTS))
    with connect(args) as guests:
        guests.cancel_migration(args.name)
    print(f"{args.name}: stays")
    return 0


def _refuse(args: argparse.Namespace, option: str, others: Iterable[str]) -> None:
    """Raises UsageError for one of `others` that was given, too."""
    for other in others:
        if getattr(args, other) is not None:
            raise UsageError(f"migrate: --{other.replace('_', '-')} does not go with --{option}")


def _move_disk(args: argparse.Namespace) -> int:
    disk, path = args.disk
    _refuse(args, "disk", _OF_GUESTS)
    with connect(args, [args.name]) as guests:
        if is_embedded(guests) and guests.info(args.name)["state"] == "saved":
            guests.start(args.name, paused=True)
        with transfer_bar(path.name) as show:
            moved = guests.move_disk(
                args.name, disk, path, format=args.format, bytes_per_s=args.bandwidth, progress=show
            )
    print(
        f"{args.name}: disk {moved.disk} is {moved.path}; {format_size(moved.copied)} in {moved.passes} passes, "
        f"stood for {moved.stop_ms:.0f} ms"
    )
    return 0


@contextmanager
def _progress() -> "Iterator[Callable[[MigrationStatus], object]]":
    """Shows how far a migration is, on standard error when that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _status: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(status: "MigrationStatus") -> None:
            text = f"{status.phase}, round {status.round}, {status.remaining} pages left, "
            text += f"{format_size(int(status.bytes_per_s))}/s"
            bar.update(task, completed=status.sent, total=status.total, description=text)

        yield show


def execute_receive(args: argparse.Namespace) -> int:
    """Take the guest."""
    options = _security(args)
    if args.timeout is not None:
        options["timeout_s"] = args.timeout
    with connect(args, memory=args.memory or GIB) as guests:
        if not is_embedded(guests):
            print(f"{guests.receive(args.listen, **options).name}: running")
            return 0

        def ready(address: str) -> None:
            print(f"emuvisor: waiting at {address}", file=sys.stderr, flush=True)

        info = guests.receive(args.listen, ready=ready, **options)
        print(f"emuvisor: {info.name} is here", file=sys.stderr, flush=True)
        return enter_console(guests, info.name)
