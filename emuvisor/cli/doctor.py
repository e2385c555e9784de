"""`emuvisor doctor`: is this machine fit for emuvisor, and what to do if not."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from emuvisor.cli.tables import show_table

__all__ = ["add_to", "execute"]

STYLES = {"ok": "green", "warning": "yellow", "missing": "dim", "failed": "bold red"}


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="check this machine",
        description="Checks what emuvisor needs and what it can use, boots a small guest as a proof, and "
        "says what to do about what is missing.",
        epilog="The exit code is 1 when something essential is missing or fails, else 0.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Make all checks; 1 when something essential is not all right, else 0."""
    from emuvisor.cli.checks import run_checks

    findings = run_checks()
    broken = [finding for finding in findings if finding.breaks]
    if args.json:
        checks = [asdict(finding) for finding in findings]
        print(json.dumps({"usable": not broken, "checks": checks}, indent=2))
        return int(bool(broken))
    rows = [(finding.name, finding.status, finding.detail, finding.advice) for finding in findings]
    show_table(("what", "status", "found", "what to do"), rows, styles=STYLES)
    if broken:
        print(f"emuvisor does not work here: {', '.join(finding.name for finding in broken)}")
    else:
        print("emuvisor works here.")
    return int(bool(broken))
