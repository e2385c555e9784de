"""`emuvisor screenshot`: run a guest to a moment, and keep what its screen shows then."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emuvisor.cli.options import add_guest_options, parse_seconds
from emuvisor.errors import HostError, ImageError, UsageError

if TYPE_CHECKING:
    from emuvisor.devices.display.screen import Screen
    from emuvisor.machine.machine import Machine

__all__ = ["add_to", "execute", "progress"]

DESCRIPTION = """\
Run a guest until a moment of its own time, until its screen shows a text, or until its serial console prints one
(--until), and write the screen as a PNG image. On the virtual clock the same command gives the same picture."""

STEP_WORK = 20_000_000
"""Bytes of code between two looks at the screen: 20 ms of guest time or less."""
DEFAULT_TIMEOUT_S = 300.0


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "screenshot", help="run a guest and keep a picture of its screen", description=DESCRIPTION
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("output", type=Path, metavar="FILE.png", help="the picture; - prints a text screen")
    moment = parser.add_argument_group("when")
    moment.add_argument(
        "--after", type=parse_seconds, metavar="SECONDS", help="after so many seconds of guest time"
    )
    moment.add_argument("--screen-shows", metavar="TEXT", help="when a text screen has TEXT in a line")
    add_guest_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run what `args` say; returns the exit code."""
    from emuvisor.cli.guests import configs, pool_size
    from emuvisor.machine.machine import Machine
    from emuvisor.memory import FramePool

    if not (args.after or args.screen_shows or args.until or args.config):
        raise UsageError("say when: --after, --screen-shows or --until")
    if args.config and len(args.config) > 1:
        raise UsageError(f"a screenshot is of one guest; there are {len(args.config)} --config")
    (config,) = configs(args, "virtual")
    machine = Machine(config, FramePool(pool_size([config])))
    try:
        if machine.board.display is None:
            raise UsageError(f"the {config.board} board has no display")
        screen = _run(machine, args.after, args.screen_shows)
    finally:
        machine.close()
    return _keep(screen, args.output)


def _run(machine: "Machine", after_s: float | None, shows: str | None) -> "Screen":
    from emuvisor.cpu.pcpu import Pcpu
    from emuvisor.machine.machine import Readiness
    from emuvisor.machine.outcome import Ending

    display = machine.board.display
    assert display is not None
    awaited = _awaited(shows, machine.config.until)
    timeout_s = machine.config.timeout_s or DEFAULT_TIMEOUT_S
    end = time.monotonic() + timeout_s
    pcpu = Pcpu(machine.memory.pool, machine.model)
    machine.boot()
    with progress() as update:
        while True:
            activity = machine.run_slice(pcpu, STEP_WORK)
            screen = display.screen()
            if shows is not None and any(shows in line for line in screen.text or ()):
                return screen
            if after_s is not None and machine.clock.now_ns() >= after_s * 1e9:
                return screen
            if activity.readiness is Readiness.ENDED:
                assert machine.outcome is not None
                if machine.outcome.ending is Ending.UNTIL or not awaited:
                    return screen
                raise HostError(f"the guest ended ({machine.outcome}) before {awaited}")
            if activity.readiness is Readiness.STARVED:
                raise HostError(f"the guest needs more memory than {machine.memory.pool.limit} frames")
            if activity.readiness is Readiness.IDLE:
                if activity.wake_ns is None:  # nothing will change any more
                    if after_s is not None or not awaited:
                        return screen
                    raise HostError(f"the guest halted and waits for input before {awaited}")
                time.sleep(max(0, activity.wake_ns - machine.clock.now_ns()) / 1e9)
            if time.monotonic() >= end:
                raise HostError(f"the moment did not come within {timeout_s:g} s")
            update(f"{machine.clock.now_ns() / 1e9:.1f} s of guest time")


def _awaited(shows: str | None, until: str | None) -> str:
    """The texts that would have been the moment, for a message; empty when there are none."""
    texts = []
    if shows is not None:
        texts.append(f"its screen showed {shows!r}")
    if until is not None:
        texts.append(f"its console printed {until!r}")
    return " or ".join(texts)


@contextmanager
def progress() -> Iterator[Callable[[str], object]]:
    """Gives a function to say how far it is: a line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _keep(screen: "Screen", output: Path) -> int:
    if str(output) == "-":
        if screen.text is None:
            raise UsageError("the screen is in a graphics mode; name a file for the picture")
        print("\n".join(line.rstrip() for line in screen.text))
        return 0
    try:
        output.write_bytes(screen.png())
    except OSError as error:
        raise ImageError(f"{output}: cannot be written: {error.strerror}") from None
    print(f"{output}: {screen.width}x{screen.height}")
    return 0
