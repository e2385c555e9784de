"""Events through the vector table of 16-bit far pointers (Intel SDM volume 3, 20.1.4 and 20.3.3)."""

from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.reference.faults import Fault, Kind, Vector
from emuvisor.cpu.reference.stack import Frame
from emuvisor.cpu.registers import (
    CR4_VME,
    FLAG_AC,
    FLAG_IF,
    FLAG_IOPL,
    FLAG_RF,
    FLAG_TF,
    FLAG_VIF,
)
from emuvisor.cpu.state import Segment

__all__ = ["VM86_ATTRIBUTES", "deliver", "vm86_segment", "vm86_software_interrupt"]

VM86_ATTRIBUTES = 0xF300
"""Present, DPL 3, writable data, accessed: every segment in virtual-8086 mode (20.1.1, 26.3.1.2)."""

_POINTER = 4
_TSS_TYPE_32 = 8 << 8
_TSS_IO_MAP_BASE = 0x66
_TSS_SMALLEST_LIMIT = 0x67
_REDIRECTION_BITMAP_BYTES = 32


def vm86_segment(selector: int) -> Segment:
    """A segment register in virtual-8086 mode."""
    return Segment(selector, selector << 4, 0xFFFF, VM86_ATTRIBUTES)


def deliver(attempt: Attempt) -> None:
    """Real mode: push FLAGS, CS, IP; clear IF, TF, AC; go where the table says. No error codes."""
    state = attempt.state
    entry = _POINTER * attempt.event.vector
    if entry + _POINTER - 1 > state.idtr.limit:
        raise Fault(Vector.GP, 0)
    offset, selector = _far_pointer(attempt, state.idtr.base + entry)
    _push_return(attempt, attempt.saved_flags())
    # 20.1.2: the cached limit and attributes stay as they were
    state.cs = Segment(selector, selector << 4, state.cs.limit, state.cs.flags)
    state.rip = offset
    state.rflags &= ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF)


def vm86_software_interrupt(attempt: Attempt) -> bool:
    """INT n in virtual-8086 mode, by the six methods of table 20-2. False: it goes on through the IDT.

    INT3 and INTO are one byte long, which is how they are told from INT 3 and INT 4; they are not sensitive
    to IOPL.
    """
    state, event = attempt.state, attempt.event
    if not attempt.vm86 or event.kind is not Kind.SOFTWARE:
        return False
    if event.vector in (Vector.BP, Vector.OF) and (state.rip - event.instruction) % 0x10000 == 1:
        return False
    iopl3 = state.rflags & FLAG_IOPL == FLAG_IOPL
    if state.cr4 & CR4_VME and not _goes_to_monitor(attempt):
        _redirect(attempt, iopl3)
        return True
    if not iopl3:
        raise Fault(Vector.GP, 0)
    return False


def _goes_to_monitor(attempt: Attempt) -> bool:
    """The vector's bit in the interrupt redirection bitmap, just below the TSS's I/O map (20.3.3)."""
    tss = attempt.state.tr
    if not tss.flags & _TSS_TYPE_32 or tss.limit < _TSS_SMALLEST_LIMIT:
        raise Fault(Vector.GP, 0)
    io_map = attempt.read_number(tss.base + _TSS_IO_MAP_BASE, 2)
    byte, bit = divmod(attempt.event.vector, 8)
    offset = io_map - _REDIRECTION_BITMAP_BYTES + byte
    if io_map < _REDIRECTION_BITMAP_BYTES or offset > tss.limit:
        raise Fault(Vector.GP, 0)
    return bool(attempt.read_number(tss.base + offset, 1) >> bit & 1)


def _redirect(attempt: Attempt, iopl3: bool) -> None:
    """Methods 5 (IOPL 3) and 6: to the 8086 program's handler, by the vector table at linear address 0."""
    state = attempt.state
    offset, selector = _far_pointer(attempt, _POINTER * attempt.event.vector)
    flags = attempt.saved_flags()
    if not iopl3:
        flags = flags & ~FLAG_IF | FLAG_IOPL
        if state.rflags & FLAG_VIF:
            flags |= FLAG_IF
    _push_return(attempt, flags)
    state.cs = vm86_segment(selector)
    state.rip = offset
    state.rflags &= ~(FLAG_TF | FLAG_RF | (FLAG_IF if iopl3 else FLAG_VIF))


def _far_pointer(attempt: Attempt, address: int) -> tuple[int, int]:
    pointer = attempt.read_number(address, _POINTER)
    return pointer & 0xFFFF, pointer >> 16


def _push_return(attempt: Attempt, flags: int) -> None:
    state = attempt.state
    words = [flags, state.cs.selector, state.rip]
    frame = Frame(state.ss, state.rsp & 0xFFFFFFFF, 2, state.cpl, words)
    if not frame.fits():
        raise Fault(Vector.SS, 0)
    state.rsp = frame.push(attempt)
