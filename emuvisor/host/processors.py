"""What a host's pCPUs have in common, whichever clock it has: threads with engines, and a scheduler that they obey."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypedDict, Unpack

from emuvisor.bus.ethernet import Link
from emuvisor.cpu.models import CpuModel
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import AdmissionError, EngineError, HostError, UsageError
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.scheduler.instructions import Added, Changed, Event, Instruction
from emuvisor.host.scheduler.policy import Policy
from emuvisor.machine.machine import Activity
from emuvisor.memory import FramePool
from emuvisor.net.port import Port

if TYPE_CHECKING:
    from emuvisor.host.guest import Guest

__all__ = ["HostParts", "Processors"]

Put = Callable[["Guest", Activity | None, str], bool]
"""What becomes of a guest that has left its pCPU, with what it can do next, or with why it failed; whether it wants to
go on."""


class HostParts(TypedDict):
    """What of the host its pCPUs deal with."""

    pool: FramePool
    """Where the guests' memory is."""
    lock: threading.RLock
    changed: threading.Condition
    """Of that lock; notified when a guest has left a thread."""
    put_back: Put
    failed: Callable[[str], None]
    """Called when the policy raised an exception: nothing runs after that."""
    slice_work: int | None
    """The most code that is run at a time, if that is bounded."""


class Processors(ABC):
    """`count` pCPUs as `policy` divides them; `threads` threads do their work. Methods are called under the host's
    lock, but for `join`, `prepare` and `preparing`."""

    def __init__(self, count: int, policy: Policy, threads: int, **host: Unpack[HostParts]) -> None:
        self.count = count
        self.scheduler = Scheduler(count, policy, self.now_ns)
        self.listeners: list[Callable[[int, Event, list[Instruction]], None]] = []
        """Who hears what the scheduler was told and said, with the time: recorders. They must not raise exceptions."""
        self.failure = ""
        """Why nothing runs any more: what was wrong with the policy."""
        self._pool = host["pool"]
        self._lock = host["lock"]
        self._changed = host["changed"]
        self._put_back = host["put_back"]
        self._failed = host["failed"]
        self._slice_work = host["slice_work"]
        self._guests: dict[str, Guest] = {}
        self._threads: list[threading.Thread] = []
        self._engines: list[dict[int, Pcpu]] = [{} for _ in range(threads)]
        """Of each thread that runs guests, by their instructions."""
        self._closing = False

    @property
    @abstractmethod
    def now_ns(self) -> int:
        """The scheduler's time."""

    # ---- threads ----

    @abstractmethod
    def _jobs(self) -> Mapping[str, Callable[[], None]]:
        """The threads that there are, by name."""

    def start(self) -> None:
        """Start the threads that are missing. Raises HostError where the system gives none, when they are tried again
        the next time, and when the policy has failed."""
        self._check()
        for name, job in list(self._jobs().items())[len(self._threads) :]:
            thread = threading.Thread(target=job, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise HostError(f"the host gives no thread for {name}") from None
            self._threads.append(thread)

    def prepare(self, model: CpuModel) -> None:
        """Make the engines that guests of `model` run on, which the first one would wait for. Raises EngineError."""
        for engines in self._engines:
            self._engine(engines, model)

    @contextmanager
    def preparing(self, model: CpuModel) -> Iterator[None]:
        """Make the engine that the first guest of `model` will run on, if it is not there, beside what is done in the
        block. What goes wrong with it shows when the guest runs."""
        first = self._engines[0]

        def make() -> None:
            with suppress(EngineError):
                self._engine(first, model)

        thread = threading.Thread(target=make, name="engine", daemon=True)
        began = model.engine not in first
        try:
            if began:
                thread.start()
        except RuntimeError:  # the host gives no thread
            began = False
        try:
            yield
        finally:
            if began:
                thread.join()

    def _engine(self, engines: dict[int, Pcpu], model: CpuModel) -> Pcpu:
        """The one of `engines` for `model`: made once, whichever thread wants it first."""
        return engines.get(model.engine) or engines.setdefault(model.engine, Pcpu(self._pool, model))

    @abstractmethod
    def end(self) -> None:
        """Let the threads end, and guests leave; `join` waits for it, without the lock."""

    def join(self) -> None:
        """Wait until all threads have ended."""
        for thread in self._threads:
            thread.join()
        for engines in self._engines:
            engines.clear()

    # ---- guests ----

    @abstractmethod
    def links(self, name: str, ports: Sequence[Port], /) -> Sequence[Link]:
        """What the cards of guest `name` are plugged into, whose cables lead to `ports`."""

    def admit(self, name: str, claim: CpuClaim) -> Entity:
        """There will be a guest `name`; returns what the scheduler knows of it. Raises AdmissionError and UsageError
        for a claim that cannot be met, HostError when the policy has failed."""
        self._tell(Added(name, claim))
        self._check()
        return self.scheduler.entities[name]

    def add(self, guest: "Guest") -> None:
        """The guest that was admitted is there."""
        self._guests[guest.name] = guest

    def change(self, guest: "Guest", claim: CpuClaim) -> None:
        """It has another claim, from now on; raises as `admit`, and leaves it the old one then."""
        self._tell(Changed(guest.name, claim))
        self._check()

    @abstractmethod
    def remove(self, name: str) -> None:
        """The guest is gone, or is not coming; no thread runs it."""

    @abstractmethod
    def queue(self, guest: "Guest") -> None:
        """It wants to run."""

    @abstractmethod
    def nap(self, guest: "Guest", delay_ns: int | None) -> None:
        """It leaves its pCPU with nothing to do for `delay_ns`, or until somebody queues it."""

    @abstractmethod
    def is_napping(self, guest: "Guest") -> bool:
        """Whether it is idle: `queue` would wake it."""

    @abstractmethod
    def take_off(self, guest: "Guest") -> None:
        """Out of the queues, and off its pCPU if it is on one: waits for that."""

    @abstractmethod
    def hold(self, guest: "Guest") -> None:
        """Off its thread for a moment, until it is queued or released: waits for that."""

    @abstractmethod
    def release(self, guest: "Guest") -> None:
        """It may go on."""

    # ---- the scheduler ----

    @abstractmethod
    def _tell(self, event: Event) -> None:
        """Tell the scheduler, and carry out what it answers. Raises AdmissionError and UsageError for a claim."""

    def _ask(self, event: Event) -> list[Instruction]:
        """What the scheduler answers. Raises AdmissionError and UsageError for a claim."""
        if self.failure:
            return []
        now = self.now_ns
        try:
            answer = self.scheduler.handle(now, event)
        except Exception as error:  # the policy may be anybody's
            if isinstance(event, Added | Changed) and isinstance(error, AdmissionError | UsageError):
                raise
            policy = self.scheduler.policy.name
            self.failure = f"scheduling policy {policy!r} failed: {type(error).__name__}: {error}"
            self._stop_all()
            self._failed(self.failure)
            return []
        for listener in self.listeners:
            listener(now, event, answer)
        return answer

    @abstractmethod
    def _stop_all(self) -> None:
        """Guests that run leave their pCPUs, and nothing begins."""

    def _check(self) -> None:
        if self.failure:
            raise HostError(self.failure)

    # ---- for the threads, without the lock ----

    def _attempt(
        self, guest: "Guest", budget: int, engines: dict[int, Pcpu], stolen_ns: int = 0
    ) -> tuple[Activity | None, str, int]:
        """Run `guest` on this thread's engine with its instructions: what it can do then, or why it failed, and how
        long it ran in nanoseconds. A device that fails costs its own guest, not the others."""
        machine = guest.machine
        start = time.perf_counter_ns()
        try:
            engine = self._engine(engines, machine.model)
            start = time.perf_counter_ns()  # the first guest does not pay for the engine
            activity = machine.run_slice(engine, budget, stolen_ns)
        except Exception as error:
            failure = str(error) if isinstance(error, HostError) else f"{type(error).__name__}: {error}"
            return None, failure, time.perf_counter_ns() - start
        return activity, "", time.perf_counter_ns() - start
