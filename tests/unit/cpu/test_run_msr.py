"""Model-specific registers and CR8."""

import pytest
from cpu_guest import (
    CODE64,
    IDT,
    KERNEL_STACK,
    MEMORY_SIZE,
    TSS,
    identity_map,
    long,
    protected,
    put_number,
    tables,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import CODE, DATA, Rig, asm, put_handler

from emuvisor.cpu.exits import ExitReason

TSC, APIC_BASE, TSC_ADJUST, MTRRCAP, PAT, MTRR_DEF_TYPE, TSC_DEADLINE = (
    0x10,
    0x1B,
    0x3B,
    0xFE,
    0x277,
    0x2FF,
    0x6E0,
)
STEAL_TIME = 0x4B564D03
LSTAR, FS_BASE, GS_BASE = 0xC0000082, 0xC0000100, 0xC0000101
MTRRS = [*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), MTRR_DEF_TYPE]
GP = 13
HANDLER = 0x9000
READ = "mov ecx, {}; rdmsr; shl rdx, 32; or rax, rdx;"
WRITE = "mov ecx, {}; mov rdx, {}; mov eax, edx; shr rdx, 32; wrmsr;"


@pytest.fixture
def rig():
    return Rig(pcpus=2)


def guest_of(rig, source, **state):
    """64-bit mode; #GP notes the error code in R14 and RIP in R15 and halts."""
    data = identity_map(tables())
    put_handler(data, GP, HANDLER, CODE64, IDT, long=True)
    put_number(data, TSS + 4, KERNEL_STACK, 8)
    handler = asm("pop r14; mov r15, [rsp]; hlt")
    data[HANDLER : HANDLER + len(handler)] = handler
    return rig.guest(long(**state), asm(source), data)


def read(rig, index, prepare=lambda guest: None):
    guest = guest_of(rig, READ.format(index) + "hlt")
    prepare(guest)
    return guest.run_to_halt()


def faulted(state, at=CODE):
    return (state.r14, state.rip) == (0, HANDLER + 7) and state.r15 == at


# ---- the time stamp counter ----


def test_a_write_to_the_tsc_goes_on_from_there(rig):
    guest = guest_of(
        rig,
        WRITE.format(TSC, 1 << 40)
        + READ.format(TSC)
        + "mov r8, rax; rdtsc; shl rdx, 32; or rax, rdx; mov r9, rax;"
        + READ.format(TSC_ADJUST)
        + "hlt",
    )
    before = guest.vcpu.tsc
    state = guest.run_to_halt()
    assert 1 << 40 <= state.r8 < state.r9 < (1 << 40) + 1000
    assert (1 << 40) - 1000 < state.rax < 1 << 40
    assert state.tsc_adjust == state.rax
    assert guest.vcpu.tsc == guest.vcpu.work + state.tsc_adjust > before


def test_a_write_to_tsc_adjust_moves_the_tsc(rig):
    guest = guest_of(rig, WRITE.format(TSC_ADJUST, 1 << 50) + "rdtsc; shl rdx, 32; or rax, rdx; hlt")
    assert 1 << 50 < guest.run_to_halt().rax < (1 << 50) + 1000


@pytest.mark.parametrize("value", [0, (1 << 64) - 1])
def test_a_tsc_before_its_beginning(rig, value):
    guest = guest_of(rig, WRITE.format(TSC, value) + READ.format(TSC) + "hlt")
    guest.vcpu.work = 10**12
    assert (guest.run_to_halt().rax - value) % (1 << 64) < 1000


def test_the_tsc_of_another_guest_is_its_own(rig):
    first = guest_of(rig, WRITE.format(TSC, 1 << 40) + "hlt")
    second = guest_of(rig, READ.format(TSC) + "hlt")
    first.run_to_halt()
    assert second.run_to_halt().rax < 1000
    assert first.vcpu.tsc >= 1 << 40


def test_the_offset_goes_with_the_state(rig):
    guest = guest_of(rig, WRITE.format(TSC, 1 << 40) + "hlt")
    guest.run_to_halt()
    twin = rig.clone(guest)
    assert twin.vcpu.state.tsc_adjust == guest.vcpu.state.tsc_adjust
    assert guest.vcpu.tsc - guest.vcpu.work == twin.vcpu.tsc


# ---- the board's ----


def test_the_apic_base_is_the_boards(rig):
    guest = guest_of(
        rig, READ.format(APIC_BASE) + "mov r8, rax;" + WRITE.format(APIC_BASE, 0xFEE01900) + "hlt"
    )
    guest.devices.msrs[APIC_BASE] = 0xFEE00900
    assert guest.run_to_halt().r8 == 0xFEE00900
    assert guest.devices.log == [("rdmsr", APIC_BASE), ("wrmsr", APIC_BASE, 0xFEE01900)]


def test_a_board_without_it(rig):
    assert faulted(read(rig, APIC_BASE), at=CODE + 5)
    guest = guest_of(rig, "mov ecx, 0x1b; wrmsr; hlt")
    assert faulted(guest.run_to_halt(), at=CODE + 5)
    assert guest.devices.log == [("wrmsr", APIC_BASE, 0)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(value=st.integers(0, (1 << 64) - 1), accept=st.booleans())
def test_any_value_reaches_the_board(value, accept):
    guest = guest_of(Rig(), "mov ecx, 0x1b; wrmsr; hlt", rax=value & 0xFFFFFFFF, rdx=value >> 32)
    if accept:
        guest.devices.msrs[APIC_BASE] = 0
    state = guest.run_to_halt()
    assert guest.devices.log == [("wrmsr", APIC_BASE, value)]
    assert faulted(state, at=CODE + 5) == (not accept)


def test_cr8_is_the_boards(rig):
    guest = guest_of(rig, "mov rax, 11; mov cr8, rax; mov rbx, cr8; hlt")
    state = guest.run_to_halt()
    assert state.rbx == 11
    assert guest.devices.log == [("write cr8", 11), ("read cr8",)]


def test_cr8_has_four_bits(rig):
    guest = guest_of(rig, "mov rax, 16; mov cr8, rax; hlt")
    assert faulted(guest.run_to_halt(), at=CODE + len(asm("mov rax, 16")))
    assert guest.devices.log == []
    guest = guest_of(rig, "mov rbx, cr8; hlt")
    guest.devices.cr8 = 0x1F7
    assert guest.run_to_halt().rbx == 7


def test_cr8_and_msrs_in_user_mode_are_refused(rig):
    for source in ("mov rax, cr8", "mov cr8, rax", "rdmsr", "wrmsr"):
        guest = guest_of(rig, f"{source}; hlt")
        state = long(3)
        guest.vcpu.state = state
        assert faulted(guest.run_to_halt()), source
        assert guest.devices.log == []


def test_what_a_handler_raises_comes_out_of_run(rig):
    class Broken(Exception):
        pass

    def broken():
        raise Broken

    for source in ("mov rax, cr8", "mov cr8, rax", "mov ecx, 0x1b; rdmsr", "mov ecx, 0x1b; wrmsr"):
        guest = guest_of(rig, f"{source}; jmp a; a: mov r13, 1; hlt")
        guest.devices.on_access = broken
        with pytest.raises(Broken):
            guest.run()
        assert guest.vcpu.state.r13 == 0, source
        guest.devices.on_access = lambda: None
        assert guest.run_to_halt().r13 == 1


def test_a_board_that_answers_nonsense(rig):
    guest = guest_of(rig, "mov rax, cr8; jmp a; a: hlt")
    guest.devices.cr8 = "high"
    with pytest.raises(TypeError):
        guest.run()


# ---- what is kept ----


def test_mtrrs_are_storage(rig):
    source = "".join(WRITE.format(index, 0x0123456789ABCD00 + n) for n, index in enumerate(MTRRS))
    source += "xor ebx, ebx;" + "".join(
        READ.format(index)
        + f"mov r8, {0x0123456789ABCD00 + n}; cmp rax, r8; setne al; movzx eax, al; add ebx, eax;"
        for n, index in enumerate(MTRRS)
    )
    code = asm(source + "hlt", at=0x10000)
    guest = rig.guest(
        long(rip=0x10000), b"", identity_map(tables(), pages=32), blocks=((0, 2 * MEMORY_SIZE),)
    )
    guest.memory.write(0x10000, code)
    state = guest.run_to_halt()
    assert state.rbx == 0
    assert state.mtrrs.variable == [0x0123456789ABCD00 + n for n in range(16)]
    assert state.mtrrs.fixed == [0x0123456789ABCD10 + n for n in range(11)]
    assert state.mtrrs.default_type == 0x0123456789ABCD1B


def test_mtrrs_are_a_guests_own(rig):
    first = guest_of(rig, WRITE.format(0x269, 0x0606060606060606) + "hlt")
    first.run_to_halt()
    assert read(rig, 0x269).rax == 0
    twin = rig.clone(first)
    state = twin.vcpu.state
    state.rip, state.rcx, state.halted = CODE, 0x269, False
    twin.memory.write(CODE, asm("rdmsr; hlt"))
    twin.vcpu.state = state
    assert twin.run_to_halt(pcpu=1).rax == 0x06060606


@pytest.mark.parametrize("value", [0, 1, 0x7001, 0x7000, 0xFFFFFFFFFFFFFFC1])
def test_the_address_of_the_steal_time_record(rig, value):
    guest = guest_of(rig, WRITE.format(STEAL_TIME, value) + READ.format(STEAL_TIME) + "hlt")
    state = guest.run_to_halt()
    assert (state.rax, state.steal_time, guest.vcpu.steal_time) == (value, value, value)
    assert guest.devices.log == []


@pytest.mark.parametrize("value", [1 << bit for bit in range(1, 6)] + [0x7001 | 0x3E])
def test_reserved_bits_of_the_steal_time_register(rig, value):
    guest = guest_of(rig, WRITE.format(STEAL_TIME, 0x7001) + WRITE.format(STEAL_TIME, value) + "hlt")
    state = guest.run_to_halt()
    assert state.r14 == 0
    assert state.rip == HANDLER + 7
    assert state.steal_time == 0x7001, "it is as it was"


def test_the_steal_time_register_is_a_vcpus_own(rig):
    first = guest_of(rig, WRITE.format(STEAL_TIME, 0x7001) + "fldpi; hlt")
    second = guest_of(rig, READ.format(STEAL_TIME) + "hlt")
    first.run_to_halt()
    assert first.vcpu.steal_time == 0x7001, "of the one that is loaded"
    assert second.run_to_halt().rax == 0
    assert (first.vcpu.steal_time, second.vcpu.steal_time) == (0x7001, 0)
    first.vcpu.state = first.vcpu.state
    assert first.vcpu.steal_time == 0x7001


def test_mtrrcap(rig):
    assert read(rig, MTRRCAP).rax == 8 | 1 << 8 | 1 << 10
    guest = guest_of(rig, "mov ecx, 0xfe; wrmsr; hlt")
    assert faulted(guest.run_to_halt(), at=CODE + 5)


@pytest.mark.parametrize("index", [TSC_DEADLINE, 0x800, 0x802, 0x8FF])
def test_registers_that_cpuid_hides_are_not_there(rig, index):
    assert faulted(read(rig, index), at=CODE + 5)
    guest = guest_of(rig, f"mov ecx, {index}; wrmsr; hlt")
    assert faulted(guest.run_to_halt(), at=CODE + 5)


@pytest.mark.parametrize(
    "index", [0x0, 0x17, 0x3A, 0x8E, 0x140, 0x179, 0x17A, 0x17B, 0x400, 0x401, 0x7FF, 0x900, 0xD90]
)
def test_all_others_read_zero_and_ignore_writes(rig, index):
    guest = guest_of(rig, WRITE.format(index, (1 << 64) - 1) + READ.format(index) + "hlt")
    assert guest.run_to_halt().rax == 0


@pytest.mark.parametrize("index", [LSTAR, FS_BASE, GS_BASE, 0xC0000083, 0xC0000102, 0x175, 0x176])
def test_addresses_must_be_canonical(rig, index):
    guest = guest_of(rig, f"mov ecx, {index}; mov edx, 0x8000; wrmsr; hlt")
    assert faulted(guest.run_to_halt(), at=CODE + 10)
    for value in (0xFFFF800000000000, 0x00007FFFFFFFFFFF):
        guest = guest_of(rig, WRITE.format(index, value) + READ.format(index) + "hlt")
        assert guest.run_to_halt().rax == value


def test_the_engines_registers_still_work(rig):
    assert read(rig, PAT).rax == 0x0007040600070406
    guest = guest_of(
        rig, WRITE.format(FS_BASE, DATA) + "mov rbx, fs:[rsi]; mov rax, cr0; mov cr0, rax; lmsw ax; hlt"
    )
    guest.memory.write(DATA, b"\x42")
    assert guest.run_to_halt().rbx == 0x42


def test_protected_mode_too(rig):
    guest = rig.guest(protected(), asm("mov ecx, 0x1b; rdmsr; hlt", 32))
    guest.devices.msrs[APIC_BASE] = 0x1_0000_0900
    state = guest.run_to_halt()
    assert (state.rax, state.rdx) == (0x900, 1)


def test_a_moving_clock_in_slices_is_the_same(rig):
    """MSR and CR8 work is charged once, wherever a slice ends."""

    def result(budget):
        guest = guest_of(
            rig, "mov r8, 20; a: mov rax, cr8; mov ecx, 0x10; rdmsr; add rbx, rax; dec r8; jnz a; hlt"
        )
        for _ in range(10_000):
            if guest.run(budget).reason is ExitReason.HALT:
                return guest.vcpu.digest()
        raise AssertionError("it never halts")

    assert result(1) == result(30) == result(100_000)
