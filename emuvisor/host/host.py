"""The host: a frame pool, a few pCPU threads, and the guests that take turns on them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, get_args

from emuvisor.devices.limits import Rate
from emuvisor.devices.storage.thin import ThinPool, ThinUsage
from emuvisor.errors import ConfigError, HostError, ImageError, UsageError
from emuvisor.host.autopilot.autopilot import Autopilot
from emuvisor.host.autopilot.observe import HostControls
from emuvisor.host.backends import Backends
from emuvisor.host.checkpoint import Checkpoint
from emuvisor.host.claims import contract_of, cpu_claim_of
from emuvisor.host.cloning import make_clones
from emuvisor.host.guest import Guest
from emuvisor.host.memory.manager import MemoryManager
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.networks import Networks
from emuvisor.host.pcpus import Pcpus
from emuvisor.host.processors import Processors
from emuvisor.host.scheduler.policies import make_policy
from emuvisor.host.states import Event, GuestState
from emuvisor.host.virtual_pcpus import LANES, VirtualPcpus
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import USER_NETWORK, GuestConfig
from emuvisor.machine.machine import Activity, Readiness
from emuvisor.machine.outcome import CRASHES, Ending, Outcome
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.net.config import UPLINK_NONE, NetworkConfig
from emuvisor.net.network import Network
from emuvisor.units import GIB

if TYPE_CHECKING:
    from emuvisor.devices.storage.layered import Frozen

__all__ = ["Host"]

_T = TypeVar("_T")

MAX_PCPUS = 32
MAX_EVENTS = 1000
DISK_CHECK_S = 2.0
"""How often the host's file systems are looked at for the room that guests' disks were promised."""


class Host:
    """`memory` bytes for all guests together, and `pcpus` threads that run them.

    `memory_policy` says what happens when they want more memory than there is. `scheduler` names the policy by which
    pCPUs are divided: "proportional", "round-robin", "credit", "deadline", or one of an entry point. A guest runs for
    as long as its claim and the policy say, and at most for `slice_work` bytes of code, if that is given, at a time.

    `clock`: "host" is the host's own; "virtual" counts what guests run (`VirtualPcpus`): the same guests have the same
    schedule then, to the nanosecond, whatever `pcpus` is and the machine does. Such a host has only guests on the
    virtual clock, and no networks that lead out of it. What people do takes effect when they do it: to have it
    repeated, too, they do it while no guest runs, or keep `lock` meanwhile, as to start several guests at once.

    Use it as a context manager, or call `close`. Guests run until they end, are paused or stopped. Raises UsageError
    for impossible numbers, HostError when its swap file cannot be made, EngineError without a usable Unicorn.
    """

    def __init__(
        self,
        memory: int = GIB,
        pcpus: int = 1,
        slice_work: int | None = None,
        memory_policy: MemoryPolicy | None = None,
        scheduler: str = "proportional",
        *,
        clock: ClockMode = "host",
    ) -> None:
        if clock not in get_args(ClockMode):
            raise UsageError(f"clock {clock!r}: a host's is one of {', '.join(get_args(ClockMode))}")
        if not 1 <= pcpus <= MAX_PCPUS:
            raise UsageError(f"a host has 1 to {MAX_PCPUS} pCPUs, not {pcpus}")
        if slice_work is not None and slice_work < 1:
            raise UsageError(f"a slice of {slice_work} bytes of code is none")
        self.pool = FramePool(memory)
        self.pcpus = pcpus
        self.clock = clock
        self.guests: dict[str, Guest] = {}
        self.checkpoints: set[Checkpoint] = set()
        """Those of its guests that were not closed."""
        self.networks = Networks(lambda: self.processors.now_ns)
        self.disks = ThinPool(on_warning=self._warn)
        """What guests' disks were promised and use of the host's file systems."""
        self.backends = Backends()
        """The file systems that guests' disks have in common, with their limits."""
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
        virtual = clock == "virtual"
        processors: type[Pcpus | VirtualPcpus] = VirtualPcpus if virtual else Pcpus
        self.processors: Processors = processors(
            pcpus,
            make_policy(scheduler, LANES if virtual else pcpus),
            pool=self.pool,
            lock=self.lock,
            changed=self.changed,
            put_back=self._put_back,
            failed=self._scheduler_failed,
            slice_work=slice_work,
        )
        """Which guest runs where."""
        self._starving: set[str] = set()
        """Guests that run but for a frame: the memory manager looks for one."""
        self._disk_watch: threading.Thread | None = None
        self.before_close: list[Callable[[], object]] = []
        """Called by `close` first, the last one first: who has guests on their way must end before the host does."""
        self._closing = False
        self._closed = threading.Event()
        self.memory = MemoryManager(self, memory_policy or MemoryPolicy())
        """Who gets which frames, and why."""
        self.autopilot = Autopilot(HostControls(self))
        """What changes guests' claims as their load changes; off until it is started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, config: GuestConfig, *, frozen: "Sequence[Frozen | None]" = ()) -> Guest:
        """A guest by `config`, not started. `frozen`, by drive, are disks of another guest's that it has in place of
        its own, with temporary layers for what it writes.

        Raises UsageError when its name is taken or a network is not there, AdmissionError when its memory or
        pCPUs cannot be promised, ConfigError and ImageError for what it is made of, HostError when the host has no
        memory for that.
        """
        self._check_clock(config)
        with self._making, ExitStack() as undo:
            with self.lock:
                if config.name in self.guests:
                    raise UsageError(f"there is a guest {config.name!r} already")
                self.memory.admit(config.name, contract_of(config))
                entity = self.processors.admit(config.name, cpu_claim_of(config))
            undo.callback(self._withdraw, config.name)
            # Without the host's lock, which an uplink's thread may be waiting for: it wakes guests.
            ports = self.networks.connect(config)
            undo.callback(self.networks.disconnect, config.name)
            try:
                guest = Guest(self, config, entity, ports, frozen)
            except MemoryError:
                raise HostError(f"guest {config.name!r}: the host has no memory for it") from None
            undo.callback(guest.machine.close)
            with self.lock:
                if not guest.deterministic:
                    self._add_to_backends(guest)
                self.processors.add(guest)
                self.guests[config.name] = guest
                guest.memory.stores = self.memory.stores
                for image in guest.machine.images:
                    self.disks.add(image)
            undo.pop_all()
            return guest

    def clone(
        self, checkpoint: Checkpoint, name: str, *, same_identity: bool = False, running: bool = True
    ) -> Guest:
        """A guest called `name` that goes on from `checkpoint`: running, or paused. It shares all pages until one of
        the two writes them, and the engines' translations of them; its disks are temporary layers above the source's.

        It has MAC addresses, a VM generation ID and random numbers of its own, but with `same_identity` those of its
        source. Forwards of ports and the file for UEFI variables stay the source's. Raises SnapshotError for a
        checkpoint that is closed, otherwise as `create`; then nothing is left of it.
        """
        return self.clone_many(checkpoint, [name], same_identity=same_identity, running=running)[0]

    def clone_many(
        self,
        checkpoint: Checkpoint,
        names: Sequence[str],
        *,
        same_identity: bool = False,
        running: bool = True,
    ) -> list[Guest]:
        """A clone for each of `names`, as `clone`; when all are made, they begin to run. Raises as `clone`, and then
        none is made."""
        return make_clones(self, checkpoint, names, same_identity=same_identity, running=running)

    def _check_clock(self, config: GuestConfig) -> None:
        """A host's clock and its guests' go together. Raises ConfigError."""
        if self.clock == "virtual":
            if config.clock != "virtual":
                raise ConfigError(
                    f'guest {config.name!r} has clock = "{config.clock}"; on a host with the virtual clock it must be '
                    '"virtual"'
                )
            if any(nic.network == USER_NETWORK for nic in config.nics):
                raise ConfigError(
                    f"guest {config.name!r}: network {USER_NETWORK!r} leads out of the host; "
                    "one with the virtual clock has none such"
                )
        elif config.nics and config.clock == "virtual":
            raise ConfigError(
                f'guest {config.name!r}: on a network it needs clock = "host", or a host with the virtual clock; here, '
                "its own would skip the time that an answer takes"
            )

    def _withdraw(self, name: str) -> None:
        """The guest that was admitted could not be made."""
        with self.lock:
            self.processors.remove(name)

    def _add_to_backends(self, guest: Guest) -> None:
        try:
            self.backends.add(guest.name, guest.disks_with_shares)
        except OSError as error:
            raise ImageError(f"{error.filename}: {error.strerror}") from None

    def close(self) -> None:
        """End the threads and give all memory back. Guests that run are stopped where they are."""
        for end in tuple(reversed(self.before_close)):
            end()
        self.autopilot.stop()
        with self.lock:
            self._closing = True
            self._closed.set()
            for guest in self.guests.values():
                guest.machine.stop()
            self.processors.end()
            self.changed.notify_all()
        self.memory.stop()
        self.processors.join()
        if self._disk_watch is not None:
            self._disk_watch.join()
        guests = list(self.guests.values())
        with self.lock:
            self.changed.wait_for(lambda: not any(guest.on_pcpu for guest in guests))  # somebody may hold one
            for checkpoint in tuple(self.checkpoints):
                checkpoint.close()
            for guest in guests:
                self.forget(guest)
        for guest in guests:
            self.networks.disconnect(guest.name)
        self.networks.close()
        self.memory.close()
        self.pool.trim()  # who still refers to the host does not keep its memory

    def add_network(self, config: NetworkConfig) -> Network:
        """A virtual network that guests' cards can name. Raises UsageError when its name is taken and, on the virtual
        clock, when it has an uplink; HostError when it cannot have that."""
        if self.clock == "virtual" and config.uplink != UPLINK_NONE:
            raise UsageError(
                f"network {config.name!r} has an uplink; "
                "a host with the virtual clock has no networks that lead out of it"
            )
        return self.networks.add(config)

    def set_backend_limit(
        self,
        path: Path | str,
        *,
        bytes: Rate | int | str | None = None,
        iops: Rate | int | str | None = None,
    ) -> None:
        """Limit what all guests on the host's clock together read from and write to their disks on the file system
        that `path` is on, in a second; they divide it by `DiskConfig.shares`. What is not named has no limit.

        Raises UsageError for a path that there is not, and for an impossible rate.
        """
        limits = Rate.of(bytes), Rate.of(iops)
        with self.lock:
            for name in self.backends.set_limit(Path(path), *limits):
                guest = self.guests.get(name)
                if guest is not None:
                    self.between_runs(guest, partial(self.backends.connect, name))

    # ---- for Guest: all under the lock ----

    def set_state(self, guest: Guest, state: GuestState, reason: str) -> None:
        """Enter `state` and tell the listeners."""
        event = Event(time.time(), guest.name, guest.state, state, reason)
        guest.state = state
        guest.reason = reason
        self.events.append(event)
        self.changed.notify_all()
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception as error:  # what leaves the state behind may be a pCPU thread
                self.warn(f"a listener to events failed: {type(error).__name__}: {error}")

    def make_runnable(self, guest: Guest, reason: str) -> None:
        """Enter the running state, and queue for a pCPU. Raises HostError as `start_threads`."""
        self.start_threads()
        self.take_off(guest)  # the memory manager may be at its pages
        guest.suspended = guest.out_of_memory = False
        self.set_state(guest, GuestState.RUNNING, reason)
        self.memory.changed()
        self.queue(guest)

    def start_threads(self) -> None:
        """Before a guest runs. Raises HostError where the system gives no more threads, and when the scheduling policy
        has failed."""
        self.processors.start()
        if self._disk_watch is None:
            thread = threading.Thread(target=self._watch_disks, name="disks", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise HostError(f"the host gives no thread for {thread.name}") from None
            self._disk_watch = thread

    def queue(self, guest: Guest) -> None:
        """It wants to run."""
        self._starving.discard(guest.name)
        self.processors.queue(guest)

    def take_off(self, guest: Guest) -> None:
        """Out of the queues, and off its pCPU if it is on one."""
        self.processors.take_off(guest)
        self._starving.discard(guest.name)

    def _keep(self, guest: Guest) -> None:
        """Have it on no pCPU until it is queued or released."""
        self.processors.hold(guest)
        self._starving.discard(guest.name)

    def between_runs(self, guest: Guest, function: Callable[[], _T]) -> _T:
        """Call `function` while the guest is on no pCPU; afterwards it goes on. Devices take no locks."""
        self._keep(guest)
        try:
            return function()
        finally:
            if guest.state is GuestState.RUNNING:
                self.queue(guest)

    def wake(self, guest: Guest) -> None:
        """Something happened that an idle guest may have been waiting for."""
        if self.processors.is_napping(guest):
            self.queue(guest)

    def forget(self, guest: Guest) -> int:
        """Remove it from the host, but for its cables; returns the frames that became free."""
        free = self.pool.free
        for image in guest.machine.images:
            self.disks.remove(image)
        self.backends.remove(guest.name)
        guest.machine.close()
        if self.guests.pop(guest.name, None) is not None:
            self.processors.remove(guest.name)
        self.set_state(guest, GuestState.GONE, "deleted")
        self.memory.changed()
        return self.pool.free - free

    def warn(self, text: str) -> None:
        """Tell `warnings` what people should see to."""
        for listener in tuple(self.warnings):
            with suppress(Exception):  # the thread that has something to say must not end for who hears it
                listener(text)

    # ---- for the memory manager ----

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Have a guest's memory for oneself, without the host's lock: a pCPU that does not run it. False when that
        is not to be had now: the guest is gone, or its boot image is being loaded."""
        with self.lock:
            guest = self.guests.get(name)
            starving = name in self._starving
            got = guest is not None and self._hold(guest)
        try:
            yield got
        finally:
            if got:
                assert guest is not None
                with self.lock:
                    self._let_go(guest, starving)

    def _hold(self, guest: Guest) -> bool:
        if guest.loading or self._closing:
            return False
        self._keep(guest)
        if guest.loading or guest.state is GuestState.GONE:  # meanwhile
            return False
        guest.on_pcpu = True
        return True

    def _let_go(self, guest: Guest, starving: bool) -> None:
        guest.on_pcpu = False
        self.changed.notify_all()
        if guest.leaving:
            pass  # whoever takes it off decides what becomes of it
        elif guest.state is GuestState.RUNNING and starving:
            self._starving.add(guest.name)
        elif guest.state is GuestState.RUNNING:
            self.processors.release(guest)

    def all_guests(self) -> list[Guest]:
        """Those whose memory is not being loaded."""
        with self.lock:
            return [guest for guest in self.guests.values() if not guest.loading]

    def checkpoint_memories(self) -> list[GuestMemory]:
        """What checkpoints of guests keep."""
        with self.lock:
            return [checkpoint.memory for checkpoint in self.checkpoints]

    def starving(self) -> list[Guest]:
        """Guests that wait for a frame: in the place of their next slice, or while their boot image is loaded."""
        with self.lock:
            return [guest for guest in self.guests.values() if guest.waits or guest.name in self._starving]

    def feed(self, name: str) -> None:
        """There are frames: a guest that starves, or was paused for that, tries again."""
        with self.lock:
            guest = self.guests.get(name)
            if guest is None:
                return
            guest.waits = False
            self.changed.notify_all()
            if guest.name in self._starving:
                self.queue(guest)
            elif guest.state is GuestState.PAUSED and guest.out_of_memory:
                self.make_runnable(guest, "resumed: there is memory again")

    def starve(self, name: str, reason: str) -> None:
        """There are no frames: a guest that starves is paused, or the loading of its boot image fails."""
        with self.lock:
            guest = self.guests.get(name)
            if guest is None:
                return
            if guest.waits:
                guest.waits, guest.refused = False, reason
                self.changed.notify_all()
            elif guest.name in self._starving:
                self.take_off(guest)
                guest.out_of_memory = True
                self.set_state(guest, GuestState.PAUSED, reason)

    def wait_for_room(self, guest: Guest) -> str:
        """The guest's boot image wants a frame: wait until the memory manager has one, which may take it from the same
        guest. Returns why there is none, or nothing."""
        guest.waits, guest.refused, guest.loading = True, "", False
        self.memory.wake()
        self.changed.wait_for(lambda: self._closing or not (guest.waits or guest.on_pcpu))
        guest.waits, guest.loading = False, True
        return "the host closes" if self._closing else guest.refused

    # ---- the pCPU threads ----

    def _put_back(self, guest: Guest, activity: Activity | None, failure: str) -> bool:
        """It has left its pCPU; returns whether it wants to go on."""
        wants = False
        if activity is None:
            self._ended(guest, Outcome(Ending.ENGINE, message=failure))
        elif activity.readiness is Readiness.ENDED:
            assert guest.machine.outcome is not None
            self._ended(guest, guest.machine.outcome)
        elif activity.readiness is Readiness.STARVED:
            if not guest.leaving:  # or else it finds out again
                self._starving.add(guest.name)
                self.memory.wake()
        elif activity.readiness is Readiness.SUSPENDED:
            guest.suspended = True
            self.set_state(guest, GuestState.PAUSED, activity.reason)
        elif guest.leaving:
            pass  # whoever takes it off decides what becomes of it
        elif activity.readiness is Readiness.RUNNABLE or guest.console_waits or guest.machine.has_calls:
            wants = True
        else:
            delay_ns = None
            if activity.wake_ns is not None:
                delay_ns = max(0, activity.wake_ns - guest.machine.clock.now_ns())
            self.processors.nap(guest, delay_ns)
        if self.pool.free < self.memory.wake_below:
            self.memory.wake()
        return wants

    def _scheduler_failed(self, reason: str) -> None:
        """No guest runs any more."""
        for guest in self.guests.values():
            if guest.state is GuestState.RUNNING:
                self.set_state(guest, GuestState.PAUSED, reason)

    def _watch_disks(self) -> None:
        """The thread that looks after the disks' room."""
        while not self._closed.wait(DISK_CHECK_S):
            with self.lock, suppress(OSError):  # a file system that is gone shows where a guest uses it
                self.disks.check()

    def _warn(self, usage: ThinUsage) -> None:
        self.warn(str(usage))

    def _ended(self, guest: Guest, outcome: Outcome) -> None:
        guest.outcome = outcome
        self.memory.changed()  # what it held can be had
        if outcome.ending is Ending.UNTIL:
            self.set_state(guest, GuestState.PAUSED, str(outcome))
        elif outcome.ending in CRASHES:
            self.set_state(guest, GuestState.CRASHED, str(outcome))
        else:
            self.set_state(guest, GuestState.DEFINED, str(outcome))
