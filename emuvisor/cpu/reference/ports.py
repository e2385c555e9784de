"""The right to use I/O ports (Intel SDM volume 1, 18.5)."""

from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.reference.faults import Event, Fault, Vector
from emuvisor.cpu.reference.physical import PhysicalMemory
from emuvisor.cpu.registers import CR0_PE, FLAG_IOPL, FLAG_IOPL_SHIFT, in_vm86
from emuvisor.cpu.state import CpuState

__all__ = ["port_fault"]

_TSS_TYPE_32 = 8 << 8
_IO_MAP_BASE = 0x66
_SMALLEST_LIMIT = 0x67


def port_fault(state: CpuState, memory: PhysicalMemory, port: int, size: int) -> Fault | None:
    """The fault that an access to `size` ports from `port` raises; None when the program may use them.

    IOPL decides in protected mode; where it does not suffice, and always in virtual-8086 mode, the TSS's I/O
    map does.
    """
    if not state.cr0 & CR0_PE:
        return None
    iopl = (state.rflags & FLAG_IOPL) >> FLAG_IOPL_SHIFT
    if not in_vm86(state.cr0, state.rflags) and state.cpl <= iopl:
        return None
    denied = Fault(Vector.GP, 0)
    tss = state.tr
    if not tss.flags & _TSS_TYPE_32 or tss.limit < _SMALLEST_LIMIT:
        return denied
    attempt = Attempt(state, memory, Event(Vector.GP))
    try:
        first = attempt.read_number(tss.base + _IO_MAP_BASE, 2) + port // 8
        if first + 1 > tss.limit:
            return denied
        bits = attempt.read_number(tss.base + first, 2) >> port % 8
    except Fault as page_fault:
        return page_fault
    return denied if bits & (1 << size) - 1 else None
