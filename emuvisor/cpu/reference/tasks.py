"""Task gates: the hardware task switch (Intel SDM volume 3, chapter 7)."""

from dataclasses import dataclass

from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.reference.descriptors import (
    Descriptor,
    SystemType,
    find,
    is_null,
    load,
    mark_accessed,
)
from emuvisor.cpu.reference.faults import Fault, Vector
from emuvisor.cpu.reference.real_mode import vm86_segment
from emuvisor.cpu.reference.stack import Frame
from emuvisor.cpu.registers import (
    CR0_PG,
    CR0_TS,
    FLAG_FIXED,
    FLAG_NT,
    FLAGS_IMPLEMENTED,
    SELECTOR_RPL,
    SELECTOR_TI,
)
from emuvisor.cpu.state import Segment

__all__ = ["switch"]

_GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_LINK = 0
_BUSY = 2
_ACCESS_BYTE = 5
_DR7_LOCAL = 0x155
"""L0 to L3 and LE: breakpoints of one task (17.2.4)."""


@dataclass(frozen=True)
class _Layout:
    """Where a TSS keeps what (figures 7-2 and 7-10). `registers`: EIP, EFLAGS, then the general registers."""

    word: int
    registers: int
    segments: int
    segment_names: tuple[str, ...]
    ldt: int
    size: int

    def segment_at(self, i: int) -> int:
        return self.segments + self.word * i


_TSS_16 = _Layout(2, 0x0E, 0x22, _SEGMENTS[:4], 0x2A, 0x2C)
_TSS_32 = _Layout(4, 0x20, 0x48, _SEGMENTS, 0x60, 0x68)
_TSS_32_CR3 = 0x1C


def _layout(tss_type: int) -> _Layout:
    return _TSS_32 if tss_type in (SystemType.TSS_32, SystemType.BUSY_TSS_32) else _TSS_16


def switch(attempt: Attempt, selector: int) -> None:
    """Switch to the task of a task gate, nested in the present one, and push the error code on its stack."""
    state = attempt.state
    tss = _available_tss(attempt, selector)
    new = _layout(tss.type)
    old = _layout(state.tr.flags >> 8 & 15)
    if tss.limit < new.size - 1:
        raise attempt.selector_fault(Vector.TS, selector)
    if state.tr.limit < old.size - 1:
        raise attempt.selector_fault(Vector.TS, state.tr.selector)

    # 7.3, step 7: everything that will be used must be mapped before anything changes
    image = attempt.read(tss.base, new.size)
    attempt.probe(state.tr.base + old.registers, old.ldt - old.registers)
    attempt.probe(tss.base + _LINK, 2)
    attempt.probe(tss.address + _ACCESS_BYTE, 1)

    _save(attempt, old)
    attempt.write(tss.base + _LINK, state.tr.selector.to_bytes(2, "little"))
    attempt.write(tss.address + _ACCESS_BYTE, bytes([tss.high >> 8 & 0xFF | _BUSY]))
    tss.raw |= _BUSY << 40

    state.tr = tss.segment(selector)
    _load_registers(attempt, new, image)
    attempt.switched_task = True
    attempt.commit()

    _load_ldt(attempt)
    if not attempt.vm86:
        for name in ("cs", "ss", "ds", "es", "fs", "gs"):
            _load_segment(attempt, name)
    _push_error_code(attempt, new)


def _available_tss(attempt: Attempt, selector: int) -> Descriptor:
    address = None if selector & SELECTOR_TI else find(attempt, selector)
    if address is None:
        raise attempt.selector_fault(Vector.GP, selector)
    tss = load(attempt, address)
    if not tss.is_system or tss.type not in (SystemType.TSS_16, SystemType.TSS_32):
        raise attempt.selector_fault(Vector.GP, selector)
    if not tss.present:
        raise attempt.selector_fault(Vector.NP, selector)
    return tss


def _save(attempt: Attempt, layout: _Layout) -> None:
    """Step 8: the present task's registers, as far as its TSS has room for them."""
    state = attempt.state
    values = [state.rip, attempt.saved_flags(), *(getattr(state, name) for name in _GENERAL)]
    mask = (1 << 8 * layout.word) - 1
    for i, value in enumerate(values):
        at = state.tr.base + layout.registers + layout.word * i
        attempt.write(at, (value & mask).to_bytes(layout.word, "little"))
    for i, name in enumerate(layout.segment_names):
        at = state.tr.base + layout.segment_at(i)
        attempt.write(at, getattr(state, name).selector.to_bytes(2, "little"))


def _load_registers(attempt: Attempt, layout: _Layout, image: bytes) -> None:
    """Steps 11 and 12. Segment registers get their selectors only; the privilege level is CS.RPL at once."""
    state = attempt.state

    def number(at: int, size: int = layout.word) -> int:
        return int.from_bytes(image[at : at + size], "little")

    is_32_bit = layout is _TSS_32
    state.cr0 |= CR0_TS
    state.dr7 &= ~_DR7_LOCAL
    if is_32_bit and state.cr0 & CR0_PG:
        state.cr3 = number(_TSS_32_CR3)
    registers = [number(layout.registers + layout.word * i) for i in range(2 + len(_GENERAL))]
    state.rip = registers[0]
    state.rflags = registers[1] & FLAGS_IMPLEMENTED | FLAG_NT | FLAG_FIXED
    for name, value in zip(_GENERAL, registers[2:], strict=True):
        # a 16-bit TSS leaves ones in the upper half
        setattr(state, name, value if is_32_bit else value | 0xFFFF0000)
    selectors = dict.fromkeys(_SEGMENTS, 0)
    for i, name in enumerate(layout.segment_names):
        selectors[name] = number(layout.segment_at(i), 2)
    for name, selector in selectors.items():
        setattr(state, name, vm86_segment(selector) if attempt.vm86 else Segment(selector))
    if not attempt.vm86:
        attempt.enter_privilege_level(state.cs.selector & SELECTOR_RPL)
    state.ldtr = Segment(number(layout.ldt, 2))


def _load_ldt(attempt: Attempt) -> None:
    """Table 7-1: the LDT's selector and descriptor."""
    selector = attempt.state.ldtr.selector
    if is_null(selector):
        return
    address = None if selector & SELECTOR_TI else find(attempt, selector)
    if address is None:
        raise attempt.selector_fault(Vector.TS, selector)
    ldt = load(attempt, address)
    if not ldt.is_system or ldt.type != SystemType.LDT or not ldt.present:
        raise attempt.selector_fault(Vector.TS, selector)
    attempt.state.ldtr = ldt.segment(selector)
    attempt.commit()


def _load_segment(attempt: Attempt, name: str) -> None:
    """Table 7-1: one segment register, checked as a load in the new task would be."""
    selector = getattr(attempt.state, name).selector
    needed = name in ("cs", "ss")
    if is_null(selector) and not needed:
        return
    address = find(attempt, selector)
    if is_null(selector) or address is None:
        raise attempt.selector_fault(Vector.TS, selector)
    descriptor = load(attempt, address)
    if not _may_load(name, descriptor, selector & SELECTOR_RPL, attempt.state.cpl):
        raise attempt.selector_fault(Vector.TS, selector)
    if not descriptor.present:
        raise attempt.selector_fault(Vector.SS if name == "ss" else Vector.NP, selector)
    mark_accessed(attempt, descriptor)
    setattr(attempt.state, name, descriptor.segment(selector))
    attempt.commit()


def _may_load(name: str, descriptor: Descriptor, rpl: int, cpl: int) -> bool:
    if name == "cs":
        if descriptor.is_conforming:
            return descriptor.dpl <= rpl
        return descriptor.is_code and descriptor.dpl == rpl
    if name == "ss":
        return descriptor.is_writable_data and descriptor.dpl == rpl == cpl
    return descriptor.is_readable and (descriptor.is_conforming or descriptor.dpl >= max(rpl, cpl))


def _push_error_code(attempt: Attempt, layout: _Layout) -> None:
    state, error_code = attempt.state, attempt.event.error_code
    words = [] if error_code is None else [error_code]
    frame = Frame(state.ss, state.rsp, layout.word, state.cpl, words)
    if not frame.fits():
        raise Fault(Vector.SS, attempt.ext)
    if state.rip > state.cs.limit:
        raise Fault(Vector.GP, attempt.ext)
    state.rsp = frame.push(attempt)
