"""`emuvisor run`: the options, and one run from them to an exit code."""

import argparse
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.errors import UsageError
from emuvisor.units import parse_size

if TYPE_CHECKING:
    from emuvisor.cli.results import Result

__all__ = ["add_to", "execute", "parse_disk", "parse_flat"]

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


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise ArgumentTypeError(str(error)) from None


DISK_OPTIONS = frozenset({"readonly", "floppy"})


def parse_disk(text: str) -> tuple[Path, frozenset[str]]:
    """PATH[,readonly][,floppy]: the path, and what is said of it."""
    path, *options = text.split(",")
    if not path or not set(options) <= DISK_OPTIONS:
        raise ArgumentTypeError(f"{text!r} is not PATH[,readonly][,floppy]")
    return Path(path), frozenset(options)


def parse_flat(text: str) -> tuple[Path, int, str | None]:
    """PATH@ADDRESS[,MODE]: path, address, and the mode if there is one."""
    path, at, rest = text.rpartition("@")
    address, comma, mode = rest.partition(",")
    try:
        number = int(address, 0)
    except ValueError:
        number = -1
    if not (path and at) or number < 0 or (comma and not mode):
        raise ArgumentTypeError(f"{text!r} is not PATH@ADDRESS[,MODE], such as guest.bin@0x8000,real16")
    return Path(path), number, mode or None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


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

    boot = parser.add_argument_group("what to boot")
    boot.add_argument("--image", metavar="NAME", help="an image of 'emuvisor images', such as debian")
    boot.add_argument("--kernel", type=Path, metavar="FILE", help="a kernel: bzImage, multiboot or ELF")
    boot.add_argument("--initrd", type=Path, metavar="FILE", help="the kernel's initial ramdisk")
    boot.add_argument("--append", metavar="TEXT", help="the kernel's command line; with --image, more of it")
    boot.add_argument(
        "--decompressor",
        choices=("host", "guest"),
        help="who unpacks a bzImage: the host (fast, default) or its own code",
    )
    boot.add_argument(
        "--flat", type=parse_flat, metavar="FILE@ADDRESS[,MODE]", help="a flat binary; default MODE: real16"
    )
    boot.add_argument("--firmware", type=Path, metavar="FILE", help="a BIOS in place of emuvisor's own")
    boot.add_argument(
        "--disk",
        type=parse_disk,
        action="append",
        metavar="FILE[,readonly][,floppy]",
        help="a raw disk image; the BIOS boots the first hard disk, else the first floppy (repeatable)",
    )
    boot.add_argument(
        "--config", type=Path, action="append", metavar="FILE", help="a guest defined in TOML (repeatable)"
    )

    guest = parser.add_argument_group("the guest", "these go before what a configuration says")
    guest.add_argument("--name", help="its name")
    guest.add_argument("--memory", type=_size, metavar="SIZE", help="such as 256M (default) or 4G")
    guest.add_argument("--cpu", metavar="NAME", help="a CPU model")
    guest.add_argument(
        "--clock",
        choices=("virtual", "host"),
        help="virtual: every run is the same; host: the wall clock (default with a terminal)",
    )
    guest.add_argument("--until", metavar="TEXT", help="end when the console prints TEXT")
    guest.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="give up after that long")

    host = parser.add_argument_group("the host")
    host.add_argument(
        "--pool",
        type=_size,
        metavar="SIZE",
        help="memory for all guests together (default: what they may use)",
    )
    host.add_argument(
        "--pcpus", type=int, default=1, metavar="N", help="threads that run guests (default: 1)"
    )
    host.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document at the end, with the console's text in it",
    )


def execute(args: argparse.Namespace) -> int:
    """Run what `args` say; returns the exit code."""
    from emuvisor.cli.guests import configs, pool_size
    from emuvisor.cli.keyboard import Keyboard, stdin_descriptor
    from emuvisor.cli.results import document, exit_code
    from emuvisor.cli.screen import Screen
    from emuvisor.cli.session import Session
    from emuvisor.host import Host

    stdin = stdin_descriptor()
    terminal = stdin is not None and sys.stdin.isatty()
    guests = configs(args, "host" if terminal else "virtual")
    screen = Screen(None if args.json else sys.stdout, [config.name for config in guests])
    keyboard = None
    if stdin is not None and len(guests) == 1 and guests[0].serial_ports and not (args.json and terminal):
        keyboard = Keyboard(stdin, terminal)
    with Host(args.pool or pool_size(guests), args.pcpus) as host:
        results = Session(host, screen, keyboard).run(guests)
    if args.json:
        print(document(results))
    _explain(results)
    return exit_code(results)


def _explain(results: "list[Result]") -> None:
    """Say on standard error why a run did not end well."""
    for result in results:
        if result.complaint:
            print(f"emuvisor: {result.name}: {result.complaint}", file=sys.stderr)
