"""How far guests are from what they are due, by policy: real guests on a host, and a record of who ran when."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

from benchmarks.bare_guests import COMPUTE, bare_host, config, running
from benchmarks.curve import Curve, Points
from benchmarks.figures import Goal, summarize
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Result, Task
from emuvisor.host.scheduler.claim import WHOLE, CpuClaim
from emuvisor.host.scheduler.policies import POLICIES
from emuvisor.host.scheduler.recording import Recorder, Stretch

__all__ = ["CURVE", "MIXES", "Fairness", "due", "errors", "lines", "ran"]

WINDOWS_MS = (30, 100, 300, 1000)
SETTLE_S = 0.3
TAIL_S = 0.15
"""The record ends with the last event: it is to be behind the window."""
WINDOW_S = 1.0
MOST_ERROR = 1.0
"""Percent of a pCPU in a second: docs/scheduling.md promises a turn or this."""
SEED = 6
ROUNDING = 1e-6
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def _random_mix(seed: int, guests: int) -> list[CpuClaim]:
    chance = Random(seed)
    return [CpuClaim(weight=int(100 * 2 ** chance.uniform(-2, 3))) for _ in range(guests)]


MIXES: dict[str, tuple[int, list[CpuClaim]]] = {
    "weights 1:2:4": (1, [CpuClaim(weight) for weight in (100, 200, 400)]),
    "caps 10, 25, 50 %": (1, [CpuClaim(cap=cap) for cap in (10.0, 25.0, 50.0)] + [CpuClaim()]),
    "reservation 40 % of 5": (1, [CpuClaim(reservation=40.0), *(CpuClaim() for _ in range(4))]),
    "8 random weights": (1, _random_mix(SEED, 8)),
    "8 random weights, 2 pCPUs": (2, _random_mix(SEED + 1, 8)),
}
"""Number of pCPUs, and the guests' claims."""
CURVE_MIX = "weights 1:2:4"


def due(claims: Sequence[CpuClaim], pcpus: int) -> list[float]:
    """Parts of a pCPU for guests that always want to run and may run anywhere: weighted max-min fair.

    At the water level L a guest has w L, at least its reservation and at most its cap and one pCPU; L is where all
    pCPUs are used, or everybody has its most.
    """

    def at(level: float) -> list[float]:
        return [
            min((claim.cap or WHOLE) / WHOLE, max(claim.reservation / WHOLE, claim.weight * level))
            for claim in claims
        ]

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < pcpus else (low, middle)
    return at(high)


def ran(stretches: Sequence[Stretch], begin_ns: int, end_ns: int) -> dict[str, float]:
    """Parts of a pCPU that guests had between two times."""
    found: dict[str, float] = {}
    for stretch in stretches:
        inside = min(stretch.end_ns, end_ns) - max(stretch.start_ns, begin_ns)
        if inside > 0:
            found[stretch.guest] = found.get(stretch.guest, 0) + inside / (end_ns - begin_ns)
    return found


def errors(
    stretches: Sequence[Stretch], shares: Mapping[str, float], begin_ns: int, end_ns: int, window_ns: int
) -> float:
    """The largest difference between what a guest had and was due in any window that follows the other, in percent of a
    pCPU."""
    worst = 0.0
    for begin, end in pairwise(range(begin_ns, end_ns + 1, window_ns)):
        got = ran(stretches, begin, end)
        worst = max(worst, *(abs(got.get(name, 0) - share) for name, share in shares.items()))
    return worst * WHOLE


def figure(mix: str, window_ms: int) -> str:
    """What the error is called."""
    return f"{mix}, {window_ms} ms"


def windows_ms(mix: str) -> tuple[int, ...]:
    """The windows that have figures: only one mix is in the picture."""
    return WINDOWS_MS if mix == CURVE_MIX else WINDOWS_MS[-1:]


def measure(folder: Path, mix: str, policy: str) -> Figures:
    """The errors of `mix` under `policy`."""
    pcpus, claims = MIXES[mix]
    with bare_host(len(claims), pcpus, policy) as host:
        recorder = Recorder(host.processors.scheduler)
        with host.lock:
            host.processors.listeners.append(recorder.record)
        guests = []
        for number, claim in enumerate(claims):
            guest = host.create(
                config(
                    folder,
                    f"guest{number}",
                    COMPUTE,
                    cpu_weight=claim.weight,
                    cpu_cap=claim.cap,
                    cpu_reservation=claim.reservation,
                )
            )
            guests.append(guest)
        for guest in guests:
            guest.start()
        time.sleep(SETTLE_S)
        begin = time.perf_counter_ns()
        time.sleep(WINDOW_S + TAIL_S)
        running(guests)
        with host.lock:
            recorder.finish()
            stretches = [stretch for stretch in recorder.stretches if stretch.end_ns > begin]
    shares = dict(zip((guest.name for guest in guests), due(claims, pcpus), strict=True))
    end = begin + int(WINDOW_S * NS_PER_S)
    used = sum(ran(stretches, begin, end).values())
    if used > pcpus + ROUNDING:
        raise BenchmarkError(f"{mix}: {used:.3f} pCPUs were used of {pcpus}")
    return {
        figure(mix, window): errors(stretches, shares, begin, end, window * NS_PER_MS)
        for window in windows_ms(mix)
    }


def lines(result: Result) -> Mapping[str, Points]:
    """By policy: lengths of windows, and the error."""
    rows = {row.name: row for row in result.rows}
    measured = [(ms, rows[figure(CURVE_MIX, ms)]) for ms in WINDOWS_MS if figure(CURVE_MIX, ms) in rows]
    return {
        policy: [
            (ms, summarize(row.values[policy]).median if policy in row.values else None)
            for ms, row in measured
        ]
        for policy in POLICIES
    }


CURVE = Curve(
    lines,
    f"length of the window ({CURVE_MIX})",
    "largest error, in percent of a pCPU",
    x_unit=" ms",
    logarithmic=True,
)


class Fairness:
    """In this process: for each policy and mix a host whose guests compute without end."""

    name = "fairness"
    measures = "the largest difference between what a guest had of a pCPU and what it was due, by policy"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each mix, which all policies divide in turn."""
        context.note(
            "Guests run the compute loop; a second of a host's time is cut into windows, and the figure is the "
            "error of the guest and the window where it is largest. What a guest had is host time between getting a "
            "pCPU and leaving it to another, from the scheduler's record: what other processes take meanwhile counts "
            "as had, so that a busy machine makes turns longer and errors larger. Due is weighted max-min fair under "
            "every policy: round-robin knows no weights, deadline nothing but reservations, and credit's are about "
            "right."
        )
        with tempfile.TemporaryDirectory() as folder:
            yield [_task(Path(folder), mix) for mix in MIXES]


def _task(folder: Path, mix: str) -> Task:
    return Task(
        mix,
        "% of a pCPU",
        [Contender(policy, partial(measure, folder, mix, policy)) for policy in POLICIES],
        goals={figure(mix, WINDOWS_MS[-1]): Goal(MOST_ERROR, contender="proportional")},
        warm_ups=0,
    )
