"""Commands in the booted Debian guest: what the kernel and its programs cost under emulation."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guests import NAME, EmuvisorProcess, has_image
from benchmarks.harness import Contender, Context, Settings, Task, one
from benchmarks.shell import GuestCommand, booted
from emuvisor.units import KIB, MIB

__all__ = ["Commands"]

QUICK_PART = 4
"""A quick run does this part of the work; sha256 too, so its sum is another."""


@dataclass(frozen=True, slots=True)
class Command:
    """A shell command that must print `expected`. `limit` is the goal in times of QEMU's time."""

    name: str
    function: str
    line: str
    expected: str
    limit: float


def commands(quick: bool) -> list[Command]:
    """The commands at the size of this run."""
    part = QUICK_PART if quick else 1
    reads, forks, turns, size = 200_000 // part, 300 // part, 200_000 // part, 64 * MIB // part
    return [
        Command(
            f"{2 * reads // 1000}k system calls (one-byte dd)",
            "syscalls",
            f"dd if=/dev/zero of=/dev/null bs=1 count={reads}",
            f"{reads}+0 records out",
            1.5,
        ),
        Command(
            f"{forks} fork and exec",
            "forks",
            # A path with a slash is never a builtin nor an applet: the shell forks and executes the file.
            f"i=0; while [ $i -lt {forks} ]; do /bin/busybox true || break; i=$((i+1)); done; echo turns-$i",
            f"turns-{forks}",
            1.1,
        ),
        Command(
            f"{turns // 1000}k turns of a shell loop",
            "turns",
            f"i=0; while [ $i -lt {turns} ]; do i=$((i+1)); done; echo turns-$i",
            f"turns-{turns}",
            1.8,
        ),
        Command(
            f"sha256 of {size // MIB} MB",
            "sums",
            f"dd if=/dev/zero bs=64k count={size // (64 * KIB)} 2>/dev/null | sha256sum",
            hashlib.sha256(bytes(size)).hexdigest(),
            1.8,
        ),
    ]


class Commands:
    """Each contender boots once and is kept; each command is typed at its console, warm-up first."""

    name = "commands"
    measures = "host seconds of a command in the booted Debian guest, typed at its console"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each command."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        wanted = commands(settings.quick)
        context.note(
            'emuvisor runs with clock="host", as QEMU\'s guest does: as many timer interrupts a second '
            "for both. Ratios are against QEMU; results are checked."
        )
        functions = {command.function: command.line for command in wanted}
        with ExitStack() as stack:
            shells = [
                shell
                for guest in _contenders(context, settings)
                if (shell := booted(stack, context, guest, functions))
            ]
            yield [
                Task(
                    name=command.name,
                    unit="s",
                    contenders=[
                        Contender(
                            shell.name,
                            one(command.name, partial(shell.time, command.function, command.expected)),
                        )
                        for shell in shells
                    ],
                    goals={command.name: Goal(command.limit, qemu.NAME, NAME)},
                    against=qemu.NAME,
                )
                for command in wanted
            ]


def _contenders(context: Context, settings: Settings) -> list[GuestCommand]:
    guests: list[GuestCommand] = [EmuvisorProcess(settings)]
    if qemu.available(context):
        guests.append(qemu.Qemu(settings))
    return guests
