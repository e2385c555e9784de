"""What a decision of the scheduler costs, by policy and number of guests; and what guests cost that are halted."""

import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.bare_guests import HALT, bare_host, config
from benchmarks.curve import Curve, Points
from benchmarks.figures import Goal, summarize
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Result, Task
from emuvisor.host import Guest, Host
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.instructions import Added, Instruction, Left, Preempt, Run, Timer, Woke
from emuvisor.host.scheduler.policies import POLICIES, make_policy

__all__ = ["CURVE", "Decisions", "Drive", "lines"]

COUNTS = (10, 100, 1_000, 10_000)
PCPUS = 4
DECISIONS, QUICK_DECISIONS = 20_000, 4_000
MOST_GUEST_DECISIONS = 20_000_000
"""Of thousands of guests fewer decisions are made: credit takes milliseconds to account for them."""
SEED = 6
MOST_US = 5.0
GOAL_COUNT = 1_000
MOST_GROWTH = 4.0
"""The logarithm of 10,000 is four times that of 10."""
NAP_PART = 4
BLOCK = 10
"""Decisions between two readings of the clock, and between two looks at timers."""
GROWTH = f"{COUNTS[-1]:,} guests, in times {COUNTS[0]}"
NS_PER_US = 1_000

HALTED, QUICK_HALTED = 1_000, 200
IDLE_WINDOW_S = 1.0
SETTLE_S = 1.0
HALT_TIMEOUT_S = 30.0
LOOK_S = 0.02
CPU_TIME, WAKES, DECIDED = "CPU time of the host", "threads woken", "decisions of the scheduler"
MORE = "CPU time of the host, more than without guests"
NONE = "no guest"
MOST_CPU_MS = 1.0
"""In a second: a thousandth of a core."""


class Drive:
    """A scheduler with `guests` that always want to run, on PCPUS processors that are busy with the first of them."""

    def __init__(self, policy: str, guests: int) -> None:
        chance = Random(SEED)
        self.scheduler = Scheduler(PCPUS, make_policy(policy, PCPUS))
        self.now_ns = 0
        self._asleep: deque[str] = deque()
        self._runs: deque[Run] = deque()
        for number in range(guests):
            weight = chance.choice((50, 100, 200, 400))
            self._tell(Added(f"guest{number}", CpuClaim(weight)))
        for number in range(guests):
            self._tell(Woke(f"guest{number}"))

    def _tell(self, event: Added | Woke | Left | Timer) -> None:
        self._obey(self.scheduler.handle(self.now_ns, event))

    def _obey(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Preempt):
                preempted = next(run for run in self._runs if run.pcpu == instruction.pcpu)
                self._runs.remove(preempted)
                ran_ns = preempted.slice_ns // 2
                self._tell(Left(preempted.pcpu, preempted.name, ran_ns, ran_ns, wants=True))
            else:
                self._runs.append(instruction)

    def turns(self, count: int) -> float:
        """So many turns are over, and the guests want to go on. Returns microseconds of processor time for each
        decision: timers, and the loop that drives the scheduler, are not in it."""
        loop_ns = self._turns_ns(count, _echo)
        return (self._turns_ns(count, self.scheduler.handle) - loop_ns) / (count // BLOCK * BLOCK) / NS_PER_US

    def _turns_ns(self, count: int, handle: Callable[[int, Left], Sequence[Instruction]]) -> int:
        runs = self._runs
        spent_ns = 0
        for _ in range(count // BLOCK):
            self._timers()
            started = time.thread_time_ns()
            for _ in range(BLOCK):
                run = runs.popleft()
                self.now_ns += run.slice_ns // PCPUS
                event = Left(run.pcpu, run.name, run.slice_ns, run.slice_ns, wants=True)
                self._obey(handle(self.now_ns, event))
            spent_ns += time.thread_time_ns() - started
        return spent_ns

    def naps(self, count: int) -> float:
        """So many turns end with sleep, and each time the guest wakes that has slept longest, of a quarter of all.
        Returns microseconds of processor time for both."""
        while len(self._asleep) * NAP_PART < len(self.scheduler.entities):
            self._sleep()
        spent_ns = 0
        for _ in range(count // BLOCK):
            self._timers()
            started = time.thread_time_ns()
            for _ in range(BLOCK):
                self._sleep()
                self._tell(Woke(self._asleep.popleft()))
            spent_ns += time.thread_time_ns() - started
        return spent_ns / (count // BLOCK * BLOCK) / NS_PER_US

    def _sleep(self) -> None:
        run = self._runs.popleft()
        self.now_ns += run.slice_ns // PCPUS
        self._asleep.append(run.name)
        self._tell(Left(run.pcpu, run.name, run.slice_ns, run.slice_ns, wants=False))

    def accounting(self) -> float:
        """Microseconds of processor time that the policy takes at the end of a period; 0 when it has none."""
        period_ns = self.scheduler.policy.period_ns
        if period_ns is None:
            return 0.0
        self.now_ns += period_ns
        started = time.thread_time_ns()
        answer = self.scheduler.handle(self.now_ns, Timer())
        spent_ns = time.thread_time_ns() - started
        self._obey(answer)
        return spent_ns / NS_PER_US

    def _timers(self) -> None:
        due = self.scheduler.timer_ns
        if due is not None and due <= self.now_ns:
            self._tell(Timer())


def _echo(_now_ns: int, event: Left) -> Sequence[Instruction]:
    """In place of the scheduler: the guest goes on."""
    return [Run(event.pcpu, event.name, event.ran_ns)]


def guests(count: int) -> str:
    """The name of the figure of so many."""
    return f"{count:,} guests"


def decisions_of(size: int, count: int) -> int:
    """How many decisions are measured with `size` guests where it could be `count`."""
    return min(count, MOST_GUEST_DECISIONS // size)


def decisions(policy: str, count: int) -> Figures:
    """A turn's end for each number of guests, and how it grows."""
    figures = {guests(size): Drive(policy, size).turns(decisions_of(size, count)) for size in COUNTS}
    return figures | {GROWTH: figures[guests(COUNTS[-1])] / figures[guests(COUNTS[0])]}


def naps(policy: str, count: int) -> Figures:
    """Going to sleep and waking for each number of guests."""
    return {
        f"{guests(size)}: one sleeps, one wakes": Drive(policy, size).naps(decisions_of(size, count))
        for size in COUNTS
    }


def accounting(policy: str) -> Figures:
    """The end of a period for each number of guests."""
    return {f"{guests(size)}: accounting of a period": Drive(policy, size).accounting() for size in COUNTS}


def lines(result: Result) -> Mapping[str, Points]:
    """By policy: numbers of guests, and the median of a decision's cost."""
    rows = {row.name: row for row in result.rows}
    measured = [(size, rows[guests(size)]) for size in COUNTS if guests(size) in rows]
    return {
        policy: [
            (size, summarize(row.values[policy]).median if policy in row.values else None)
            for size, row in measured
        ]
        for policy in POLICIES
    }


CURVE = Curve(lines, "guests that want to run", "microseconds for a decision", logarithmic=True)


class Decisions:
    """The scheduler alone, in virtual time, and a host with halted guests."""

    name = "scheduler"
    measures = (
        "what a decision of the scheduler costs with 10 to 10,000 guests, and what halted guests cost a host"
    )

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Decisions by policy; halted guests against none."""
        quick = context.settings.quick
        count = QUICK_DECISIONS if quick else DECISIONS
        halted = QUICK_HALTED if quick else HALTED
        context.note(
            f"A decision: a guest's turn on one of {PCPUS} pCPUs is over, it wants to go on, and another is picked. "
            "All guests want to run; weights are 50 to 400. Where one sleeps and one wakes, a quarter of them sleeps, "
            "and the figure is of both events. Credit hands out credits every 30 ms, to each guest: that is no "
            "decision, and has figures of its own. Times are of the thread's processor, less the loop that drives the "
            "scheduler; where one sleeps, that loop is in them."
        )
        context.note(
            "Halted guests are flat programs on the isa board, on the host's clock, with interrupts enabled and no "
            "timer set; the figures are for a second. Threads woken are the process's voluntary context switches. "
            "A host's own threads wake without guests, too."
        )
        with tempfile.TemporaryDirectory() as name:
            yield [
                _decision_task(partial(decisions, count=count)),
                _task("sleeping and waking", partial(naps, count=count // NAP_PART)),
                _task("accounting", accounting, [name for name in POLICIES if has_periods(name)]),
                _halted_task(Path(name), halted),
            ]


def has_periods(policy: str) -> bool:
    """Whether it accounts at times."""
    return make_policy(policy, PCPUS).period_ns is not None


def _decision_task(measure: Callable[[str], Figures]) -> Task:
    goals = {guests(GOAL_COUNT): Goal(MOST_US, contender="proportional")}
    goals[GROWTH] = Goal(MOST_GROWTH, contender="proportional")
    contenders = [Contender(policy, partial(measure, policy)) for policy in POLICIES]
    return Task("decision", "us", contenders, goals=goals, units={GROWTH: "times"})


def _task(name: str, measure: Callable[[str], Figures], policies: Sequence[str] = tuple(POLICIES)) -> Task:
    return Task(name, "us", [Contender(policy, partial(measure, policy)) for policy in policies])


def _halted_task(folder: Path, count: int) -> Task:
    contenders = [Contender(NONE, partial(halted_cost, folder, 0))]
    contenders.append(Contender(halted_guests(count), partial(halted_cost, folder, count)))
    return Task(
        "halted guests",
        "ms/s",
        contenders,
        goals={MORE: Goal(MOST_CPU_MS, contender=halted_guests(count))},
        units={WAKES: "1/s", DECIDED: "1/s"},
        against=NONE,
        warm_ups=0,
    )


def halted_guests(count: int) -> str:
    """The contender with so many."""
    return f"{count:,} halted guests"


def halted_cost(folder: Path, count: int) -> Figures:
    """What a host does in a second that has `count` halted guests, and how much more than before it had them."""
    with bare_host(count, 1) as host:
        host.start_threads()
        time.sleep(SETTLE_S)
        before = _idle(host)
        if not count:
            return before
        members = [host.create(config(folder, f"guest{n}", HALT, clock="host")) for n in range(count)]
        for guest in members:
            guest.start()
        end = time.monotonic() + HALT_TIMEOUT_S
        while awake := _awake(host, members):
            if time.monotonic() > end:
                raise BenchmarkError(f"{awake} of {count} guests did not halt")
            time.sleep(LOOK_S)
        time.sleep(SETTLE_S)
        after = _idle(host)
        return {**after, MORE: after[CPU_TIME] - before[CPU_TIME]}


def _awake(host: Host, members: Sequence[Guest]) -> int:
    with host.lock:  # the scheduler knows of those that are idle, too
        return sum(not guest.is_idle for guest in members)


def _idle(host: Host) -> Figures:
    decided = 0

    def count(_now_ns: int, _event: object, _answer: object) -> None:
        nonlocal decided
        decided += 1

    host.processors.listeners.append(count)
    start, cpu_s, wakes = time.perf_counter(), time.process_time(), _wakes()
    time.sleep(IDLE_WINDOW_S)
    cpu_s, wakes = time.process_time() - cpu_s, _wakes() - wakes
    seconds = time.perf_counter() - start
    return {CPU_TIME: cpu_s / seconds * 1e3, WAKES: wakes / seconds, DECIDED: decided / seconds}


def _wakes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
