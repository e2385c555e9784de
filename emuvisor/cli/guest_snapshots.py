"""`emuvisor snapshot`, `snapshots`, `restore` and `clone`."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from emuvisor.cli.connect import connect, is_embedded
from emuvisor.cli.lifecycle import parser_for
from emuvisor.cli.tables import GAP
from emuvisor.cli.transfer import transfer_bar
from emuvisor.errors import UsageError
from emuvisor.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.tree import Tree

    from emuvisor.cli.connect import Guests
    from emuvisor.manager import SnapshotRecord

__all__ = ["add_to", "execute_clone", "execute_restore", "execute_snapshot", "execute_snapshots"]


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    snapshot = parser_for(
        commands,
        "snapshot",
        execute_snapshot,
        "keep what a guest is now",
        "Keep what a guest that is on, or saved, is now: memory, devices and disks. It goes on meanwhile.",
    )
    snapshot.add_argument("name", metavar="NAME")
    snapshot.add_argument("snapshot", nargs="?", default="", metavar="SNAPSHOT", help="(default: a free one)")
    snapshot.add_argument("--comment", default="", metavar="TEXT")
    snapshot.add_argument(
        "--delete", action="store_true", help="delete SNAPSHOT; what came from it stays whole"
    )
    snapshot.add_argument("--json", action="store_true", help="print JSON")
    snapshots = parser_for(commands, "snapshots", execute_snapshots, "show the tree of a guest's snapshots")
    snapshots.add_argument("name", metavar="NAME")
    snapshots.add_argument("--json", action="store_true", help="print JSON")
    restore = parser_for(
        commands,
        "restore",
        execute_restore,
        "let a guest go on from a snapshot",
        "Let a guest be what it was when the snapshot was taken. What it is now is lost. Without a daemon it is saved "
        "then; 'start' lets it go on.",
    )
    restore.add_argument("name", metavar="NAME")
    restore.add_argument("snapshot", metavar="SNAPSHOT")
    restore.add_argument("--paused", action="store_true", help="it does not run until 'resume'")
    clone = parser_for(
        commands,
        "clone",
        execute_clone,
        "make guests that go on from what one is now",
        "Make guests that go on from what a guest that is on, or saved, is now, or from a snapshot of it. They get MAC "
        "addresses, a generation ID and random numbers of their own.",
    )
    clone.add_argument("name", metavar="NAME")
    clone.add_argument("new", nargs="+", metavar="NEW", help="their names")
    clone.add_argument("--snapshot", metavar="SNAPSHOT", help="from that, not from now")
    clone.add_argument("--same-identity", action="store_true", help="they are to be taken for the first one")
    clone.add_argument("--paused", action="store_true", help="they do not run until 'resume'")


def execute_snapshot(args: argparse.Namespace) -> int:
    """Take a snapshot, or delete one."""
    if args.delete and not args.snapshot:
        raise UsageError("--delete needs the name of the snapshot")
    with connect(args, [args.name]) as guests:
        if args.delete:
            freed = guests.delete_snapshot(args.name, args.snapshot)
            print(f"{args.name}/{args.snapshot}: deleted; {format_size(freed.bytes)} are free")
            return 0
        _load(guests, args.name)
        with transfer_bar(args.name) as show:
            record = guests.snapshot(
                args.name,
                args.snapshot,
                comment=args.comment,
                progress=lambda done, total: show(done * PAGE_SIZE, total * PAGE_SIZE),
            )
    if args.json:
        print(json.dumps(asdict(record), indent=2))
    else:
        print(f"{record.guest}/{record.name}: {_size(record)}")
    return 0


def _load(guests: "Guests", name: str) -> None:
    """Without a daemon, have a saved guest in memory, which stands; it is saved again in the end."""
    if is_embedded(guests) and guests.info(name)["state"] == "saved":
        guests.start(name, paused=True)


def _size(record: "SnapshotRecord") -> str:
    return f"{format_size(record.pages * PAGE_SIZE)} of memory, {format_size(record.bytes)} in the store"


def execute_snapshots(args: argparse.Namespace) -> int:
    """Show the tree."""
    with connect(args) as guests:
        records = guests.snapshots(args.name)
    if args.json:
        print(json.dumps([asdict(record) for record in records], indent=2))
        return 0
    if not records:
        print(f"{args.name} has no snapshots.")
        return 0
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(_tree(args.name, records))
    return 0


def _tree(guest: str, records: "Sequence[SnapshotRecord]") -> "Tree":
    """The snapshots below those from which they came."""
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(guest, "bold"))
    branches: dict[str | None, Tree] = {None: root}
    for record in records:  # the oldest first: a parent comes before its children
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        label = Text.assemble((record.name, "cyan"), f"{GAP}{when}{GAP}{_size(record)}")
        if record.comment:
            label.append(f"{GAP}{record.comment}", "italic")
        branches[record.name] = branches.get(record.parent, root).add(label)
    return root


def execute_restore(args: argparse.Namespace) -> int:
    """Let the guest go on from the snapshot."""
    with connect(args, [args.name]) as guests:
        here = is_embedded(guests)
        guests.restore(args.name, args.snapshot, running=not (args.paused or here))
    print(
        f"{args.name}: {'saved' if here else 'paused' if args.paused else 'running'}, as in {args.snapshot}"
    )
    return 0


def execute_clone(args: argparse.Namespace) -> int:
    """Make the clones."""
    with connect(args, [args.name], copies=len(args.new)) as guests:
        here = is_embedded(guests)
        guests.clone(
            args.name,
            args.new,
            snapshot=args.snapshot,
            same_identity=args.same_identity,
            running=not (args.paused or here),
        )
    for name in args.new:
        print(f"{name}: {'saved' if here else 'paused' if args.paused else 'running'}")
    return 0
