"""Events through an IDT of 8-byte gates (Intel SDM volume 3, 6.11 and 6.12; volume 2, INT n)."""

from dataclasses import dataclass

from emuvisor.cpu.reference import real_mode, tasks
from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.reference.descriptors import Descriptor, SystemType, find, is_null, load, mark_accessed
from emuvisor.cpu.reference.faults import ERROR_IDT, Fault, Kind, Vector
from emuvisor.cpu.reference.stack import Frame
from emuvisor.cpu.registers import FLAG_IF, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM, SELECTOR_RPL
from emuvisor.cpu.state import Segment

__all__ = ["deliver", "handler_code", "handler_level"]

_GATE_BYTES = 8
_INTERRUPT_GATES = (SystemType.INTERRUPT_GATE_16, SystemType.INTERRUPT_GATE_32)
_GATES_32 = (SystemType.INTERRUPT_GATE_32, SystemType.TRAP_GATE_32)
_GATES = (
    SystemType.TASK_GATE,
    *_INTERRUPT_GATES,
    SystemType.TRAP_GATE_16,
    SystemType.TRAP_GATE_32,
)


@dataclass
class _Gate:
    type: SystemType
    selector: int
    offset: int


def deliver(attempt: Attempt) -> None:
    """Deliver in protected or virtual-8086 mode."""
    if real_mode.vm86_software_interrupt(attempt):
        return
    gate = _gate(attempt)
    if gate.type is SystemType.TASK_GATE:
        tasks.switch(attempt, gate.selector)
    else:
        _enter_handler(attempt, gate)


def _gate(attempt: Attempt) -> _Gate:
    """Read and check the vector's gate."""
    state, event = attempt.state, attempt.event
    entry = _GATE_BYTES * event.vector
    error_code = entry | ERROR_IDT | attempt.ext
    if entry + _GATE_BYTES - 1 > state.idtr.limit:
        raise Fault(Vector.GP, error_code)
    raw = load(attempt, state.idtr.base + entry)
    if not raw.is_system or raw.type not in _GATES:
        raise Fault(Vector.GP, error_code)
    if event.kind is Kind.SOFTWARE and raw.dpl < state.cpl:
        raise Fault(Vector.GP, error_code)
    if not raw.present:
        raise Fault(Vector.NP, error_code)
    kind = SystemType(raw.type)
    offset = raw.raw & 0xFFFF
    if kind in _GATES_32:
        offset |= raw.high & 0xFFFF0000
    return _Gate(kind, raw.raw >> 16 & 0xFFFF, offset)


def handler_code(attempt: Attempt, selector: int) -> Descriptor:
    """The handler's code segment: checks that protected and long mode have in common."""
    if is_null(selector):
        raise Fault(Vector.GP, attempt.ext)
    address = find(attempt, selector)
    if address is None:
        raise attempt.selector_fault(Vector.GP, selector)
    code = load(attempt, address)
    if not code.is_code or code.dpl > attempt.state.cpl:
        raise attempt.selector_fault(Vector.GP, selector)
    if not code.present:
        raise attempt.selector_fault(Vector.NP, selector)
    return code


def handler_level(attempt: Attempt, code: Descriptor) -> int:
    """The privilege level that the handler runs at: its own, or the interrupted one where it conforms."""
    return attempt.state.cpl if code.is_conforming else code.dpl


def _enter_handler(attempt: Attempt, gate: _Gate) -> None:
    state, event = attempt.state, attempt.event
    code = handler_code(attempt, gate.selector)
    level = handler_level(attempt, code)
    from_vm86 = attempt.vm86
    if from_vm86 and level != 0:
        raise attempt.selector_fault(Vector.GP, gate.selector)
    mark_accessed(attempt, code)

    to_inner = level < state.cpl
    stack, pointer = _inner_stack(attempt, level) if to_inner else (state.ss, state.rsp & 0xFFFFFFFF)
    words = []
    if from_vm86:
        words += [state.gs.selector, state.fs.selector, state.ds.selector, state.es.selector]
    if to_inner:
        words += [state.ss.selector, state.rsp]
    words += [attempt.saved_flags(), state.cs.selector, state.rip]
    if event.error_code is not None:
        words.append(event.error_code)
    frame = Frame(stack, pointer, 4 if gate.type in _GATES_32 else 2, level, words)
    if not frame.fits():
        raise attempt.selector_fault(Vector.SS, stack.selector if to_inner else 0)
    if gate.offset > code.limit:
        raise Fault(Vector.GP, attempt.ext)

    state.rsp = frame.push(attempt)
    state.ss = stack
    state.cs = code.segment(gate.selector & ~SELECTOR_RPL | level)
    state.rip = gate.offset
    if from_vm86:
        state.gs, state.fs, state.ds, state.es = Segment(), Segment(), Segment(), Segment()
    state.rflags &= ~(FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT)
    if gate.type in _INTERRUPT_GATES:
        state.rflags &= ~FLAG_IF


def _inner_stack(attempt: Attempt, level: int) -> tuple[Segment, int]:
    """The stack that the TSS holds for a more privileged level (6.12.1)."""
    tss = attempt.state.tr
    if tss.flags >> 8 & 15 in (SystemType.TSS_32, SystemType.BUSY_TSS_32):
        size, offset = 4, 4 + 8 * level
    else:
        size, offset = 2, 2 + 4 * level
    if offset + size + 1 > tss.limit:
        raise attempt.selector_fault(Vector.TS, tss.selector)
    pointer = attempt.read_number(tss.base + offset, size)
    selector = attempt.read_number(tss.base + offset + size, 2)

    address = find(attempt, selector)
    if is_null(selector) or selector & SELECTOR_RPL != level or address is None:
        raise attempt.selector_fault(Vector.TS, selector)
    data = load(attempt, address)
    if not data.is_writable_data or data.dpl != level:
        raise attempt.selector_fault(Vector.TS, selector)
    if not data.present:
        raise attempt.selector_fault(Vector.SS, selector)
    mark_accessed(attempt, data)
    return data.segment(selector), pointer
