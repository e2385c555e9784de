"""What the autopilot gains over static splits of a host, seed by seed, in simulation (benchmarks/shifting.py)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

from benchmarks.figures import Goal
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Task
from benchmarks.shifting import OBJECTIVES, Outcome, Split, fly, gain
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.moves import Knob
from emuvisor.host.scheduler.claim import WHOLE

__all__ = ["Autopilot"]

SEEDS, QUICK_SEEDS = 40, 8


@dataclass(frozen=True)
class _Start:
    """What the autopilot begins with, and may change."""

    name: str
    split: Split
    knobs: frozenset[Knob] = frozenset(Knob)


CAPPED = _Start("over equal caps", Split.CAPPED)
STARTS = (
    CAPPED,
    _Start("equal caps: by caps alone", Split.CAPPED, frozenset({Knob.CAP})),
    _Start("over pinning", Split.PINNED),
    _Start("pinning: by placement alone", Split.PINNED, frozenset({Knob.AFFINITY})),
    _Start("over no caps", Split.OPEN),
    _Start("no caps: by turns, weights alone", Split.OPEN, frozenset({Knob.LATENCY, Knob.WEIGHT})),
    _Start("no caps: by memory alone", Split.OPEN, frozenset({Knob.MEMORY_LIMIT})),
    _Start("no caps: by disk limits alone", Split.OPEN, frozenset({Knob.DISK_LIMIT})),
)
LEAST = {"throughput": 50.0, "fairness": 50.0, "latency:web": 30.0}
"""Percent, with 95 % confidence."""


class Autopilot:
    """In this process, in virtual time: the same figures on any machine."""

    name = "autopilot"
    measures = "what the autopilot gains over static splits of a host, in simulation"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """For each objective the gain over seeds, by what the split is and what may be changed."""
        seeds = range(QUICK_SEEDS if context.settings.quick else SEEDS)
        context.note(
            f"Geometric means of the gains over {len(seeds)} seeds, with their 95 % confidence intervals: "
            "docs/autopilot.md, 'The proof'. Six guests whose loads shift on two pCPUs, 8 s of a simulated host with a "
            "look each 0.1 s. Reservations, and the sums of memory and disk limits, are checked in each of them."
        )

        @cache
        def static(split: Split) -> list[Outcome]:
            return [fly(seed, None, split=split) for seed in seeds]

        def measure(objective: str, start: _Start) -> Figures:
            constraints = Constraints(knobs=start.knobs)
            flights = [fly(seed, objective, constraints, start.split) for seed in seeds]
            broken = [text for outcome in flights for text in outcome.broken]
            if broken:
                raise BenchmarkError(f"a promise was broken: {broken[0]}")
            found = gain(flights, static(start.split), objective)
            figures = {"mean": found.mean, "from": found.low, "to": found.high, "worst seed": found.worst}
            return {f"{objective}, {name}": WHOLE * value for name, value in figures.items()}

        yield [
            Task(
                name=objective,
                unit="%",
                contenders=[Contender(start.name, partial(measure, objective, start)) for start in STARTS],
                goals={f"{objective}, from": Goal(LEAST[objective], contender=CAPPED.name, at_least=True)},
                warm_ups=0,
                repeats=1,
            )
            for objective in OBJECTIVES
        ]
