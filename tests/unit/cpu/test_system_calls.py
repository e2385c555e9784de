"""SYSCALL and SYSENTER in all their modes, with known answers."""

from cpu_guest import (
    BIG,
    CODE,
    CODE0,
    PAGES,
    dpl,
    flat,
    gate,
    long,
    protected,
    put,
    tables,
    vm86,
    words,
)

from emuvisor.cpu.registers import EFER_LMA, EFER_LME, EFER_SCE
from emuvisor.cpu.state import CpuState, Segment

UD, GP = 6, 13
STAR = 0x0023_0010_0040_1000
FLAT_DATA = Segment(0x18, 0, 0xFFFFFFFF, 0xC09300)
LONG_MODE = EFER_LMA | EFER_LME


def test_syscall_from_64_bit_code(cpu):
    state = long(cpl=3, efer=LONG_MODE | EFER_SCE, star=STAR, lstar=0xFFFFFFFF81000000, cstar=1, fmask=0x700)
    state.rflags, state.rip = 0x10746, 0xFFFFFFFF0
    outcome, after = cpu.syscall(state, bytearray(), 2)
    assert outcome == "delivered"
    assert (after.rcx, after.r11, after.rip) == (0xFFFFFFFF2, 0x746, 0xFFFFFFFF81000000)
    assert after.cs == Segment(0x10, 0, 0xFFFFFFFF, 0xA09B00)
    assert after.ss == FLAT_DATA
    assert (after.rflags, after.cpl, after.rsp) == (0x46, 0, state.rsp)


def test_syscall_from_compatibility_mode(cpu):
    state = long(cpl=3, efer=LONG_MODE | EFER_SCE, star=STAR, lstar=1, cstar=0xFFFFFFFF82000000)
    state.cs = flat(0x1B, CODE | BIG | PAGES | dpl(3))
    state.rip = 0xFFFFFFFF
    _, after = cpu.syscall(state, bytearray(), 2)
    assert (after.rcx, after.r11, after.rip) == (1, 0x202, 0xFFFFFFFF82000000)
    assert after.cs.flags == 0xA09B00


def test_syscall_in_protected_mode(cpu):
    state = protected(cpl=3, efer=EFER_SCE, star=STAR, r11=5, rflags=0x10202)
    _, after = cpu.syscall(state, bytearray(), 2)
    assert (after.rcx, after.r11, after.rip) == (0x8002, 5, 0x00401000)
    assert after.cs == Segment(0x10, 0, 0xFFFFFFFF, 0xC09B00)
    assert (after.ss, after.rflags) == (FLAT_DATA, 2)


def test_syscall_without_sce_is_undefined(cpu):
    data = tables()
    put(data, 0x1000 + 8 * UD, gate(14, CODE0, 0x9000))
    _, after = cpu.syscall(protected(), data, 2)
    assert (after.rip, words(data, after.rsp, 1, 4)) == (0x9000, [0x8000])
    _, after = cpu.syscall(vm86(efer=EFER_SCE), data, 2)
    assert after.rip == 0x9000


def test_syscall_in_real_mode_is_undefined(cpu):
    data = bytearray(0x10000)
    put(data, 4 * UD, bytes.fromhex("00 05 00 00"))
    _, after = cpu.syscall(CpuState(efer=EFER_SCE, rsp=0x1000), data, 2)
    assert (after.rip, words(data, 0xFFA, 1, 2)) == (0x500, [0xFFF0])


def test_sysenter_in_protected_mode(cpu):
    state = protected(
        cpl=3, sysenter_cs=0x13, sysenter_esp=0x1_5000, sysenter_eip=0xC000_1000, rflags=0x10202
    )
    state.interrupt_shadow = True
    _, after = cpu.sysenter(state, bytearray())
    assert (after.cs, after.ss) == (Segment(0x10, 0, 0xFFFFFFFF, 0xC09B00), FLAT_DATA)
    assert (after.rip, after.rsp, after.rflags) == (0xC0001000, 0x15000, 2)
    assert not after.interrupt_shadow


def test_sysenter_leaves_virtual_8086_mode(cpu):
    _, after = cpu.sysenter(vm86(sysenter_cs=0x10, sysenter_esp=1, sysenter_eip=2), bytearray())
    assert (after.cpl, after.rip, after.rflags) == (0, 2, 2)


def test_sysenter_in_long_mode(cpu):
    state = long(cpl=3, sysenter_cs=0x10, sysenter_esp=0xFFFF880000000000, sysenter_eip=0xFFFFFFFF81000000)
    _, after = cpu.sysenter(state, bytearray())
    assert (after.cs.flags, after.rip, after.rsp) == (0xA09B00, 0xFFFFFFFF81000000, 0xFFFF880000000000)


def test_sysenter_without_a_selector_is_a_protection_fault(cpu):
    data = tables()
    put(data, 0x1000 + 8 * GP, gate(14, CODE0, 0x9000))
    _, after = cpu.sysenter(protected(sysenter_cs=3), data)
    assert (after.rip, words(data, after.rsp, 2, 4)) == (0x9000, [0, 0x8000])
