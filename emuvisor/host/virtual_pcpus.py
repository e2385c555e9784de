"""The pCPUs of a host on the virtual clock: the same guests have the same schedule, however many threads run them.

This is a conservative discrete-event simulation in steps of a quantum (Reinhardt et al., "The Wisconsin Wind Tunnel",
SIGMETRICS 1993). Time is work: a byte of code takes a nanosecond, as it does on a guest's virtual clock, and so do its
returns to Python. There are always LANES logical pCPUs. Each runs its slice up to the end of the quantum at most,
on any thread; the threads run different ones at the same time. Only when all have come that far is what happened
meanwhile handled, in the order of virtual time; then the next slices begin where others have ended, and run up to the
end of the quantum in their turn.

What guests do to each other (frames on virtual networks), and what the scheduler does to a guest that runs (Preempt),
takes effect between two quanta, when all have come as far. What a guest waits for on the host's side, as a frame of
memory, takes no virtual time: nothing goes on before it has it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Unpack

from emuvisor.bus.ethernet import Link
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.host.naps import NEVER, Naps
from emuvisor.host.processors import HostParts, Processors
from emuvisor.host.scheduler.instructions import (
    Event,
    Left,
    Preempt,
    Removed,
    Run,
    Slept,
    Timer,
    Woke,
)
from emuvisor.host.scheduler.policy import Policy
from emuvisor.host.virtual_frames import VirtualFrames
from emuvisor.machine.machine import Activity, Readiness
from emuvisor.net.port import Port

if TYPE_CHECKING:
    from emuvisor.host.guest import Guest

__all__ = ["LANES", "QUANTUM_NS", "VirtualPcpus"]

LANES = 4
"""Logical pCPUs, which are what guests' affinities name."""
QUANTUM_NS = 1_000_000
"""How far a lane may be ahead of the others: longer ones let frames and guests that are to be interrupted wait for
longer, shorter ones let threads wait for each other more often."""
LEAVES, WAKES, TIMER, EXCHANGE = range(4)
"""What happens, in the order in which it is handled where it happens at the same time."""
_GOES_ON = Activity(Readiness.RUNNABLE)


@dataclass(slots=True, eq=False)
class _Slice:
    """A guest on a lane. It has been run up to `time_ns`."""

    lane: int
    guest: "Guest"
    start_ns: int
    end_ns: int
    """When it is over at the latest."""
    spent: int
    """`Machine.spent` of the guest where it starts. It may have run further, for it runs whole blocks: that counts."""
    work: int
    """What the guest had retired."""
    time_ns: int
    over: bool = False
    """The guest leaves at `time_ns`."""
    activity: Activity | None = None
    """What it can do then; None: it failed, for `failure`."""
    failure: str = ""
    starves: bool = False
    """It cannot go on before the host has memory for it."""
    preempted: bool = False

    def goal_ns(self, horizon_ns: int) -> int:
        """Up to where it can be run."""
        return min(self.end_ns, horizon_ns)


class VirtualPcpus(Processors):
    """`threads` of them do the work of LANES logical pCPUs. `now_ns` begins with 0 and passes only while guests run or
    wait for something."""

    def __init__(self, threads: int, policy: Policy, **host: Unpack[HostParts]) -> None:
        self._now_ns = 0
        self._thread_count = min(threads, LANES)
        super().__init__(LANES, policy, self._thread_count, **host)
        self._slices: list[_Slice | None] = [None] * LANES
        self._horizon_ns = QUANTUM_NS
        """The end of the present quantum."""
        self._spent: dict[str, int] = {}
        """What of `Machine.spent` the scheduler has heard of, for guests that ran a little further."""
        self._naps = Naps(1)
        self._napping_since: dict[str, int] = {}
        self._frames = VirtualFrames()
        self._held: Counter[str] = Counter()
        """Guests that somebody waits for, who will let them go on where they were."""
        self._wanted = threading.Condition(self._lock)
        """Notified when there may be something to run."""

    # ---- for the host, under its lock ----

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds since the host was made."""
        return self._now_ns

    def _jobs(self) -> dict[str, Callable[[], None]]:
        return {f"pcpu{n}": partial(self._run, n) for n in range(self._thread_count)}

    def end(self) -> None:
        """Let the threads end, and guests leave; `join` waits for it, without the lock."""
        self._closing = True
        self._wanted.notify_all()

    def links(self, name: str, ports: Sequence[Port], /) -> list[Link]:
        """What the cards of guest `name` are plugged into, whose cables lead to `ports`."""
        return [self._frames.link(port, lambda: self._time_of(name)) for port in ports]

    def add(self, guest: "Guest") -> None:
        """The guest that was admitted is there."""
        super().add(guest)
        guest.machine.skips_idle_time = False

    def remove(self, name: str) -> None:
        """The guest is gone, or is not coming; no thread runs it."""
        part = self._slice_of(name)
        if part is not None:
            self._end_slice(part, wants=False)
        self._naps.cancel(name)
        self._napping_since.pop(name, None)
        self._spent.pop(name, None)
        self._tell(Removed(name))
        self._guests.pop(name, None)

    def queue(self, guest: "Guest") -> None:
        """It wants to run; or it may go on with its slice, which it could not."""
        self._end_nap(guest)
        if self._slice_of(guest.name) is None:
            self._tell(Woke(guest.name))
        self.release(guest)

    def nap(self, guest: "Guest", delay_ns: int | None) -> None:
        """It leaves its pCPU with nothing to do for `delay_ns`, or until somebody queues it."""
        self._naps.add(guest.name, 0, None if delay_ns is None else self.now_ns + delay_ns)
        self._napping_since[guest.name] = self.now_ns

    def is_napping(self, guest: "Guest") -> bool:
        """Whether it is idle: `queue` would wake it."""
        return guest.name in self._naps

    def take_off(self, guest: "Guest") -> None:
        """Out of the queues, and off its pCPU if it is on one: waits for that. Its slice ends now, also when it has
        been run further: what it has run then, it has run of its next one."""
        guest.leaving += 1
        self._wait_for(guest)
        guest.leaving -= 1
        self._end_nap(guest)
        part = self._slice_of(guest.name)
        if part is not None:
            self._end_slice(part, wants=False)
        elif guest.name in self._guests:
            self._tell(Slept(guest.name))

    def hold(self, guest: "Guest") -> None:
        """Wait until no thread runs it. Until `release`, while it is kept so, it is where it is, and virtual time waits
        for it."""
        self._held[guest.name] += 1
        self._wait_for(guest)
        self._held[guest.name] -= 1

    def release(self, guest: "Guest") -> None:
        """It may go on."""
        part = self._slice_of(guest.name)
        if part is not None:
            part.starves = False
        self._wanted.notify_all()

    def _wait_for(self, guest: "Guest") -> None:
        while guest.on_pcpu:
            guest.machine.stop()
            self._changed.wait()

    def _slice_of(self, name: str) -> _Slice | None:
        return next((part for part in self._slices if part is not None and part.guest.name == name), None)

    def _time_of(self, name: str) -> int:
        """How far a guest has come; in the thread that runs it, or while none does."""
        part = self._slice_of(name)
        return self.now_ns if part is None else part.start_ns + part.guest.machine.spent - part.spent

    def _end_nap(self, guest: "Guest") -> None:
        """It is not idle any more. The time that it was has passed for it, too."""
        self._naps.cancel(guest.name)
        since_ns = self._napping_since.pop(guest.name, None)
        if since_ns is not None:
            guest.machine.idle(self.now_ns - since_ns)

    # ---- what the scheduler hears and says ----

    def _tell(self, event: Event) -> None:
        for instruction in self._ask(event):
            if isinstance(instruction, Run):
                self._begin_slice(instruction)
            else:
                self._preempt(instruction)
        self._wanted.notify_all()

    def _begin_slice(self, run: Run) -> None:
        guest = self._guests[run.name]
        machine = guest.machine
        length_ns = run.slice_ns if self._slice_work is None else min(run.slice_ns, self._slice_work)
        self._slices[run.pcpu] = _Slice(
            lane=run.pcpu,
            guest=guest,
            start_ns=self.now_ns,
            end_ns=self.now_ns + length_ns,
            spent=self._spent.pop(run.name, machine.spent),
            work=machine.vcpus.work,
            time_ns=self.now_ns,
        )

    def _preempt(self, instruction: Preempt) -> None:
        part = self._slices[instruction.pcpu]
        if part is not None and part.guest.name == instruction.name:
            part.preempted = True

    def _stop_all(self) -> None:
        for part in self._slices:
            if part is not None:
                part.guest.machine.stop()
        self._slices = [None] * LANES

    # ---- virtual time ----

    def _is_behind(self, part: _Slice | None) -> bool:
        """Whether a slice is to be run before anything else can happen."""
        return part is not None and not part.over and part.time_ns < self._horizon_ns

    def _advance(self) -> None:
        """Let virtual time pass until there is something to run, or nothing to wait for."""
        while not (self._closing or self.failure or any(map(self._is_behind, self._slices))):
            happens = self._next()
            if happens is None:
                return
            time_ns, kind, lane = happens
            self._now_ns = max(self._now_ns, time_ns)
            if self.now_ns > self._horizon_ns:  # nothing ran, and nothing was on its way
                self._begin_quantum()
            if kind == LEAVES:
                self._leave(lane)
            elif kind == WAKES:
                for name in self._naps.take_due(self.now_ns):
                    self.queue(self._guests[name])
            elif kind == TIMER:
                self._tell(Timer())
            else:
                self._exchange()

    def _next(self) -> tuple[int, int, int] | None:
        """When something happens next, what, and on which lane."""
        found = [(part.time_ns, LEAVES, part.lane) for part in self._slices if part is not None and part.over]
        wake_ns = self._naps.due_ns()
        if wake_ns < NEVER:
            found.append((wake_ns, WAKES, 0))
        timer_ns = self.scheduler.timer_ns
        if timer_ns is not None:
            found.append((timer_ns, TIMER, 0))
        if self._frames or any(self._slices):
            found.append((self._horizon_ns, EXCHANGE, 0))
        return min(found, default=None)

    def _begin_quantum(self) -> None:
        self._horizon_ns = (self.now_ns // QUANTUM_NS + 1) * QUANTUM_NS

    def _exchange(self) -> None:
        """A quantum is over: what guests have sent arrives, and those that are to leave do."""
        for part in self._slices:
            if part is not None and part.preempted and not part.over:
                part.activity, part.over = _GOES_ON, True
        self._frames.deliver()
        self._begin_quantum()
        self._wanted.notify_all()

    def _leave(self, lane: int) -> None:
        part = self._slices[lane]
        assert part is not None
        wants = self._put_back(part.guest, part.activity, part.failure)
        if self._slices[lane] is part:  # who heard of it may have taken it off already
            self._end_slice(part, wants)

    def _end_slice(self, part: _Slice, wants: bool) -> None:
        """The guest leaves its lane now."""
        guest = part.guest
        ran_ns = self.now_ns - part.start_ns
        self._slices[part.lane] = None
        self._spent[guest.name] = part.spent + ran_ns
        guest.cpu_ns += ran_ns
        guest.slices += 1
        self._tell(Left(part.lane, guest.name, ran_ns, guest.machine.vcpus.work - part.work, wants))

    # ---- the threads ----

    def _run(self, thread: int) -> None:
        engines = self._engines[thread]
        while True:
            with self._lock:
                part = self._next_slice(thread)
                if part is None:
                    return
                part.guest.on_pcpu = True
                goal_ns = part.goal_ns(self._horizon_ns)
            self._run_slice(part, goal_ns, engines)

    def _next_slice(self, thread: int) -> _Slice | None:
        """What `thread` is to run on, when there is something: its own lanes before those of others, whose engines
        have their code. None when the thread is to end."""
        while not self._closing:
            self._advance()
            ready = [part for part in self._slices if part is not None and self._may_run(part)]
            if ready and not self._closing:
                return min(ready, key=lambda part: (part.lane % self._thread_count != thread, part.lane))
            self._wanted.wait()
        return None

    def _may_run(self, part: _Slice) -> bool:
        guest = part.guest
        kept = guest.on_pcpu or guest.leaving or self._held[guest.name]
        return self._is_behind(part) and not part.starves and not kept

    def _run_slice(self, part: _Slice, goal_ns: int, engines: dict[int, Pcpu]) -> None:
        guest, machine = part.guest, part.guest.machine
        budget = part.spent + goal_ns - part.start_ns - machine.spent
        activity, failure, _ = self._attempt(guest, budget, engines)
        with self._lock:
            guest.on_pcpu = False
            came_ns = part.start_ns + machine.spent - part.spent
            if activity is not None and activity.readiness is Readiness.STARVED:
                part.starves = True
                self._put_back(guest, activity, "")
            elif activity is not None and activity.readiness is Readiness.RUNNABLE:
                if came_ns >= goal_ns:  # or else somebody wanted it to stop: it goes on later
                    part.time_ns, part.over = goal_ns, goal_ns == part.end_ns
                    part.activity = activity
            else:
                part.time_ns, part.over = max(part.time_ns, came_ns), True
                part.activity, part.failure = activity, failure
            self._changed.notify_all()
            self._wanted.notify_all()
