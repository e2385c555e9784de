"""What emuvisor's whole machinery costs around code that only computes."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks.figures import Goal
from benchmarks.guests import NAME, program
from benchmarks.harness import BenchmarkError, Contender, Context, Task, one
from benchmarks.process import environment
from emuvisor.cpu.engine import KEEP_CHECKS

__all__ = ["Bare"]

FIGURE = "compute loop"
UNICORN = "unicorn"
TURNS = 40_000_000
QUICK_TURNS = 10_000_000
TIMEOUT_S = 300


class Bare:
    """The same bytes in the same mode, each in a process of its own that times the run alone."""

    name = "bare"
    measures = "seconds of a 64-bit loop of integer arithmetic, one load and one store a turn"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """One task: emuvisor, Unicorn alone, and emuvisor without its one change to Unicorn."""
        turns = QUICK_TURNS if context.settings.quick else TURNS
        checksums: dict[str, int] = {}
        measure = partial(_measure, turns, checksums)
        context.note(
            f"{turns // 1_000_000} million turns. 'checks kept' leaves Unicorn's exit check behind "
            "every guest load and store in place, as Unicorn alone has it; emuvisor takes it out. "
            "Checksums are compared."
        )
        yield [
            Task(
                name=FIGURE,
                unit="s",
                contenders=[
                    Contender(NAME, one(FIGURE, partial(measure, "compute", {}))),
                    Contender(UNICORN, one(FIGURE, partial(measure, "bare", {}))),
                    Contender(
                        "emuvisor, checks kept", one(FIGURE, partial(measure, "compute", {KEEP_CHECKS: "1"}))
                    ),
                ],
                goals={FIGURE: Goal(1.2, UNICORN, NAME)},
                against=UNICORN,
            )
        ]


def _measure(turns: int, checksums: dict[str, int], name: str, extra: dict[str, str]) -> float:
    """Run a program of benchmarks/programs; its checksum has to be everyone's."""
    try:
        result = subprocess.run(
            program(name, str(turns)),
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if result.returncode:
            raise BenchmarkError(f"{name} ended with code {result.returncode}: {result.stderr[-400:]}")
        answer = json.loads(result.stdout)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{name} did not end within {TIMEOUT_S} s") from None
    except ValueError:
        raise BenchmarkError(f"{name} printed no figures but {result.stdout[-400:]!r}") from None
    expected = checksums.setdefault("loop", answer["checksum"])
    if answer["checksum"] != expected:
        raise BenchmarkError(f"{name} computed {answer['checksum']:#x}, the others {expected:#x}")
    return float(answer["seconds"])
