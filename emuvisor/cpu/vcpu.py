"""A guest's processor: state that any pCPU can load."""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Protocol, Self

from emuvisor.cpu import _core
from emuvisor.cpu.engine import engine
from emuvisor.cpu.layout import pack, unpack
from emuvisor.cpu.reference.faults import Event, Kind
from emuvisor.cpu.state import CpuState
from emuvisor.errors import UsageError
from emuvisor.memory import FramePool, GuestMemory

__all__ = ["Handler", "Registers", "Vcpu", "bind", "engine_frames"]

CPUID_FEATURES = 1
"""The CPUID leaf whose EAX is the processor's signature."""
MAX_VECTOR = 0xFF


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
        """The interrupt controller's vector for the interrupt now accepted.

        None when it has gone: the INTR pin then counts as low, and the controller raises it anew for the next one.
        """
        ...

    def msr_read(self, index: int, /) -> int | None:
        """RDMSR of a model-specific register that lies on the board: IA32_APIC_BASE. None: there is none, #GP(0)."""
        ...

    def msr_write(self, index: int, value: int, /) -> bool:
        """WRMSR of such a register, with any value; False: #GP(0)."""
        ...

    def read_cr8(self) -> int:
        """MOV from CR8: the local APIC's task priority, 0 to 15."""
        ...

    def write_cr8(self, value: int, /) -> None:
        """MOV to CR8, 0 to 15."""
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
        stage2.add_slot(slot.first, slot.entries, slot.movable)
    memory.on_slot = lambda slot: stage2.add_slot(slot.first, slot.entries, slot.movable)
    memory.on_move = stage2.move_slot
    memory.on_log = stage2.set_log
    memory.on_sampling = stage2.set_sampling
    memory.on_revoke = stage2.revoke
    return stage2


class Registers(NamedTuple):
    """A vCPU's architectural state as its engine holds it: quick to take and to put back, in this process only."""

    packed: bytes
    halted: bool
    nmi: bool
    event: tuple[int, int, int | None, int] | None


@cache
def _reset_state() -> bytes:
    """A processor in the reset state, packed."""
    return bytes(pack(CpuState(), bytearray(engine().pristine)))


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
        vcpu._cpuid = handler.cpuid
        vcpu.restore(_reset_state())
        return vcpu

    _cpuid: Callable[[int, int], tuple[int, int, int, int]]

    @property
    def state(self) -> CpuState:
        """The architectural state; set it only while the vCPU does not run."""
        state = unpack(self.save())
        state.halted = self.halted
        state.nmi_pending = self.nmi
        if self.event is not None:
            vector, kind, error_code, instruction = self.event
            state.event = Event(vector, Kind(kind), error_code, instruction)
        return state

    @state.setter
    def state(self, state: CpuState) -> None:
        self.restore(pack(state, bytearray(engine().pristine)))
        self.halted = state.halted
        self.nmi = state.nmi_pending
        e = state.event
        self.event = None if e is None else (e.vector, e.kind, e.error_code, e.instruction)

    @property
    def registers(self) -> Registers:
        """The same as `state`, packed."""
        return Registers(self.save(), self.halted, self.nmi, self.event)

    @registers.setter
    def registers(self, registers: Registers) -> None:
        self.restore(registers.packed)
        self.halted = registers.halted
        self.nmi = registers.nmi
        self.event = registers.event

    def init(self) -> None:
        """INIT (from a local APIC, or a chipset's processor reset): the state of Intel SDM vol. 3, table 10-1, at the
        reset vector. Only while the vCPU does not run: a handler that wants it calls `leave` first."""
        signature = self._cpuid(CPUID_FEATURES, 0)[0]
        self.state = self.state.after_init(signature)

    def sipi(self, vector: int) -> None:
        """A start-up IPI, to a vCPU that `init` has stopped: real mode at `vector` * 1000h. Only while it does not run.

        Raises UsageError unless `vector` is a byte.
        """
        if not 0 <= vector <= MAX_VECTOR:
            raise UsageError(f"start-up IPI: vector {vector:#x} is not a byte")
        state = self.state
        state.cs.selector = vector << 8
        state.cs.base = vector << 12
        state.rip = 0
        state.halted = False
        self.state = state

    def digest(self) -> str:
        """A hash of the architectural state and of the work done."""
        return hashlib.sha256(f"{self.state!r} {self.work} {self.idle_ns}".encode()).hexdigest()
