"""Code that changes: translations never outlive the bytes that they were made of."""

import pytest
from cpu_guest import TABLES, identity_map, long, put, put_number, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import CODE, Rig, asm, real

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.registers import EFER_LMA, EFER_LME, EFER_NXE

NX = 1 << 63
TARGET = 0x9000
"""`mov eax, N; ret`: the code that the tests change. N lies at TARGET + 1."""
LEAF = TABLES + 0x3000
ALIAS = 0xF000


def subroutine(number):
    return asm(f"mov eax, {number}; ret")


def long_guest(rig, source, number=1, pages=(), **state):
    data = identity_map(tables())
    put(data, TARGET, subroutine(number))
    for page, entry in dict(pages).items():
        put_number(data, LEAF + 8 * (page >> 12), entry, 8)
    efer = EFER_LME | EFER_LMA | EFER_NXE
    return rig.guest(long(rbx=TARGET, r14=ALIAS, efer=efer, **state), asm(source), data)


CALL_CHANGE_CALL = """
    call rbx
    mov esi, eax
    {}
    call rbx
    mov edi, eax
    hlt
"""


def changed(guest):
    state = guest.run_to_halt()
    return state.rsi, state.rdi


@pytest.fixture
def rig():
    return Rig(pcpus=2)


def test_code_on_another_page_changed_by_the_guest(rig):
    guest = long_guest(rig, CALL_CHANGE_CALL.format("mov byte ptr [rbx + 1], 2"))
    assert changed(guest) == (1, 2)


def test_code_changed_behind_the_store_in_the_same_block(rig):
    # the INC after the store becomes NOPs before it runs
    source = "lea rbx, [rip + c]; mov word ptr [rbx], 0x9090; c: inc eax; inc edx; hlt"
    state = rig.guest(long(), asm(source), identity_map(tables())).run_to_halt()
    assert (state.rax, state.rdx) == (0, 1)


@pytest.mark.parametrize("flags", [3, 3 | NX])
def test_code_changed_through_an_alias(rig, flags):
    guest = long_guest(
        rig, CALL_CHANGE_CALL.format("mov byte ptr [r14 + 1], 2"), pages={ALIAS: TARGET | flags}
    )
    assert changed(guest) == (1, 2)


@pytest.mark.parametrize("entry_flags", [3, 3 | NX])
def test_code_changed_again_and_again_through_an_alias_that_was_written_before(rig, entry_flags):
    source = """
        mov byte ptr [r14 + 0x800], 1
        mov ecx, 50
    a:  mov [r14 + 1], cl
        call rbx
        add esi, eax
        dec ecx
        jnz a
        hlt
    """
    guest = long_guest(rig, source, pages={ALIAS: TARGET | entry_flags})
    assert guest.run_to_halt().rsi == sum(range(51))


def test_code_read_through_an_alias_first(rig):
    change = "mov edx, [r14]; mov byte ptr [r14 + 1], 2; mov edx, [r14]; mov byte ptr [r14 + 1], 3"
    guest = long_guest(rig, CALL_CHANGE_CALL.format(change), pages={ALIAS: TARGET | 3 | NX})
    assert changed(guest) == (1, 3)


def test_code_written_before_it_ever_ran(rig):
    source = "mov byte ptr [rbx + 1], 2; call rbx; mov esi, eax; mov byte ptr [rbx + 1], 3; call rbx; mov edi, eax; hlt"
    assert changed(long_guest(rig, source)) == (2, 3)


def test_code_changed_by_a_string_instruction(rig):
    guest = long_guest(
        rig, CALL_CHANGE_CALL.format("mov rdi, rbx; inc rdi; mov al, 7; mov ecx, 1; rep stosb")
    )
    assert changed(guest) == (1, 7)


def test_code_across_two_pages(rig):
    source = "mov rbx, 0x9ffe; call rbx; mov esi, eax; mov byte ptr [rbx + 2], 9; call rbx; mov edi, eax; hlt"
    guest = long_guest(rig, source)
    guest.vcpu.state = _with(guest.vcpu.state, cr3=0xB000)
    data = identity_map(bytearray(0x10000))[TABLES : TABLES + 0x4000]
    tables_at = bytearray(data)
    for level in range(3):  # the page tables one page higher: the code crosses into their old place
        put_number(tables_at, 0x1000 * level, 0xB000 + 0x1000 * (level + 1) | 7, 8)
    guest.memory.write(0xB000, bytes(tables_at))
    guest.memory.write(0x9FFE, subroutine(1))
    assert changed(guest) == (1, 0x901)


def _with(state, **changes):
    state.halted = False  # it goes on
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def test_code_changed_by_a_device_between_runs(rig):
    guest = long_guest(rig, "a: call rbx; mov esi, eax; hlt; jmp a")
    for number in (1, 2, 3):
        guest.memory.write(TARGET + 1, bytes([number]))
        assert guest.run_to_halt().rsi == number
        guest.vcpu.halted = False


def test_code_changed_by_a_device_while_it_runs(rig):
    guest = long_guest(rig, CALL_CHANGE_CALL.format("out 0x10, al; jmp b; b: nop"))
    guest.devices.on_access = lambda: guest.memory.write(TARGET, subroutine(2))
    assert changed(guest) == (1, 2)


def test_many_device_writes_at_once(rig):
    """More changed ranges than the list of one pCPU holds."""
    guest = long_guest(rig, "a: call rbx; mov esi, eax; hlt; jmp a")
    guest.run_to_halt()
    for number in range(1000):
        guest.memory.write(TARGET + 1, (number & 0x7F).to_bytes(1, "little"))
    guest.vcpu.halted = False
    assert guest.run_to_halt().rsi == 999 & 0x7F


def test_code_changed_while_another_pcpu_runs_the_guest(rig):
    guest = long_guest(rig, "a: call rbx; mov esi, eax; mov byte ptr [rbx + 1], cl; hlt; jmp a")
    number = 1
    for turn in range(2, 20):
        guest.vcpu.state = _with(guest.vcpu.state, rcx=turn)
        assert guest.run_to_halt(pcpu=turn % 2).rsi == number
        number = turn
        guest.vcpu.halted = False


def test_moving_between_pcpus_with_device_writes(rig):
    guest = long_guest(rig, "a: call rbx; mov esi, eax; hlt; jmp a")
    for turn in range(1, 40):
        guest.memory.write(TARGET + 1, bytes([turn]))
        assert guest.run_to_halt(pcpu=turn * 7 % 3 % 2).rsi == turn
        guest.vcpu.halted = False


def test_a_frame_given_to_another_guest_with_other_code(rig):
    """Guests come and go; each finds frames in which others had code at the same place."""
    for number in range(1, 60):
        guest = long_guest(rig, "call rbx; mov esi, eax; hlt", number)
        assert guest.run_to_halt(pcpu=number % 2).rsi == number
        guest.memory.close()
    assert rig.pool.used == 0


def test_a_frame_freed_while_another_guest_is_loaded(rig):
    """The new owner writes its code itself, from code."""
    one = long_guest(rig, "a: call rbx; mov esi, eax; hlt; jmp a", 1)
    assert one.run_to_halt().rsi == 1
    source = "mov rbx, 0xe000; mov dword ptr [rbx], 0x02b8; mov word ptr [rbx + 4], 0xc300; call rbx; mov esi, eax; hlt"
    for _ in range(5):
        victim = long_guest(rig, "call rbx; mov esi, eax; hlt", 7)
        assert victim.run_to_halt().rsi == 7
        other = long_guest(rig, source)
        other.memory.slots[0].entries[0xE] = 0
        victim.memory.close()
        assert other.run_to_halt().rsi == 2
        other.memory.close()


def test_clones_share_code_and_part(rig):
    guest = long_guest(rig, "a: call rbx; mov esi, eax; hlt; jmp a", 1)
    guest.run_to_halt()
    family = [guest] + [rig.clone(guest) for _ in range(4)]
    used = rig.pool.used
    for member in family:
        member.vcpu.halted = False
        assert member.run_to_halt(pcpu=1).rsi == 1
    assert rig.pool.used - used <= 2 * len(family), "only stacks and page tables were copied"
    for number, member in enumerate(family[1:], 2):
        member.memory.write(TARGET + 1, bytes([number]))
    for turn in range(3):
        for number, member in enumerate(family, 1):
            member.vcpu.halted = False
            assert member.run_to_halt(pcpu=turn % 2).rsi == number


def test_a_clone_that_changes_its_own_code(rig):
    guest = long_guest(rig, "a: call rbx; mov esi, eax; hlt; inc byte ptr [rbx + 1]; jmp a", 1)
    guest.run_to_halt()
    twin = rig.clone(guest)
    for turn in range(1, 10):
        twin.vcpu.halted = guest.vcpu.halted = False
        assert twin.run_to_halt().rsi == turn + 1
        if turn % 3 == 0:
            assert guest.run_to_halt().rsi == turn // 3 + 1


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["device", "guest", "clone", "close", "run"]), st.integers(0, 3),
                          st.integers(0, 1), st.integers(1, 127)), max_size=40))  # fmt: skip
def test_any_order_of_changes_clones_and_moves(steps):
    """Guests whose code returns a number: whoever changes it, however they are related, wherever they run."""
    rig = Rig(pool=1 << 20, pcpus=2)
    source = "a: call rbx; mov esi, eax; hlt; mov [rbx + 1], cl; jmp a"
    guests = [
        [long_guest(rig, source, 1), 1, 1]
    ]  # guest, number now, number that it will write (CL) when it goes on
    guests[0][0].run_to_halt()
    for act, which, pcpu, number in steps:
        entry = guests[which % len(guests)]
        guest, now, _ = entry
        if act == "device":
            guest.memory.write(TARGET + 1, bytes([number]))
        elif act == "clone" and len(guests) < 4:
            guests.append([rig.clone(guest), now, number])
        elif act == "close" and len(guests) > 1:
            guests.remove(entry)
            guest.memory.close()
        elif act in ("guest", "run"):
            guest.vcpu.state = _with(guest.vcpu.state, rcx=number)
            assert guest.run_to_halt(pcpu=pcpu).rsi == number


def test_real_mode_code_that_changes_itself(rig):
    source = "mov cx, 100; a: inc byte ptr [patch + 1]; jmp patch; patch: mov al, 0; mov ah, 0; add bx, ax; loop a; hlt"
    guest = rig.guest(real(), asm(source, 16))
    assert guest.run_to_halt().rbx == sum(range(101))


def test_a_fetch_from_a_hole_ends_in_the_guest(rig):
    """Ones are FFh FFh, no instruction: the guest gets #UD, which here has no handler."""
    for at in (0x20000, 0xFFFF0000):
        guest = rig.guest(real(), asm("nop", 16))
        guest.vcpu.state = _with(guest.vcpu.state, rip=0)
        state = guest.vcpu.state
        state.cs = type(state.cs)(0xF000, at, 0xFFFF, 0x9B00)
        guest.vcpu.state = state
        guest.memory.write(4 * 6, CODE.to_bytes(4, "little"))
        guest.memory.write(CODE, asm("hlt", 16))
        assert guest.run_to_halt().rip == CODE + 1
        assert guest.vcpu.counters()["exception"] == 1


def test_code_that_runs_into_a_hole(rig):
    guest = rig.guest(real(), asm("nop", 16))
    guest.memory.write(4 * 6, CODE.to_bytes(4, "little"))
    guest.memory.write(CODE, asm("hlt", 16))
    guest.memory.write(0xFFFE, b"\x90\x90")
    state = _with(guest.vcpu.state, rip=0xFFE)
    state.cs = type(state.cs)(0xF00, 0xF000, 0xFFFF, 0x9B00)
    guest.vcpu.state = state
    assert guest.run().reason is ExitReason.HALT
    assert guest.vcpu.state.rip == CODE + 1
