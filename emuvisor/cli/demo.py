"""`emuvisor demo`: guests of our own, live."""

import argparse
import sys
from typing import Any

from emuvisor.cli.scheduler_options import add_scheduler_options
from emuvisor.errors import UsageError

__all__ = ["add_to", "execute"]

DESCRIPTION = """\
Boots four different guests in one process and shows them until they end, after a few seconds: one computes,
one fills its memory, one leaves the processor as often as it can, one sleeps. As text where there is no
terminal.

With --memory, other guests: four that hold twice the host's memory together, and the table shows what is shared,
ballooned, compressed and swapped so that all of them can go on.

With --cpu, five that never sleep, with different weights, a cap, and a reservation: the table shows what part of a
pCPU each is due, and what it gets."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo", help="four guests at once, live", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The exit code is 0 when all guests ended well, else 1.",
    )  # fmt: skip
    parser.add_argument(
        "--pcpus", type=int, default=1, metavar="N", help="threads that run guests (default 1)"
    )
    parser.add_argument(
        "--memory", action="store_true", help="guests with twice the host's memory: see where it comes from"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="guests that want all of the processor: see who is due what and gets it",
    )
    add_scheduler_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document, at the end")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the demo; 0 when all guests ended well, else 1."""
    if args.memory and args.cpu:
        raise UsageError("--memory with --cpu: these are two demos")
    options = {"scheduler": args.scheduler, "record": args.schedule_record}
    if args.memory:
        from emuvisor.cli import memory_demo

        return (
            0
            if memory_demo.run_memory_demo(memory_demo.DEMO, args.pcpus, as_json=args.json, **options)
            else 1
        )
    if args.cpu:
        from emuvisor.cli import cpu_demo

        return 0 if cpu_demo.run_cpu_demo(cpu_demo.DEMO, args.pcpus, as_json=args.json, **options) else 1
    from emuvisor.cli.shows import LiveShow, PlainShow, Show, document, show_summary
    from emuvisor.cli.workloads import DEMO, run_workloads

    show: Show | None = None
    if not args.json:
        show = LiveShow() if sys.stdout.isatty() else PlainShow()
    summary = run_workloads(DEMO, args.pcpus, show, **options)
    if args.json:
        print(document(summary))
    else:
        show_summary(summary)
    return 0 if summary.all_well else 1
