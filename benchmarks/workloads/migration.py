"""A Debian guest that moves between two processes over loopback: how long, how long it stands still, what is resent."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from benchmarks.figures import Goal
from benchmarks.guests import has_image
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Settings, Task
from benchmarks.process import environment
from benchmarks.workloads.wakeup import quantile
from emuvisor.units import MIB

__all__ = ["Migration"]

MODES = ("pre-copy", "post-copy", "hybrid")
RATES = (0, 10, 100, 1000, 10_000)
"""Pages that the guest writes a second."""
MOVES, QUICK_MOVES = 10, 3
DOWNTIME, WORST, RESENT = "downtime", "downtime, 99th percentile", "pages resent"
UNITS = {
    DOWNTIME: "ms",
    WORST: "ms",
    RESENT: "",
    "pages wanted before their turn": "",
    "sent": "MiB",
}
MOST_MS, BOUND_MS = 60.0, 300.0
"""The goal, and the longest that a guest may stand still unless something else was asked for."""
OWN_PAGES = 1000
"""That Debian writes by itself meanwhile, at most."""


class Side:
    """A process that runs `benchmarks.programs.migrating`."""

    def __init__(self, memory_mib: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.programs.migrating", str(2 * memory_mib)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *command: Any) -> Any:
        """The answer to `command`. Raises BenchmarkError when the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            print(json.dumps(command), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the host that was to {command[0]} has ended")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class Pair:
    """Two hosts, one of which has the guest."""

    def __init__(self, settings: Settings) -> None:
        self.here, self.there = Side(settings.memory_mib), Side(settings.memory_mib)
        self.here.tell("boot", settings.memory_mib, settings.append)
        self._memory_mib = settings.memory_mib
        self._rate = 0

    def move_first(self, mode: str) -> dict[str, Any]:
        """As `move` without a load, into a process that has just begun."""
        self.there.close()
        self.there = Side(self._memory_mib)
        return self.move(mode, 0)

    def move(self, mode: str, rate: int) -> dict[str, Any]:
        """The progress of a migration to the other side, at the end."""
        if rate != self._rate:
            self.here.tell("load", rate)
            self._rate = rate
        progress: dict[str, Any] = self.here.tell("send", self.there.tell("listen"), {"mode": mode})
        self.there.tell("receive")
        self.here, self.there = self.there, self.here
        return progress

    def close(self) -> None:
        """End both."""
        self.here.close()
        self.there.close()


class Migration:
    """The guest is booted once, and goes to and fro."""

    name = "migration"
    measures = (
        "a Debian guest that moves between two processes: total time, downtime, pages resent, by dirty rate"
    )

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each dirty rate."""
        if not has_image(context, self.name):
            yield []
            return
        moves = QUICK_MOVES if context.settings.quick else MOVES
        context.note(
            f"Each figure is of {moves} migrations over loopback, without TLS and compression, between two processes "
            "that share this machine. The guest writes new content to so many pages a second, in ten bursts; the "
            "downtime is from its last instruction here until the target has said that it runs there. The first "
            "migrations go each into a process that has just begun."
        )
        pair: list[Pair] = []

        def hosts() -> Pair:
            if not pair:
                pair.append(Pair(context.settings))
            return pair[0]

        def measure(mode: str, rate: int) -> Figures:
            return _figures([hosts().move(mode, rate) for _ in range(moves)])

        def measure_first(mode: str) -> Figures:
            return _figures([hosts().move_first(mode) for _ in range(moves)])

        try:
            yield [
                _task("first", measure_first, 0),
                *(
                    _task(
                        f"{rate} pages written a second" if rate else "idle",
                        partial(measure, rate=rate),
                        rate,
                    )
                    for rate in RATES
                ),
            ]
        finally:
            for made in pair:
                made.close()


def _task(name: str, measure: Callable[[str], Figures], rate: int) -> Task:
    goals = {
        DOWNTIME: Goal(MOST_MS, contender=MODES[0]),
        WORST: Goal(BOUND_MS, contender=MODES[0]),
        RESENT: Goal(rate + OWN_PAGES, contender=MODES[0]),
    }
    contenders = [Contender(mode, partial(measure, mode)) for mode in MODES]
    return Task(name, "s", contenders, goals=goals, units=UNITS, repeats=1)


def _figures(done: Sequence[dict[str, Any]]) -> Figures:
    downtimes = [progress["downtime_ns"] for progress in done]

    def median(name: str) -> float:
        return quantile([progress[name] for progress in done], 0.5)

    return {
        "total": median("total_s"),
        DOWNTIME: quantile(downtimes, 0.5) / 1e6,
        WORST: quantile(downtimes, 0.99) / 1e6,
        RESENT: median("resent_pages"),
        "pages wanted before their turn": median("demanded_pages"),
        "sent": median("bytes_sent") / MIB,
    }
