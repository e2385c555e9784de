"""Debian with one, two and four vCPUs: its boot, and four programs at once.

A guest has one pCPU at a time, so several vCPUs make nothing faster: what they cost is the figure.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks.figures import Goal
from benchmarks.guests import EmuvisorProcess, has_image
from benchmarks.harness import Contender, Context, Figures, Task, one
from benchmarks.shell import GuestCommand, Shell, at_once, boot_seconds, booted
from emuvisor.machine.choices import BoardName

__all__ = ["Smp", "functions", "work_task"]

VCPUS = (1, 2, 4)
BOARDS: tuple[BoardName, ...] = ("microvm", "pc")
FILES = 4
FILE_MIB, QUICK_FILE_MIB = 4, 1
MOST_BOOT, MOST_WORK = 1.5, 1.2
"""Times one vCPU."""
SYSTEM_CALLS, QUICK_SYSTEM_CALLS = 50_000, 10_000
"""Of each of four programs at once: the kernel's locks are contended."""


def functions(quick: bool) -> dict[str, tuple[str, str]]:
    """By what is measured: the shell's command, and what it prints when it has done its work."""
    size = QUICK_FILE_MIB if quick else FILE_MIB
    calls = QUICK_SYSTEM_CALLS if quick else SYSTEM_CALLS
    all_files = " ".join(str(number) for number in range(FILES))
    each = f"for f in {all_files}; do {{}} & done; wait"
    return {
        f"sha256sum of {FILES} files of {size} MiB at once": (
            f"dd if=/dev/zero of=/tmp/zeros bs=1M count={size} 2>/dev/null; "
            + each.format("sha256sum < /tmp/zeros > /tmp/$f")
            + "; cat /tmp/[0-9] | uniq -c",
            f" {FILES} ",
        ),
        f"{FILES} programs of {2 * calls:,} system calls at once": (
            each.format(f"dd if=/dev/zero of=/dev/null bs=1 count={calls} 2>/tmp/$f")
            + f"; echo right-$(cat /tmp/[0-9] | grep -c '^{calls}+0 records out')",
            f"right-{FILES}",
        ),
    }


def vcpus(count: int) -> str:
    """The contender with so many."""
    return "1 vCPU" if count == 1 else f"{count} vCPUs"


class Smp:
    """Guests are processes of their own, on one pCPU, with the host's clock."""

    name = "smp"
    measures = "a Debian guest with 1, 2 and 4 vCPUs, which take turns on one pCPU"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Boots on both boards; then programs in guests that have booted."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings

        def guest(board: BoardName, count: int) -> GuestCommand:
            return EmuvisorProcess(settings, board=board, devices={"vcpus": count}, name=vcpus(count))

        context.note(
            "All vCPUs of a guest take turns on one pCPU, so that nothing can be faster than with one; the ratios say "
            'what the others cost: starting them, IPIs, and waiting for locks. clock="host". CPU time is that of the '
            "guest's process."
        )
        work = functions(settings.quick)
        commands = {f"work{number}": command for number, (command, _) in enumerate(work.values())}
        boots = [_boot_task(board, [guest(board, count) for count in VCPUS]) for board in BOARDS]
        with ExitStack() as stack:
            starts = [partial(booted, stack, context, guest("microvm", count), commands) for count in VCPUS]
            shells = at_once(starts)
            yield boots + [
                work_task(what, f"work{number}", expected, shells)
                for number, (what, (_, expected)) in enumerate(work.items())
            ]


def _boot_task(board: str, guests: Sequence[GuestCommand]) -> Task:
    figure = f"boot to user space, {board}"
    return Task(
        figure,
        "s",
        [Contender(guest.name, one(figure, partial(boot_seconds, guest))) for guest in guests],
        goals={figure: Goal(MOST_BOOT, vcpus(1), vcpus(VCPUS[-1]))},
        against=vcpus(1),
        warm_ups=0,
    )


def work_task(figure: str, function: str, expected: str, shells: Sequence[Shell]) -> Task:
    """What all `shells` do in turn: `function`, which prints `expected`."""

    def measure(shell: Shell) -> Figures:
        cost = shell.cost(function, expected)
        return {figure: cost.seconds, f"{figure}: CPU time": cost.cpu_s}

    contenders = [Contender(shell.name, partial(measure, shell)) for shell in shells]
    return Task(
        figure,
        "s",
        contenders,
        goals={figure: Goal(MOST_WORK, vcpus(1), vcpus(VCPUS[-1]))},
        against=vcpus(1),
    )
