"""A guest's processor: state that any pCPU can load."""

import hashlib
from typing import Protocol, Self

from emuvisor.cpu import _core
from emuvisor.cpu.engine import engine
from emuvisor.cpu.layout import pack, unpack
from emuvisor.cpu.state import CpuState
from emuvisor.memory import FramePool, GuestMemory

__all__ = ["Handler", "Vcpu", "bind", "engine_frames"]


class Handler(Protocol):
    """What a vCPU asks of its owner while it runs. An exception stops the vCPU and comes out of `Pcpu.run`."""

    def port_read(self, port: int, size: int, /) -> int:
        """IN of `size` bytes (1, 2, 4)."""
        ...

    def port_write(self, port: int, value: int, size: int, /) -> None:
        """OUT of `size` bytes (1, 2, 4)."""
        ...

    def mmio_read(self, gpa: int, size: int, /) -> int:
        """A load of `size` bytes (1, 2, 4; 8 come as two of 4) from a guest physical address that is not memory."""
        ...

    def mmio_write(self, gpa: int, value: int, size: int, /) -> None:
        """A store of `size` bytes to a guest physical address that is not memory."""
        ...

    def cpuid(self, leaf: int, subleaf: int, /) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of CPUID."""
        ...

    def acknowledge(self) -> int | None:
        """The interrupt controller's vector for the interrupt now accepted; None when it has gone."""
        ...


def engine_frames(pool: FramePool) -> _core.Frames:
    """`pool` as engines map it; one for each pool."""
    if not isinstance(pool.users, _core.Frames):
        pool.users = _core.Frames(pool.memory, pool.fetched)
    return pool.users


def bind(memory: GuestMemory) -> _core.Stage2:
    """`memory` as the core translates through it: the same entries, and news of what changes about them."""
    stage2 = _core.Stage2(engine_frames(memory.pool), memory.fault)
    for slot in memory.slots:
        stage2.add_slot(slot.first, slot.entries)
    memory.on_slot = lambda slot: stage2.add_slot(slot.first, slot.entries)
    memory.on_log = stage2.set_log
    memory.on_revoke = stage2.revoke
    return stage2


class Vcpu(_core.Vcpu):
    """One processor of a guest over `memory` (from `bind`), which asks `handler` about ports, MMIO, CPUID and
    interrupts while it runs. It starts in the reset state.

    `work` counts the bytes of guest code that it retired, which is its clock: one byte is one nanosecond of
    guest time on the virtual clock.
    """

    def __new__(cls, memory: _core.Stage2, handler: Handler) -> Self:
        """Raises EngineError when there is no usable Unicorn."""
        engine()
        vcpu = super().__new__(cls, memory, handler)
        vcpu.state = CpuState()
        return vcpu

    @property
    def state(self) -> CpuState:
        """The architectural state; set it only while the vCPU does not run."""
        state = unpack(self.save())
        state.halted = self.halted
        return state

    @state.setter
    def state(self, state: CpuState) -> None:
        self.restore(pack(state, bytearray(engine().pristine)))
        self.halted = state.halted

    def digest(self) -> str:
        """A hash of the architectural state and of the work done."""
        return hashlib.sha256(f"{self.state!r} {self.work} {self.idle_ns}".encode()).hexdigest()
