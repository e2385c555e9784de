"""Where a vCPU is after so much work does not depend on how the work was cut into slices."""

import random
from hashlib import sha256

import pytest
from cpu_guest import CODE64, IDT, MEMORY_SIZE, identity_map, long, protected, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import CODE, HANDLERS, PLENTY, Rig, asm, put_handler, real

from emuvisor.cpu.exits import ExitReason

TOTAL = 30_000

BUSY = """
    mov rdi, 0x6000
again:
    mov ecx, 37
    cld
    rep stosb
    sub rdi, 37
    xor edx, edx
    mov eax, [r15 + 0x7100]
    imul eax, eax, 1103515245
    add eax, 12345
    mov [r15 + 0x7100], eax
    mov ecx, eax
    and ecx, 3
    div ecx
    rdtsc
    add [r15 + 0x7108], rax
    int 0x30
    mov rbx, [r15 + 0xf000000]
    fld1
    fadd qword ptr [r15 + 0x7200]
    fstp qword ptr [r15 + 0x7200]
    call sub
    jmp again
sub:
    lea rbx, [rip + patched]
    inc byte ptr [rbx + 1]
patched:
    mov al, 0
    add [r15 + 0x7110], al
    ret
"""
"""Strings, a division that faults now and then, the time, a page fault, an interrupt, code that changes itself."""

DIVIDE = "mov ecx, 1; iretq"
SKIP_7 = "add qword ptr [rsp + 8], 7; add rsp, 8; iretq"
COUNT = "inc qword ptr [r15 + 0x7118]; iretq"


def busy_guest(rig):
    data = identity_map(tables())
    for i, (vector, source) in enumerate({0: DIVIDE, 14: SKIP_7, 0x30: COUNT}.items()):
        put_handler(data, vector, HANDLERS + 0x40 * i, CODE64, IDT, long=True)
        code = asm(source, at=HANDLERS + 0x40 * i)
        data[HANDLERS + 0x40 * i : HANDLERS + 0x40 * i + len(code)] = code
    return rig.guest(long(cr4=0x620), asm(BUSY), data)


def outcome(guest):
    memory = guest.memory.read(0, MEMORY_SIZE)
    guest.memory.close()
    return guest.vcpu.digest(), guest.vcpu.work, sha256(memory).hexdigest()


def run_until(guest, work, slices, before=lambda: 0):
    """In `slices` of so many bytes until `work` is done."""
    for budget in slices:
        left = work - guest.vcpu.work
        if left <= 0:
            return
        end = guest.run(min(budget, left), before())
        assert end.reason is ExitReason.BUDGET
    if guest.vcpu.work < work:
        assert guest.run(work - guest.vcpu.work, before()).reason is ExitReason.BUDGET


@pytest.fixture(scope="module")
def rig():
    return Rig(pcpus=2)


@pytest.fixture(scope="module")
def whole(rig):
    """The guest after TOTAL in one slice."""
    guest = busy_guest(rig)
    run_until(guest, TOTAL, [TOTAL])
    exits = guest.vcpu.counters()
    assert exits["soft_interrupt"] > 50
    assert exits["page_fault"] > 50
    assert exits["exception"] > 10
    return outcome(guest)


def test_a_run_can_be_repeated(rig, whole):
    guest = busy_guest(rig)
    run_until(guest, TOTAL, [TOTAL])
    assert outcome(guest) == whole


@settings(max_examples=25, deadline=None)
@given(slices=st.lists(st.integers(1, 700), max_size=300))
def test_slices_change_nothing(rig, whole, slices):
    guest = busy_guest(rig)
    run_until(guest, TOTAL, slices)
    assert outcome(guest) == whole


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_nor_do_moves_between_pcpus_and_neighbours(rig, whole, seed):
    rng = random.Random(seed)
    guest, other = busy_guest(rig), busy_guest(rig)

    def disturb():
        if rng.randrange(3) == 0:
            other.run(rng.randrange(1, 900), rng.randrange(2))
        return rng.randrange(2)

    run_until(guest, TOTAL, [rng.randrange(1, 1500) for _ in range(40)], disturb)
    other.memory.close()
    assert outcome(guest) == whole


def test_nor_does_a_look_at_the_state_between_slices(rig, whole):
    guest = busy_guest(rig)
    while guest.vcpu.work < TOTAL:
        guest.run(min(97, TOTAL - guest.vcpu.work))
        guest.vcpu.state = guest.vcpu.state
    assert outcome(guest) == whole


def test_a_run_ends_at_the_first_block_behind_its_budget():
    # ten blocks of 2 bytes; the budget of 7 is used up when the fourth has run
    guest = Rig().guest(real(), asm("jmp a; a: jmp b; b: jmp c; c: jmp d; d: jmp e; e: jmp f; f: hlt", 16))
    assert guest.run(7).reason is ExitReason.BUDGET
    assert (guest.vcpu.work, guest.vcpu.state.rip) == (8, CODE + 8)
    assert guest.run(1).reason is ExitReason.BUDGET
    assert (guest.vcpu.work, guest.vcpu.state.rip) == (10, CODE + 10)
    assert guest.run(0).reason is ExitReason.BUDGET
    assert (guest.vcpu.work, guest.vcpu.state.rip) == (10, CODE + 10)
    assert guest.run().reason is ExitReason.HALT
    assert guest.vcpu.work == 13


def test_every_turn_of_a_string_instruction_is_counted():
    def work(turns):
        guest = Rig().guest(real(), asm(f"mov di, 0x6000; mov cx, {turns}; rep stosb; hlt", 16))
        guest.run_to_halt()
        return guest.vcpu.work

    assert work(100) - work(50) == 50 * (work(2) - work(1)) > 0


def test_a_handler_that_faults_for_ever_uses_up_its_budget():
    data = tables()
    guest = Rig().guest(real(), asm("ud2", 16), data)
    guest.memory.write(6 * 4, CODE.to_bytes(4, "little"))  # the handler of #UD is the UD2 itself
    assert guest.run(100_000).reason is ExitReason.BUDGET
    assert 100_000 <= guest.vcpu.work < 100_100


CHAINS = """
    std
    mov edi, 0x6fff
    mov ecx, 200
    stc
a:  mov eax, [0x7000 + ecx * 4]
    jmp b
b:  adc eax, 0x89abcdef
    jmp c
c:  stosb
    rcl edx, 1
    jmp d
d:  adc ebx, eax
    loop a
    pushfd
    pop esi
    hlt
"""
"""Carries and the direction flag live from block to block."""


def test_flags_live_across_slices_switches_and_looks():
    rig = Rig(pcpus=2)

    def result(budget, other=None, look=False):
        guest = rig.guest(protected(), asm(CHAINS, 32))
        turn = 0
        while guest.run(budget, turn % 2 if other else 0).reason is ExitReason.BUDGET:
            turn += 1
            if other:
                other.run(50, turn % 2)
            if look:
                guest.vcpu.state = guest.vcpu.state
        state = guest.vcpu.state
        memory = guest.memory.read(0x6000, 0x1000)
        guest.memory.close()
        return (state.rbx, state.rdx, state.rsi, state.rdi), memory

    whole = result(PLENTY)
    assert whole[0][3] == 0x6FFF - 200
    noise = rig.guest(protected(rflags=0x2), asm("a: xor eax, eax; cld; jmp b; b: clc; jmp a", 32))
    for budget in (1, 3, 17):
        assert result(budget) == whole
        assert result(budget, noise) == whole
        assert result(budget, look=True) == whole


@pytest.mark.parametrize("source", ["nop", "a: jmp b; b: nop", "out 0x10, al"])
@pytest.mark.parametrize("flags", [0x2, 0xAD7, 0x46, 0x402])
def test_flags_set_from_outside_reach_the_guest(source, flags):
    guest = Rig().guest(protected(rflags=flags), asm(f"{source}; pushfd; pop eax; hlt", 32))
    assert guest.run_to_halt().rax == flags


def test_shorten_ends_the_present_run_only():
    guest = Rig().guest(real(), asm("out 0x10, al; a: jmp a", 16))
    guest.devices.on_access = lambda: guest.vcpu.shorten(2000)
    assert guest.run(5000).reason is ExitReason.BUDGET
    assert 2000 <= guest.vcpu.work < 2004
    assert guest.run(5000).reason is ExitReason.BUDGET
    assert 7000 <= guest.vcpu.work < 7004


def test_user_code_is_counted_alike():
    guest = Rig().guest(long(3), asm("a: inc rax; jmp a"), identity_map(tables()))
    guest.run(501)
    assert guest.vcpu.state.rax == 501 // 5 + 1
