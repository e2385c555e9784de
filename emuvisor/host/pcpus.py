"""The pCPU threads: they run guests as the scheduler says, and tell it what came of it.

Everything here happens under the host's lock but for running a guest and waiting. The scheduler is a pure function of
events and times; this is what gives it both, and carries out what it answers.
"""

import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from emuvisor.cpu.models import CpuModel
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import HostError
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.scheduler.instructions import (
    Added,
    Changed,
    Event,
    Instruction,
    Left,
    Preempt,
    Removed,
    Run,
    Slept,
    Timer,
    Woke,
)
from emuvisor.host.scheduler.policy import Policy
from emuvisor.machine.machine import Activity
from emuvisor.memory import FramePool

if TYPE_CHECKING:
    from emuvisor.host.guest import Guest

__all__ = ["Pcpus"]

MAX_SLICE_S = 0.05
"""Code that rewrites itself all the time runs a thousand times slower than the scheduler thinks; while others wait it
must not have a pCPU for longer than this. Where a slice ends changes nothing for the guest."""
NS_PER_S = 1_000_000_000

Put = Callable[["Guest", Activity | None, str], bool]
"""What becomes of a guest that has left its pCPU, with what it can do next, or with why it failed; whether it wants to
go on."""


class Pcpus:
    """`count` threads with engines for `pool`, under the host's `lock`. `changed`, of that lock, is notified when a
    guest has left a pCPU that somebody wants it off; `put_back` is called when one has. `slice_work`, if given, is the
    most code that is run at a time."""

    def __init__(
        self,
        count: int,
        policy: Policy,
        *,
        pool: FramePool,
        lock: "threading.RLock",
        changed: threading.Condition,
        put_back: Put,
        slice_work: int | None = None,
    ) -> None:
        self.count = count
        self.scheduler = Scheduler(count, policy, time.perf_counter_ns())
        self.listeners: list[Callable[[int, Event, list[Instruction]], None]] = []
        """Who hears what the scheduler was told and said, with the time: recorders."""
        self._pool = pool
        self._changed = changed
        self._lock = lock
        self._put_back = put_back
        self._slice_work = slice_work
        self._guests: dict[str, Guest] = {}
        self._runs: list[Run | None] = [None] * count
        """What each is to run and has not begun."""
        self._wanted = [threading.Condition(self._lock) for _ in range(count)]
        """Each one's: notified when it is to run something."""
        self._sleepers: list[tuple[int, int, str]] = []
        """When idle guests are to be woken: time, number, name. An entry counts if the guest has its number."""
        self._naps: dict[str, int] = {}
        self._numbers = 0
        self._alarm = threading.Condition(self._lock)
        """Notified when the watch thread is to look at its times again."""
        self._alarm_ns: int | None = None
        """When it will do so by itself."""
        self._threads: list[threading.Thread] = []
        self._closing = False

    # ---- for the host, under its lock ----

    def start(self) -> None:
        """Start the threads that are missing. Raises HostError where the system gives none; they are tried again the
        next time."""
        while len(self._threads) <= self.count:
            number = len(self._threads)
            if number < self.count:
                thread = threading.Thread(target=self._run, args=(number,), name=f"pcpu{number}", daemon=True)
            else:
                thread = threading.Thread(target=self._watch, name="timers", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise HostError(f"the host gives no thread for {thread.name}") from None
            self._threads.append(thread)

    def end(self) -> None:
        """Let the threads end, and guests leave; `join` waits for it, without the lock."""
        self._closing = True
        for condition in (*self._wanted, self._alarm):
            condition.notify_all()

    def join(self) -> None:
        """Wait until all threads have ended."""
        for thread in self._threads:
            thread.join()

    def add(self, guest: "Guest", claim: CpuClaim) -> Entity:
        """There is a guest; returns what the scheduler knows of it. Raises AdmissionError and UsageError for a claim
        that cannot be met."""
        self._tell(Added(guest.name, claim))
        self._guests[guest.name] = guest
        return self.scheduler.entities[guest.name]

    def change(self, guest: "Guest", claim: CpuClaim) -> None:
        """It has another claim, from now on; raises as `add`, and leaves it the old one then."""
        self._tell(Changed(guest.name, claim))

    def remove(self, guest: "Guest") -> None:
        """It is gone; it is on no pCPU."""
        self._cancel(guest)
        self._naps.pop(guest.name, None)
        self._tell(Removed(guest.name))
        del self._guests[guest.name]

    def queue(self, guest: "Guest") -> None:
        """It wants to run."""
        self._naps.pop(guest.name, None)
        self._tell(Woke(guest.name))

    def nap(self, guest: "Guest", wake_ns: int | None) -> None:
        """It has nothing to do until `wake_ns` (of time.perf_counter_ns), or until somebody wakes it."""
        self._numbers += 1
        self._naps[guest.name] = self._numbers
        if wake_ns is not None:
            heappush(self._sleepers, (wake_ns, self._numbers, guest.name))
            self._set_alarm()

    def is_napping(self, guest: "Guest") -> bool:
        """Whether it is idle: `queue` would wake it."""
        return guest.name in self._naps

    def take_off(self, guest: "Guest") -> None:
        """Out of the queues, and off its pCPU if it is on one: waits for that."""
        guest.leaving += 1
        self._cancel(guest)
        while guest.on_pcpu:
            guest.machine.stop()
            self._changed.wait()
        guest.leaving -= 1
        self._naps.pop(guest.name, None)
        if guest.name in self._guests:
            self._tell(Slept(guest.name))

    def _cancel(self, guest: "Guest") -> None:
        """It does not begin what it was to run."""
        for pcpu, run in enumerate(self._runs):
            if run is not None and run.name == guest.name:
                self._runs[pcpu] = None
                self._tell(Left(pcpu, guest.name, 0, 0, wants=False))

    # ---- what the scheduler hears and says ----

    def _tell(self, event: Event) -> None:
        now = time.perf_counter_ns()
        answer = self.scheduler.handle(now, event)
        for listener in self.listeners:
            listener(now, event, answer)
        for instruction in answer:
            if isinstance(instruction, Run):
                self._runs[instruction.pcpu] = instruction
                self._wanted[instruction.pcpu].notify()
            else:
                self._preempt(instruction)
        self._set_alarm()

    def _preempt(self, instruction: Preempt) -> None:
        run = self._runs[instruction.pcpu]
        if run is not None and run.name == instruction.name:  # it has not begun
            self._runs[instruction.pcpu] = None
            self._tell(Left(instruction.pcpu, instruction.name, 0, 0, wants=True))
        else:
            self._guests[instruction.name].machine.stop()

    # ---- time ----

    def _due_ns(self) -> int | None:
        """When something is to be done next."""
        while self._sleepers and self._naps.get(self._sleepers[0][2]) != self._sleepers[0][1]:
            heappop(self._sleepers)
        times = [self._sleepers[0][0]] if self._sleepers else []
        timer = self.scheduler.timer_ns
        if timer is not None:
            times.append(timer)
        return min(times, default=None)

    def _set_alarm(self) -> None:
        """Somebody looks at the time when something is due: an idle pCPU, or else the watch thread."""
        due = self._due_ns()
        if due is not None and (self._alarm_ns is None or due < self._alarm_ns):
            self._alarm_ns = due
            self._alarm.notify()

    def _do_what_is_due(self) -> None:
        now = time.perf_counter_ns()
        due = self._due_ns()
        while due is not None and due <= now:
            if self._sleepers and self._sleepers[0][0] <= now:
                self.queue(self._guests[self._sleepers[0][2]])
            else:
                self._tell(Timer())
            due = self._due_ns()

    def _watch(self) -> None:
        """The thread that looks at the time: idle guests, caps and reservations, slices that take too long."""
        with self._lock:
            while not self._closing:
                self._do_what_is_due()
                self._end_long_slices()
                self._alarm_ns = self._due_ns()
                wait_s = MAX_SLICE_S
                if self._alarm_ns is not None:
                    wait_s = min(wait_s, max(0, self._alarm_ns - time.perf_counter_ns()) / NS_PER_S)
                self._alarm.wait(wait_s)

    def _end_long_slices(self) -> None:
        if not any(entity.place == "waiting" for entity in self.scheduler.entities.values()):
            return
        late = time.monotonic() - MAX_SLICE_S
        for guest in self._guests.values():
            if guest.on_pcpu and guest.on_pcpu_since < late:
                guest.machine.stop()

    # ---- a pCPU ----

    def _run(self, number: int) -> None:
        engines: dict[int, Pcpu] = {}
        while True:
            with self._lock:
                while self._runs[number] is None and not self._closing:
                    self._wanted[number].wait()
                run = self._runs[number]
                if self._closing or run is None:
                    return
                self._runs[number] = None
                guest = self._guests[run.name]
                guest.on_pcpu, guest.on_pcpu_since = True, time.monotonic()
                budget = self._budget(run)
            self._run_slice(number, guest, budget, engines)

    def _budget(self, run: Run) -> int:
        """Bytes of code for the slice."""
        work = max(1, int(run.slice_ns * self.scheduler.entities[run.name].pace))
        return work if self._slice_work is None else min(work, self._slice_work)

    def _run_slice(self, number: int, guest: "Guest", budget: int, engines: dict[int, Pcpu]) -> None:
        activity: Activity | None = None
        failure = ""
        before = guest.machine.vcpus.work
        start = time.perf_counter_ns()
        try:
            engine = self._engine(engines, guest.machine.model)
            activity = guest.machine.run_slice(engine, budget)
        except Exception as error:  # a device failed: its guest is lost, the others are not
            failure = str(error) if isinstance(error, HostError) else f"{type(error).__name__}: {error}"
        ran_ns = time.perf_counter_ns() - start
        work = guest.machine.vcpus.work - before
        with self._lock:
            guest.cpu_ns += ran_ns
            guest.slices += 1
            guest.on_pcpu = False
            wants = self._put_back(guest, activity, failure)
            self._tell(Left(number, guest.name, ran_ns, max(0, work), wants))
            if guest.leaving:
                self._changed.notify_all()

    def _engine(self, engines: dict[int, Pcpu], model: CpuModel) -> Pcpu:
        """This thread's engine with the instructions of `model`."""
        if model.engine not in engines:
            engines[model.engine] = Pcpu(self._pool, model)
        return engines[model.engine]
