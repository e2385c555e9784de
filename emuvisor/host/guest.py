"""A guest as people handle it: a machine with a name, a state and a life."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from emuvisor.devices.fair_share import MAX_SHARES
from emuvisor.devices.limits import Rate, Throttle
from emuvisor.errors import HostError, OutOfFrames, UsageError
from emuvisor.host.checkpoint import Checkpoint
from emuvisor.host.claims import contract_of
from emuvisor.host.disk_moving import DiskMove, MovedDisk
from emuvisor.host.memory.contract import MemoryContract
from emuvisor.host.memory.statistics import GuestMemoryStatistics
from emuvisor.host.scheduler.claim import WHOLE, CpuClaim
from emuvisor.host.scheduler.entity import Entity
from emuvisor.host.states import GuestState, require
from emuvisor.host.statistics import GuestStatistics
from emuvisor.machine.choices import DiskFormat, InputKind
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.console import Console
from emuvisor.machine.machine import Machine
from emuvisor.machine.outcome import Outcome
from emuvisor.memory import GuestMemory
from emuvisor.net.forward import Forward
from emuvisor.net.port import Port
from emuvisor.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from emuvisor.devices.display.screen import Screen
    from emuvisor.devices.display.vga import Vga
    from emuvisor.devices.mouse import Mouse
    from emuvisor.devices.storage.layered import Frozen
    from emuvisor.devices.virtio.balloon import Balloon
    from emuvisor.devices.virtio.input import Input
    from emuvisor.devices.virtio.mem import Mem
    from emuvisor.devices.virtio.net import Net
    from emuvisor.devices.virtio.vsock import Vsock, VsockHost
    from emuvisor.host.host import Host
    from emuvisor.machine.boards.wiring import Drive

__all__ = ["Guest"]

_T = TypeVar("_T")

WHEEL_UP, WHEEL_DOWN = 1 << 3, 1 << 4
"""Buttons 4 and 5 of a pointer, as X11 and VNC number them."""
PRESENT = tuple(state for state in GuestState if state is not GuestState.GONE)
_HERE = (GuestState.DEFINED, GuestState.RUNNING, GuestState.PAUSED, GuestState.CRASHED)
"""Its memory and disks are this process's."""


class Guest:
    """Made by `Host.create`. Its methods may be called from any thread but the guest's own callbacks.

    An operation in the wrong state raises StateError naming guest, state and what is needed.
    """

    def __init__(
        self,
        host: "Host",
        config: GuestConfig,
        entity: Entity,
        ports: Sequence[Port] = (),
        frozen: "Sequence[Frozen | None]" = (),
    ) -> None:
        self.host = host
        self.config = config
        self.name = config.name
        self.nics = ports
        """Its network cards' connections, in the order of the configuration."""
        links = host.processors.links(config.name, ports)
        self.machine = Machine(config, host.pool, links, frozen=frozen)
        self.machine.on_call = self._wake
        self.state = GuestState.DEFINED
        self.reason = ""
        """Why it is in this state."""
        self.outcome: Outcome | None = None
        """How the last run ended."""
        self.on_pcpu = False
        self.leaving = 0
        """How many wait to take it off its pCPU: it is not queued again."""
        self.suspended = False
        """A device paused it, for `reason`; it can go on when that is gone."""
        self.out_of_memory = False
        """The memory manager paused it, and resumes it when there is room."""
        self.loading = False
        """A thread without the host's lock loads its boot image: its memory is that thread's."""
        self.starting = False
        """It is not running yet, but it is no longer switched off."""
        self.waits = False
        """The thread that loads its boot image waits for a frame."""
        self.refused = ""
        """Why it got none."""
        self._promised = contract_of(config)
        """What it was promised of the host's memory, with the size that was last asked for."""
        self._operating = threading.RLock()
        """One operation at a time, also of those on its screen and keys; taken before the host's lock."""
        self.cpu_ns = 0
        self.slices = 0
        self.entity = entity
        """What the scheduler knows of it."""

    # ---- life ----

    def start(self) -> None:
        """Power on. Raises ImageError for what it should boot, OutOfFrames when the pool has no room for it, HostError
        when the host gives no thread or memory for the work."""
        with self._operating:
            with self.host.lock:
                require(self.name, self.state, (GuestState.DEFINED, GuestState.CRASHED), "start")
                self.host.start_threads()
                self.host.take_off(self)
                self.host.memory.starting(self)
                self.starting = self.loading = True
            try:
                self.machine.power_on()  # without the host's lock: reading an image must not stop the others
                self._load()
            except BaseException as error:
                self.machine.switch_off()
                self.starting = self.loading = False
                if isinstance(error, MemoryError):
                    text = f"guest {self.name!r}: the host has no memory to read its boot image"
                    raise HostError(text) from None
                raise
            with self.host.lock:
                self.starting = self.loading = False
                self.outcome = None
                self.host.make_runnable(self, "started")

    def _load(self) -> None:
        """Put the boot image into memory, waiting where it takes the memory manager to find frames."""
        while True:
            try:
                return self.machine.load()
            except OutOfFrames as error:
                with self.host.lock:
                    reason = self.host.wait_for_room(self)
                if reason:
                    raise OutOfFrames(f"guest {self.name!r}: {reason}") from error

    def enter(self, load: Callable[[], None], *, running: bool, reason: str) -> None:
        """Begin in the middle of a life, in place of `start`: `load` gives a guest that is switched off its memory and
        the state of its machine. Then it is `running`, or paused, for `reason`. What `load` raises leaves it off."""
        with self._operating:
            with self.host.lock:
                require(self.name, self.state, (GuestState.DEFINED,), "enter")
                self.host.start_threads()
                self.host.memory.starting(self)
                self.starting = self.loading = True
            try:
                load()
            except BaseException:
                self.machine.switch_off()
                raise
            finally:
                self.starting = self.loading = False
            with self.host.lock:
                if running:
                    self.host.make_runnable(self, reason)
                else:
                    self.host.set_state(self, GuestState.PAUSED, reason)
                    self.host.memory.changed()

    def pause(self) -> None:
        """Stop it where it is."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.RUNNING,), "pause")
            self.host.take_off(self)
            if self.state is GuestState.RUNNING:  # it may have ended meanwhile
                self.host.set_state(self, GuestState.PAUSED, "paused")

    def resume(self) -> None:
        """Let a paused guest go on."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.PAUSED,), "resume")
            self.machine.outcome = self.outcome = None
            self.host.make_runnable(self, "resumed")

    def stop(self) -> None:
        """Switch it off at once, as by pulling the plug."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "stop")
            self.host.take_off(self)
            if self.state in (GuestState.RUNNING, GuestState.PAUSED):
                self.machine.switch_off()
                self.host.set_state(self, GuestState.DEFINED, "stopped")
                self.host.memory.changed()

    def reset(self) -> None:
        """Press the reset button."""
        with self._operating:
            with self.host.lock:
                require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "reset")
                running = self.state is GuestState.RUNNING
                self.host.take_off(self)
                self.loading = True
            try:
                self.machine.reset()
            finally:
                self.loading = False
            with self.host.lock:
                self.outcome = None
                if running:
                    self.host.make_runnable(self, "reset")

    def checkpoint(self) -> Checkpoint:
        """Keep what it is now, to go back to with `reset_to` and to make clones of. It stands for a moment
        (`Checkpoint.stop_ns`) and goes on.

        Raises StateError unless it runs or is paused, SnapshotError for a device of the user's that cannot be saved.
        """
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "checkpoint")
            return self.host.between_runs(self, self._take_checkpoint)

    def _take_checkpoint(self) -> Checkpoint:
        began = time.perf_counter_ns()
        checkpoint = Checkpoint.take(self.name, self.machine)
        checkpoint.stop_ns = time.perf_counter_ns() - began
        self.host.checkpoints.add(checkpoint)
        checkpoint.on_close, checkpoint.lock = self.host.checkpoints.discard, self.host.lock
        return checkpoint

    def reset_to(self, checkpoint: Checkpoint) -> int:
        """Go back to `checkpoint`, of this guest or of one that is built alike, in place: engines keep the code that
        they have translated. One that people paused stays paused; any other runs then, also when it had crashed or was
        switched off. Returns how many pages of its memory were other ones.

        Text that was typed since is forgotten, and connections to it are closed. Raises StateError for a guest that is
        gone, SnapshotError for a checkpoint that is closed, of a guest that is built otherwise, or with another's
        disks, and then nothing has changed. When the host's disk or a device of the user's fails on the way, the
        guest has crashed.
        """
        with self._operating, self.host.lock:
            require(self.name, self.state, _HERE, "reset_to")
            checkpoint.check(self.name, self.config)
            checkpoint.check_disks(self.name, self.machine)
            stays = self.state is GuestState.PAUSED and self.outcome is None
            runs = self.state is GuestState.RUNNING
            self.host.take_off(self)
            if not stays and not runs:
                self.host.memory.starting(self)
            try:
                changed = checkpoint.put_into(self.name, self.machine)
            except BaseException as error:
                self._cannot_go_on(f"it could not go back to a checkpoint: {error}")
                raise
            self.outcome = None
            if runs and self.state is GuestState.RUNNING:
                self.host.queue(self)
            elif not stays:
                self.host.make_runnable(self, "back at a checkpoint")
            return changed

    def clone(self, name: str, *, same_identity: bool = False, running: bool = True) -> "Guest":
        """A guest called `name` that goes on from what this one is now; see `Host.clone`. For more than one, take a
        `checkpoint` and use that. Raises StateError unless it runs or is paused."""
        with self.checkpoint() as checkpoint:
            return self.host.clone(checkpoint, name, same_identity=same_identity, running=running)

    def _cannot_go_on(self, reason: str) -> None:
        """It is neither what it was nor what it was to be."""
        self.machine.switch_off()
        self.host.set_state(self, GuestState.CRASHED, reason)
        self.host.memory.changed()

    def depart(self, reason: str) -> bool:
        """Stand still for a migration: from here on nobody but who migrates it lets it go on, with `go_on`. Returns
        whether it ran. Raises StateError unless it runs or is paused."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "migrate")
            self.host.take_off(self)
            require(self.name, self.state, (GuestState.RUNNING, GuestState.PAUSED), "migrate")
            running = self.state is GuestState.RUNNING
            self.host.set_state(self, GuestState.MIGRATING, reason)
            return running

    def arrive(self, load: Callable[[], None], reason: str) -> None:
        """Come from another host, in place of `start`: `load` gives it memory and the state of its machine. It stands
        still until `go_on`. What `load` raises leaves it off."""
        with self._operating:
            self.enter(load, running=False, reason=reason)
            with self.host.lock:
                self.host.set_state(self, GuestState.MIGRATING, reason)

    def go_on(self, running: bool, reason: str) -> None:
        """Here is where it is from now on, `running` or paused. Raises StateError unless it migrates, HostError when
        the host gives no thread."""
        with self._operating, self.host.lock:
            require(self.name, self.state, (GuestState.MIGRATING,), "go_on")
            if running:
                self.host.make_runnable(self, reason)
            else:
                self.host.set_state(self, GuestState.PAUSED, reason)

    def delete(self) -> int:
        """Remove it and give its memory back; returns how many frames became free."""
        with self._operating:
            with self.host.lock:
                if self.state is GuestState.GONE:
                    return 0
                self.host.take_off(self)
                freed = self.host.forget(self)
            self.host.networks.disconnect(self.name)  # its uplink's thread may be waiting for the host's lock
            return freed

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it does not run any more. False when `timeout_s` passed first."""
        with self.host.lock:
            return self.host.changed.wait_for(lambda: self.state is not GuestState.RUNNING, timeout_s)

    def _wake(self) -> None:
        with self.host.lock:
            self.host.wake(self)

    # ---- pCPUs ----

    @property
    def is_idle(self) -> bool:
        """It runs, but has nothing to do now."""
        return self.host.processors.is_napping(self)

    @property
    def cpu_claim(self) -> CpuClaim:
        """What it was promised of the host's pCPUs."""
        return self.entity.claim

    def set_cpu(
        self,
        *,
        weight: int | None = None,
        cap: float | None = None,
        reservation: float | None = None,
        limit: int | None = None,
        affinity: Collection[int] | None = None,
        period_us: int | None = None,
        latency_us: int | None = None,
    ) -> None:
        """Change its claim to pCPUs while it runs; what is not named stays. A cap of 100, a limit of 0 and an empty
        affinity are none.

        Raises UsageError for impossible numbers, AdmissionError for a reservation that the host cannot promise.
        """
        claim = self.cpu_claim
        numbers = {
            "weight": weight,
            "reservation": reservation,
            "period_us": period_us,
            "latency_us": latency_us,
        }
        changes: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
        if cap is not None:
            changes["cap"] = None if cap == WHOLE else cap
        if limit is not None:
            changes["limit"] = limit or None
        if affinity is not None:
            changes["affinity"] = frozenset(affinity) or None
        with self._operating, self.host.lock:
            require(self.name, self.state, PRESENT, "use")
            self.host.processors.change(self, replace(claim, **changes))

    # ---- memory ----

    @property
    def memory(self) -> GuestMemory:
        """Its frames."""
        return self.machine.memory

    @property
    def is_leftover(self) -> bool:
        """It has switched itself off: what is in its memory is there to be looked at only."""
        return self.state is GuestState.DEFINED and not self.starting

    @property
    def deterministic(self) -> bool:
        """It is on the virtual clock, and repeats exactly."""
        return self.config.clock == "virtual"

    @property
    def needed_frames(self) -> int:
        """Frames that it cannot go on without while it starves."""
        return self.machine.needed_frames

    @property
    def balloon_device(self) -> "Balloon | None":
        """Its balloon, if it has one."""
        return None if self.machine.virtio is None else self.machine.virtio.balloon

    @property
    def contract(self) -> MemoryContract:
        """What it was promised of the host's memory. The size is what was asked for, or what is still plugged."""
        if self.machine.virtio is None or self.machine.virtio.mem is None:
            return self._promised
        plugged = self.config.memory + self.machine.virtio.mem.plugged_size
        return replace(self._promised, size=max(self._promised.size, plugged))

    def resize(self, size: int) -> None:
        """Ask the guest to have `size` bytes of RAM: what it booted with, and the rest plugged. Its driver follows as
        far as it can; `memory_device.plugged_size` says how far it is.

        Raises UsageError for a guest without `memory_max`, for a size that it cannot have, and for one below its
        reservation; AdmissionError for one that the host cannot promise.
        """
        device = self.memory_device
        least, most = self.config.memory, self.config.memory + device.limit
        if not least <= size <= most or (size - least) % device.block_size:
            raise UsageError(
                f"guest {self.name!r}: a size of {size} bytes is impossible; it has {format_size(least)} to "
                f"{format_size(most)} in steps of {format_size(device.block_size)}"
            )

        def act() -> None:
            self.claim_size(size)
            device.requested_size = size - least

        self.between_runs(act)

    def claim_size(self, size: int) -> None:
        """Have the host promise what `resize` does, for a guest that was asked where it comes from. Raises
        AdmissionError."""
        with self.host.lock:
            promised = replace(self._promised, size=size)
            plugged = self.config.memory + self.memory_device.plugged_size
            self.host.memory.admit(self.name, replace(promised, size=max(size, plugged)))
            self._promised = promised
            self.host.memory.changed()

    @property
    def memory_device(self) -> "Mem":
        """Its virtio-mem device, to look at: `plugged_size`, `requested_size`. Raises UsageError when it has none."""
        device = None if self.machine.virtio is None else self.machine.virtio.mem
        if device is None:
            raise UsageError(f"guest {self.name!r} cannot be resized: it was made without a memory_max")
        return device

    def set_memory(
        self,
        *,
        reservation: int | None = None,
        limit: int | None = None,
        shares: int | None = None,
        priority: int | None = None,
    ) -> None:
        """Change its claim to the host's memory while it runs; what is not named stays. A limit of its size is none.

        Raises UsageError for numbers that contradict each other, AdmissionError for a reservation that the host
        cannot promise.
        """
        changes = {"reservation": reservation, "limit": limit, "shares": shares, "priority": priority}
        with self._operating, self.host.lock:
            require(self.name, self.state, PRESENT, "use")
            promised = replace(self._promised, **{k: v for k, v in changes.items() if v is not None})
            self.host.memory.admit(self.name, replace(promised, size=self.contract.size))
            self._promised = promised
            self.host.memory.changed()

    def memory_statistics(self) -> GuestMemoryStatistics:
        """Where its memory is."""
        return self.host.memory.guest_statistics(self)

    # ---- console ----

    @property
    def console(self) -> Console:
        """The first serial port."""
        return self.machine.console

    @property
    def console_waits(self) -> bool:
        """Whether typed input waits that the guest could take now."""
        uarts = self.machine.board.uarts
        return any(c.has_input and u.room for c, u in zip(self.machine.consoles, uarts, strict=True))

    def port(self, name: str) -> Console:
        """The port of its virtio console called `name`. Raises UsageError when it has none such."""
        ports = {} if self.machine.virtio is None else self.machine.virtio.ports
        if name not in ports:
            known = ", ".join(ports) or "none"
            raise UsageError(f"guest {self.name!r}: there is no console port {name!r}; there are: {known}")
        return ports[name]

    def type(self, text: str | bytes, port: str | None = None) -> None:
        """Type `text` on the console, or on a port of the virtio console. Raises StateError when it has not taken what
        was typed before, 64 KiB at most."""
        console = self.console if port is None else self.port(port)
        console.feed(text.encode() if isinstance(text, str) else text)
        self._wake()

    def expect(self, text: str, timeout_s: float = 60, send: str = "", port: str | None = None) -> bool:
        """Type `send`, then wait until `text` is printed behind what the last `expect` found (behind the present
        end of the output, with `send`). False when `timeout_s` passed or the guest ended first.

        `port` is a port of the virtio console in place of the first serial port.
        """
        console = self.console if port is None else self.port(port)
        pattern = text.encode()

        def seen() -> None:
            with self.host.lock:
                self.host.changed.notify_all()

        if send:
            console.searched = console.written
        watch = console.watch(pattern, seen, console.searched)  # some of it may be there already
        try:
            end = console.find(pattern, console.searched)
            if end is None:
                if send:
                    self.type(send, port)
                with self.host.lock:
                    self.host.changed.wait_for(
                        lambda: watch.end is not None or self.state is not GuestState.RUNNING, timeout_s
                    )
                end = watch.end
            if end is not None:
                console.searched = end
            return end is not None
        finally:
            console.unwatch(watch)

    # ---- virtio ----

    @property
    def vsock(self) -> "VsockHost":
        """Sockets to programs in the guest, from any thread. Raises UsageError without a vsock device."""
        device: Vsock = self._virtio("vsock")
        return device.host

    def input(self, kind: InputKind) -> "Input":
        """Its virtio keyboard, mouse or tablet, for any thread. Raises UsageError when it has none such."""
        for device in [] if self.machine.virtio is None else self.machine.virtio.inputs:
            if device.kind == kind:
                return device
        raise UsageError(f"guest {self.name!r} has no virtio {kind}")

    def set_balloon(self, size: int) -> None:
        """Ask the guest to put `size` bytes of its memory into the balloon, and so give them to the host, or to take
        what is more than that back. Raises UsageError without a balloon, and for more than its memory."""
        self._virtio("balloon")
        if not 0 <= size <= self.contract.size:
            own = format_size(self.contract.size)
            raise UsageError(f"guest {self.name!r}: {format_size(size)} do not fit into its {own}")

        def act() -> None:
            self.host.memory.set_wish(self, size // PAGE_SIZE)

        self.between_runs(act)

    def balloon_statistics(self) -> dict[str, int]:
        """What the guest last said of its own memory, by the names in `devices.virtio.balloon.STATISTICS`; empty before
        it did. It is asked for newer numbers, which come when it runs.

        Raises UsageError without a balloon, StateError while the guest has no driver that gives statistics.
        """
        device = self.balloon

        def ask() -> dict[str, int]:
            device.request_statistics()
            return dict(device.statistics)

        return self.between_runs(ask)

    def hint_free_pages(self) -> None:
        """Ask the guest which of its pages are free; their frames come back as it tells, once. `balloon.pages_hinted`
        counts them.

        Raises UsageError without a balloon, StateError while the guest has no driver that gives hints.
        """
        self.between_runs(self.balloon.start_hinting)

    @property
    def balloon(self) -> "Balloon":
        """Its balloon, to look at. Raises UsageError when it has none."""
        device: Balloon = self._virtio("balloon")
        return device

    def _virtio(self, kind: str) -> Any:
        device = None if self.machine.virtio is None else getattr(self.machine.virtio, kind)
        if device is None:
            raise UsageError(f"guest {self.name!r} has no {kind} device")
        return device

    @property
    def forwards(self) -> list[Forward]:
        """Ports of the host's that lead to it, with the numbers that they really have."""
        return self.host.networks.forwards(self.name)

    # ---- limits of disks and network cards ----

    def set_disk_limits(self, disk: int | str, **changes: Rate | int | str | None) -> None:
        """Change limits of a hard disk while the guest runs: `read_bytes="10M:64M"`, `write_iops=100`,
        `total_bytes=None`, which lifts it; what is not named stays. `disk` is its number among `config.disks`, or its
        image's name. Raises UsageError for a disk or limit that there is not, and for an impossible rate."""
        throttle = self.find_disk(disk)[1].meter.throttle
        self._change_limits(throttle, changes)

    def set_disk_shares(self, disk: int | str, shares: int) -> None:
        """Change a hard disk's weight on a backend that the host limits, 1 to 1,000,000. Raises UsageError."""
        drive = self.find_disk(disk)[1]
        if not 1 <= shares <= MAX_SHARES:
            raise UsageError(f"guest {self.name!r}: {shares} shares; 1 to {MAX_SHARES} are allowed")
        with self.host.lock:
            self.host.backends.set_shares(self.name, drive, shares)

    def set_nic_limits(self, nic: int, **changes: Rate | int | str | None) -> None:
        """Change limits of network card number `nic` while the guest runs: `in_bytes="1M"`, `out_packets=None`; what
        is not named stays. Raises UsageError."""
        if not 0 <= nic < len(self._cards):
            raise UsageError(f"guest {self.name!r} has no network card {nic}; it has {len(self._cards)}")
        self._change_limits(self._cards[nic].meter.throttle, changes)

    def _change_limits(self, throttle: Throttle, changes: Mapping[str, Rate | int | str | None]) -> None:
        limits = throttle.limits.changed(changes)
        self.between_runs(lambda: throttle.change(limits, self.machine.clock.now_ns()))

    def move_disk(
        self,
        disk: int | str,
        path: Path | str,
        format: DiskFormat | None = None,
        *,
        progress: Callable[[int, int], object] | None = None,
        bytes_per_s: int | None = None,
    ) -> MovedDisk:
        """Move a hard disk to the new file `path` while the guest runs, as `disk_moving.DiskMove`, which can be
        cancelled, does; raises as it does."""
        return DiskMove(self, disk, path, format, progress=progress, bytes_per_s=bytes_per_s).run()

    def find_disk(self, disk: int | str) -> "tuple[int, Drive]":
        """The number and the drive of the hard disk with this number or name. Raises UsageError."""
        for number, drive in enumerate(self.machine.drives):
            if drive.kind == "disk" and drive.image is not None:
                path = Path(self.config.disks[number].path)
                if disk in (number, drive.image.name, str(path), path.name):
                    return number, drive
        raise UsageError(f"guest {self.name!r} has no hard disk {disk!r}")

    @property
    def disks_with_shares(self) -> "list[tuple[Drive, int]]":
        """Its hard disks, with their weights on the backends."""
        pairs = zip(self.machine.drives, self.config.disks, strict=True)
        return [(drive, config.shares) for drive, config in pairs if drive.kind == "disk"]

    @property
    def _cards(self) -> "list[Net]":
        return [] if self.machine.virtio is None else self.machine.virtio.nics

    # ---- screen, keys, mouse, buttons ----

    def screen(self) -> "Screen":
        """What its display shows now. Raises UsageError on a board without one."""
        display: Vga = self._part("display")
        return self.between_runs(display.screen)

    def send_keys(self, *chords: str) -> None:
        """Press and release keys: "ret", "ctrl-alt-delete", "f2"; the names are those of `devices.keymap`.

        Raises UsageError for an unknown key, or on a board without a keyboard.
        """
        self._input("keyboard", lambda keyboard: [keyboard.send_keys(chord) for chord in chords])

    def press(self, key: str, down: bool = True) -> None:
        """Press the key, or release it. Raises UsageError for an unknown one, or on a board without a keyboard."""
        self._input("keyboard", lambda keyboard: keyboard.press(key, down))

    def type_keys(self, text: str) -> None:
        """Type `text` on the keyboard, as `type` does on the serial console. Raises UsageError for a character that
        the US layout does not have, or on a board without a keyboard."""
        self._input("keyboard", lambda keyboard: keyboard.type_text(text))

    def point(self, dx: int, dy: int, buttons: int = 0) -> None:
        """Move the mouse by `dx` to the right and `dy` down, with a bit for each button that is held: left, middle,
        right, and two for a turn of the wheel up and down. Raises UsageError on a board without a mouse."""

        def act(mouse: "Mouse") -> None:
            mouse.move(dx, dy)
            for number in (1, 2, 3):
                mouse.button(number, bool(buttons >> number - 1 & 1))
            if buttons & (WHEEL_UP | WHEEL_DOWN):
                mouse.wheel(1 if buttons & WHEEL_DOWN else -1)

        self._input("mouse", act)

    def press_power_button(self) -> None:
        """Ask the guest's system to shut down, by ACPI. Raises UsageError when nobody in it listens."""
        if not self.between_runs(self.machine.board.press_power_button):
            raise UsageError(f"guest {self.name!r}: nothing listens to the power button")

    def _part(self, name: str) -> Any:
        part = getattr(self.machine.board, name)
        if part is None:
            raise UsageError(f"guest {self.name!r}: the {self.config.board} board has no {name}")
        return part

    def _input(self, device: str, act: Callable[[Any], object]) -> None:
        part = self._part(device)
        self.between_runs(lambda: act(part))

    def between_runs(self, function: Callable[[], _T]) -> _T:
        """Call `function` while the guest is on no pCPU. Raises StateError for a guest that is gone."""
        with self._operating, self.host.lock:
            require(self.name, self.state, PRESENT, "use")
            return self.host.between_runs(self, function)

    # ---- numbers ----

    def statistics(self) -> GuestStatistics:
        """What it has used so far."""
        machine, entity = self.machine, self.entity
        return GuestStatistics(
            name=self.name,
            state=self.state,
            reason=self.reason,
            retired=sum(vcpu.work for vcpu in machine.vcpus),
            guest_ns=machine.clock.now_ns(),
            cpu_ns=self.cpu_ns,
            waited_ns=entity.waited_ns,
            throttled_ns=entity.throttled_ns,
            stolen_ns=entity.stolen_ns,
            slices=self.slices,
            frames=machine.memory.census(),
            exits=machine.vcpus.counters(),
            disks=[
                {"name": drive.image.name} | drive.meter.as_dict()
                for drive in machine.drives
                if drive.kind == "disk" and drive.image is not None
            ],
            nics=[
                asdict(port.statistics) | {"card_dropped": card.dropped, "latency": card.meter.as_dict()}
                for port, card in zip(self.nics, self._cards, strict=True)
            ],
            console_bytes=sum(console.written for console in machine.consoles),
            last_line=machine.console.last_line if machine.consoles else "",
        )
