"""The parser of the command line, and how errors become messages and exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from emuvisor.cli import (
    autopilot,
    create,
    demo,
    disk,
    doctor,
    guest_console,
    guest_list,
    guest_moves,
    guest_snapshots,
    images,
    lifecycle,
    memory,
    run,
    schedule,
    screenshot,
    serve,
    store,
    top,
)
from emuvisor.errors import EmuvisorError

__all__ = ["EXIT_BROKEN_PIPE", "EXIT_INTERRUPTED", "EXIT_USAGE", "build_parser", "main"]

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE."""

_GUESTS = (create, lifecycle, guest_list, guest_console, guest_snapshots, guest_moves)
_COMMANDS = (
    *(demo, run),
    *_GUESTS,
    *(top, memory, autopilot, schedule, screenshot, images, disk, store, serve, doctor),
)


class _Version(argparse.Action):
    """--version, which looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            version = metadata.version("emuvisor")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"emuvisor {version}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands; a parsed command has its function as `execute`."""
    parser = argparse.ArgumentParser(
        prog="emuvisor",
        description="A hypervisor in Python that needs no hardware virtualization.",
        epilog="'emuvisor COMMAND --help' explains a command. New here? Try 'emuvisor demo'.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: of this process); returns the exit code.

    An EmuvisorError becomes one line and 2, an interrupt 130, a reader that went away 141. Raises SystemExit
    as argparse does for --help, --version and bad options.
    """
    args = build_parser().parse_args(argv)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads that nothing here needs
    try:
        code: int = args.execute(args)
        sys.stdout.flush()
    except EmuvisorError as error:
        print(f"emuvisor: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except MemoryError:
        print("emuvisor: error: the host has no memory left", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which must find something that can be written to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code
