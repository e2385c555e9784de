"""One guest: a vCPU, memory and a board, built from a configuration and run slice by slice."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING

from emuvisor.bus.clock import Clock, HostClock, VirtualClock
from emuvisor.cpu.exits import Exit, ExitReason
from emuvisor.cpu.models import DEFAULT_MODEL, cpu_model
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.cpu.vcpu import Vcpu, bind
from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.errors import OutOfFrames, PageLost
from emuvisor.machine.boards.catalog import make_board
from emuvisor.machine.boards.wiring import Drive, Wiring
from emuvisor.machine.boot import boot_image, option_roms, vga_bios
from emuvisor.machine.config import DEFAULT_EPOCH_S, GuestConfig
from emuvisor.machine.console import Console, Watch
from emuvisor.machine.disks import open_disk
from emuvisor.machine.loading import Loading
from emuvisor.machine.outcome import Ending, Outcome
from emuvisor.memory import FramePool, GuestMemory

if TYPE_CHECKING:
    from emuvisor.bus.ethernet import Link
    from emuvisor.machine.virtio import VirtioDevices

__all__ = ["Activity", "Machine", "Readiness"]

IA32_APIC_BASE = 0x1B
"""Model-specific register: where the local APIC is, and whether it is on (Intel SDM vol. 4, table 2-2)."""
FIRST_PACE = 2.0
"""Bytes of code that a guest runs in a nanosecond of host time, until it has been measured."""
PACE_SAMPLE = 100_000
"""Shorter runs say nothing about the pace."""
RETURN_COST = 20_000
"""What coming back to Python takes of a slice, in bytes of code: some 10 us."""


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


class Machine:
    """A guest built from `config`, its memory taken from `pool`; `links` are what its network cards are connected to.

    `boot` puts it into the state after power-on; `run_slice` runs it for a while on a pCPU; `outcome` is set when it
    has ended. One thread at a time. Raises ConfigError and ImageError for what cannot be built.
    """

    def __init__(self, config: GuestConfig, pool: FramePool, links: "Sequence[Link]" = ()) -> None:
        self.config = config
        self.model = cpu_model(config.cpu) if config.cpu else DEFAULT_MODEL
        self.memory = GuestMemory(pool, config.memory_map.blocks)
        self.consoles = [Console() for _ in range(config.serial_ports)]
        self.debug = Console()
        """What firmware printed to the debug console ports."""
        self.outcome: Outcome | None = None
        self._loading: Loading | None = None
        self.resets = 0
        self.on_reset: Callable[[], None] | None = None
        self._request: Outcome | None = None
        self._reset_requested = False
        self._init_requested = False
        self._suspend = ""
        self._calls: deque[Callable[[], None]] = deque()
        self._calling = False
        self._running = False
        """In a slice: what is to be called now is seen before it ends, or by `has_calls` behind it."""
        self.on_call: Callable[[], None] | None = None
        """Somebody wants something called in the guest's thread, which does not run: it has to be woken."""
        self._until: Watch | None = None
        self._pace = FIRST_PACE

        self.clock: Clock = HostClock() if config.clock == "host" else VirtualClock()
        self.clock.on_schedule = self._timer_armed
        with ExitStack() as disks:
            self.drives = [
                Drive(disk.kind, disks.enter_context(closing(open_disk(disk))), config.disk_bus(disk))
                for disk in config.disks
            ]
            self.virtio = self._virtio(links)
            self.board = make_board(config.board, self._wiring())
            self._disks = disks.pop_all()
        if self.board.local_apic is not None:
            self.model = self.model.with_apic()
        self.vcpu = Vcpu(
            bind(self.memory),
            SimpleNamespace(
                port_read=self.board.ports.read,
                port_write=self.board.ports.write,
                mmio_read=self.board.mmio.read,
                mmio_write=self.board.mmio.write,
                cpuid=self.model.cpuid,
                acknowledge=self.board.acknowledge,
                msr_read=self._msr_read,
                msr_write=self._msr_write,
                read_cr8=self._read_cr8,
                write_cr8=self._write_cr8,
            ),
        )
        if isinstance(self.clock, HostClock):
            self.vcpu.host_clock = True
            self.vcpu.tsc_origin = time.monotonic_ns() - self.clock.now_ns()
        elif isinstance(self.clock, VirtualClock):
            self.clock.retired_ns = lambda: (
                self.vcpu.work
            )  # chips may ask for the time while the board is built

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
            disks=[drive.image for drive in self.drives if drive.bus == "virtio"],
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
            on_intr=self._intr,
            on_a20=self._a20,
            on_reset=self._reset_line,
            on_shutdown=lambda: self._end(Outcome(Ending.POWER_OFF)),
            on_exit=lambda code: self._end(Outcome(Ending.DEBUG_EXIT, code)),
            on_debug=self.debug.write,
            on_nmi=self._nmi,
            on_init=self._init,
            on_panic=lambda: self._end(Outcome(Ending.PANIC)),
            on_suspend=self._suspend_line,
            vcpus=config.vcpus,
            vga_bios=vga_bios(config),
            option_roms=option_roms(config),
            firmware_variables=config.firmware_variables,
            virtio=() if self.virtio is None else self.virtio.devices,
            devices=config.devices,
        )

    # ---- what devices ask of the machine ----

    def _intr(self, level: bool) -> None:
        self.vcpu.interrupt = level

    def _a20(self, enabled: bool) -> None:
        self.vcpu.set_a20(enabled)

    def _nmi(self) -> None:
        self.vcpu.raise_nmi()

    def _init(self) -> None:
        self._init_requested = True
        self.vcpu.leave()

    def _end(self, outcome: Outcome) -> None:
        self._request = outcome
        self.vcpu.leave()

    def _reset_line(self) -> None:
        self._reset_requested = True
        self.vcpu.leave()

    def _timer_armed(self, deadline_ns: int) -> None:
        self.vcpu.shorten(max(0, self.vcpu.work + self._work_until(deadline_ns)))

    def _suspend_line(self, reason: str) -> None:
        self._suspend = reason
        self.vcpu.leave()

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
            self.vcpu.stop()

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

    # ---- what the vCPU asks of its local APIC ----

    def _msr_read(self, index: int) -> int | None:
        apic = self.board.local_apic
        return apic.base_msr if apic is not None and index == IA32_APIC_BASE else None

    def _msr_write(self, index: int, value: int) -> bool:
        apic = self.board.local_apic
        return apic is not None and index == IA32_APIC_BASE and apic.write_base_msr(value)

    def _read_cr8(self) -> int:
        apic = self.board.local_apic
        return 0 if apic is None else apic.tpr_cr8

    def _write_cr8(self, value: int) -> None:
        apic = self.board.local_apic
        if apic is not None:
            apic.tpr_cr8 = value

    # ---- power ----

    def boot(self) -> None:
        """Power on: memory empty, the boot image loaded, the vCPU at its first instruction.

        Raises ImageError, and OutOfFrames when the pool is too small for the image; `load` goes on there.
        """
        self.power_on()
        self.load()

    def power_on(self) -> None:
        """Read the boot image; `load`, or else the next slice, puts it into memory. Raises ImageError."""
        self._loading = Loading(boot_image(self.config), self.memory, self.board)
        self.outcome = self._request = None
        self._reset_requested = self._init_requested = False

    def load(self) -> None:
        """Put what is left of the boot image into memory, and the vCPU at its first instruction.

        Raises OutOfFrames where there is no frame for it; called again, it goes on there.
        """
        if self._loading is None:
            return
        self._loading.run()
        self.vcpu.state = self._loading.boot.state
        self._loading = None  # not kept: it is as large as the guest's first memory
        self._watch_until()

    @property
    def needed_frames(self) -> int:
        """Frames that it cannot go on without when it starves."""
        return 1 if self._loading is None else self._loading.needed

    def _watch_until(self) -> None:
        if self.config.until is None or not self.consoles:
            return
        if self._until is not None:
            self.console.unwatch(self._until)
        self._until = self.console.watch(self.config.until, lambda: self._end(Outcome(Ending.UNTIL)))

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

    def run_slice(self, pcpu: Pcpu, slice_work: int) -> Activity:
        """Run for about `slice_work` bytes of guest code and say what the guest can do next."""
        self._running = True
        try:
            return self._run_slice(pcpu, slice_work)
        finally:
            self._running = False

    def _run_slice(self, pcpu: Pcpu, slice_work: int) -> Activity:
        left = slice_work
        resets = self.resets
        while left > 0 and self.outcome is None and self.resets == resets:
            try:
                self.load()
                self._pump_input()
                self._call()
                self.clock.fire_due()
                before, started = self.vcpu.work, time.perf_counter_ns()
                result = pcpu.run(self.vcpu, self._budget(left))
                activity = self._after(result)
            except OutOfFrames:  # for the boot image, or a device that writes to memory
                return _STARVED
            except PageLost as error:
                return self._finish(Outcome(Ending.PAGE_LOST, message=str(error)))
            if activity.readiness is not Readiness.RUNNABLE or result.reason is ExitReason.STOP:
                return activity
            done = self.vcpu.work - before
            if done > PACE_SAMPLE:
                self._pace = (self._pace + done / (time.perf_counter_ns() - started)) / 2
            left -= done + RETURN_COST
        return _ENDED if self.outcome is not None else _RUNNABLE

    def _budget(self, left: int) -> int:
        """Bytes of code to run: until the next timer, but at most `left`."""
        deadline = self.clock.next_deadline_ns()
        if deadline is None:
            return left
        return max(1, min(left, self._work_until(deadline)))

    def _work_until(self, deadline_ns: int) -> int:
        """How many bytes of code the guest runs until its clock shows `deadline_ns`."""
        ns = deadline_ns - self.clock.now_ns()
        return ns if isinstance(self.clock, VirtualClock) else int(ns * self._pace)

    def _pump_input(self) -> None:
        for console, uart in zip(self.consoles, self.board.uarts, strict=True):
            if console.has_input:
                console.pump(uart.receive)

    def _after(self, result: Exit) -> Activity:
        if self._request is not None:
            return self._finish(self._request)
        if self._reset_requested:
            self._reset_requested = False
            self.reset()
            return _RUNNABLE
        if self._init_requested:
            self._init_requested = False
            self.vcpu.init()
            return _RUNNABLE
        if self._suspend:
            reason, self._suspend = self._suspend, ""
            return Activity(Readiness.SUSPENDED, reason=reason)
        if result.reason is ExitReason.HALT:
            return self._halted()
        if result.reason is ExitReason.MEMORY:
            return _STARVED
        if result.reason is ExitReason.SHUTDOWN:
            return self._finish(Outcome(Ending.SHUTDOWN, message=f"at RIP {self.vcpu.state.rip:#x}"))
        if result.reason is ExitReason.ERROR:
            return self._finish(Outcome(Ending.ENGINE, message=result.message))
        return _RUNNABLE

    def _finish(self, outcome: Outcome) -> Activity:
        self.outcome = outcome
        self._request = None
        return _ENDED

    def _halted(self) -> Activity:
        if not self.vcpu.interrupts_enabled and not self.vcpu.nmi:
            return self._finish(Outcome(Ending.HALTED, message="HLT with interrupts disabled"))
        deadline = self.clock.next_deadline_ns()
        if isinstance(self.clock, HostClock):
            return _RUNNABLE if self._calls else Activity(Readiness.IDLE, deadline)
        if self._calls or (self.consoles and self.console.has_input and self.board.uarts[0].room):
            return _RUNNABLE
        if deadline is None:
            return Activity(Readiness.IDLE)
        assert isinstance(self.clock, VirtualClock)
        self.clock.skip(deadline - self.clock.now_ns())
        self.vcpu.idle_ns = self.clock.skipped_ns
        return _RUNNABLE

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
