"""Page faults, protection and privilege on a running vCPU."""

import pytest
from cpu_guest import (
    CODE0,
    CODE3,
    CODE64,
    DATA0,
    DATA3,
    GDT,
    IDT,
    KERNEL_STACK,
    TABLES,
    TSS,
    USER64,
    USER_STACK,
    identity_map,
    long,
    protected,
    put,
    put_number,
    tables,
)
from run_rig import CODE, Rig, asm, put_handler

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.registers import CR0_WP, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from emuvisor.cpu.state import DescriptorTable

UD, SS, GP, PF = 6, 12, 13, 14
P, W, U, NX = 1, 2, 4, 1 << 63
HANDLER = 0x9000
LEAF = TABLES + 0x3000
HOLE_PAGE = 0xF000
"""A page of RAM that the tests map as they like."""
FAULTS = {UD: "UD", SS: "SS", GP: "GP", PF: "PF"}


@pytest.fixture
def rig():
    return Rig()


def long_guest(rig, source, cpl=0, pages=(), code=None, **state):
    """64-bit mode over an identity map; `pages` changes leaf entries; each fault ends in a HLT of its own."""
    data = identity_map(tables(), leaf_flags=P | W | (U if cpl else 0))
    put_number(data, TSS + 4, KERNEL_STACK, 8)
    for vector in FAULTS:
        put_handler(data, vector, HANDLER + 16 * vector, CODE64, IDT, long=True)
        data[HANDLER + 16 * vector] = 0xF4
    for page, flags in dict(pages).items():
        put_number(data, LEAF + 8 * (page >> 12), page | flags, 8)
    return rig.guest(long(cpl, **state), asm(source) if code is None else code, data)


def fault(guest):
    """(name, error code, RIP of the fault, CR2)."""
    state = guest.run_to_halt()
    vector = (state.rip - 1 - HANDLER) // 16
    return FAULTS[vector], guest.at(state.rsp), guest.at(state.rsp + 8), state.cr2


@pytest.mark.parametrize(
    ("source", "cpl", "leaf", "state", "error_code"),
    [
        ("mov rax, [rbx]", 0, 0, {}, 0),
        ("mov [rbx], rax", 0, 0, {}, W),
        ("mov rax, [rbx]", 3, 0, {}, U),
        ("mov rax, [rbx]", 3, P | W, {}, P | U),
        ("mov [rbx], rax", 3, P | U, {}, P | W | U),
        ("mov [rbx], rax", 0, P | U, {"cr0": 0x80000001 | CR0_WP}, P | W),
        ("mov rax, [rbx]", 0, P | W | U, {"cr4": 0x20 | CR4_SMAP}, P),
        ("inc qword ptr [rbx]", 0, P, {"cr0": 0x80000001 | CR0_WP}, P | W),
        ("jmp rbx", 0, 0, {}, 0),
        ("jmp rbx", 0, P | NX, {"efer": EFER_LME | EFER_LMA | EFER_NXE}, P | 16),
        ("jmp rbx", 0, P | U, {"cr4": 0x20 | CR4_SMEP}, P | 16),
        ("jmp rbx", 3, P, {}, P | U),
        ("mov rax, [rbx]", 0, P | 1 << 51, {}, P | 8),
    ],
)
def test_page_fault_error_codes(rig, *, source, cpl, leaf, state, error_code):
    guest = long_guest(rig, source, cpl, {HOLE_PAGE: leaf}, rbx=HOLE_PAGE + 0x123, **state)
    where = HOLE_PAGE + 0x123 if "jmp" in source else CODE
    assert fault(guest) == ("PF", error_code, where, HOLE_PAGE + 0x123)


@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("into", [1, "size-1"])
@pytest.mark.parametrize("write", [False, True])
def test_an_access_across_pages_faults_at_the_second(rig, size, into, write):
    into = size - 1 if into == "size-1" else into
    register = {2: "ax", 4: "eax", 8: "rax", 16: "xmm0"}[size]
    move = "movups" if size == 16 else "mov"
    source = f"{move} [rbx], {register}" if write else f"{move} {register}, [rbx]"
    guest = long_guest(rig, source, pages={HOLE_PAGE: 0}, rbx=HOLE_PAGE - into, rax=0x5555, cr4=0x620)
    assert fault(guest) == ("PF", W if write else 0, CODE, HOLE_PAGE)
    assert guest.memory.read(HOLE_PAGE - into, into) == bytes(into), "nothing was written"


def test_an_instruction_across_pages_faults_at_the_second(rig):
    code = asm("mov rax, 0x1122334455667788; hlt")
    guest = long_guest(rig, "jmp rbx", pages={HOLE_PAGE: 0}, rbx=HOLE_PAGE - 3)
    guest.memory.write(HOLE_PAGE - 3, code[:3])
    assert fault(guest) == ("PF", 0, HOLE_PAGE - 3, HOLE_PAGE)


def test_going_on_after_a_page_fault(rig):
    guest = long_guest(rig, "mov rax, [rbx]; add rax, [rbx + 8]; hlt", pages={HOLE_PAGE: 0}, rbx=HOLE_PAGE)
    guest.memory.write(HOLE_PAGE, (40).to_bytes(8, "little") + (2).to_bytes(8, "little"))
    handler = asm("mov qword ptr [r15 + 0xd078], 0xf003; add rsp, 8; iretq")
    guest.memory.write(HANDLER + 16 * PF, handler)
    assert LEAF + 8 * 15 == 0xD078
    assert guest.run_to_halt().rax == 42
    assert guest.vcpu.counters()["page_fault"] == 1


@pytest.mark.parametrize(
    "source", ["mov rax, [rbx]", "mov [rbx], rax", "jmp rbx", "call [rbx]", "lock xadd [rbx], rax"]
)
def test_non_canonical_addresses(rig, source):
    guest = long_guest(rig, source, rbx=0x8000_0000_0000, rsi=7)
    name, error_code, _, cr2 = fault(guest)
    assert (name, error_code, cr2) == ("GP", 0, 0)


def test_a_non_canonical_stack_is_ss(rig):
    guest = long_guest(rig, "mov rsp, rbx; pop rax", rbx=0x8000_0000_0000)
    # the handler of #SS has the same bad stack: a double fault, and none for that either
    assert guest.run().reason is ExitReason.SHUTDOWN


PORT = 0x20


@pytest.mark.parametrize("iopl", [0, 2, 3])
@pytest.mark.parametrize("bit", [0, 1])
@pytest.mark.parametrize("source", ["in al, 0x20", "out 0x20, al", "in ax, 0x20", "mov edx, 0x20; outsd"])
def test_ports_at_cpl_3(rig, iopl, bit, source):
    data = tables()
    put_number(data, TSS + 0x66, 0x68, 2)
    put(data, TSS + 0x68, bytes(0x18))
    data[TSS + 0x68 + PORT // 8] |= bit
    for vector in (GP,):
        put_handler(data, vector, HANDLER, CODE0, IDT)
        data[HANDLER] = 0xF4
    state = protected(3, rflags=2 | iopl << 12, rsi=0x7000, tr=type(protected().tr)(0x40, TSS, 0x7F, 0x8B00))
    guest = rig.guest(state, asm(f"{source}; hlt", 32), data)
    end = guest.run_to_halt()
    allowed = iopl == 3 or not bit
    assert bool(guest.devices.log) == allowed
    where = CODE + len(asm(source, 32)) if allowed else CODE + (5 if "edx" in source else 0)
    assert (guest.at(end.rsp, 4), guest.at(end.rsp + 4, 4)) == (0, where)


def user32(rig, source, gdt_flags):
    """32-bit PAE-less code at CPL 3 under long-mode tables' place: the GDT's page has `gdt_flags`."""
    data = tables()
    put_number(data, TABLES, TABLES + 0x1000 | 7, 4)
    for page in range(16):
        put_number(data, TABLES + 0x1000 + 4 * page, page << 12 | 7, 4)
    put_number(data, TABLES + 0x1000 + 4 * (GDT >> 12), GDT | gdt_flags, 4)
    for vector in FAULTS:
        put_handler(data, vector, HANDLER + 16 * vector, CODE0, IDT)
        data[HANDLER + 16 * vector] = 0xF4
    state = protected(3, cr0=0x80000001, cr3=TABLES)
    return rig.guest(state, asm(source, 32), data)


@pytest.mark.parametrize(
    "source",
    [
        "mov ax, 0x23; mov ds, ax",
        "push 0x23; pop es",
        "mov ax, 0x23; mov fs, ax",
        "mov eax, 0x23; lar ebx, eax",
        "mov eax, 0x23; verr ax",
        "push 0x1b; push 0x8100; retf",
    ],
)
def test_implicit_supervisor_access(rig, source):
    guest = user32(rig, f"{source}; inc ecx; a: cli; jmp a", P | W)
    guest.memory.write(0x8100, asm("inc ecx; cli", 32))
    state = guest.run_to_halt()
    assert (state.rip - 1 - HANDLER) // 16 == GP, "CLI ended it, not the selector"
    assert state.rcx == 1


@pytest.mark.parametrize("source", ["mov eax, [0x2008]", "mov [0x2008], eax", "mov ax, [0x2008]; mov ds, ax"])
def test_an_explicit_access_to_the_gdt_faults(rig, source):
    guest = user32(rig, source, P | W)
    state = guest.run_to_halt()
    assert (state.rip - 1 - HANDLER) // 16 == PF
    assert state.cr2 == GDT + 8
    assert guest.at(state.rsp, 4) == P | U | (W if source.startswith("mov [") else 0)


def test_reading_the_gdt_after_an_implicit_access_still_faults(rig):
    """The translation that the segment load was given must not serve the user's own load."""
    guest = user32(rig, "mov ax, 0x23; mov ds, ax; mov eax, [0x2008]", P | W)
    state = guest.run_to_halt()
    assert ((state.rip - 1 - HANDLER) // 16, state.cr2) == (PF, GDT + 8)


def test_syscall_and_sysret(rig):
    guest = long_guest(rig, "syscall; inc rbx; cli", 3, efer=EFER_LME | EFER_LMA | EFER_SCE, rflags=0x246,
                       star=(USER64 - 16) << 48 | CODE64 << 32, lstar=0x8100, fmask=0x200)  # fmt: skip
    guest.memory.write(0x8100, asm("mov rsi, rcx; mov rdi, r11; hlt"))
    state = guest.run_to_halt()
    assert (state.rsi, state.rdi, state.cpl) == (CODE + 2, 0x246, 0)
    assert (state.rflags & 0x200, state.cs.selector, state.ss.selector) == (0, CODE64, CODE64 + 8)
    assert state.rsp == USER_STACK


def test_syscall_and_back_many_times(rig):
    # SYSRET takes CS from STAR[63:48] + 16 and SS from + 8
    guest = long_guest(rig, "a: syscall; dec rbx; jnz a; cli", 3, efer=EFER_LME | EFER_LMA | EFER_SCE, rbx=1000,
                       star=(USER64 - 16 | 3) << 48 | CODE64 << 32, lstar=0x8100)  # fmt: skip
    guest.memory.write(0x8100, asm("inc rsi") + b"\x48\x0f\x07")
    assert fault(guest)[0] == "GP"
    state = guest.vcpu.state
    assert (state.rsi, state.rbx) == (1000, 0)
    assert guest.vcpu.counters()["syscall"] == 1000


def test_syscall_without_sce_is_ud(rig):
    guest = long_guest(rig, "nop; syscall", 3)
    state = guest.run_to_halt()
    assert (state.rip - 1 - HANDLER) // 16 == UD
    assert guest.at(state.rsp) == CODE + 1


def test_sysenter(rig):
    state = protected(3, sysenter_cs=CODE0, sysenter_esp=0x4800, sysenter_eip=0x8100)
    guest = rig.guest(state, asm("sysenter", 32))
    guest.memory.write(0x8100, asm("push eax; hlt", 32))
    end = guest.run_to_halt()
    assert (end.rip, end.rsp, end.cpl) == (0x8102, 0x47FC, 0)
    assert (end.cs.selector, end.ss.selector) == (CODE0, DATA0)
    assert end.ds.selector == DATA3 | 3
    assert CODE3 == CODE0 + 16


def test_sysenter_without_a_segment_is_gp(rig):
    data = tables()
    put_handler(data, GP, HANDLER, CODE0, IDT)
    data[HANDLER] = 0xF4
    guest = rig.guest(protected(3), asm("nop; sysenter", 32), data)
    state = guest.run_to_halt()
    assert (guest.at(state.rsp, 4), guest.at(state.rsp + 4, 4)) == (0, CODE + 1)


def test_a_page_table_change_is_seen_after_invlpg_and_cr3(rig):
    """A writable translation does not outlive its entry."""
    for flush in ("invlpg [rbx]", "mov rdx, cr3; mov cr3, rdx"):
        source = f"mov [rbx], rax; mov qword ptr [r15 + 0xd078], 0xf001; {flush}; inc rsi; mov [rbx], rax"
        guest = long_guest(rig, source, rbx=HOLE_PAGE, cr0=0x80000001 | CR0_WP)
        assert fault(guest)[:2] == ("PF", P | W), flush
        assert guest.vcpu.state.rsi == 1


def test_dirty_and_accessed_bits(rig):
    guest = long_guest(rig, "mov rax, [rbx]; mov rdx, [r15 + 0xd078]; mov [rbx], rax; mov rsi, [r15 + 0xd078]; hlt",
                       rbx=HOLE_PAGE)  # fmt: skip
    state = guest.run_to_halt()
    assert (state.rdx & 0x60, state.rsi & 0x60) == (0x20, 0x60)


def test_idt_limits(rig):
    guest = long_guest(rig, "int 0x80", idtr=DescriptorTable(IDT, 0x7FF))
    assert fault(guest)[:3] == ("GP", 0x80 * 8 + 2, CODE)
