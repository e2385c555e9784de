"""Guest memory as a running vCPU sees it: A20, ROM, holes, copy on write, the dirty log."""

import pytest
from cpu_guest import GDT, IDT, TABLES, identity_map, long, protected, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import DATA, PAGE, Rig, asm, real

from emuvisor.cpu.exits import ExitReason
from emuvisor.units import MIB


@pytest.fixture
def rig():
    return Rig(pcpus=2)


def big(rig, source, **state):
    """Protected mode with 2 MiB of RAM."""
    return rig.guest(protected(**state), asm(source, 32), blocks=((0, 2 * MIB),))


def test_a20(rig):
    source = "mov byte ptr [0x7000], 1; mov byte ptr [0x107000], 2; mov al, [0x7000]; mov bl, [0x107000]; hlt"
    on = big(rig, source).run_to_halt()
    assert (on.rax, on.rbx) == (1, 2)
    guest = big(rig, source, a20=False)
    off = guest.run_to_halt()
    assert (off.rax, off.rbx) == (2, 2)
    assert guest.memory.read(0x107000, 1) == b"\0"


def test_a20_switched_by_a_port(rig):
    source = "mov al, [0x107000]; out 0x10, al; jmp a; a: mov bl, [0x107000]; hlt"
    guest = big(rig, source)
    guest.memory.write(0x107000, b"\x05")
    guest.memory.write(0x7000, b"\x06")
    guest.devices.on_access = lambda: guest.vcpu.set_a20(False)
    state = guest.run_to_halt()
    assert (state.rax, state.rbx, state.a20) == (5, 6, False)


def test_the_wrap_of_real_mode(rig):
    guest = rig.guest(real(a20=False), asm("mov ax, 0xffff; mov ds, ax; mov bl, [0x7010]; hlt", 16),
                      blocks=((0, 2 * MIB),))  # fmt: skip
    guest.memory.write(DATA, b"\x11")
    guest.memory.write(DATA + MIB, b"\x22")
    assert guest.run_to_halt().rbx == 0x11
    guest.vcpu.state = real()
    assert guest.run_to_halt().rbx == 0x22


def test_rom_reads_and_ignores_writes(rig):
    source = "mov eax, [0x6000]; mov dword ptr [0x6000], 5; mov ebx, [0x6000]; inc dword ptr [0x6004]; push 0x6010; ret"
    guest = big(rig, source)
    guest.memory.add_rom(0x6000, b"ROM!" + bytes(12) + asm("mov ecx, 7; hlt", 32))
    state = guest.run_to_halt()
    assert state.rax == state.rbx == int.from_bytes(b"ROM!", "little")
    assert state.rcx == 7, "code runs from ROM"
    assert guest.memory.read(0x6000, 8) == b"ROM!\0\0\0\0"
    assert guest.devices.log == [("store", 0x6000, 5, 4), ("store", 0x6004, 1, 4)], "a flash chip may listen"


def test_rom_under_the_stack_and_the_page_tables(rig):
    data = identity_map(tables())
    guest = rig.guest(long(), asm("mov rax, [rbx]; mov [rbx], rax; push rax; hlt"), data)
    for level in range(4):
        at = TABLES + level * 0x1000
        guest.memory.add_rom(at, bytes(data[at : at + 0x1000]))
    guest.run_to_halt()
    assert guest.memory.read(TABLES + 0x3000, 8) == bytes(data[TABLES + 0x3000 : TABLES + 0x3008]), (
        "no accessed bits"
    )


def test_holes_are_the_devices(rig):
    guest = big(rig, "mov eax, [0x6ffe]; mov [0x6ffe], eax; hlt")
    guest.memory.write(0x6FFE, b"\x34\x12")
    guest.memory.add_hole(DATA, PAGE)
    guest.devices.answers = {DATA: 0x78, DATA + 1: 0x56}
    state = guest.run_to_halt()
    assert state.rax & 0xFFFF == 0x1234
    assert guest.memory.read(0x6FFE, 2) == state.rax.to_bytes(4, "little")[:2]
    assert guest.devices.log, "the rest of the access went to the device"


def test_the_descriptor_tables_in_a_hole(rig):
    """Ones are neither a data segment nor a gate: a fault of the guest, not of the host."""
    guest = big(rig, "mov ax, 0x10; mov ss, ax; hlt")
    guest.memory.add_hole(GDT, PAGE)
    assert guest.run().reason is ExitReason.SHUTDOWN
    guest = big(rig, "int 0x40")
    guest.memory.add_hole(IDT, PAGE)
    assert guest.run().reason is ExitReason.SHUTDOWN


def test_page_tables_in_a_hole(rig):
    guest = rig.guest(long(cr3=0x10_0000_0000 - PAGE), asm("nop"), identity_map(tables()))
    assert guest.run().reason is ExitReason.SHUTDOWN


# ---- copy on write ----


def test_a_store_after_a_clone_is_private(rig):
    """The writable translation from before the clone must be gone."""
    guest = big(rig, "a: inc dword ptr [0x6000]; mov eax, [0x6000]; hlt; jmp a")
    guest.run_to_halt()
    twin = rig.clone(guest)
    guest.vcpu.halted = False
    assert guest.run_to_halt().rax == 2
    assert (guest.at(0x6000, 4), twin.at(0x6000, 4)) == (2, 1)
    twin.vcpu.halted = False
    assert twin.run_to_halt(pcpu=1).rax == 2
    guest.vcpu.halted = False
    assert guest.run_to_halt(pcpu=1).rax == 3
    assert twin.at(0x6000, 4) == 2


def test_reads_see_the_copy(rig):
    """A page is read, then copied by a store: the read translation of the old frame must be gone."""
    guest = big(
        rig, "mov eax, [0x6000]; mov dword ptr [0x6004], 9; mov ebx, [0x6000]; mov ecx, [0x6004]; hlt"
    )
    guest.memory.write(0x6000, b"\x05")
    twin = rig.clone(guest)
    twin.memory.write(0x6000, b"\x06")
    state = guest.run_to_halt()
    assert (state.rax, state.rbx, state.rcx) == (5, 5, 9)
    assert twin.at(0x6004, 4) == 0


# ---- the dirty log ----


def pages_of(log):
    return log.tolist()


def test_the_log_is_exact(rig):
    source = "mov eax, [0x5000]; mov [0x6000], eax; mov [0x6004], eax; mov [0x11ffe], eax; hlt"
    guest = big(rig, source)
    guest.memory.start_log()
    guest.run_to_halt()
    assert pages_of(guest.memory.collect_log()) == [6, 0x11, 0x12]
    assert pages_of(guest.memory.collect_log()) == []


def test_every_collection_starts_anew(rig):
    guest = big(rig, "a: inc dword ptr [0x6000]; hlt; jmp a")
    guest.memory.start_log()
    for _ in range(5):
        guest.run_to_halt()
        assert pages_of(guest.memory.collect_log()) == [6]
        guest.vcpu.halted = False
    guest.memory.stop_log()
    guest.run_to_halt()
    guest.memory.start_log()
    assert pages_of(guest.memory.collect_log()) == []
    guest.vcpu.halted = False
    guest.run_to_halt()
    assert pages_of(guest.memory.collect_log()) == [6]


def test_the_log_has_stacks_page_tables_and_device_writes(rig):
    guest = rig.guest(long(), asm("push rax; out 0x10, al; hlt"), identity_map(tables()))
    guest.devices.on_access = lambda: guest.memory.write(0xF800, b"dma")
    guest.memory.start_log()
    state = guest.run_to_halt()
    tables_written = [TABLES // PAGE + level for level in range(4)]  # accessed and dirty bits
    assert pages_of(guest.memory.collect_log()) == sorted([(state.rsp >> 12), *tables_written, 0xF])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["guest", "device", "collect", "clone"]), st.integers(1, 14)), max_size=25
    )
)
def test_the_log_against_a_model(steps):
    rig = Rig(pcpus=2)
    guest = big(rig, "a: mov [ebx], eax; inc eax; hlt; jmp a")
    guest.memory.start_log()
    model = set()
    for turn, (act, page) in enumerate(steps):
        address = 0x100000 + page * PAGE
        if act == "guest":
            state = guest.vcpu.state
            state.rbx, state.halted = address, False
            guest.vcpu.state = state
            guest.run_to_halt(pcpu=turn % 2)
            model.add(address >> 12)
        elif act == "device":
            guest.memory.write(address, b"x")
            model.add(address >> 12)
        elif act == "clone":
            guest.memory.clone().close()
        else:
            assert set(pages_of(guest.memory.collect_log())) == model
            model.clear()
    assert set(pages_of(guest.memory.collect_log())) == model


def test_x87_and_sse_state_across_guests(rig):
    """Each guest computes a sum in ST and XMM registers; they take turns between all of its instructions."""
    source = """
        fninit
        fldz
        mov ecx, 200
    a:  fld1
        jmp b
    b:  faddp st(1), st(0)
        jmp c
    c:  paddd xmm1, xmm0
        jmp d
    d:  addsd xmm3, xmm2
        loop a
        fistp dword ptr [0x6000]
        movd dword ptr [0x6004], xmm1
        movq qword ptr [0x6008], xmm3
        stmxcsr [0x6010]
        fnstcw [0x6014]
        hlt
    """
    guests = []
    for number in range(1, 5):
        guest = big(rig, source, cr4=0x600)
        state = guest.vcpu.state
        state.fpu.xmm[0] = number
        state.fpu.xmm[2] = 0x3FE0000000000000  # 0.5
        state.fpu.mxcsr = 0x1F80 | number - 1 << 13
        guest.vcpu.state = state
        guests.append(guest)
    going = list(guests)
    turn = 0
    while going:
        for guest in list(going):
            turn += 1
            if guest.run(20, turn % 2).reason is ExitReason.HALT:
                going.remove(guest)
    for number, guest in enumerate(guests, 1):
        assert guest.at(0x6000, 4) == 200
        assert guest.at(0x6004, 4) == 200 * number
        assert guest.at(0x6008) == 0x4059000000000000  # 100.0
        assert guest.at(0x6010, 4) & 0x6000 == number - 1 << 13
        assert guest.at(0x6014, 2) == 0x37F


def test_rounding_follows_its_guest(rig):
    """The rounding mode is hidden state that the engine derives from MXCSR and FCW."""
    source = "a: cvtsd2si eax, xmm0; fld qword ptr [0x6000]; fistp dword ptr [0x6008]; mov ebx, [0x6008]; hlt; jmp a"
    answers = {0: 2, 1: 2, 2: 3, 3: 2}  # of 2.5: to even, down, up, towards zero
    guests = {}
    for mode in answers:
        guest = big(rig, source, cr4=0x600)
        state = guest.vcpu.state
        state.fpu.xmm[0] = 0x4004000000000000
        state.fpu.mxcsr = 0x1F80 | mode << 13
        state.fpu.fcw = 0x37F | mode << 10
        guest.vcpu.state = state
        guest.memory.write(0x6000, (0x4004000000000000).to_bytes(8, "little"))
        guests[mode] = guest
    for turn in range(4):
        for mode, guest in guests.items():
            state = guest.run_to_halt(pcpu=turn % 2)
            assert (state.rax, state.rbx) == (answers[mode], answers[mode]), mode
            guest.vcpu.halted = False
