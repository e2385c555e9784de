"""`emuvisor ls` and `info`: which guests there are, and what one is."""

import argparse
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from emuvisor.cli.connect import connect
from emuvisor.cli.lifecycle import parser_for
from emuvisor.cli.tables import show_table
from emuvisor.units import format_size

if TYPE_CHECKING:
    from emuvisor.manager import GuestInfo

__all__ = ["add_to", "ago", "execute_info", "execute_ls"]

COLUMNS = ("name", "state", "since", "board", "memory", "vcpus", "snapshots", "reason")
STYLES = {"running": "green", "paused": "yellow", "saved": "cyan", "crashed": "red"}
MAX_REASON = 40


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    ls = parser_for(commands, "ls", execute_ls, "list the guests")
    ls.add_argument("--json", action="store_true", help="print JSON")
    info = parser_for(commands, "info", execute_info, "say all of a guest")
    info.add_argument("name", metavar="NAME")
    info.add_argument("--json", action="store_true", help="print JSON")


def execute_ls(args: argparse.Namespace) -> int:
    """List the guests."""
    with connect(args) as guests:
        found = guests.guests()
    if args.json:
        print(json.dumps([asdict(guest) for guest in found], indent=2))
        return 0
    if not found:
        print("There are no guests; 'emuvisor create' makes one.")
        return 0
    now = time.time()
    show_table(COLUMNS, [_row(guest, now) for guest in found], ("memory", "vcpus", "snapshots"), STYLES)
    return 0


def _row(guest: "GuestInfo", now: float) -> tuple[str, ...]:
    reason = guest.reason if len(guest.reason) <= MAX_REASON else f"{guest.reason[: MAX_REASON - 3]}..."
    return (
        guest.name,
        guest.state,
        ago(now - guest.since),
        guest.board,
        format_size(guest.memory),
        str(guest.vcpus),
        str(guest.snapshots),
        reason,
    )


def ago(seconds: float) -> str:
    """A time in the past as people say it: "5 s", "3 min", "2 h", "4 d"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return f"{max(0, int(seconds))} s"


def execute_info(args: argparse.Namespace) -> int:
    """Say all of a guest."""
    with connect(args) as guests:
        info = guests.info(args.name)
        text = guests.definition(args.name)
    if args.json:
        print(json.dumps(info, indent=2))
        return 0
    rows = [
        ("name", info["name"]),
        ("state", f"{info['state']}, for {ago(time.time() - info['since'])}"),
        ("reason", info["reason"]),
        ("board", f"{info['board']}, {info['vcpus']} vCPU, clock: {info['clock']}"),
        ("memory", format_size(info["memory"])),
        ("autostart", "yes" if info["autostart"] else "no"),
        ("snapshots", str(info["snapshots"])),
    ]
    if info["busy"]:
        rows.append(("busy until", info["busy"]))
    for disk in info["disks"]:
        taken = "not there" if disk["bytes"] is None else format_size(disk["bytes"])
        rows.append((disk["kind"], f"{disk['overlay'] or disk['path']}, {taken}"))
    rows += [("forward", forward) for forward in info["forwards"] or ()]
    if (statistics := info["statistics"]) is not None:
        rows.append(("host CPU time", f"{statistics['cpu_ns'] / 1e9:.1f} s"))
        rows.append(("last line", statistics["last_line"]))
    show_table(("what", "value"), rows, styles=STYLES)
    print(f"\n{text}", end="")
    return 0
