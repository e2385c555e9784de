"""SYSCALL and SYSENTER (Intel SDM volume 2; AMD APM volume 3 for SYSCALL outside of long mode)."""

from emuvisor.cpu.reference.attempt import clone
from emuvisor.cpu.reference.events import Delivery, deliver
from emuvisor.cpu.reference.faults import Event, Vector
from emuvisor.cpu.reference.physical import PhysicalMemory
from emuvisor.cpu.registers import (
    CR0_PE,
    EFER_SCE,
    FLAG_FIXED,
    FLAG_IF,
    FLAG_RF,
    FLAG_VM,
    SEG_LONG,
    in_long_mode,
    in_vm86,
)
from emuvisor.cpu.state import CpuState, Segment

__all__ = ["syscall", "sysenter"]

_FLAT_LIMIT = 0xFFFFFFFF
_CODE_32 = 0xC09B00
"""Ring 0, 4 KiB granularity, 32-bit, present, readable code, accessed."""
_CODE_64 = 0xA09B00
_DATA = 0xC09300


def syscall(state: CpuState, memory: PhysicalMemory, length: int) -> Delivery:
    """SYSCALL, `length` bytes long, at RIP. #UD unless EFER.SCE is set in protected or long mode."""
    if not state.efer & EFER_SCE or not state.cr0 & CR0_PE or in_vm86(state.cr0, state.rflags):
        return deliver(state, memory, Event(Vector.UD))
    new = clone(state)
    next_rip = state.rip + length & (1 << 64) - 1
    flags = state.rflags & ~FLAG_RF
    if in_long_mode(state.efer):
        new.r11 = flags
        flags &= ~state.fmask
        if state.cs.flags & SEG_LONG:
            new.rcx, new.rip = next_rip, state.lstar
        else:
            new.rcx, new.rip = next_rip & 0xFFFFFFFF, state.cstar
    else:
        new.rcx, new.rip = next_rip & 0xFFFFFFFF, state.star & 0xFFFFFFFF
        flags &= ~(FLAG_VM | FLAG_IF)
    _enter_ring_0(new, state.star >> 32 & 0xFFFF, flags)
    return Delivery(new, False, [])


def sysenter(state: CpuState, memory: PhysicalMemory) -> Delivery:
    """SYSENTER at RIP. #GP(0) in real mode and while IA32_SYSENTER_CS holds a null selector."""
    if not state.cr0 & CR0_PE or not state.sysenter_cs & 0xFFFC:
        return deliver(state, memory, Event(Vector.GP, error_code=0))
    new = clone(state)
    width = (1 << 64) - 1 if in_long_mode(state.efer) else 0xFFFFFFFF
    new.rsp = state.sysenter_esp & width
    new.rip = state.sysenter_eip & width
    _enter_ring_0(new, state.sysenter_cs, state.rflags & ~(FLAG_VM | FLAG_IF | FLAG_RF))
    return Delivery(new, False, [])


def _enter_ring_0(state: CpuState, selector: int, flags: int) -> None:
    """Flat segments without a look at the descriptor table: code, and the stack in the next descriptor."""
    code = selector & 0xFFFC
    state.cs = Segment(code, 0, _FLAT_LIMIT, _CODE_64 if in_long_mode(state.efer) else _CODE_32)
    state.ss = Segment(code + 8 & 0xFFFF, 0, _FLAT_LIMIT, _DATA)
    state.rflags = flags | FLAG_FIXED
    state.interrupt_shadow = False
