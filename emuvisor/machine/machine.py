"""One guest: vCPUs, memory and a board, built from a configuration and run slice by slice."""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from importlib import import_module
from itertools import zip_longest
from typing import TYPE_CHECKING

from emuvisor.bus.clock import Clock, HostClock, VirtualClock
from emuvisor.cpu.exits import Exit, ExitReason
from emuvisor.cpu.models import DEFAULT_MODEL, cpu_model
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.cpu.state import CpuState
from emuvisor.cpu.vcpu import Vcpu, bind
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.meter import DiskMeter
from emuvisor.devices.vm_generation import ID_LENGTH
from emuvisor.errors import OutOfFrames, PageLost
from emuvisor.machine.boards.catalog import make_board
from emuvisor.machine.boards.wiring import Drive, ProcessorPins, Wiring
from emuvisor.machine.boot import boot_image, option_roms, vga_bios
from emuvisor.machine.config import DEFAULT_EPOCH_S, GuestConfig
from emuvisor.machine.console import Console, Watch
from emuvisor.machine.disks import open_disk
from emuvisor.machine.loading import Loading
from emuvisor.machine.outcome import Ending, Outcome
from emuvisor.machine.processor import Processor
from emuvisor.machine.steal_time import BusyClock, StealTime
from emuvisor.machine.vcpus import DEFAULT_TURN, Vcpus
from emuvisor.memory import FramePool, GuestMemory

if TYPE_CHECKING:
    from emuvisor.bus.ethernet import Link
    from emuvisor.devices.storage.layered import Frozen
    from emuvisor.machine.virtio import VirtioDevices

__all__ = ["Activity", "Machine", "Readiness", "present_machine"]

FIRST_PACE = 2.0
"""Bytes of code that a guest runs in a nanosecond of host time, until it has been measured."""
PACE_SAMPLE = 100_000
"""Shorter runs say nothing about the pace."""
RETURN_COST = 20_000
"""What coming back to Python takes of a slice, in bytes of code: some 10 us."""
SWITCH_COST = 100_000
"""What a change of vCPUs takes of a slice besides: the engine's TLB is empty behind it."""


class Readiness(Enum):
    """What a guest can do next."""

    RUNNABLE = "runnable"
    IDLE = "idle"
    """Halted; `Activity.wake_ns` says when a timer wakes it (host clock), None: only input can."""
    STARVED = "starved"
    """It wants a frame, and the pool has none or it may have no more."""
    SUSPENDED = "suspended"
    """A device cannot go on; `Activity.reason` says why."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Activity:
    """What came of a slice. `wake_ns` is on the guest's clock."""

    readiness: Readiness
    wake_ns: int | None = None
    reason: str = ""


_RUNNABLE = Activity(Readiness.RUNNABLE)
_ENDED = Activity(Readiness.ENDED)
_STARVED = Activity(Readiness.STARVED)

_SLICES = threading.local()
"""`machine`: whose slice this thread runs."""


def present_machine() -> "Machine | None":
    """The machine whose slice the calling thread runs: what a store of pages is asked for, it is asked by that one."""
    return getattr(_SLICES, "machine", None)


class Machine:
    """A guest built from `config`, its memory taken from `pool`; `links` are what its network cards are connected to.
    `turn` is the most that one of several vCPUs runs before the next, in bytes of code. `frozen`, by drive, are
    another guest's disks: this one writes to temporary layers above them, in place of what its configuration names.

    `boot` puts it into the state after power-on; `run_slice` runs it for a while on a pCPU; `outcome` is set when it
    has ended. One thread at a time. Raises ConfigError and ImageError for what cannot be built.
    """

    def __init__(
        self,
        config: GuestConfig,
        pool: FramePool,
        links: "Sequence[Link]" = (),
        *,
        turn: int = DEFAULT_TURN,
        frozen: "Sequence[Frozen | None]" = (),
    ) -> None:
        self.config = config
        self.model = cpu_model(config.cpu) if config.cpu else DEFAULT_MODEL
        self.memory = GuestMemory(pool, config.memory_map.blocks)
        self.consoles = [Console() for _ in range(config.serial_ports)]
        self.debug = Console()
        """What firmware printed to the debug console ports."""
        self.outcome: Outcome | None = None
        self._loading: Loading | None = None
        self.resets = 0
        self.own_resets = 0
        """Those of them that the guest asked for itself, since the machine was made."""
        self.on_reset: Callable[[], None] | None = None
        self._request: Outcome | None = None
        self._reset_requested = False
        self._signals: deque[tuple[int, int | None]] = deque()
        """INIT (None) and start-up IPIs (their vectors), by the number of the processor that they are for."""
        self._stop = False
        """The slice is to end now. Set by any thread."""
        self._suspend = ""
        self._calls: deque[Callable[[], None]] = deque()
        self._calling = False
        self._running = False
        """In a slice: what is to be called now is seen before it ends, or by `has_calls` behind it."""
        self.on_stop: Callable[[], None] | None = None
        """Its thread waits in the middle of a slice, and hears by this that it is to end. Called from any thread."""
        self.on_call: Callable[[], None] | None = None
        """Somebody wants something called in the guest's thread, which does not run: it has to be woken."""
        self._until: Watch | None = None
        self._pace = FIRST_PACE
        self.overhead = 0
        """What returns to Python and changes of vCPUs took so far, in bytes of code."""
        self.skips_idle_time = True
        """On the virtual clock: halted, it goes on at once with its next timer. Else it says that it is idle, and
        whoever runs it lets the time pass, with `idle`."""
        self._busy = BusyClock()
        self._steal_times: list[StealTime] = []
        """Of each vCPU."""
        self._stolen_ns = 0
        """How long it has waited for a pCPU, as far as its vCPUs know."""

        self.clock: Clock = HostClock() if config.clock == "host" else VirtualClock()
        self.clock.on_schedule = self._timer_armed
        with ExitStack() as disks:
            self.drives = [
                Drive(
                    disk.kind,
                    disks.enter_context(closing(open_disk(disk) if below is None else below.open())),
                    config.disk_bus(disk),
                    DiskMeter(disk.limits),
                )
                for disk, below in zip_longest(config.disks, frozen)
            ]
            self.virtio = self._virtio(links)
            self.board = make_board(config.board, self._wiring())
            self._disks = disks.pop_all()
        if self.board.local_apics is not None:
            self.model = self.model.with_apic()
        self.processors = [
            Processor(self.board, self.model, number, config.vcpus) for number in range(config.vcpus)
        ]
        self.vcpus = self._make_vcpus(turn)
        self.vcpu = self.vcpus[0]
        """The bootstrap processor."""

    def _make_vcpus(self, turn: int) -> Vcpus:
        memory = bind(self.memory)
        made = [Vcpu(memory, processor) for processor in self.processors]
        self._steal_times = [StealTime(vcpu, self.memory) for vcpu in made]
        vcpus = Vcpus(
            made,
            waits_for_sipi=lambda number: self.processors[number].waits_for_sipi,
            on_switch=self._switched,
            now=self._busy.now_ns if isinstance(self.clock, HostClock) else None,
            turn=turn,
        )
        if isinstance(self.clock, HostClock):
            origin = time.monotonic_ns() - self.clock.now_ns()
            for vcpu in vcpus:
                vcpu.host_clock = True
                vcpu.tsc_origin = origin
        elif isinstance(self.clock, VirtualClock):
            # Not before: chips may ask for the time while the board is built.
            self.clock.retired_ns = lambda: vcpus.work
        return vcpus

    def _switched(self, number: int, waited_ns: int) -> None:
        self._steal_times[number].pending_ns += waited_ns
        if self.board.local_apics is not None:
            self.board.local_apics.select(number)

    @property
    def console(self) -> Console:
        """The first serial port."""
        return self.consoles[0]

    @property
    def images(self) -> list[BlockDevice]:
        """The images in its drives."""
        return [drive.image for drive in self.drives if drive.image is not None]

    def _virtio(self, links: "Sequence[Link]") -> "VirtioDevices | None":
        """The guest's virtio devices. Their modules are a third of all, and most guests need none: loaded when used."""
        if not self.config.has_virtio:
            return None
        made: VirtioDevices = import_module("emuvisor.machine.virtio").make_virtio(
            self.config,
            drives=[drive for drive in self.drives if drive.bus == "virtio"],
            links=links,
            memory=self.memory,
            clock=self.clock,
            call_soon=self.call_soon,
        )
        return made

    def _wiring(self) -> Wiring:
        config = self.config
        epoch = config.epoch_s
        if epoch is None:
            epoch = int(time.time()) if config.clock == "host" else DEFAULT_EPOCH_S
        return Wiring(
            clock=self.clock,
            memory=self.memory,
            memory_map=config.memory_map,
            epoch=datetime.fromtimestamp(epoch, UTC),
            serial=[console.write for console in self.consoles],
            drives=self.drives,
            processors=[
                ProcessorPins(
                    on_intr=partial(self._intr, number),
                    on_nmi=partial(self._nmi, number),
                    on_init=partial(self._signal, number, None),
                    on_sipi=partial(self._signal, number),
                )
                for number in range(config.vcpus)
            ],
            on_a20=self._a20,
            on_reset=self._reset_line,
            on_shutdown=lambda: self._end(Outcome(Ending.POWER_OFF)),
            on_exit=lambda code: self._end(Outcome(Ending.DEBUG_EXIT, code)),
            on_debug=self.debug.write,
            on_panic=lambda: self._end(Outcome(Ending.PANIC)),
            on_suspend=self.suspend,
            generation_id=self._next_generation(bytes(ID_LENGTH)),
            vga_bios=vga_bios(config),
            option_roms=option_roms(config),
            firmware_variables=config.firmware_variables,
            virtio=() if self.virtio is None else self.virtio.devices,
            devices=config.devices,
        )

    def _next_generation(self, identifier: bytes) -> bytes:
        """The generation ID after `identifier`: another each time, but on a virtual clock the same in each run."""
        if isinstance(self.clock, HostClock):
            return os.urandom(ID_LENGTH)
        named = f"{self.config.known_as}/{self.config.seed}".encode()
        return hashlib.sha256(identifier + named).digest()[:ID_LENGTH]

    def begin_generation(self) -> None:
        """It goes on from a state that others may have gone on from, too: tell its kernel, and its drivers what its
        network cards are called now. Between two slices."""
        generation = self.board.generation_id
        if generation is not None:
            generation.change(self._next_generation(generation.identifier))
        for nic in () if self.virtio is None else self.virtio.nics:
            nic.tell_address()

    # ---- what devices ask of the machine ----

    def _intr(self, number: int, level: bool) -> None:
        self.vcpus.interrupt(number, level)

    def _a20(self, enabled: bool) -> None:
        for vcpu in self.vcpus:
            vcpu.set_a20(enabled)

    def _nmi(self, number: int) -> None:
        if not self.processors[number].waits_for_sipi:
            self.vcpus.nmi(number)

    def _signal(self, number: int, vector: int | None) -> None:
        """INIT, or a start-up IPI: they change a processor's state, which a vCPU that runs cannot have done to it."""
        self._signals.append((number, vector))
        self.vcpus.running.leave()

    def _end(self, outcome: Outcome) -> None:
        self._request = outcome
        self.vcpus.running.leave()

    def _reset_line(self) -> None:
        self._reset_requested = True
        self.vcpus.running.leave()

    def _timer_armed(self, deadline_ns: int) -> None:
        vcpu = self.vcpus.running
        vcpu.shorten(max(0, vcpu.work + self._work_until(deadline_ns)))

    def suspend(self, reason: str) -> None:
        """It cannot go on, for `reason`: the present slice ends. In the guest's thread."""
        self._suspend = reason
        self.vcpus.running.leave()

    def stop(self) -> None:
        """End the present slice at the next block. Any thread."""
        self._stop = True
        self.vcpus.running.stop()
        wake = self.on_stop
        if wake is not None:
            wake()

    @property
    def is_stopping(self) -> bool:
        """Whether the present slice is to end."""
        return self._stop

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call `function` in the guest's thread before it next runs. Any thread: it is how the host's other threads
        reach devices, which take no locks."""
        first = not self._calls
        self._calls.append(function)
        if not first:
            return
        if not self._running:
            if self.on_call is not None:
                self.on_call()
        elif not self._calling:
            self.stop()

    @property
    def has_calls(self) -> bool:
        """Whether something waits to be called."""
        return bool(self._calls)

    def _call(self) -> None:
        self._calling = True  # what these ask for comes next time, when the guest has run
        try:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        finally:
            self._calling = False

    # ---- power ----

    def boot(self) -> None:
        """Power on: memory empty, the boot image loaded, the first vCPU at its first instruction.

        Raises ImageError, and OutOfFrames when the pool is too small for the image; `load` goes on there.
        """
        self.power_on()
        self.load()

    def power_on(self) -> None:
        """Read the boot image; `load`, or else the next slice, puts it into memory. Raises ImageError."""
        self._loading = Loading(boot_image(self.config), self.memory, self.board)
        self.outcome = self._request = None
        self._reset_requested = False
        self._signals.clear()

    def load(self) -> None:
        """Put what is left of the boot image into memory, and the first vCPU at its first instruction; the others wait
        for it to start them.

        Raises OutOfFrames where there is no frame for it; called again, it goes on there.
        """
        if self._loading is None:
            return
        self._loading.run()
        for vcpu in self.vcpus:
            vcpu.state = CpuState()
        self.vcpu.state = self._loading.boot.state
        self.vcpus.reset()
        self._loading = None  # not kept: it is as large as the guest's first memory
        self._watch_until()

    @property
    def needed_frames(self) -> int:
        """Frames that it cannot go on without when it starves."""
        return 1 if self._loading is None else self._loading.needed

    def _watch_until(self, start: int | None = None) -> None:
        """Wait for the text that ends the run, which may have begun behind output byte `start`."""
        if self.config.until is None or not self.consoles:
            return
        self._unwatch_until()
        self._until = self.console.watch(self.config.until, lambda: self._end(Outcome(Ending.UNTIL)), start)

    def _unwatch_until(self) -> None:
        if self._until is not None:
            self.console.unwatch(self._until)
            self._until = None

    def reset(self) -> None:
        """Press the reset button: boot again. What finds no frame is loaded by the next slice. Raises ImageError."""
        self.resets += 1
        self.power_on()
        with suppress(OutOfFrames):
            self.load()
        if self.on_reset is not None:
            self.on_reset()

    def switch_off(self) -> None:
        """Pull the plug: memory is empty, and whoever talks to the guest through a device hears that it is gone."""
        self.memory.reset()
        self._hang_up()

    def _hang_up(self) -> None:
        for device in () if self.virtio is None else self.virtio.devices:
            device.reset()

    def close(self) -> None:
        """Give memory and files back."""
        self._hang_up()
        self.memory.close()
        self._disks.close()

    # ---- running ----

    def run_slice(self, pcpu: Pcpu, slice_work: int, stolen_ns: int = 0) -> Activity:
        """Run for about `slice_work` bytes of guest code and say what the guest can do next. `stolen_ns` is the host
        time for which it has waited for a pCPU so far."""
        self._running = True
        _SLICES.machine = self
        self._busy.start()
        try:
            return self._run_slice(pcpu, slice_work, stolen_ns)
        finally:
            self._busy.stop()
            _SLICES.machine = None
            self._running = self._stop = False

    def _run_slice(self, pcpu: Pcpu, slice_work: int, stolen_ns: int) -> Activity:
        end = self.spent + slice_work
        resets = self.resets
        vcpus = self.vcpus
        while self.spent < end and self.outcome is None and self.resets == resets:
            try:
                self.load()
                self._pump_input()
                self._call()
                self.clock.fire_due()
                self._pass_signals_on()
                switches = vcpus.switches
                vcpu = vcpus.choose()
                self.overhead += SWITCH_COST * (vcpus.switches - switches)
                if stolen_ns > self._stolen_ns:
                    self._has_waited(stolen_ns - self._stolen_ns)
                if self._steal_times[vcpus.number].pending_ns:
                    self._steal_times[vcpus.number].tell()
                if self._stop:
                    vcpu.stop()  # perhaps it was another one's turn when that was asked
                before, started = vcpu.work, time.perf_counter_ns()
                result = pcpu.run(vcpu, self._budget(end - self.spent))
                done = vcpu.work - before
                if self._is_own(result.reason):
                    self.overhead += RETURN_COST
                activity = self._after(result)
            except OutOfFrames:  # for the boot image, or a device that writes to memory
                return self._without_frame()
            except PageLost as error:
                return self._finish(Outcome(Ending.PAGE_LOST, message=str(error)))
            if activity.readiness is not Readiness.RUNNABLE or result.reason is ExitReason.STOP:
                return activity
            if done > PACE_SAMPLE:
                self._pace = (self._pace + done / (time.perf_counter_ns() - started)) / 2
        return _ENDED if self.outcome is not None else _RUNNABLE

    @property
    def spent(self) -> int:
        """What all its slices have taken so far, in bytes of code. On the virtual clock it is the same at the same
        instruction of the guest, wherever its slices end and its memory is."""
        return self.vcpus.work + self.overhead

    def _is_own(self, reason: ExitReason) -> bool:
        """Whether a run ended because of what the guest does, not because the host or somebody else wants it."""
        if reason is ExitReason.BUDGET:
            deadline = self.clock.next_deadline_ns()
            return self.vcpus.turn_is_over or (deadline is not None and deadline <= self.clock.now_ns())
        return reason not in (ExitReason.STOP, ExitReason.MEMORY)

    def _has_waited(self, ns: int) -> None:
        """The guest has waited for a pCPU for `ns` of host time, and the vCPU that runs now for all of it."""
        self._stolen_ns += ns
        if isinstance(self.clock, VirtualClock):
            return  # or the guest would not repeat exactly
        self._busy.wait(ns)  # the others' turns come later
        if self.vcpus.can_run(self.vcpus.number):
            self._steal_times[self.vcpus.number].pending_ns += ns

    def _budget(self, left: int) -> int:
        """Bytes of code to run: until the next timer or the end of the vCPU's turn, but at most `left`."""
        left = self.vcpus.budget(left)
        deadline = self.clock.next_deadline_ns()
        if deadline is None:
            return left
        return max(1, min(left, self._work_until(deadline)))

    def _pass_signals_on(self) -> None:
        """INIT and start-up IPIs, in the order in which they were sent."""
        while self._signals:
            number, vector = self._signals.popleft()
            if vector is None:
                self.vcpus[number].init()
            else:
                self.vcpus[number].sipi(vector)
                self.vcpus.woken(number)

    def _work_until(self, deadline_ns: int) -> int:
        """How many bytes of code the guest runs until its clock shows `deadline_ns`."""
        ns = deadline_ns - self.clock.now_ns()
        return ns if isinstance(self.clock, VirtualClock) else int(ns * self._pace)

    def _pump_input(self) -> None:
        for console, uart in zip(self.consoles, self.board.uarts, strict=True):
            if console.has_input:
                console.pump(uart.receive)

    def _after(self, result: Exit) -> Activity:
        self.vcpus.ran(result.reason)
        if self._request is not None:
            return self._finish(self._request)
        if self._reset_requested:
            self._reset_requested = False
            self.reset()
            self.own_resets += 1
            return _RUNNABLE
        if self._signals:
            return _RUNNABLE
        if self._suspend:
            return self._suspended()
        if result.reason is ExitReason.HALT:
            return self._halted() if self.vcpus.all_halted else _RUNNABLE
        if result.reason is ExitReason.MEMORY:
            return self._without_frame()
        if result.reason is ExitReason.SHUTDOWN:
            return self._finish(Outcome(Ending.SHUTDOWN, message=f"at RIP {self.vcpus.running.state.rip:#x}"))
        if result.reason is ExitReason.ERROR:
            return self._finish(Outcome(Ending.ENGINE, message=result.message))
        return _RUNNABLE

    def _without_frame(self) -> Activity:
        """A page could not be brought. If the slice was to end, that may be why: the next one shows."""
        if self._suspend:
            return self._suspended()
        return _RUNNABLE if self._stop else _STARVED

    def _suspended(self) -> Activity:
        reason, self._suspend = self._suspend, ""
        return Activity(Readiness.SUSPENDED, reason=reason)

    def _finish(self, outcome: Outcome) -> Activity:
        self.outcome = outcome
        self._request = None
        return _ENDED

    def _halted(self) -> Activity:
        if not any(self._can_be_woken(number) for number in range(len(self.vcpus))):
            return self._finish(Outcome(Ending.HALTED, message="HLT with interrupts disabled"))
        deadline = self.clock.next_deadline_ns()
        if isinstance(self.clock, HostClock):
            return _RUNNABLE if self._calls else Activity(Readiness.IDLE, deadline)
        if self._calls or (self.consoles and self.console.has_input and self.board.uarts[0].room):
            return _RUNNABLE
        if deadline is None:
            return Activity(Readiness.IDLE)
        if not self.skips_idle_time:
            return Activity(Readiness.IDLE, deadline)
        self.idle(max(0, deadline - self.clock.now_ns()))
        return _RUNNABLE

    def idle(self, ns: int) -> None:
        """On the virtual clock: `ns` pass while it is halted. Not while it runs."""
        assert isinstance(self.clock, VirtualClock)
        self.clock.skip(ns)
        self.vcpus.idle(ns)

    def _can_be_woken(self, number: int) -> bool:
        """Whether an interrupt ends the HLT of processor `number`."""
        vcpu = self.vcpus[number]
        return not self.processors[number].waits_for_sipi and (vcpu.interrupts_enabled or vcpu.nmi)

    def run(self, pcpu: Pcpu, slice_work: int = 2_000_000, seconds: float | None = None) -> Outcome | None:
        """Run in this thread until the guest ends; None when it waits for input that nobody gives, starves, or
        `seconds` of host time are over."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            activity = self.run_slice(pcpu, slice_work)
            if activity.readiness is Readiness.ENDED:
                return self.outcome
            if activity.readiness in (Readiness.STARVED, Readiness.SUSPENDED):
                return None
            if activity.readiness is Readiness.IDLE:
                if activity.wake_ns is None:
                    return None
                time.sleep(max(0, activity.wake_ns - self.clock.now_ns()) / 1e9)
        return None
