"""The options of `emuvisor run`, `top` and `serve` for a host that tunes itself."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.errors import HostError, UsageError

if TYPE_CHECKING:
    from emuvisor.host import Host
    from emuvisor.host.autopilot import Constraints, Objective
    from emuvisor.host.autopilot.log import Entry
    from emuvisor.machine.config import GuestConfig

__all__ = ["add_autopilot_options", "autopilot"]


def add_autopilot_options(parser: argparse.ArgumentParser) -> None:
    """Add what the autopilot is to raise, and what it must leave alone."""
    group = parser.add_argument_group(
        "the autopilot", "changes guests' claims as their load changes: docs/autopilot.md"
    )
    group.add_argument(
        "--autopilot",
        metavar="OBJECTIVE",
        help="raise this: throughput, fairness, or latency:NAME of a guest (default: it is off)",
    )
    group.add_argument("--autopilot-dry-run", action="store_true", help="change nothing, only recommend")
    group.add_argument(
        "--autopilot-log",
        type=Path,
        metavar="FILE",
        help="write every change, and why, to FILE; 'emuvisor autopilot FILE' shows it",
    )
    group.add_argument(
        "--autopilot-constraints",
        metavar="LIST",
        help="what it must leave alone, such as keep=db,changes=2,factor=4,web.weight=50:400",
    )


@contextmanager
def autopilot(
    args: argparse.Namespace, host: "Host", guests: "Sequence[GuestConfig] | None"
) -> Iterator[None]:
    """Inside, the autopilot of `host`, which is to run `guests`, does what the options say. None: guests come and go.

    Raises UsageError for options that cannot be, HostError for a log that cannot be written.
    """
    if args.autopilot is None:
        for name in ("dry_run", "log", "constraints"):
            if getattr(args, f"autopilot_{name}"):
                raise UsageError(f"--autopilot-{name.replace('_', '-')} without --autopilot")
        yield
        return
    objective, constraints = _orders(args, guests)
    with _log(args.autopilot_log, host):
        host.autopilot.start(objective, constraints, dry_run=args.autopilot_dry_run)
        try:
            yield
        finally:
            host.autopilot.stop()


def _orders(
    args: argparse.Namespace, guests: "Sequence[GuestConfig] | None"
) -> "tuple[Objective, Constraints]":
    """What it is to do, with nobody in it who will not be there. Raises UsageError."""
    from emuvisor.host.autopilot import Constraints, Objective

    objective = Objective.parse(args.autopilot)
    constraints = Constraints.parse(args.autopilot_constraints or "")
    if guests is None:
        return objective, constraints
    known = [guest.name for guest in guests]
    for name in (objective.guest, *sorted(constraints.keep), *(guest for guest, _ in constraints.bounds)):
        if name and name not in known:
            raise UsageError(f"--autopilot: there is no guest {name!r}; there are: {', '.join(known)}")
    return objective, constraints


@contextmanager
def _log(path: Path | None, host: "Host") -> Iterator[None]:
    """Inside, the log goes to `path`, line by line."""
    if path is None:
        yield
        return
    from emuvisor.host.autopilot.log import encode

    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from None

    def note(entry: "Entry") -> None:
        print(encode(entry), file=file, flush=True)

    host.autopilot.log.listeners.append(note)
    with file:
        yield
