"""A booted Debian guest at whose shell commands are run, timed from outside on the host's clock."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

from benchmarks.harness import BenchmarkError, Context
from benchmarks.process import ConsoleProcess, cpu_seconds
from emuvisor.images.initramfs import BOOT_MARKER

__all__ = [
    "BOOT_TIMEOUT_S",
    "END",
    "PRINT_END",
    "Cost",
    "GuestCommand",
    "Shell",
    "at_once",
    "boot_seconds",
    "booted",
]

_T = TypeVar("_T")
BOOT_TIMEOUT_S = 120
PROMPT_S = 60
PROMPT = "# "
END = "EMUVISOR-END-42"
PRINT_END = "echo EMUVISOR-END-$((6*7))"
"""Printed only by running it: the echo of the typed line does not contain `END`."""


class GuestCommand(Protocol):
    """Something that boots the image with its console on standard input and output."""

    @property
    def name(self) -> str: ...
    def argv(self) -> list[str]: ...


def boot_seconds(guest: GuestCommand) -> float:
    """From the start of the process to the first line of user space."""
    with ConsoleProcess(guest.name, guest.argv()) as process:
        _, when = process.expect(BOOT_MARKER, BOOT_TIMEOUT_S)
        return when - process.started


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: seconds on the clock, and of the host's CPUs."""

    seconds: float
    cpu_s: float


class Shell:
    """`guest` booted to its shell. Use it as a context manager."""

    def __init__(self, guest: GuestCommand) -> None:
        self.name = guest.name
        self._process = ConsoleProcess(guest.name, guest.argv())
        try:
            self._process.expect(BOOT_MARKER, BOOT_TIMEOUT_S)
            self._process.expect(PROMPT, BOOT_TIMEOUT_S)
        except BenchmarkError:
            self._process.close()
            raise

    @property
    def pid(self) -> int:
        """The process's number, for profilers."""
        return self._process.pid

    def start(self, command: str, printed: str, timeout_s: float = 30) -> None:
        """Type `command`, which goes on, and wait until it has `printed` what the typed line does not contain."""
        self._process.send(f"{command}\n")
        self._process.expect(printed, timeout_s)

    def define(self, name: str, command: str) -> None:
        """Make `command` and an end marker a shell function, so that the timed line is short to type."""
        self._process.send(f"{name}() {{ {command}; {PRINT_END}; }}\n")
        self._process.expect(PROMPT, PROMPT_S)
        self._process.send("echo defined-$((6*7))\n")
        self._process.expect("defined-42", PROMPT_S)
        self._process.expect(PROMPT, PROMPT_S)

    def time(self, function: str, expected: str, timeout_s: float = 300) -> float:
        """Host seconds from typing `function` to its end marker.

        Raises BenchmarkError unless `expected` is in what it printed.
        """
        start = time.perf_counter()
        self._process.send(f"{function}\n")
        output, end = self._process.expect(END, timeout_s)
        self._process.expect(PROMPT, PROMPT_S)
        if expected not in output:
            raise BenchmarkError(f"{self.name}: {function} printed {output[-400:]!r}, without {expected!r}")
        return end - start

    def cost(self, function: str, expected: str, helpers: Sequence[int] = ()) -> "Cost":
        """As `time`, with the CPU time of the guest's process; `helpers` are the numbers of processes that belong to
        it."""
        pids = (self.pid, *helpers)
        before = sum(map(cpu_seconds, pids))
        seconds = self.time(function, expected)
        return Cost(seconds, sum(map(cpu_seconds, pids)) - before)

    def close(self) -> None:
        """Switch the guest off."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def at_once(starts: Sequence[Callable[[], _T | None]]) -> list[_T]:
    """What each of `starts` made; they all run at once, which saves time when guests boot. None is left out."""
    with ThreadPoolExecutor(len(starts)) as pool:
        return [made for made in pool.map(lambda start: start(), starts) if made is not None]


def booted(
    stack: ExitStack, context: Context, guest: GuestCommand, functions: Mapping[str, str]
) -> Shell | None:
    """`guest` at its shell until `stack` ends, with shell functions (name to command); None, and a notice, when it
    does not come so far."""
    try:
        shell = stack.enter_context(Shell(guest))
        for name, command in functions.items():
            shell.define(name, command)
        return shell
    except BenchmarkError as error:
        context.notice(f"{guest.name} is skipped: {error}")
        return None
