"""Runs benchmarks: warm-up, repeats, and the contenders of a task in turns (A B A B).

So all of them see the same machine, quiet or not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.figures import Goal
from emuvisor.errors import EmuvisorError
from emuvisor.images.cache import Image

__all__ = [
    "Benchmark",
    "BenchmarkError",
    "Contender",
    "Context",
    "Progress",
    "Result",
    "Row",
    "Settings",
    "Task",
    "one",
    "run",
]

Figures = Mapping[str, float]
"""Figures by the name of what they measure."""


class BenchmarkError(Exception):
    """A contender did not do its work; the message says which and what came instead."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all benchmarks of a run. `quick` makes the work smaller, and so the figures rougher."""

    repeats: int = 5
    quick: bool = False
    memory_mib: int = 256
    append: str = ""
    """More words for the kernel's command line, for all contenders."""
    qemu_cpu: str = "qemu64"
    image: Image | None = None
    """The Debian image; None when it has not been pulled."""


@dataclass(frozen=True, slots=True)
class Contender:
    """`measure` does the work once and says what it took."""

    name: str
    measure: Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Task:
    """Work that each contender does in its turn.

    `goals` are by the name of the figure, and so are `units` where a figure's is not `unit`. Ratios are taken to the
    contender `against`.
    """

    name: str
    unit: str
    contenders: Sequence[Contender]
    goals: Mapping[str, Goal] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    warm_ups: int = 1
    repeats: int | None = None
    """In place of the settings' repeats, for what repeating does not make better."""


class Context:
    """What a benchmark gets: the settings, and where to say what it leaves out and what readers must know."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.notices: list[str] = []
        """What is skipped or failed, and why."""
        self.notes: list[str] = []
        """What one has to know to read the figures."""

    def notice(self, text: str) -> None:
        """Something is skipped."""
        if text not in self.notices:
            self.notices.append(text)

    def note(self, text: str) -> None:
        """Something about how it was measured."""
        if text not in self.notes:
            self.notes.append(text)


class Benchmark(Protocol):
    """Tasks that belong together. `tasks` sets up what they need, and takes it down at the end."""

    @property
    def name(self) -> str: ...
    @property
    def measures(self) -> str: ...
    def tasks(self, context: Context) -> AbstractContextManager[Sequence[Task]]: ...


@dataclass(slots=True)
class Row:
    """All figures of one kind, by contender."""

    name: str
    unit: str
    goal: Goal | None
    against: str | None
    values: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What came out of a benchmark. `failed` says that something went wrong, not that a goal was missed."""

    name: str
    measures: str
    rows: list[Row]
    notes: list[str]
    notices: list[str]
    seconds: float
    failed: bool


Progress = Callable[[str, int, int], None]
"""Called with what begins now, how many measurements are done, and how many there are."""


def one(name: str, measure: Callable[[], float]) -> Callable[[], Figures]:
    """For a contender whose work gives a single figure, `name`."""
    return lambda: {name: measure()}


def run(benchmark: Benchmark, settings: Settings, progress: Progress) -> Result:
    """Run `benchmark`. A contender that fails is left out from then on, with a notice."""
    context = Context(settings)
    rows: list[Row] = []
    failed = False
    start = time.perf_counter()
    progress("setting up", 0, 1)
    try:
        with benchmark.tasks(context) as tasks:
            counts = [len(task.contenders) * (task.warm_ups + _repeats(task, settings)) for task in tasks]
            with _counted(progress, sum(counts)) as step:
                for task in tasks:
                    task_rows, ok = _run_task(task, context, step)
                    rows += task_rows
                    failed |= not ok
    except (BenchmarkError, EmuvisorError) as error:
        context.notice(f"{benchmark.name} failed: {error}")
        failed = True
    return Result(
        name=benchmark.name,
        measures=benchmark.measures,
        rows=rows,
        notes=context.notes,
        notices=context.notices,
        seconds=time.perf_counter() - start,
        failed=failed,
    )


def _repeats(task: Task, settings: Settings) -> int:
    return settings.repeats if task.repeats is None else task.repeats


@contextmanager
def _counted(progress: Progress, total: int) -> Iterator[Callable[[str], None]]:
    done = 0

    def step(what: str) -> None:
        nonlocal done
        progress(what, done, total)
        done += 1

    yield step
    progress("done", total, total)


def _run_task(task: Task, context: Context, step: Callable[[str], None]) -> tuple[list[Row], bool]:
    rows: dict[str, Row] = {}
    lost: set[str] = set()
    repeats = _repeats(task, context.settings)
    for turn in range(task.warm_ups + repeats):
        number = turn - task.warm_ups + 1
        label = f"{number} of {repeats}" if number > 0 else "warm-up"
        for contender in task.contenders:
            step(f"{task.name}: {contender.name}, {label}")
            if contender.name in lost:
                continue
            try:
                figures = contender.measure()
            except (BenchmarkError, EmuvisorError) as error:
                lost.add(contender.name)
                context.notice(f"{task.name}: {contender.name} failed: {error}")
                continue
            if number > 0:
                for name, value in figures.items():
                    unit = task.units.get(name, task.unit)
                    row = rows.setdefault(name, Row(name, unit, task.goals.get(name), task.against))
                    row.values.setdefault(contender.name, []).append(value)
    return list(rows.values()), not lost
