"""Events through an IDT of 16-byte gates (Intel SDM volume 3, 6.14)."""

from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.reference.descriptors import Descriptor, SystemType, mark_accessed
from emuvisor.cpu.reference.faults import ERROR_IDT, Fault, Kind, Vector
from emuvisor.cpu.reference.protected_mode import handler_code, handler_level
from emuvisor.cpu.reference.stack import Frame
from emuvisor.cpu.registers import (
    FLAG_IF,
    FLAG_NT,
    FLAG_RF,
    FLAG_TF,
    FLAG_VM,
    SEG_DPL_SHIFT,
    SELECTOR_RPL,
    is_canonical,
)
from emuvisor.cpu.state import Segment

__all__ = ["deliver"]

_GATE_BYTES = 16
_WORD = 8
_STACK_ALIGNMENT = 16

# the 64-bit TSS (7.7)
_TSS_RSP0 = 0x04
_TSS_IST1 = 0x24


def deliver(attempt: Attempt) -> None:
    """Deliver in 64-bit or compatibility mode: handlers are 64-bit code, SS:RSP is always pushed."""
    state, event = attempt.state, attempt.event
    gate = _gate(attempt)
    low = gate & (1 << 64) - 1
    selector = low >> 16 & 0xFFFF
    offset = low & 0xFFFF | (low >> 48) << 16 | (gate >> 64 & 0xFFFFFFFF) << 32
    ist = low >> 32 & 7

    code = handler_code(attempt, selector)
    if not code.is_64_bit_code:
        raise attempt.selector_fault(Vector.GP, selector)
    mark_accessed(attempt, code)
    level = handler_level(attempt, code)

    pointer = _stack_pointer(attempt, ist, level) & ~(_STACK_ALIGNMENT - 1)
    words = [state.ss.selector, state.rsp, attempt.saved_flags(), state.cs.selector, state.rip]
    if event.error_code is not None:
        words.append(event.error_code)
    ends = (pointer - 1, pointer - _WORD * len(words))
    if not all(is_canonical(end & (1 << 64) - 1) for end in ends):
        raise Fault(Vector.SS, attempt.ext)
    if not is_canonical(offset):
        raise Fault(Vector.GP, attempt.ext)

    to_inner = level < state.cpl
    state.rsp = Frame(None, pointer, _WORD, level, words).push(attempt)
    if to_inner:
        # 6.14.4: no stack descriptor is loaded; SS becomes a null selector with the new CPL
        state.ss = Segment(level, 0, 0, level << SEG_DPL_SHIFT)
    state.cs = code.segment(selector & ~SELECTOR_RPL | level)
    state.rip = offset
    state.rflags &= ~(FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT)
    if Descriptor(0, low).type == SystemType.INTERRUPT_GATE_32:
        state.rflags &= ~FLAG_IF


def _gate(attempt: Attempt) -> int:
    """Read and check the vector's gate: 16 bytes as a number."""
    state, event = attempt.state, attempt.event
    entry = _GATE_BYTES * event.vector
    error_code = event.vector << 3 | ERROR_IDT | attempt.ext
    if entry + _GATE_BYTES - 1 > state.idtr.limit:
        raise Fault(Vector.GP, error_code)
    gate = attempt.read_number(state.idtr.base + entry & (1 << 64) - 1, _GATE_BYTES)
    low = Descriptor(0, gate & (1 << 64) - 1)
    if not low.is_system or low.type not in (SystemType.INTERRUPT_GATE_32, SystemType.TRAP_GATE_32):
        raise Fault(Vector.GP, error_code)
    if event.kind is Kind.SOFTWARE and low.dpl < state.cpl:
        raise Fault(Vector.GP, error_code)
    if not low.present:
        raise Fault(Vector.NP, error_code)
    return gate


def _stack_pointer(attempt: Attempt, ist: int, level: int) -> int:
    """RSP for the handler: of the interrupt stack table, of the TSS for an inner level, or as it is."""
    state = attempt.state
    if ist:
        offset = _TSS_IST1 + _WORD * (ist - 1)
    elif level < state.cpl:
        offset = _TSS_RSP0 + _WORD * level
    else:
        return state.rsp
    if offset + _WORD - 1 > state.tr.limit:
        raise attempt.selector_fault(Vector.TS, state.tr.selector)
    return attempt.read_number(state.tr.base + offset, _WORD)
