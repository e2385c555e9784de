"""`emuvisor run`: the options, and one run from them to an exit code."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from emuvisor.cli.autopilot_options import add_autopilot_options, autopilot
from emuvisor.cli.host_options import add_host_options, limit_backends
from emuvisor.cli.memory_options import add_memory_options
from emuvisor.cli.metrics_options import add_metrics_options
from emuvisor.cli.options import add_guest_options
from emuvisor.cli.scheduler_options import recorded_schedule
from emuvisor.errors import UsageError
from emuvisor.machine.choices import ClockMode

if TYPE_CHECKING:
    from emuvisor.cli.results import Result
    from emuvisor.host import Guest

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Run guests until they end. With a terminal and one guest, its console is yours: Ctrl-A X leaves, Ctrl-A H
helps. A pipe on standard input is typed on the console once the guest listens. Several --config run side by
side, each line of output behind its guest's name."""

EPILOG = """\
exit codes:
  0    the guest switched itself off, the --until text was seen, or you left with Ctrl-A X
  N    the guest wrote to the debug-exit port; N is (value << 1) | 1 as with QEMU, its low 8 bits
  2    it could not be run: options, configuration, images, this machine
  3    --timeout was over first
  4    the guest crashed (triple fault, engine error), halted for good, or got no memory
  130  interrupted
Of several guests, a crash counts most, then a timeout, then the first debug-exit."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "run",
        help="run one guest or several",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)

    add_guest_options(parser)
    host = parser.add_argument_group("the host")
    add_host_options(host)
    host.add_argument(
        "--host-clock",
        choices=get_args(ClockMode),
        default="host",
        help="virtual: the pCPUs count what guests run, so that the same guests have the same schedule every time "
        "(default: host)",
    )
    host.add_argument(
        "--display",
        choices=("text",),
        help="show the screen in the terminal and type on the keyboard, not on the serial console",
    )
    host.add_argument(
        "--vnc",
        metavar="ADDRESS",
        help="serve the screen by VNC: 127.0.0.1:5901, :1 (display 1 on loopback) or unix:PATH",
    )
    host.add_argument(
        "--vnc-password-file",
        type=Path,
        metavar="FILE",
        help="a file with the password that viewers must know",
    )
    host.add_argument(
        "--qmp",
        metavar="ADDRESS",
        help="serve QEMU's machine protocol: unix:PATH or tcp:127.0.0.1:PORT",
    )
    host.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document at the end, with the console's text in it",
    )
    add_memory_options(parser)
    add_metrics_options(parser)
    add_autopilot_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run what `args` say; returns the exit code."""
    from emuvisor.cli.guests import configs, networks, pool_size
    from emuvisor.cli.keyboard import Keyboard, stdin_descriptor
    from emuvisor.cli.memory_options import memory_policy
    from emuvisor.cli.metrics_options import metrics
    from emuvisor.cli.results import document, exit_code
    from emuvisor.cli.screen import Screen
    from emuvisor.cli.session import Session
    from emuvisor.cli.viewers import qmp_server, vnc_server
    from emuvisor.host import Host

    if args.display:
        from emuvisor.cli.display_text import TextDisplay
    stdin = stdin_descriptor()
    terminal = stdin is not None and sys.stdin.isatty()
    if args.host_clock == "virtual" and not args.config:
        args.clock = args.clock or "virtual"
    guests = configs(args, "host" if terminal else "virtual")
    _check_display(args, len(guests))
    shown = sys.stdout if not (args.json or args.display) else None
    screen = Screen(shown, [config.name for config in guests], by_lines=args.memory_table)
    keyboard = None
    listens = bool(guests[0].serial_ports) or args.display is not None
    if stdin is not None and len(guests) == 1 and listens and not (args.json and terminal):
        keyboard = Keyboard(stdin, terminal)
    _check_table(args, keyboard is not None and terminal)
    policy = memory_policy(args)
    pool = args.pool or pool_size(guests)
    with (
        Host(pool, args.pcpus, memory_policy=policy, scheduler=args.scheduler, clock=args.host_clock) as host,
        ExitStack() as viewers,
    ):
        limit_backends(host, args.backend_limit)
        viewers.enter_context(recorded_schedule(host, args.schedule_record))
        display = viewers.enter_context(TextDisplay()) if args.display else None
        if args.memory_record:
            from emuvisor.host.memory.recorder import MemoryRecorder

            viewers.enter_context(MemoryRecorder(host, args.memory_record))
        if args.memory_table:
            from emuvisor.cli.memory_live import memory_table

            viewers.enter_context(memory_table(host, screen))
        viewers.enter_context(metrics(args, host, lambda text: print(f"emuvisor: {text}", file=sys.stderr)))
        viewers.enter_context(autopilot(args, host, guests))
        for network in networks(args.networks, guests):
            host.add_network(network)

        def attach(guest: "Guest") -> None:
            if args.vnc:
                viewers.enter_context(vnc_server(guest, args.vnc, args.vnc_password_file))
            if args.qmp:
                viewers.enter_context(qmp_server(guest, args.qmp))

        session = Session(host, screen, keyboard, display, attach, counts_memory=args.json)
        results = session.run(guests)
    if session.host_memory is not None:
        print(document(results, session.host_memory))
    _explain(results)
    return exit_code(results)


def _check_display(args: argparse.Namespace, guests: int) -> None:
    for option in ("display", "vnc", "qmp"):
        if getattr(args, option) and guests > 1:
            raise UsageError(f"--{option} is for one guest; there are {guests}")
    if args.display and args.json:
        raise UsageError("--display with --json: one of them has the terminal")
    if args.vnc_password_file and not args.vnc:
        raise UsageError("--vnc-password-file without --vnc")


def _check_table(args: argparse.Namespace, has_keyboard: bool) -> None:
    if not args.memory_table:
        return
    if args.display or args.json:
        raise UsageError(
            f"--memory-table with --{'display' if args.display else 'json'}: one of them is shown"
        )
    if not sys.stdout.isatty() and not sys.stderr.isatty():
        raise UsageError(
            "--memory-table needs a terminal; --memory-record FILE keeps the numbers for 'emuvisor memory FILE'"
        )
    if has_keyboard:
        raise UsageError(
            "--memory-table: the guest's console has the terminal; use --memory-record FILE, and "
            "'emuvisor memory --follow FILE' in another one"
        )


def _explain(results: "list[Result]") -> None:
    """Say on standard error why a run did not end well."""
    for result in results:
        if result.complaint:
            print(f"emuvisor: {result.name}: {result.complaint}", file=sys.stderr)
