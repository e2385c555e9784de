"""The overcommit curve: what guests do together that want more memory than the host has, for each rung of the ladder.

The guests (programs/workingset.c) visit pages, one visit in 32 anywhere in their memory and the others in a hot
quarter of it. Of 20 pages 4 are zeros, 4 hold the same in all guests, 7 are data of their own that compresses to a
third and is written, 5 are random. A balloon can have all but data and the hot quarter, and a page that it took costs
the guest to make it anew. So no rung can do everything: equal and zero pages are 40 %, those that compress 75 %,
those that a balloon can have 49 % of what a guest has; only swap has no bound. Real guests differ; what they have in
common is the shape.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import curve
from benchmarks.figures import ratio_of_medians
from benchmarks.guest_programs import has_compiler
from benchmarks.harness import Contender, Context, Figures, Result, Task
from benchmarks.working_set import OWN_PAGES, Crowd, compile_guest
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import (
    BalloonRung,
    CompressionRung,
    PauseRung,
    Rung,
    SharingRung,
    SwapRung,
    default_rungs,
)
from emuvisor.units import MIB, PAGE_SIZE

__all__ = ["CURVE", "RATIOS", "Overcommit", "lines"]

RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0)
QUICK_RATIOS = (1.0, 1.5, 3.0)
GUESTS = 4
MEMORY = 32 * MIB
COMPRESSION_PART = 5
"""With compression, this part of the memory is the pool of compressed pages, so that each host has as much in all."""
PERIOD_S = 0.02
"""The memory manager's: the host is small, and its guests grow by 50 MB/s."""
SETTLE_S = 0.5
WINDOW_S = 1.0
ENOUGH = "enough memory"
DOES_NOT_FIT = "does not fit"
LADDERS: dict[str, tuple[Rung, ...]] = {
    "sharing": (SharingRung(), PauseRung()),
    "balloon": (BalloonRung(), PauseRung()),
    "compression": (CompressionRung(), PauseRung()),
    "swap": (SwapRung(), PauseRung()),
    "all rungs": default_rungs(),
}


class Crowds:
    """Runs the crowds and remembers what came of them, in MB of guest memory a second; None where it did not fit."""

    def __init__(self, image: bytes, folder: Path) -> None:
        self._image = image
        self._folder = folder
        self.points: defaultdict[tuple[str, float], list[float | None]] = defaultdict(list)

    def measure(self, contender: str, ratio: float) -> Figures:
        """The throughput of all guests together; no figure when they do not fit."""
        pages = int(ratio * MEMORY / GUESTS) // PAGE_SIZE - OWN_PAGES
        memory, policy = self._host(contender, ratio)
        with Crowd(self._image, self._folder, memory, policy) as crowd:
            for _ in range(GUESTS):
                crowd.add(pages)
            visits = crowd.visits(SETTLE_S) if crowd.fill() else None
            if visits is not None:
                visits = crowd.visits(WINDOW_S)
        value = None if visits is None else sum(visits) * PAGE_SIZE / 1e6
        self.points[contender, ratio].append(value)
        return {} if value is None else {figure(ratio): value}

    def _host(self, contender: str, ratio: float) -> tuple[int, MemoryPolicy]:
        """The frame pool and the policy."""
        if contender == ENOUGH:
            return int(2 * ratio * MEMORY), MemoryPolicy()
        rungs = LADDERS[contender]
        compressed = MEMORY // COMPRESSION_PART if any(isinstance(r, CompressionRung) for r in rungs) else 0
        swaps = any(isinstance(rung, SwapRung) for rung in rungs)
        return MEMORY - compressed, MemoryPolicy(
            rungs=rungs,
            swap=self._folder / "swap" if swaps else None,
            compression_limit=compressed,
            balloon_virtual_clock=True,
            period_s=PERIOD_S,
        )

    def table(self, ratios: Sequence[float]) -> str:
        """All points as a part of what the guests do with enough memory, in markdown."""
        lines = [f"| | {' | '.join(f'{ratio:g}x' for ratio in ratios)} |", f"|---|{'---:|' * len(ratios)}"]
        for contender in LADDERS:
            cells = [self._cell(contender, ratio) for ratio in ratios]
            lines.append(f"| {contender} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _cell(self, contender: str, ratio: float) -> str:
        values = self.points[contender, ratio]
        fitting = [value for value in values if value is not None]
        base = [value for value in self.points[ENOUGH, ratio] if value is not None]
        if not values or not base:
            return ""
        if not fitting:
            return DOES_NOT_FIT
        part = f"{median(fitting) / median(base):.0%}"
        return (
            part
            if len(fitting) == len(values)
            else f"{part} ({len(values) - len(fitting)} of {len(values)} times not)"
        )


def figure(ratio: float) -> str:
    """What the throughput at `ratio` is called."""
    return f"guests of {ratio:g} times the host's memory"


def lines(result: Result) -> dict[str, list[tuple[float, float | None]]]:
    """By ladder: the ratios that were measured, and the part of the throughput with enough memory that is left; None
    where it does not fit."""
    rows = {row.name: row for row in result.rows}
    measured = [(ratio, rows[figure(ratio)]) for ratio in RATIOS if figure(ratio) in rows]
    return {
        ladder: [
            (
                ratio,
                ratio_of_medians(row.values[ladder], row.values[ENOUGH]) if ladder in row.values else None,
            )
            for ratio, row in measured
            if ENOUGH in row.values
        ]
        for ladder in LADDERS
    }


CURVE = curve.Curve(
    lines,
    "the guests' memory together, in times the host's",
    "part of the throughput with enough memory",
    x_unit="x",
)


class Overcommit:
    """In this process: a host with 32 MiB and four guests on one pCPU, for each ratio and each rung alone."""

    name = "overcommit"
    measures = "guest memory read per second by four guests whose memory together is 1 to 3 times the host's"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each ratio, which all ladders do in turn."""
        if not has_compiler(context, self.name):
            yield []
            return
        ratios = QUICK_RATIOS if context.settings.quick else RATIOS
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            crowds = Crowds(compile_guest(folder), folder)
            yield [_task(crowds, ratio) for ratio in ratios]
            context.note(
                f"Four guests with {MEMORY // MIB} MiB of the host's memory, on one pCPU; each rung with pausing "
                "as the last resort. With compression, a fifth of the memory is for compressed pages. The swap file "
                "is in the host's temporary folder, and cached by the host. Of a guest's pages 20 % are zeros, 20 % "
                "the same in all guests, 35 % data that compress to a third and are written, 25 % random; a quarter "
                "of them gets 31 visits of 32. A balloon can have all but data and that quarter. A ladder without a "
                "figure does not fit: guests had to be paused. As a part of the throughput with enough memory:"
            )
            context.note(crowds.table(ratios))


def _task(crowds: Crowds, ratio: float) -> Task:
    return Task(
        name=f"{ratio:g}x",
        unit="MB/s",
        contenders=[Contender(name, partial(crowds.measure, name, ratio)) for name in (ENOUGH, *LADDERS)],
        against=ENOUGH,
        warm_ups=0,
    )
