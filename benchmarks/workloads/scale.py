"""Many Debian guests in one process: what they do together, and what memory each costs."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks.figures import Goal
from benchmarks.guests import NAME, has_image, program
from benchmarks.harness import BenchmarkError, Contender, Context, Settings, Task, one
from benchmarks.process import ConsoleProcess
from emuvisor.units import MIB

__all__ = ["Scale"]

COUNTS = (1, 4, 16, 64)
QUICK_COUNTS = (1, 4, 16)
PCPUS = (1, 2)
WINDOW_S = 3.0
QUICK_WINDOW_S = 1.5
ANSWER_TIMEOUT_S = 120
BOOT_TIMEOUT_S = 30
"""For each guest."""
HOST_MIB_PER_GUEST = 130
"""What has to be free for each guest before so many are started: its frames, and room."""
MEMORY = "memory of a guest besides its frames"
TRANSLATIONS = "translated code of a pCPU"


class Crowd:
    """A process with many guests, started when first used and closed by the benchmark."""

    def __init__(self, settings: Settings, pcpus: int, counts: Sequence[int]) -> None:
        self.pcpus = pcpus
        self.counts = counts
        self.window_s = QUICK_WINDOW_S if settings.quick else WINDOW_S
        self._settings = settings
        self._process: ConsoleProcess | None = None
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def _ask(
        self, process: ConsoleProcess, line: str, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> dict[str, float]:
        process.send(f"{line}\n")
        text, _ = process.expect("\n", timeout_s)
        try:
            answer: dict[str, float] = json.loads(text)
        except ValueError:
            raise BenchmarkError(f"{process.name}: {line!r} was answered with {text!r}") from None
        return answer

    def _started(self) -> ConsoleProcess:
        if self._process is None:
            most = max(self.counts)
            argv = program(
                "many", str(most), str(self.pcpus), str(self._settings.memory_mib), self._settings.append
            )
            process = self._process = ConsoleProcess(f"{most} guests on {self.pcpus} pCPUs", argv)
            self._ask(process, "boot 1")
            self._first = self._ask(process, "memory")
            self._ask(process, f"boot {most}", most * BOOT_TIMEOUT_S)
            self._last = self._ask(process, "memory")
            self._ask(process, "loop")
        return self._process

    def throughput(self, count: int) -> float:
        """Million bytes of guest code a second that the first `count` guests run together."""
        answer = self._ask(self._started(), f"work {count} {self.window_s}")
        if not answer["least"]:
            raise BenchmarkError(f"one of {count} guests did nothing for {self.window_s} s")
        return answer["work"] / answer["seconds"] / 1e6

    def memory(self) -> dict[str, float]:
        """MiB that each further guest costs, and that a pCPU has of translated code."""
        self._started()
        guests = max(self.counts) - 1
        return {
            MEMORY: (self._last["other"] - self._first["other"]) / guests / MIB,
            TRANSLATIONS: self._last["translations"] / self.pcpus / MIB,
        }

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


class Scale:
    """All guests are booted once for each number of pCPUs; then 1, 4, 16, 64 of them run a shell loop."""

    name = "scale"
    measures = "what 1, 4, 16 and 64 Debian guests do together on one pCPU and on two, and the memory of each"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Throughput by number of pCPUs, and memory."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        counts = _counts(context)
        crowds = [Crowd(settings, pcpus, counts) for pcpus in _pcpus(context)]
        context.note(
            'Guests run an endless shell loop with clock="virtual"; throughput counts the bytes of '
            "guest code that all run together (higher is better; the ratio is to one guest on as many "
            f"pCPUs). Memory is the growth of the process's resident memory from 1 to {max(counts)} "
            "booted guests, without the frame pool and without the engines' translated code, which is "
            "limited for each pCPU."
        )
        try:
            yield [
                task for number, crowd in enumerate(crowds) for task in _tasks(crowd, with_memory=number == 0)
            ]
        finally:
            for crowd in crowds:
                crowd.close()


def _tasks(crowd: Crowd, with_memory: bool) -> list[Task]:
    name = "throughput on " + ("one pCPU" if crowd.pcpus == 1 else f"{crowd.pcpus} pCPUs")
    contenders = [
        Contender("1 guest" if count == 1 else f"{count} guests", one(name, partial(crowd.throughput, count)))
        for count in crowd.counts
    ]
    tasks = [Task(name, "MB of code/s", contenders, against=contenders[0].name)]
    if with_memory:
        memory = Contender(NAME, crowd.memory)
        tasks.append(Task("memory", "MiB", [memory], goals={MEMORY: Goal(0.5)}, warm_ups=0, repeats=1))
    return tasks


def _counts(context: Context) -> tuple[int, ...]:
    """As many guests as fit into the machine's free memory."""
    wanted = QUICK_COUNTS if context.settings.quick else COUNTS
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    fits = tuple(count for count in wanted if count == 1 or count * HOST_MIB_PER_GUEST <= available)
    for count in wanted[len(fits) :]:
        context.notice(
            f"{count} guests are skipped: {count * HOST_MIB_PER_GUEST} MiB needed, {available} MiB free"
        )
    return fits


def _pcpus(context: Context) -> list[int]:
    cores = len(os.sched_getaffinity(0))
    for count in PCPUS:
        if count > cores:
            context.notice(f"{count} pCPUs are skipped: this process has {cores} cores")
    return [count for count in PCPUS if count <= cores]
