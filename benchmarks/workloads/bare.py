"""What emuvisor's whole machinery costs around code that only computes."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType

from benchmarks.figures import Goal
from benchmarks.guests import NAME, program
from benchmarks.harness import BenchmarkError, Contender, Context, Task, one
from benchmarks.process import environment
from emuvisor.cpu.engine import KEEP_CHECKS

__all__ = ["Bare"]

FIGURE = "compute loop"
UNICORN = "unicorn, virtual TLB"
TURNS = 50_000_000
QUICK_TURNS = 20_000_000
TIMEOUT_S = 300


class Bare:
    """The same bytes in the same mode, each in a process of its own that times the run alone."""

    name = "bare"
    measures = "seconds of a 64-bit loop of integer arithmetic, one load and one store a turn"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """One task: emuvisor and Unicorn alone, each with and without what makes it faster."""
        turns = QUICK_TURNS if context.settings.quick else TURNS
        measure = partial(_measure, str(turns), {})
        context.note(
            f"{turns // 1_000_000} million turns; checksums are compared. The goal is against Unicorn at its "
            "fastest: with a virtual TLB whose data pages are not executable. As it comes, its stores take "
            "the slow path. 'Checks kept' leaves Unicorn's exit check behind every guest load and store in "
            "place, which emuvisor takes out."
        )
        runs: dict[str, Callable[[], float]] = {
            NAME: partial(measure, ("compute",)),
            UNICORN: partial(measure, ("bare", "virtual")),
            "unicorn as it comes": partial(measure, ("bare", "cpu")),
            "emuvisor, checks kept": partial(measure, ("compute",), {KEEP_CHECKS: "1"}),
        }
        yield [
            Task(
                name=FIGURE,
                unit="s",
                contenders=[Contender(name, one(FIGURE, call)) for name, call in runs.items()],
                goals={FIGURE: Goal(1.2, UNICORN, NAME)},
                against=UNICORN,
            )
        ]


def _measure(
    turns: str,
    seen: dict[str, int],
    command: tuple[str, ...],
    extra: Mapping[str, str] = MappingProxyType({}),
) -> float:
    """Run one of benchmarks/programs; `seen` keeps the checksum, which has to be everyone's."""
    name, *options = command
    try:
        result = subprocess.run(
            program(name, turns, *options),
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
    expected = seen.setdefault("checksum", answer["checksum"])
    if answer["checksum"] != expected:
        raise BenchmarkError(f"{name} computed {answer['checksum']:#x}, the others {expected:#x}")
    return float(answer["seconds"])
