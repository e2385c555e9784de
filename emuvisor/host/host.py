"""The host: a frame pool, a few pCPU threads, and the guests that take turns on them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from emuvisor.cpu.models import CpuModel
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.devices.storage.thin import ThinPool, ThinUsage
from emuvisor.errors import UsageError
from emuvisor.host.guest import Guest
from emuvisor.host.networks import Networks
from emuvisor.host.run_queue import RunQueue
from emuvisor.host.states import Event, GuestState
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.machine import Activity, Readiness
from emuvisor.machine.outcome import CRASHES, Ending, Outcome
from emuvisor.memory import FramePool
from emuvisor.net.config import NetworkConfig
from emuvisor.net.network import Network
from emuvisor.units import GIB

__all__ = ["DEFAULT_SLICE", "Host"]

_T = TypeVar("_T")

DEFAULT_SLICE = 10_000_000
"""Bytes of guest code that a guest runs before the next one's turn: about 5 ms of host time."""
MAX_PCPUS = 32
MAX_SLICE_S = 0.05
"""Code that rewrites itself all the time runs a thousand times slower; while others wait it must not have a pCPU for
longer than this. Where a slice ends changes nothing for the guest."""
MAX_EVENTS = 1000
DISK_CHECK_S = 2.0
"""How often the host's file systems are looked at for the room that guests' disks were promised."""


class Host:
    """`memory` bytes for all guests together, and `pcpus` threads that run them `slice_work` bytes of code at a time.

    Use it as a context manager, or call `close`. Guests run until they end, are paused or stopped. Raises UsageError
    for impossible numbers, EngineError without a usable Unicorn.
    """

    def __init__(self, memory: int = GIB, pcpus: int = 1, slice_work: int = DEFAULT_SLICE) -> None:
        if not 1 <= pcpus <= MAX_PCPUS:
            raise UsageError(f"a host has 1 to {MAX_PCPUS} pCPUs, not {pcpus}")
        if slice_work < 1:
            raise UsageError(f"a slice of {slice_work} bytes of code is none")
        self.pool = FramePool(memory)
        self.pcpus = pcpus
        self.slice_work = slice_work
        self.guests: dict[str, Guest] = {}
        self.networks = Networks()
        self.disks = ThinPool(on_warning=self._warn)
        """What guests' disks were promised and use of the host's file systems."""
        self.warnings: list[Callable[[str], None]] = []
        """Who hears what people should see to, such as a file system that fills up."""
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.listeners: list[Callable[[Event], None]] = []
        self.lock = threading.RLock()
        """Guards everything here and in the guests."""
        self.changed = threading.Condition(self.lock)
        """Notified when a guest's state changes or it left a pCPU that somebody wants it off."""
        self._making = threading.Lock()
        """One guest is made at a time."""
        self._work = [threading.Condition(self.lock) for _ in range(pcpus)]
        """Each pCPU's: notified when a guest has entered a run queue that this one should see to."""
        self._waiting: set[int] = set()
        """pCPUs that sleep."""
        self._coming: set[int] = set()
        """pCPUs that will look for a guest in a moment: they have been woken, or a slice of theirs ends."""
        self._queue = RunQueue(pcpus)
        self._idle: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, config: GuestConfig) -> Guest:
        """A guest by `config`, not started.

        Raises UsageError when its name is taken or a network is not there, ConfigError and ImageError for what it is
        made of.
        """
        with self._making:
            with self.lock:
                if config.name in self.guests:
                    raise UsageError(f"there is a guest {config.name!r} already")
            # Without the host's lock, which an uplink's thread may be waiting for: it wakes guests.
            ports = self.networks.connect(config)
            try:
                guest = Guest(self, config, ports)
            except BaseException:
                self.networks.disconnect(config.name)
                raise
            with self.lock:
                self.guests[config.name] = guest
                for image in guest.machine.images:
                    self.disks.add(image)
            return guest

    def close(self) -> None:
        """End the threads and give all memory back. Guests that run are stopped where they are."""
        with self.lock:
            self._closing = True
            self._closed.set()
            for guest in self.guests.values():
                guest.machine.vcpu.stop()
            for work in self._work:
                work.notify_all()
        for thread in self._threads:
            thread.join()
        guests = list(self.guests.values())
        with self.lock:
            for guest in guests:
                self.forget(guest)
        for guest in guests:
            self.networks.disconnect(guest.name)
        self.networks.close()

    def add_network(self, config: NetworkConfig) -> Network:
        """A virtual network that guests' cards can name. Raises UsageError when its name is taken, HostError when it
        cannot have its uplink."""
        return self.networks.add(config)

    # ---- for Guest: all under the lock ----

    def set_state(self, guest: Guest, state: GuestState, reason: str) -> None:
        """Enter `state` and tell the listeners."""
        event = Event(time.time(), guest.name, guest.state, state, reason)
        guest.state = state
        guest.reason = reason
        self.events.append(event)
        for listener in self.listeners:
            listener(event)
        self.changed.notify_all()

    def make_runnable(self, guest: Guest, reason: str) -> None:
        """Enter the running state and a run queue."""
        guest.suspended = False
        self.set_state(guest, GuestState.RUNNING, reason)
        self._enqueue(guest)
        if not self._threads:
            for number in range(self.pcpus):
                thread = threading.Thread(
                    target=self._pcpu_thread, args=(number,), name=f"pcpu{number}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
            self._threads.append(threading.Thread(target=self._watch_slices, name="slices", daemon=True))
            self._threads[-1].start()

    def _enqueue(self, guest: Guest) -> None:
        guest.wake_at = None
        guest.queued_at = time.perf_counter_ns()
        self._idle.discard(guest.name)
        pcpu = self._queue.add(guest.name, guest.pcpu)
        if pcpu not in self._waiting:
            if not self._waiting or len(self._queue) <= len(self._coming):
                return
            pcpu = min(self._waiting)
        self._waiting.remove(pcpu)
        self._coming.add(pcpu)
        self._work[pcpu].notify()

    def take_off(self, guest: Guest) -> None:
        """Out of the queues, and off its pCPU if it is on one."""
        guest.leaving = True
        while guest.on_pcpu:
            guest.machine.vcpu.stop()
            self.changed.wait()
        guest.leaving = False
        self._queue.remove(guest.name)
        self._idle.discard(guest.name)

    def between_runs(self, guest: Guest, function: Callable[[], _T]) -> _T:
        """Call `function` while the guest is on no pCPU; afterwards it goes on. Devices take no locks."""
        self.take_off(guest)
        try:
            return function()
        finally:
            if guest.state is GuestState.RUNNING:
                self._enqueue(guest)

    def wake(self, guest: Guest) -> None:
        """Something happened that an idle guest may have been waiting for."""
        if guest.name in self._idle:
            self._enqueue(guest)

    def forget(self, guest: Guest) -> int:
        """Remove it from the host, but for its cables; returns the frames that became free."""
        free = self.pool.free
        for image in guest.machine.images:
            self.disks.remove(image)
        guest.machine.close()
        self.guests.pop(guest.name, None)
        self.set_state(guest, GuestState.GONE, "deleted")
        return self.pool.free - free

    # ---- the pCPU threads ----

    def _pcpu_thread(self, number: int) -> None:
        engines: dict[int, Pcpu] = {}
        guest = self._next(number)
        while guest is not None:
            activity: Activity | None = None
            failure = ""
            start = time.perf_counter_ns()
            guest.waited_ns += start - guest.queued_at
            try:
                engine = self._engine(engines, guest.machine.model)
                activity = guest.machine.run_slice(engine, self.slice_work)
            except Exception as error:  # a device failed: its guest is lost, the others are not
                failure = f"{type(error).__name__}: {error}"
            guest.cpu_ns += time.perf_counter_ns() - start
            guest.slices += 1
            with self.lock:
                guest.on_pcpu = False
                self._coming.add(number)
                if activity is None:
                    self._ended(guest, Outcome(Ending.ENGINE, message=failure))
                else:
                    self._put_back(guest, activity)
                if guest.leaving:
                    self.changed.notify_all()
                # Under the same lock: what is queued here meanwhile would be taken over by another pCPU.
                guest = self._next(number)

    def _engine(self, engines: dict[int, Pcpu], model: CpuModel) -> Pcpu:
        """This thread's engine with the instructions of `model`."""
        if model.engine not in engines:
            engines[model.engine] = Pcpu(self.pool, model)
        return engines[model.engine]

    def _next(self, number: int) -> Guest | None:
        """The guest to run now on pCPU `number`; waits for one. None when the host closes."""
        with self.lock:
            while not self._closing:
                self._coming.discard(number)
                wait = self._wake_sleepers()
                name = self._queue.pick(number, self._coming)
                if name is not None:
                    guest = self.guests[name]
                    guest.pcpu = number
                    guest.on_pcpu = True
                    guest.on_pcpu_since = time.monotonic()
                    return guest
                self._waiting.add(number)
                self._work[number].wait(wait)
                self._waiting.discard(number)
            return None

    def _watch_slices(self) -> None:
        """End slices that take too long while another guest waits, and look after the disks' room."""
        disks_checked = time.monotonic()
        while not self._closed.wait(MAX_SLICE_S):
            with self.lock:
                if time.monotonic() - disks_checked >= DISK_CHECK_S:
                    disks_checked = time.monotonic()
                    self._check_disks()
                if not len(self._queue):
                    continue
                late = time.monotonic() - MAX_SLICE_S
                for guest in self.guests.values():
                    if guest.on_pcpu and guest.on_pcpu_since < late:
                        guest.machine.vcpu.stop()

    def _check_disks(self) -> None:
        with suppress(OSError):  # a file system that is gone shows where a guest uses it
            self.disks.check()

    def _warn(self, usage: ThinUsage) -> None:
        for listener in self.warnings:
            listener(str(usage))

    def _wake_sleepers(self) -> float | None:
        """Queue the idle guests whose time has come; returns the seconds until the next one's."""
        now = time.monotonic()
        nearest: float | None = None
        for name in list(self._idle):
            wake_at = self.guests[name].wake_at
            if wake_at is None:
                continue
            if wake_at <= now:
                self._enqueue(self.guests[name])
            elif nearest is None or wake_at < nearest:
                nearest = wake_at
        return None if nearest is None else nearest - now

    def _put_back(self, guest: Guest, activity: Activity) -> None:
        if activity.readiness is Readiness.ENDED:
            assert guest.machine.outcome is not None
            self._ended(guest, guest.machine.outcome)
        elif activity.readiness is Readiness.STARVED:
            self.set_state(
                guest, GuestState.PAUSED, f"no memory: all {self.pool.limit} frames of the host are taken"
            )
        elif activity.readiness is Readiness.SUSPENDED:
            guest.suspended = True
            self.set_state(guest, GuestState.PAUSED, activity.reason)
        elif guest.leaving:
            pass  # whoever takes it off decides what becomes of it
        elif activity.readiness is Readiness.RUNNABLE or guest.console_waits or guest.machine.has_calls:
            self._enqueue(guest)
        else:
            self._idle.add(guest.name)
            if activity.wake_ns is not None:
                delay_ns = max(0, activity.wake_ns - guest.machine.clock.now_ns())
                guest.wake_at = time.monotonic() + delay_ns / 1e9

    def _ended(self, guest: Guest, outcome: Outcome) -> None:
        guest.outcome = outcome
        if outcome.ending is Ending.UNTIL:
            self.set_state(guest, GuestState.PAUSED, str(outcome))
        elif outcome.ending in CRASHES:
            self.set_state(guest, GuestState.CRASHED, str(outcome))
        else:
            self.set_state(guest, GuestState.DEFINED, str(outcome))
