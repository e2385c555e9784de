"""Guests and pCPUs in virtual time: what a host would do with a scheduler's instructions."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.instructions import (
    Added,
    Changed,
    Event,
    Instruction,
    Left,
    Preempt,
    Run,
    Slept,
    Timer,
    Woke,
)
from emuvisor.host.scheduler.policy import Policy

US = 1_000
MS = 1_000_000
S = 1_000_000_000

PACE = 2
"""Bytes of code that a guest retires in a nanosecond."""
Listener = Callable[[int, Event, list[Instruction]], None]


class Busy:
    """Always wants to run."""

    wakes_at: int | None = 0
    """When it first wants to run; None is never."""

    def runs_ns(self, now_ns: int) -> int | None:
        """How long it goes on if nobody stops it; None is for good."""
        return None

    def ran(self, ran_ns: int) -> None:
        """It got that much."""

    def wakes_ns(self, now_ns: int) -> int | None:
        """It sleeps from now on; when it wakes. None is never."""
        return None


class Halted(Busy):
    """Never wants to run."""

    wakes_at = None


class Sleeper(Busy):
    """Sleeps, runs, sleeps ... for the times that `sleep` and `run` answer."""

    def __init__(self, sleep: Callable[[], int], run: Callable[[], int]) -> None:
        self._sleep, self._run = sleep, run
        self._left = max(1, run())
        self.wakes_at = sleep()

    def runs_ns(self, now_ns: int) -> int:
        return self._left

    def ran(self, ran_ns: int) -> None:
        self._left -= ran_ns

    def wakes_ns(self, now_ns: int) -> int:
        self._left = max(1, self._run())
        return now_ns + max(1, self._sleep())


class Thief(Busy):
    """Sleeps for a moment at each tick: an accounting by samples sees somebody else."""

    def __init__(self, tick_ns: int = 10 * MS, around_ns: int = 200 * US) -> None:
        self._tick_ns, self._around_ns = tick_ns, around_ns

    def runs_ns(self, now_ns: int) -> int:
        to_tick = self._tick_ns - now_ns % self._tick_ns
        return max(1, to_tick - self._around_ns)

    def wakes_ns(self, now_ns: int) -> int:
        return now_ns - now_ns % self._tick_ns + self._tick_ns + self._around_ns


class Simulator:
    """`run` until a time; guests come by `add`."""

    def __init__(self, pcpus: int, policy: Policy, listener: Listener | None = None) -> None:
        self.now_ns = 0
        self.scheduler = Scheduler(pcpus, policy)
        self.ran_ns: dict[str, int] = {}
        self.longest_wait_ns: dict[str, int] = {}
        self.latencies_ns: dict[str, list[int]] = {}
        """From each wake to the run that followed."""
        self.events = 0
        self.ticks: dict[str, int] = {}
        """How often each ran at a 10 ms tick: what an accounting by samples would know."""
        self._listener = listener
        self._behaviours: dict[str, Busy] = {}
        self._agenda: list[tuple[int, int, str, int]] = []
        """When, order, guest, pCPU that it then leaves or -1 when it wakes."""
        self._order = count()
        self._started: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * pcpus
        """For each pCPU: since when, the slice, how long the guest wants, and which entry of the agenda ends it."""
        self._woke_ns: dict[str, int] = {}
        self._waited_ns: dict[str, int] = {}

    def add(self, name: str, behaviour: Busy, claim: CpuClaim | None = None) -> None:
        self._behaviours[name] = behaviour
        self.ran_ns[name] = self.longest_wait_ns[name] = self._waited_ns[name] = self.ticks[name] = 0
        self.latencies_ns[name] = []
        self._handle(Added(name, claim or CpuClaim()))
        if behaviour.wakes_at is not None:
            heappush(self._agenda, (max(self.now_ns, behaviour.wakes_at), next(self._order), name, -1))

    def change(self, name: str, claim: CpuClaim) -> None:
        self._handle(Changed(name, claim))

    def halt(self, name: str) -> None:
        """It goes to sleep for good."""
        entity = self.scheduler.entities[name]
        self._agenda = sorted(entry for entry in self._agenda if entry[2] != name)
        if entity in self.scheduler.running:
            self._leave(self.scheduler.running.index(entity), name, wants=False)
        else:
            self._handle(Slept(name))

    def run(self, until_ns: int) -> None:
        while True:
            timer = self.scheduler.timer_ns
            due = self._agenda[0][0] if self._agenda else until_ns
            if timer is not None and timer < due:
                if timer >= until_ns:
                    break
                self.now_ns = max(self.now_ns, timer)
                self._handle(Timer())
            elif due >= until_ns:
                break
            else:
                self._step()
        self.now_ns = until_ns

    def so_far(self, name: str) -> int:
        """What it ran until now, also in the slice that it is in."""
        ran = self.ran_ns[name]
        for pcpu, entity in enumerate(self.scheduler.running):
            if entity is not None and entity.name == name:
                ran += self.now_ns - self._started[pcpu][0]
        return ran

    def _step(self) -> None:
        when, order, name, pcpu = heappop(self._agenda)
        self.now_ns = max(self.now_ns, when)
        if pcpu < 0:
            self._woke_ns[name] = self.now_ns
            self._handle(Woke(name))
        elif self._started[pcpu][3] == order:
            since, _, wants_ns, _ = self._started[pcpu]
            self._leave(pcpu, name, wants=wants_ns < 0 or self.now_ns - since < wants_ns)

    def _leave(self, pcpu: int, name: str, *, wants: bool) -> None:
        ran = self.now_ns - self._started[pcpu][0]
        self.ticks[name] += self.now_ns // (10 * MS) - self._started[pcpu][0] // (10 * MS)
        self._started[pcpu] = (0, 0, 0, -1)
        self.ran_ns[name] += ran
        behaviour = self._behaviours[name]
        behaviour.ran(ran)
        self._handle(Left(pcpu, name, ran, ran * PACE, wants))
        if not wants:
            wakes = behaviour.wakes_ns(self.now_ns)
            if wakes is not None:
                heappush(self._agenda, (wakes, next(self._order), name, -1))

    def _handle(self, event: Event) -> None:
        self.events += 1
        instructions = self.scheduler.handle(self.now_ns, event)
        if self._listener is not None:
            self._listener(self.now_ns, event, instructions)
        told = [self._carry_out(instruction) for instruction in instructions]
        for preempt in filter(None, told):
            since, _, wants_ns, _ = self._started[preempt.pcpu]
            wants = wants_ns < 0 or self.now_ns - since < wants_ns
            self._leave(preempt.pcpu, preempt.name, wants=wants)

    def _carry_out(self, instruction: Instruction) -> Preempt | None:
        if isinstance(instruction, Preempt):
            return instruction
        pcpu, name, slice_ns = instruction.pcpu, instruction.name, instruction.slice_ns
        wants = self._behaviours[name].runs_ns(self.now_ns)
        runs = slice_ns if wants is None else min(slice_ns, wants)
        order = next(self._order)
        self._started[pcpu] = (self.now_ns, slice_ns, -1 if wants is None else wants, order)
        heappush(self._agenda, (self.now_ns + runs, order, name, pcpu))
        waited = self.scheduler.entities[name].waited_ns
        self.longest_wait_ns[name] = max(self.longest_wait_ns[name], waited - self._waited_ns[name])
        self._waited_ns[name] = waited
        woke = self._woke_ns.pop(name, None)
        if woke is not None:
            self.latencies_ns[name].append(self.now_ns - woke)
        return None


__all__ = ["MS", "US", "Busy", "Halted", "Run", "S", "Simulator", "Sleeper", "Thief"]
