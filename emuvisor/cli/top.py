"""`emuvisor top`: guests under a live dashboard, or their statistics as lines of JSON."""

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.cli.autopilot_options import add_autopilot_options, autopilot
from emuvisor.cli.host_options import add_host_options, limit_backends
from emuvisor.cli.memory_options import add_memory_options
from emuvisor.cli.metrics_options import add_metrics_options
from emuvisor.cli.options import add_guest_options
from emuvisor.cli.scheduler_options import recorded_schedule
from emuvisor.errors import HostError, UsageError

if TYPE_CHECKING:
    from emuvisor.host import Host
    from emuvisor.machine.config import GuestConfig
    from emuvisor.tui.local import LocalSource

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Run guests, by the options of 'emuvisor run', under a live dashboard of host and guests: processor, memory, disk,
network, exits, consoles. Without any, guests of our own: one computes, one fills its memory, one exits, one sleeps.
A guest that ends stays there to be looked at; --timeout switches guests off."""

EPILOG = """\
keys: up and down choose a guest; p pauses and r resumes it, w and c change its weight and cap, o or Enter opens its
console (Ctrl-A X leaves it), s writes its screen to a PNG file here, q leaves.
The exit code is 0; 2 when the guests could not be run."""

LOOK_S = 0.1
"""How soon the end of all guests is noticed."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "top",
        help="guests under a live dashboard",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)
    add_guest_options(parser)
    host = parser.add_argument_group("the host")
    add_host_options(host)
    host.add_argument(
        "--json",
        action="store_true",
        help="no dashboard: print a JSON object a second until all guests have ended",
    )
    add_memory_options(parser, table=False)
    add_metrics_options(parser)
    add_autopilot_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run what `args` say; returns the exit code."""
    from emuvisor.cli.guests import networks, pool_size
    from emuvisor.cli.memory_options import memory_policy
    from emuvisor.cli.metrics_options import metrics

    if not args.json:
        _check_terminal()
    with ExitStack() as stack:
        guests = stack.enter_context(_guests(args))
        from emuvisor.host import Host
        from emuvisor.tui.local import LocalSource

        policy = memory_policy(args)
        pool = args.pool or pool_size(guests)
        host = stack.enter_context(Host(pool, args.pcpus, memory_policy=policy, scheduler=args.scheduler))
        limit_backends(host, args.backend_limit)
        stack.enter_context(recorded_schedule(host, args.schedule_record))
        for network in networks(args.networks, guests):
            host.add_network(network)
        source = LocalSource(host, guests)
        if args.memory_record:
            from emuvisor.host.memory.recorder import MemoryRecorder

            stack.enter_context(MemoryRecorder(host, args.memory_record))
        stack.enter_context(metrics(args, host, host.warn))  # shown, or printed, with the warnings
        stack.enter_context(autopilot(args, host, guests))
        source.start()
        if args.json:
            _print_lines(host, source)
        else:
            from emuvisor.tui.dashboard import Dashboard

            Dashboard(source).run()
    return 0


def _check_terminal() -> None:
    """Raises UsageError where there can be no dashboard."""
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal; --json prints the numbers")
    if find_spec("textual") is None:
        raise UsageError("the dashboard needs textual: pip install 'emuvisor[top]'")


@contextmanager
def _guests(args: argparse.Namespace) -> "Iterator[Sequence[GuestConfig]]":
    """Those of the options, or else the demo's, made to last."""
    from emuvisor.cli.guests import configs, names_guest

    if names_guest(args):
        yield configs(args, "host")
        return
    from emuvisor.cli.workloads import LASTING, guest_config

    with tempfile.TemporaryDirectory() as folder:
        yield [guest_config(workload, Path(folder), args.timeout) for workload in LASTING]


def _print_lines(host: "Host", source: "LocalSource") -> None:
    """Print a line a second until all guests have ended, or nobody reads them."""
    from emuvisor.metrics.json_lines import JsonLines
    from emuvisor.metrics.sampler import Sampler

    failures: list[OSError] = []
    done = threading.Event()

    def failed(error: OSError) -> None:
        failures.append(error)
        done.set()

    with Sampler(host, JsonLines(sys.stdout, failed)):
        while not (source.ended or done.wait(LOOK_S)):
            source.stop_late_ones()
            for warning in source.warnings():
                print(f"emuvisor: {warning}", file=sys.stderr)
    for error in failures:
        if isinstance(error, BrokenPipeError):
            raise error
        raise HostError(f"standard output cannot be written to: {error.strerror}")
