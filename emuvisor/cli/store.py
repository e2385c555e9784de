"""`emuvisor store`: what the store of this host has, whether it is whole, and what can be freed."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.cli.connect import add_store_option, daemon_client, open_store
from emuvisor.cli.tables import show_table
from emuvisor.units import format_size

if TYPE_CHECKING:
    from emuvisor.store.store import Store

__all__ = ["add_to", "execute_check", "execute_gc", "execute_info"]


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "store",
        help="look after the place where guests and snapshots are kept",
        description="The store has the definitions, disks, snapshots and events of this host's guests. The daemon that "
        "has it does what is asked for, while its guests run.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    info = actions.add_parser("info", help="say what is in it", description="Say what is in the store.")
    info.set_defaults(execute=execute_info)
    check = actions.add_parser(
        "check",
        help="read everything in it, and say what is damaged",
        description="Read everything in the store, every page too, and say what is damaged.",
        epilog="The exit code is 1 when something is wrong that was not repaired, else 0.",
    )
    check.add_argument(
        "--repair",
        action="store_true",
        help="make the index again when it is wrong, and take damaged pages out",
    )
    check.set_defaults(execute=execute_check)
    gc = actions.add_parser(
        "gc",
        help="free what no snapshot needs",
        description="Delete pages that no snapshot refers to any more.",
    )
    gc.add_argument(
        "--all",
        action="store_true",
        help="all of them; else files are written again only when half of them or more can be freed",
    )
    gc.set_defaults(execute=execute_gc)
    info.add_argument(
        "--store", type=Path, metavar="DIR", help="the store's folder (default: ~/.local/share/emuvisor)"
    )
    add_store_option(check)
    add_store_option(gc)
    for action in (info, check, gc):
        action.add_argument("--json", action="store_true", help="print JSON")


def _open(folder: Path | None) -> "Store":
    """The store, to change it; only guests make one."""
    from emuvisor.store import Store, default_folder

    folder = folder or default_folder()
    return open_store(folder) if (folder / "format").exists() else Store(folder, read_only=True)


def execute_info(args: argparse.Namespace) -> int:
    """Print what is in the store."""
    from emuvisor.store import Store, default_folder

    with Store(args.store or default_folder(), read_only=True) as store:
        info = store.info()
    if args.json:
        print(json.dumps({"folder": str(store.folder), **asdict(info)}, indent=2))
        return 0
    rows = (
        ("folder", str(store.folder)),
        ("guests", str(info.guests)),
        ("snapshots", f"{info.snapshots} of {format_size(info.snapshot_bytes)} of memory without zeros"),
        ("pages", f"{info.pages}, {info.deduplication:.1f} times fewer than in the snapshots"),
        ("packs", f"{info.packs} of {format_size(info.pack_bytes)}, {format_size(info.live_bytes)} in use"),
        ("disks", format_size(info.disk_bytes)),
    )
    show_table(("what", "how much"), rows)
    return 0


def execute_check(args: argparse.Namespace) -> int:
    """Check the store; 1 when something is wrong with it still."""
    daemon = daemon_client(args)
    if daemon is not None:
        with daemon:
            problems = daemon.check_store(repair=args.repair)
            folder = daemon.host()["store"]
    else:
        from emuvisor.manager.upkeep import check_store

        with _open(args.store) as store:
            problems = check_store(store, repair=args.repair)
            folder = store.folder
    left = sum(not problem.repaired for problem in problems)
    if args.json:
        print(json.dumps({"good": not left, "problems": [asdict(problem) for problem in problems]}, indent=2))
        return int(left > 0)
    for problem in problems:
        print(f"{problem.subject}: {problem.text}" + (" (repaired)" if problem.repaired else ""))
    print(f"{folder}: {f'{left} problems' if left else 'all is well'}")
    return int(left > 0)


def execute_gc(args: argparse.Namespace) -> int:
    """Free what can be freed."""
    daemon = daemon_client(args)
    if daemon is not None:
        with daemon:
            done = daemon.collect_garbage(everything=args.all)
            folder = daemon.host()["store"]
    else:
        from emuvisor.manager.upkeep import collect_garbage

        with _open(args.store) as store:
            done = collect_garbage(store, everything=args.all)
            folder = store.folder
    if args.json:
        print(json.dumps(asdict(done), indent=2))
        return 0
    print(
        f"{folder}: {format_size(done.bytes_freed)} freed; {done.packs_deleted} packs deleted, "
        f"{done.packs_rewritten} written again"
    )
    return 0
