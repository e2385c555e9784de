"""Delivery of events to tables made by hand, with known answers."""

import pytest
from cpu_guest import (
    BIG,
    CODE,
    CODE0,
    CODE3,
    CODE64,
    CONF0,
    DATA0,
    DATA3,
    GDT,
    IDT,
    INTERRUPT,
    INTERRUPT16,
    IST_STACK,
    KERNEL_STACK,
    MEMORY_SIZE,
    TABLES,
    TASK,
    TRAP,
    TSS,
    TSS2,
    TSS2_SEL,
    TSS_SEL,
    USER64,
    USER_STACK,
    descriptor,
    dpl,
    gate,
    good_task,
    identity_map,
    long,
    protected,
    put,
    put_number,
    tables,
    vm86,
    words,
)

from emuvisor.cpu.reference.faults import Event, Kind
from emuvisor.cpu.state import CpuState, DescriptorTable, Segment

DE, DB, UD, DF, TS, NP, SS, GP, PF = 0, 1, 6, 8, 10, 11, 12, 13, 14
RF = 0x10000


def idt(data, gates, size=8):
    for vector, entry in gates.items():
        put(data, IDT + size * vector, entry)
    return data


def handler(vector):
    return 0x9000 + 0x10 * vector


def handlers(data, *vectors, **changes):
    """Interrupt gates to ring 0."""
    return idt(data, {v: gate(INTERRUPT, CODE0, handler(v), **changes) for v in vectors})


def long_handlers(data, *vectors, **changes):
    entries = {v: gate(INTERRUPT, CODE64, handler(v), long=True, **changes) for v in vectors}
    return idt(data, entries, 16)


# real mode


def test_real_mode_interrupt(cpu):
    data = bytearray(MEMORY_SIZE)
    put(data, 4 * 0x10, bytes.fromhex("34 12 00 f0"))
    state = CpuState(rip=0x7C02, rsp=0x1_0100, rflags=0x40302)
    state.cs = Segment(0x100, 0x1000, 0xFFFF, 0x9B00)
    state.ss = Segment(0x200, 0x2000, 0xFFFF, 0x9300)
    outcome, after = cpu.deliver(state, data, Event(0x10, Kind.SOFTWARE, instruction=0x7C00))
    assert outcome == "delivered"
    assert (after.cs.selector, after.cs.base, after.rip) == (0xF000, 0xF0000, 0x1234)
    assert after.rsp == 0x1_00FA, "only SP moves"
    assert words(data, 0x20FA, 3, 2) == [0x7C02, 0x100, 0x302]
    assert after.rflags == 2, "IF, TF and AC are cleared"


def test_real_mode_stack_wraps_between_words(cpu):
    data = bytearray(0x20000)
    state = CpuState(rip=0x111, rsp=2)
    outcome, after = cpu.deliver(state, data, Event(0x20, Kind.INTERRUPT))
    assert (outcome, after.rsp) == ("delivered", 0xFFFC)
    assert words(data, 0xFFFC, 2, 2) == [0x111, 0xF000]
    assert words(data, 0, 1, 2) == [2]


def test_real_mode_word_across_the_end_of_the_stack_segment(cpu):
    """#SS cannot be pushed either, nor #DF: shutdown."""
    outcome, after = cpu.deliver(CpuState(rsp=1), bytearray(0x20000), Event(0x20, Kind.INTERRUPT))
    assert (outcome, after) == ("shutdown", CpuState(rsp=1))


def test_real_mode_vector_beyond_the_idt_limit(cpu):
    data = bytearray(MEMORY_SIZE)
    put(data, 4 * GP, bytes.fromhex("00 05 00 00"))
    state = CpuState(rip=0x102, rsp=0x1000, idtr=DescriptorTable(0, 4 * 0x20 - 1))
    _, after = cpu.deliver(state, data, Event(0x20, Kind.SOFTWARE, instruction=0x100))
    assert after.rip == 0x500
    assert words(data, 0xFFA, 1, 2) == [0x100], "a fault returns to the INT itself"


def test_real_mode_without_vectors_shuts_down(cpu):
    state = CpuState(rsp=0x1000, idtr=DescriptorTable(0, 0))
    assert cpu.deliver(state, bytearray(MEMORY_SIZE), Event(0x20, Kind.INTERRUPT)) == ("shutdown", state)


# protected mode


def test_interrupt_from_ring_3_switches_to_the_stack_of_the_tss(cpu):
    data = handlers(tables(), 0x30)
    outcome, after = cpu.deliver(
        protected(cpl=3, rflags=0x4302, interrupt_shadow=True), data, Event(0x30, Kind.INTERRUPT)
    )
    assert outcome == "delivered"
    assert (after.cs.selector, after.rip, after.ss.selector) == (CODE0, handler(0x30), DATA0)
    assert (after.cpl, after.rsp) == (0, KERNEL_STACK - 20)
    assert words(data, after.rsp, 5, 4) == [0x8000, CODE3 | 3, 0x4302, USER_STACK, DATA3 | 3]
    assert after.rflags == 2, "IF, TF and NT are cleared"
    assert not after.interrupt_shadow


def test_trap_gate_keeps_interrupts_enabled(cpu):
    data = idt(tables(), {0x30: gate(TRAP, CODE0, 0x9000)})
    _, after = cpu.deliver(protected(rflags=0x4302), data, Event(0x30, Kind.INTERRUPT))
    assert after.rflags == 0x202
    assert (after.ss, after.rsp) == (protected().ss, KERNEL_STACK - 12)
    assert words(data, after.rsp, 3, 4) == [0x8000, CODE0, 0x4302]


def test_faults_push_their_error_code_and_rf(cpu):
    data = handlers(tables(), GP)
    _, after = cpu.deliver(protected(), data, Event(GP, error_code=0x1234))
    assert words(data, after.rsp, 4, 4) == [0x1234, 0x8000, CODE0, 0x202 | RF]


def test_debug_exceptions_push_rf_as_it_is(cpu):
    data = handlers(tables(), DB)
    _, after = cpu.deliver(protected(), data, Event(DB))
    assert words(data, after.rsp, 3, 4) == [0x8000, CODE0, 0x202]


def test_286_gate_pushes_words(cpu):
    data = idt(tables(), {0x30: gate(INTERRUPT16, CODE0, 0xFFFF9000)})
    _, after = cpu.deliver(protected(cpl=3), data, Event(0x30, Kind.INTERRUPT))
    assert (after.rip, after.rsp) == (0x9000, KERNEL_STACK - 10)
    assert words(data, after.rsp, 5, 2) == [0x8000, CODE3 | 3, 0x202, USER_STACK, DATA3 | 3]


def test_conforming_handler_runs_at_the_interrupted_level(cpu):
    data = idt(tables(), {0x30: gate(INTERRUPT, CONF0, 0x9000)})
    _, after = cpu.deliver(protected(cpl=3), data, Event(0x30, Kind.INTERRUPT))
    assert (after.cs.selector, after.cpl, after.rsp) == (CONF0 | 3, 3, USER_STACK - 12)


def test_16_bit_tss_and_stack(cpu):
    data = handlers(tables(), 0x30)
    put_number(data, TSS + 2, 0x4008, 2)
    put_number(data, TSS + 4, DATA0, 2)
    put(data, GDT + DATA0, descriptor(0, 0xFFFF, 0x9300))
    state = protected(cpl=3, tr=Segment(TSS_SEL, TSS, 0x2B, 0x8300))
    _, after = cpu.deliver(state, data, Event(0x30, Kind.INTERRUPT))
    assert after.rsp == 0x4008 - 20
    assert words(data, after.rsp, 2, 4) == [0x8000, CODE3 | 3]


@pytest.mark.parametrize("attributes", [0x9300, 0x9300 | BIG], ids=["SP", "ESP"])
def test_the_stack_segments_b_bit_chooses_sp_or_esp(cpu, attributes):
    data = handlers(tables(), 0x30)
    state = protected(rsp=0x10004, ss=Segment(DATA0, 0x1000, 0x1FFFF, attributes))
    _, after = cpu.deliver(state, data + bytearray(0x4000), Event(0x30, Kind.INTERRUPT))
    assert after.rsp == (0xFFF8 if attributes & BIG else 0x1FFF8)


@pytest.mark.parametrize(("limit", "vector"), [(0x4FF3, 0x30), (0x4FF4, SS)])
def test_expand_down_stacks_end_above_their_limit(cpu, limit, vector):
    data = idt(handlers(tables(), 0x30), {SS: gate(TASK, TSS2_SEL)})
    good_task(data)
    state = protected(rsp=0x5000, ss=Segment(DATA0, 0, limit, 0x9700 | BIG))
    _, after = cpu.deliver(state, data, Event(0x30, Kind.INTERRUPT))
    assert after.rip == (handler(0x30) if vector == 0x30 else 0x8888)


def test_the_accessed_bit_of_the_handlers_segments_is_set(cpu):
    data = handlers(tables(), 0x30)
    for selector in (CODE0, DATA0):
        data[GDT + selector + 5] &= ~1
    _, after = cpu.deliver(protected(cpl=3), data, Event(0x30, Kind.INTERRUPT))
    assert (data[GDT + CODE0 + 5], data[GDT + DATA0 + 5]) == (0x9B, 0x93)
    assert after.cs.flags & after.ss.flags & 0x100


def change_tss(**fields):
    def change(data, state):
        offsets = {"esp0": (4, 4), "ss0": (8, 2)}
        for name, value in fields.items():
            put_number(data, TSS + offsets[name][0], value, offsets[name][1])

    return change


def change_entry(selector, entry):
    return lambda data, state: put(data, GDT + selector, entry)


def change_gate(entry):
    return lambda data, state: put(data, IDT + 8 * 0x30, entry)


def change_state(**fields):
    def change(data, state):
        for name, value in fields.items():
            setattr(state, name, value)

    return change


FLAT = 0xC00000
FAULTS = [
    # what is wrong with a delivery of vector 30h from ring 3, exception, error code with EXT=1
    (change_state(idtr=DescriptorTable(IDT, 8 * 0x30)), GP, 0x30 * 8 + 3),
    (change_gate(gate(12, CODE0)), GP, 0x30 * 8 + 3),
    (change_gate(gate(INTERRUPT | 0x10, CODE0)), GP, 0x30 * 8 + 3),
    (change_gate(gate(INTERRUPT, CODE0, present=False)), NP, 0x30 * 8 + 3),
    (change_gate(gate(INTERRUPT, 3)), GP, 1),
    (change_gate(gate(INTERRUPT, 0x1F0)), GP, 0x1F1),
    (change_gate(gate(INTERRUPT, CODE0 | 4)), GP, CODE0 | 5),
    (change_gate(gate(INTERRUPT, DATA0)), GP, DATA0 | 1),
    (change_gate(gate(INTERRUPT, TSS_SEL)), GP, TSS_SEL | 1),
    (change_entry(USER64, descriptor(0, 0xFFFFF, CODE & ~0x8000 | FLAT)), NP, USER64 | 1),
    (change_tss(ss0=0), TS, 1),
    (change_tss(ss0=0x1F0), TS, 0x1F1),
    (change_tss(ss0=DATA0 | 1), TS, DATA0 | 1),
    (change_tss(ss0=DATA3), TS, DATA3 | 1),
    (change_tss(ss0=CODE0), TS, CODE0 | 1),
    (change_entry(DATA0, descriptor(0, 0xFFFFF, 0x9100 | FLAT)), TS, DATA0 | 1),
    (change_entry(DATA0, descriptor(0, 0xFFFFF, 0x1300 | FLAT)), SS, DATA0 | 1),
    (change_entry(DATA0, descriptor(0, KERNEL_STACK - 2, 0x9300 | BIG)), SS, DATA0 | 1),
    (change_entry(DATA0, descriptor(0, 5, 0x9700 | FLAT)), SS, DATA0 | 1),
    (change_gate(gate(INTERRUPT, USER64, 0x10000)), GP, 1),
]


@pytest.mark.parametrize(("change", "vector", "error_code"), FAULTS)
def test_faults_while_an_interrupt_is_delivered(cpu, change, vector, error_code):
    """The fault goes through a task gate, which needs nothing of what is broken."""
    data = handlers(tables(), 0x30)
    put(data, GDT + USER64, descriptor(0, 0xFFFF, CODE))
    put(data, IDT + 8 * 0x30, gate(INTERRUPT, USER64 if vector == NP else CODE0))
    state = protected(cpl=3)
    change(data, state)
    good_task(data)
    for exception in (TS, NP, SS, GP):
        put(data, IDT + 8 * exception, gate(TASK, TSS2_SEL))
    outcome, after = cpu.deliver(state, data, Event(0x30, Kind.INTERRUPT))
    assert (outcome, after.tr.selector) == ("delivered", TSS2_SEL)
    assert words(data, after.rsp, 1, 4) == [error_code]
    assert (after.cs.selector, after.rip) == (CODE3 | 3, 0x8888)


def test_a_tss_too_short_for_the_inner_stack(cpu):
    data = idt(handlers(tables(), 0x30), {TS: gate(INTERRUPT, CONF0, 0x9000)})
    state = protected(cpl=3, tr=Segment(TSS_SEL, TSS, 8, 0x8B00))
    _, after = cpu.deliver(state, data, Event(0x30, Kind.INTERRUPT))
    assert (after.rip, words(data, after.rsp, 2, 4)) == (0x9000, [TSS_SEL | 1, 0x8000])


def test_software_interrupts_need_the_gates_privilege(cpu):
    data = handlers(tables(), 0x30, GP)
    event = Event(0x30, Kind.SOFTWARE, instruction=0x7FFE)
    _, after = cpu.deliver(protected(cpl=3), data, event)
    assert after.rip == handler(GP)
    assert words(data, after.rsp, 4, 4) == [0x30 * 8 + 2, 0x7FFE, CODE3 | 3, 0x202 | RF], "EXT is clear"
    data = handlers(tables(), 0x30, level=3)
    _, after = cpu.deliver(protected(cpl=3), data, event)
    assert (after.rip, words(data, after.rsp, 1, 4)) == (handler(0x30), [0x8000])
    data = handlers(tables(), 0x30, GP)
    _, after = cpu.deliver(protected(cpl=3), data, Event(0x30, Kind.ICEBP))
    assert after.rip == handler(0x30)


@pytest.mark.parametrize(
    ("first", "second", "delivered"),
    [
        (0x30, NP, NP),
        (UD, NP, NP),
        (DE, NP, DF),
        (GP, NP, DF),
        (PF, NP, DF),
        (DF, NP, None),
    ],
)
def test_contributory_faults_become_double_faults(cpu, first, second, delivered):
    data = handlers(tables(), second, DF)
    put(data, IDT + 8 * first, gate(INTERRUPT, CODE0, present=False))
    kind = Kind.INTERRUPT if first == 0x30 else Kind.EXCEPTION
    state = protected()
    outcome, after = cpu.deliver(state, data, Event(first, kind, 0 if first in (DF, GP, PF) else None))
    if delivered is None:
        assert (outcome, after) == ("shutdown", state)
        return
    assert (outcome, after.rip) == ("delivered", handler(delivered))
    error_code = 0 if delivered == DF else first * 8 + 3
    assert words(data, after.rsp, 2, 4) == [error_code, 0x8000]


def test_an_unusable_idt_is_a_triple_fault(cpu):
    state = protected(idtr=DescriptorTable(0, 0))
    assert cpu.deliver(state, tables(), Event(UD)) == ("shutdown", state)


# virtual-8086 mode


@pytest.mark.parametrize("kind", [Kind.INTERRUPT, Kind.SOFTWARE])
def test_vm86_to_ring_0(cpu, kind):
    data = handlers(tables(), 0x21, level=3)
    state = vm86(rflags=0x23202)
    outcome, after = cpu.deliver(state, data, Event(0x21, kind, instruction=0))
    assert outcome == "delivered"
    assert (after.cs.selector, after.rip, after.cpl, after.rflags) == (CODE0, handler(0x21), 0, 0x3002)
    frame = [2, 0x800, 0x23202, 0x100, 0x500, 0x22, 0x11, 0x33, 0x44]
    assert words(data, after.rsp, 9, 4) == frame
    assert after.rsp == KERNEL_STACK - 36
    assert after.ds == after.es == after.fs == after.gs == Segment()


def test_vm86_int_n_needs_iopl_3(cpu):
    data = handlers(tables(), 0x21, GP, level=3)
    _, after = cpu.deliver(vm86(rflags=0x21202), data, Event(0x21, Kind.SOFTWARE, instruction=0))
    assert after.rip == handler(GP)
    assert words(data, after.rsp, 3, 4) == [0, 0, 0x800], "error code 0, at the INT"


def test_vm86_int3_does_not_need_iopl_3(cpu):
    data = handlers(tables(), 3, GP, level=3)
    _, after = cpu.deliver(vm86(), data, Event(3, Kind.SOFTWARE, instruction=1))
    assert after.rip == handler(3)
    _, after = cpu.deliver(vm86(), data, Event(3, Kind.SOFTWARE, instruction=0))
    assert after.rip == handler(GP), "INT 3 in two bytes does"


def test_vm86_handler_must_be_ring_0(cpu):
    data = handlers(tables(), GP)
    put(data, IDT + 8 * 0x21, gate(INTERRUPT, CONF0, level=3))
    _, after = cpu.deliver(vm86(), data, Event(0x21, Kind.INTERRUPT))
    assert words(data, after.rsp, 1, 4) == [CONF0 | 1]


@pytest.mark.parametrize(
    ("rflags", "pushed", "after_flags"),
    [(0x23302, 0x3302, 0x23002), (0x80302 | 0x20000, 0x3302, 0x20202), (0x20302, 0x3102, 0x20202)],
    ids=["IOPL 3", "IOPL 0, VIF", "IOPL 0, no VIF"],
)
def test_vme_redirects_int_n_to_the_8086_program(cpu, rflags, pushed, after_flags):
    data = handlers(tables(), 0x21, level=3)
    put_number(data, TSS + 0x66, 0x88, 2)
    put(data, 4 * 0x21, bytes.fromhex("56 34 12 00"))
    state = vm86(rflags=rflags, cr4=1, tr=Segment(TSS_SEL, TSS, 0xFF, 0x8B00))
    _, after = cpu.deliver(state, data, Event(0x21, Kind.SOFTWARE, instruction=0))
    assert (after.cs.selector, after.cs.base, after.rip, after.rsp) == (0x12, 0x120, 0x3456, 0xFA)
    assert words(data, 0x50FA, 3, 2) == [2, 0x800, pushed]
    assert after.rflags == after_flags
    data[TSS + 0x88 - 32 + 4] = 2
    _, after = cpu.deliver(vm86(rflags=0x23202, cr4=1, tr=state.tr), data, Event(0x21, Kind.SOFTWARE))
    assert after.rip == handler(0x21), "a set bit leaves it to the monitor"


# task gates


def test_double_fault_through_a_task_gate(cpu):
    """The classic use: the kernel's stack is gone, #DF still has one."""
    data = good_task(tables(), cs=CODE0, ss=DATA0, esp=0x6000, ds=DATA3, eax=0x1234, cr3=0x7000)
    idt(data, {PF: gate(INTERRUPT, CODE0, 0x9000), DF: gate(TASK, TSS2_SEL)})
    state = protected(rax=0x55, rflags=0x246, dr7=0x455, rsp=0)
    state.ss = Segment(DATA0, 0, 0x0FFF, 0x409300)
    outcome, after = cpu.deliver(state, data, Event(PF, error_code=2))
    assert outcome == "delivered"
    assert (after.cs.selector, after.rip, after.ss.selector) == (CODE0, 0x8888, DATA0)
    assert (after.tr.selector, after.tr.base, after.tr.flags) == (TSS2_SEL, TSS2, 0x8B00)
    assert after.rax == 0x1234
    assert (after.ds.selector, after.ds.limit, after.es) == (DATA3, 0xFFFFFFFF, Segment())
    assert after.rflags == 0x4002, "NT, and IF from the TSS"
    assert after.cr0 & 8, "TS"
    assert after.dr7 == 0x400
    assert after.cr3 == 0, "CR3 is left alone while paging is off"
    assert (after.rsp, words(data, after.rsp, 1, 4)) == (0x6000 - 4, [0])
    assert words(data, TSS2, 1, 2) == [TSS_SEL]
    assert data[GDT + TSS2_SEL + 5] == 0x8B, "busy"
    saved = words(data, TSS + 0x20, 10, 4)
    assert saved == [0x8000, 0x246, 0x55, 0, 0, 0, 0, 0, 0, 0], "no RF: #DF is an abort"
    assert words(data, TSS + 0x4C, 1, 2) == [CODE0]


def test_16_bit_task(cpu):
    data = tables()
    put(data, GDT + TSS2_SEL, descriptor(TSS2, 0x2B, 0x8100))
    idt(data, {0x30: gate(TASK, TSS2_SEL)})
    for at, value in {
        0x0E: 0x1111,
        0x10: 0x202,
        0x12: 0xAAAA,
        0x1A: 0x5000,
        0x24: CODE0,
        0x26: DATA0,
    }.items():
        put_number(data, TSS2 + at, value, 2)
    _, after = cpu.deliver(protected(), data, Event(0x30, Kind.INTERRUPT))
    assert (after.rip, after.rflags, after.rax, after.rsp) == (0x1111, 0x4202, 0xFFFFAAAA, 0xFFFF5000)
    assert after.tr.flags == 0x8300


def test_vm86_task(cpu):
    data = good_task(tables(), cs=0x1234, ss=0x500, esp=0x100, eflags=0x23002, ds=7)
    idt(data, {0x30: gate(TASK, TSS2_SEL)})
    _, after = cpu.deliver(protected(), data, Event(0x30, Kind.INTERRUPT))
    assert (after.cs.base, after.ds.base, after.cpl, after.rflags) == (0x12340, 0x70, 3, 0x27002)


@pytest.mark.parametrize(
    ("selector", "change", "vector", "error_code"),
    [
        (0, None, GP, 1),
        (TSS2_SEL | 4, None, GP, TSS2_SEL | 5),
        (TSS_SEL, None, GP, TSS_SEL | 1),
        (CODE0, None, GP, CODE0 | 1),
        (TSS2_SEL, descriptor(TSS2, 0x67, 0x0900), NP, TSS2_SEL | 1),
        (TSS2_SEL, descriptor(TSS2, 0x66, 0x8900), TS, TSS2_SEL | 1),
    ],
)
def test_a_bad_tss_faults_in_the_old_task(cpu, selector, change, vector, error_code):
    data = idt(handlers(tables(), vector), {0x30: gate(TASK, selector)})
    if change:
        put(data, GDT + TSS2_SEL, change)
    _, after = cpu.deliver(protected(), data, Event(0x30, Kind.INTERRUPT))
    assert (after.rip, after.tr.selector) == (handler(vector), TSS_SEL)
    assert words(data, after.rsp, 2, 4) == [error_code, 0x8000]


@pytest.mark.parametrize(
    ("task", "vector", "error_code"),
    [
        ({"ldt": CODE0}, TS, CODE0 | 1),
        ({"ldt": 0x44}, TS, 0x45),
        ({"ds": 0x1F3}, TS, 0x1F1),
        ({"ds": TSS_SEL}, TS, TSS_SEL | 1),
        ({"es": DATA0}, TS, DATA0 | 1),
        ({"es": CODE64}, NP, CODE64 | 1),
        ({"cs": CODE64 | 3}, NP, CODE64 | 1),
        ({"cs": CODE0 | 3}, TS, CODE0 | 1),
        ({"eip": 0x100000000 - 1, "cs": USER64 | 3}, GP, 1),
    ],
)
def test_bad_segments_fault_in_the_new_task(cpu, task, vector, error_code):
    """Ring 3 of the new task to ring 0, by the stack that its TSS names."""
    data = good_task(tables(), **task)
    put(data, GDT + CODE64, descriptor(0, 0xFFFFF, 0x7B00 | FLAT))
    put(data, GDT + USER64, descriptor(0, 0xFFFF, CODE | dpl(3)))
    handlers(data, vector)
    put(data, IDT + 8 * 0x30, gate(TASK, TSS2_SEL, level=3))
    put_number(data, TSS2 + 4, 0x7000, 4)
    put_number(data, TSS2 + 8, DATA0, 2)
    _, after = cpu.deliver(protected(), data, Event(0x30, Kind.SOFTWARE, instruction=0x7FFE))
    assert (after.tr.selector, after.rip) == (TSS2_SEL, handler(vector))
    new_task = [task.get("eip", 0x8888), task.get("cs", CODE3 | 3)]
    assert words(data, after.rsp, 3, 4) == [error_code & ~1, *new_task], "INT n: EXT is clear"
    assert words(data, TSS + 0x20, 1, 4) == [0x8000], "the old task goes on behind the INT"


# long mode


def test_long_mode_interrupt_from_ring_3(cpu):
    data = long_handlers(identity_map(tables()), 0x30)
    put_number(data, TSS + 4, KERNEL_STACK + 5, 8)
    outcome, after = cpu.deliver(long(cpl=3, rflags=0x302), data, Event(0x30, Kind.INTERRUPT))
    assert outcome == "delivered"
    assert (after.cs.selector, after.cs.flags, after.rip) == (CODE64, CODE | 0xA00000, handler(0x30))
    assert after.ss == Segment(0, 0, 0, 0), "null, with the new CPL as RPL"
    assert after.rsp == KERNEL_STACK - 40, "aligned to 16 bytes before the push"
    assert words(data, after.rsp, 5, 8) == [0x8000, USER64 | 3, 0x302, USER_STACK, DATA3 | 3]
    assert after.rflags == 2


def test_long_mode_same_level_keeps_ss_and_pushes_it(cpu):
    data = long_handlers(identity_map(tables()), GP)
    state = long(rsp=KERNEL_STACK - 3)
    _, after = cpu.deliver(state, data, Event(GP, error_code=7))
    assert after.ss == state.ss
    assert after.rsp == KERNEL_STACK - 16 - 48
    assert words(data, after.rsp, 6, 8) == [7, 0x8000, CODE64, 0x202 | RF, KERNEL_STACK - 3, DATA0]


@pytest.mark.parametrize("cpl", [0, 3])
def test_long_mode_ist(cpu, cpl):
    data = long_handlers(identity_map(tables()), DF, ist=7)
    put_number(data, TSS + 0x54, IST_STACK, 8)
    _, after = cpu.deliver(long(cpl=cpl), data, Event(DF, error_code=0))
    assert after.rsp == IST_STACK - 48
    assert after.ss.selector == (0 if cpl else DATA0)


def test_long_mode_page_fault_on_the_kernel_stack_is_a_double_fault(cpu):
    data = long_handlers(identity_map(tables()), PF)
    long_handlers(data, DF, ist=1)
    put_number(data, TSS + 0x24, IST_STACK, 8)
    put_number(data, TABLES + 0x3000 + 8 * (KERNEL_STACK - 0x1000 >> 12), 0, 8)
    outcome, after = cpu.deliver(long(cr2=0x1234), data, Event(PF, error_code=0))
    assert (outcome, after.rip, after.rsp) == ("delivered", handler(DF), IST_STACK - 48)
    assert after.cr2 == KERNEL_STACK - 8


def test_long_mode_triple_fault_changes_only_cr2(cpu):
    data = identity_map(tables(), pages=1)
    state = long(cr2=0x1234)
    outcome, after = cpu.deliver(state, data, Event(UD))
    state.cr2 = IDT + 16 * DF
    assert (outcome, after) == ("shutdown", state)


def test_pushes_to_a_user_handler_are_user_accesses(cpu):
    data = identity_map(tables(), leaf_flags=7)
    put_number(data, TABLES + 0x3000 + 8 * (USER_STACK - 0x1000 >> 12), USER_STACK - 0x1000 | 3, 8)
    idt(data, {0x30: gate(INTERRUPT, USER64, 0x9000, long=True)}, 16)
    long_handlers(data, PF)
    put_number(data, TSS + 4, KERNEL_STACK, 8)
    _, after = cpu.deliver(long(cpl=3), data, Event(0x30, Kind.INTERRUPT))
    assert (after.rip, after.cr2) == (handler(PF), USER_STACK - 8)
    assert words(data, after.rsp, 1, 8) == [7], "P, W, U"


LONG_FAULTS = [
    (gate(INTERRUPT16, CODE64, long=True), {}, GP, 0x30 * 8 + 3),
    (gate(TASK, TSS2_SEL, long=True), {}, GP, 0x30 * 8 + 3),
    (gate(INTERRUPT, CODE64, present=False, long=True), {}, NP, 0x30 * 8 + 3),
    (gate(INTERRUPT, CODE0, long=True), {}, GP, CODE0 | 1),
    (gate(INTERRUPT, 0, long=True), {}, GP, 1),
    (gate(INTERRUPT, CODE64, 1 << 47, long=True), {}, GP, 1),
    (gate(INTERRUPT, CODE64, ist=7, long=True), {"tr": Segment(TSS_SEL, TSS, 0x5A, 0x8B00)}, TS, TSS_SEL | 1),
    (gate(INTERRUPT, CODE64, ist=2, long=True), {}, SS, 1),
]


@pytest.mark.parametrize(("entry", "changes", "vector", "error_code"), LONG_FAULTS)
def test_long_mode_faults_while_an_interrupt_is_delivered(cpu, entry, changes, vector, error_code):
    data = long_handlers(identity_map(tables()), vector)
    put(data, IDT + 16 * 0x30, entry)
    put_number(data, TSS + 0x2C, 1 << 48, 8)
    _, after = cpu.deliver(long(**changes), data, Event(0x30, Kind.INTERRUPT))
    assert after.rip == handler(vector)
    assert words(data, after.rsp, 2, 8) == [error_code, 0x8000]


def test_tables_at_addresses_that_are_not_canonical(cpu):
    data = long_handlers(identity_map(tables()), GP)
    state = long(idtr=DescriptorTable((1 << 47) - 16 * 0x20, 0xFFF))
    assert cpu.deliver(state, data, Event(0x30, Kind.INTERRUPT))[0] == "shutdown"
    state = long(cpl=3, tr=Segment(TSS_SEL, 1 << 47, 0x67, 0x8B00))
    data = long_handlers(data, 0x30, ist=1)
    idt(data, {GP: gate(INTERRUPT, USER64, handler(GP), long=True)}, 16)
    _, after = cpu.deliver(state, data, Event(0x30, Kind.INTERRUPT))
    assert (after.rip, words(data, after.rsp, 1, 8)) == (handler(GP), [0])


def test_a_frame_across_two_pages(cpu):
    data = long_handlers(identity_map(tables()), 0x30)
    for page, frame in ((5, 0x9000), (4, 0x8000)):
        put_number(data, TABLES + 0x3000 + 8 * page, frame | 7, 8)
    _, after = cpu.deliver(long(rsp=0x5010), data, Event(0x30, Kind.INTERRUPT))
    assert after.rsp == 0x5010 - 40
    assert words(data, 0x8FE8, 3, 8) == [0x8000, CODE64, 0x202]
    assert words(data, 0x9000, 2, 8) == [0x5010, DATA0]
