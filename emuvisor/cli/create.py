"""`emuvisor create`: define a guest by the options of `emuvisor run`."""

import argparse
from typing import Any

from emuvisor.cli.connect import connect
from emuvisor.cli.lifecycle import parser_for
from emuvisor.cli.options import add_guest_options
from emuvisor.errors import UsageError

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Define a guest of this name, by options or by --config FILE. It is switched on by 'emuvisor start'. Relative
paths become absolute ones. What it writes to a disk with a temporary overlay is kept in the store."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = parser_for(commands, "create", execute, "define a guest", DESCRIPTION)
    parser.add_argument("guest", metavar="NAME", help="what it is to be called")
    parser.add_argument("--autostart", action="store_true", help="start it with the daemon")
    add_guest_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Define the guest."""
    from emuvisor.cli.guests import configs
    from emuvisor.machine.config_mapping import to_mapping

    if args.name is not None:
        raise UsageError("--name: the name of a new guest stands without an option")
    if args.config and len(args.config) > 1:
        raise UsageError(f"one guest is created at a time; there are {len(args.config)} --config")
    args.name = args.guest
    definition = to_mapping(configs(args, "host")[0])
    if args.autostart:
        definition["autostart"] = True
    with connect(args) as guests:
        guests.create(definition)
    print(f"{args.guest}: defined")
    return 0
