"""The pCPU threads: they run guests as the scheduler says, and tell it what came of it.

Everything here happens under the host's lock but for running a guest and waiting. The scheduler is a pure function of
events and times; this is what gives it both, and carries out what it answers.

Somebody *looks* at the time whenever something is due: an idle guest's timer, the scheduler's, or the end of a slice
that takes too long. For the timers of guests that it will run, a pCPU looks itself: while it is idle it waits for the
next one, and a slice ends when that is due. So no other thread, which may have to wait for a processor, is between a
timer and its guest. For what else is due there is any idle pCPU, or, when there is none, the watch thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
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
from emuvisor.net.port import Port

if TYPE_CHECKING:
    from emuvisor.host.guest import Guest

__all__ = ["Pcpus"]

LONGEST_SLICE_NS = 50_000_000
"""A slice is a number of bytes of code, by the guest's pace lately. Code that rewrites itself all the time is a
thousand times slower than that; it must not have a pCPU for longer than this. Where a slice ends changes nothing for
the guest."""
SHORTEST_SLICE_NS = 100_000
"""However soon something is due: guests that set their timers so must not keep the others from running."""
LONGEST_WAIT_NS = 3_600_000_000_000
"""Guests set timers for centuries, and threads cannot wait that long."""
NS_PER_S = 1_000_000_000


class Pcpus(Processors):
    """One thread for each pCPU, and one that looks at the time."""

    def __init__(self, count: int, policy: Policy, **host: Unpack[HostParts]) -> None:
        super().__init__(count, policy, count, **host)
        self._runs: list[Run | None] = [None] * count
        """What each pCPU is to run and has not begun."""
        self._on: list[Guest | None] = [None] * count
        """Whom it runs."""
        self._ends_ns = [NEVER] * count
        """When it is told to end that."""
        self._naps = Naps(count)
        self._wanted = [threading.Condition(self._lock) for _ in range(count + 1)]
        """Each thread's, the watch thread's behind the pCPUs': notified when it is to do something, or to look at the
        time earlier than it will."""
        self._looks_ns = [NEVER] * (count + 1)
        """When each will look at the time by itself; pCPUs that have something to run do not."""

    # ---- for the host, under its lock ----

    @property
    def now_ns(self) -> int:
        """The host's monotonic clock."""
        return time.monotonic_ns()

    def _jobs(self) -> dict[str, Callable[[], None]]:
        pcpus: dict[str, Callable[[], None]] = {f"pcpu{n}": partial(self._run, n) for n in range(self.count)}
        return pcpus | {"timers": self._watch}

    def end(self) -> None:
        """Let the threads end, and guests leave; `join` waits for it, without the lock."""
        self._closing = True
        for condition in self._wanted:
            condition.notify_all()

    def links(self, _name: str, ports: Sequence[Port], /) -> Sequence[Link]:
        """What the cards of a guest are plugged into: `ports` themselves."""
        return ports

    def remove(self, name: str) -> None:
        """The guest is gone, or is not coming; it is on no pCPU."""
        self._cancel(name)
        self._naps.cancel(name)
        self._tell(Removed(name))
        self._guests.pop(name, None)

    def queue(self, guest: "Guest") -> None:
        """It wants to run."""
        self._naps.cancel(guest.name)
        self._tell(Woke(guest.name))

    def nap(self, guest: "Guest", delay_ns: int | None) -> None:
        """It leaves its pCPU with nothing to do for `delay_ns`, or until somebody queues it."""
        wake_ns = None if delay_ns is None else self.now_ns + delay_ns
        self._naps.add(guest.name, guest.entity.home, wake_ns)

    def is_napping(self, guest: "Guest") -> bool:
        """Whether it is idle: `queue` would wake it."""
        return guest.name in self._naps

    def take_off(self, guest: "Guest") -> None:
        """Out of the queues, and off its pCPU if it is on one: waits for that."""
        guest.leaving += 1
        self._cancel(guest.name)
        while guest.on_pcpu:
            guest.machine.stop()
            self._changed.wait()
            self._cancel(guest.name)  # another who took it off may have queued it meanwhile
        guest.leaving -= 1
        self._naps.cancel(guest.name)
        if guest.name in self._guests:
            self._tell(Slept(guest.name))

    def hold(self, guest: "Guest") -> None:
        """Off its pCPU for a moment, until it is queued or released."""
        self.take_off(guest)

    def release(self, guest: "Guest") -> None:
        """It may go on."""
        self.queue(guest)

    def _cancel(self, name: str) -> None:
        """It does not begin what it was to run."""
        for pcpu, run in enumerate(self._runs):
            if run is not None and run.name == name:
                self._runs[pcpu] = None
                self._tell(Left(pcpu, name, 0, 0, wants=False))

    # ---- what the scheduler hears and says ----

    def _tell(self, event: Event) -> None:
        events = deque((event,))
        while events:
            for instruction in self._ask(events.popleft()):
                if isinstance(instruction, Run):
                    self._runs[instruction.pcpu] = instruction
                    self._looks_ns[instruction.pcpu] = NEVER
                    self._wanted[instruction.pcpu].notify()
                else:
                    events.extend(self._preempt(instruction))
        self._arrange_look()

    def _preempt(self, instruction: Preempt) -> list[Event]:
        run = self._runs[instruction.pcpu]
        if run is not None and run.name == instruction.name:  # it has not begun
            self._runs[instruction.pcpu] = None
            return [Left(instruction.pcpu, instruction.name, 0, 0, wants=True)]
        self._guests[instruction.name].machine.stop()
        return []

    def _stop_all(self) -> None:
        self._runs = [None] * self.count
        for guest in self._on:
            if guest is not None:
                guest.machine.stop()

    # ---- time ----

    def _due_ns(self) -> int:
        """When something is to be done next."""
        return min(self._naps.due_ns(), self._timer_ns, *self._ends_ns)

    @property
    def _timer_ns(self) -> int:
        timer = None if self.failure else self.scheduler.timer_ns
        return NEVER if timer is None else timer

    def _arrange_look(self) -> None:
        """Have an idle pCPU, or else the watch thread, look at the time when something is due, unless somebody does."""
        due = self._due_ns()
        if due < min(self._looks_ns):
            idle = (n for n in range(self.count) if self._runs[n] is None and self._on[n] is None)
            looker = next(idle, self.count)
            self._looks_ns[looker] = due
            self._wanted[looker].notify()

    def _wait(self, thread: int, own_ns: int) -> None:
        """Until it is notified, or `own_ns`, or something is due that no other thread looks for."""
        self._looks_ns[thread] = NEVER
        due = self._due_ns()
        if due < min(self._looks_ns):
            own_ns = min(own_ns, due)
        self._looks_ns[thread] = own_ns
        wait_ns = min(max(0, own_ns - self.now_ns), LONGEST_WAIT_NS)
        self._wanted[thread].wait(wait_ns / NS_PER_S)

    def _do_what_is_due(self) -> None:
        now = self.now_ns
        for name in self._naps.take_due(now):
            self._tell(Woke(name))
        if self._timer_ns <= now:
            self._tell(Timer())
        for pcpu, guest in enumerate(self._on):
            if guest is not None and self._ends_ns[pcpu] <= now:
                guest.machine.stop()
                self._ends_ns[pcpu] = now + LONGEST_SLICE_NS

    def _watch(self) -> None:
        """The thread that looks at the time while all pCPUs are busy."""
        with self._lock:
            while not self._closing:
                self._do_what_is_due()
                self._wait(self.count, NEVER)

    # ---- a pCPU ----

    def _run(self, number: int) -> None:
        engines = self._engines[number]
        while True:
            with self._lock:
                run = self._next(number)
                if run is None:
                    return
                guest = self._guests[run.name]
                now = self.now_ns
                until_due_ns = min(self._naps.due_ns(number), self._timer_ns) - now
                budget = self._budget(run, max(SHORTEST_SLICE_NS, until_due_ns))
                guest.on_pcpu = True
                self._on[number] = guest
                self._ends_ns[number] = now + LONGEST_SLICE_NS
                self._arrange_look()
            self._run_slice(number, guest, budget, engines)

    def _next(self, number: int) -> Run | None:
        """What pCPU `number` is to run, when there is something; None when its thread is to end."""
        while not self._closing:
            self._do_what_is_due()
            run = self._runs[number]
            if run is not None:
                self._runs[number] = None
                return run
            self._wait(number, self._naps.due_ns(number))
        return None

    def _budget(self, run: Run, most_ns: int) -> int:
        """Bytes of code for the slice, which lasts `most_ns` at most."""
        work = max(1, int(min(run.slice_ns, most_ns) * self.scheduler.entities[run.name].pace))
        return work if self._slice_work is None else min(work, self._slice_work)

    def _run_slice(self, number: int, guest: "Guest", budget: int, engines: dict[int, Pcpu]) -> None:
        before = guest.machine.vcpus.work
        activity, failure, ran_ns = self._attempt(guest, budget, engines, guest.entity.stolen_ns)
        work = max(0, guest.machine.vcpus.work - before)  # a reset sets it back
        with self._lock:
            guest.cpu_ns += ran_ns
            guest.slices += 1
            guest.on_pcpu = False
            self._on[number] = None
            self._ends_ns[number] = NEVER
            self._looks_ns[number] = 0  # it will in a moment, unless it has something to run
            wants = self._put_back(guest, activity, failure)
            self._tell(Left(number, guest.name, ran_ns, work, wants))
            if guest.leaving:
                self._changed.notify_all()
