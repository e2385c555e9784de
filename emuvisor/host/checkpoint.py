"""Checkpoints: a guest at one moment, kept in the host's memory, to go back to and to make clones of."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from emuvisor.bus.device import SavedState
from emuvisor.cpu.vcpu import Registers
from emuvisor.devices.storage.layered import Frozen, LayeredDisk
from emuvisor.errors import HostError, SnapshotError
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.memory import GuestMemory

__all__ = ["Checkpoint"]

_ALIKE = (
    *("board", "memory", "memory_max", "cpu", "vcpus", "serial_ports", "devices"),
    *("rng", "balloon", "vsock", "console_ports", "input", "ring"),
)
"""Keys of a configuration that two guests must have in common, for one to take over the other's state."""


@dataclass(eq=False)
class Checkpoint:
    """A guest as it was at one moment, made by `Guest.checkpoint`. It shares all pages with the guest until the guest
    writes them; then it keeps its own.

    Use it as a context manager, or call `close`; the host closes those that are left. Clones that were made of it, and
    guests that went back to it, do not need it any more.
    """

    guest: str
    config: GuestConfig
    taken: float
    """Seconds since 1970."""
    memory: GuestMemory
    """A clone of the guest's, in which nobody runs."""
    state: SavedState
    """All but memory and disks, as `machine_state.save_machine` gives it."""
    registers: list[Registers]
    """What `state` has of the processors, as they hold it."""
    disks: list[Frozen | None]
    """What was on its disks, by drive; None where nothing can be written."""
    stop_ns: int = 0
    """For how long the guest stood."""
    closed: bool = False
    on_close: Callable[["Checkpoint"], object] | None = None
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Held while it is closed: the host's, so that it stays for who is about to use it."""

    @classmethod
    def take(cls, name: str, machine: Machine) -> Self:
        """Of guest `name`, whose `machine` does not run meanwhile. Raises SnapshotError where that cannot be saved."""
        state = save_machine(machine)
        registers = [vcpu.registers for vcpu in machine.vcpus]
        with ExitStack() as undo:
            disks: list[Frozen | None] = []
            for drive in machine.drives:
                disks.append(drive.image.freeze() if isinstance(drive.image, LayeredDisk) else None)
                if disks[-1] is not None:
                    undo.callback(disks[-1].close)
            memory = machine.memory.clone()
            undo.pop_all()
        return cls(name, machine.config, time.time(), memory, state, registers, disks)

    def put_into(self, name: str, machine: Machine) -> int:
        """Let `machine` of guest `name`, which was found to fit and does not run, be where this one was; returns how
        many pages of its memory were other ones.

        Raises SnapshotError for a device of the user's that refuses its state, and HostError for a disk of the host's
        that fails; the machine can then be reset or thrown away, but not run.
        """
        changed = machine.memory.take_over(self.memory)
        for drive, frozen in self._frozen(machine):
            try:
                drive.go_back(frozen)
            except OSError as error:
                raise HostError(f"guest {name!r}: disk {drive.name}: {error.strerror or error}") from error
        load_machine(machine, self.state, self.registers)
        return changed

    def check(self, name: str, config: GuestConfig) -> None:
        """Raises SnapshotError when it is closed, and unless guest `name` of `config` is built like its guest."""
        if self.closed:
            raise SnapshotError(f"the checkpoint of guest {self.guest!r} is closed")
        if config is self.config:
            return
        mine, theirs = _hardware(self.config), _hardware(config)
        for key, value in mine.items():
            if theirs[key] != value:
                raise SnapshotError(
                    f"guest {name!r} has {key} = {theirs[key]!r}, the checkpoint of guest {self.guest!r} {value!r}"
                )

    def check_disks(self, name: str, machine: Machine) -> None:
        """Raises SnapshotError unless the disks of guest `name` can go back to what they were here."""
        for disk, frozen in self._frozen(machine):
            if not disk.has_been(frozen):
                raise SnapshotError(
                    f"guest {name!r}: its disk {disk.name} was never what it is in the checkpoint of guest "
                    f"{self.guest!r}; make a clone of that"
                )

    def _frozen(self, machine: Machine) -> list[tuple[LayeredDisk, Frozen]]:
        """The disks of `machine` that can be written, and what they were."""
        pairs = zip(machine.drives, self.disks, strict=True)
        return [(d.image, f) for d, f in pairs if f is not None and isinstance(d.image, LayeredDisk)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> int:
        """Forget it; returns how many frames became free."""
        with self.lock:
            if self.closed:
                return 0
            self.closed = True
            if self.on_close is not None:
                self.on_close(self)
            for frozen in self.disks:
                if frozen is not None:
                    frozen.close()
            return self.memory.close()


def _hardware(config: GuestConfig) -> dict[str, Any]:
    """What two guests must have in common, for one to take over the other's state. The rest of a configuration is
    policy, names and images."""
    return {
        **{key: getattr(config, key) for key in _ALIKE},
        "disks": [(disk.kind, config.disk_bus(disk), disk.queues) for disk in config.disks],
        "nics": [nic.queues for nic in config.nics],
        "shares": [share.tag for share in config.shares],
    }
