"""Several vCPUs of one guest: what they see of each other, and waits that end a run."""

import pytest
from cpu_guest import MEMORY_SIZE, TABLES, identity_map, long, put, put_number, tables
from run_rig import CODE, DATA, Rig, asm, real

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.vcpu import Vcpu

ROUTINE = 0x9000
OTHER_TABLES = MEMORY_SIZE
"""Page tables like those at TABLES, behind the memory that guests otherwise have."""
IF = 1 << 9
WINDOW = 1000
GAP = 256


@pytest.fixture
def rig():
    return Rig(pcpus=2)


def sibling(guest, state):
    """A second vCPU of `guest`."""
    vcpu = Vcpu(guest.stage2, guest.devices)
    vcpu.state = state
    return vcpu


def test_code_that_one_changes_is_run_by_the_other_on_any_pcpu(rig):
    guest = rig.guest(real(), asm(f"a: inc cl; mov [{ROUTINE + 1}], cl; jmp a", bits=16))
    guest.memory.write(ROUTINE, asm("mov al, 0; hlt", bits=16))
    other = sibling(guest, real())
    for turn in range(12):
        guest.run(100)
        other.state = real(rip=ROUTINE)
        assert rig.pcpus[turn % 2].run(other, 100).reason is ExitReason.HALT
        assert other.state.rax == guest.at(ROUTINE + 1, 1) != 0


def test_their_additions_are_atomic(rig):
    source = "a: lock inc word ptr [0x7000]; loop a; hlt"
    guest = rig.guest(real(rcx=500), asm(source, bits=16))
    other = sibling(guest, real(rcx=500))
    while not (guest.vcpu.halted and other.halted):
        rig.pcpus[0].run(guest.vcpu, 13)
        rig.pcpus[1].run(other, 7)
    assert guest.at(DATA, 2) == 1000


def test_the_tlb_stays_when_the_other_has_the_same_address_space(rig):
    data = identity_map(tables())
    source = f"a: mov rax, [{DATA}]; inc rcx; jmp a"
    guest = rig.guest(long(), asm(source), data)
    other = sibling(guest, long())
    guest.run(100)
    before = guest.vcpu.counters()
    for _ in range(5):
        rig.pcpus[0].run(other, 100)
        guest.run(100)
    after = guest.vcpu.counters()
    assert (after["switch"] - before["switch"], after["tlb_flush"] - before["tlb_flush"]) == (5, 0)
    assert (other.counters()["tlb_flush"], other.counters()["tlb_fill"]) == (0, 0)
    assert other.state.rcx > 10


def test_the_tlb_goes_when_the_other_has_another_address_space(rig):
    """Their page tables share all but the last level's entry for DATA."""
    data = identity_map(tables())
    data.extend(bytes(0x4000))
    for level in range(4):
        put(data, OTHER_TABLES + level * 0x1000, data[TABLES + level * 0x1000 :][:0x1000])
    for level in range(3):
        put_number(data, OTHER_TABLES + level * 0x1000, OTHER_TABLES + (level + 1) * 0x1000 | 7, 8)
    put_number(data, OTHER_TABLES + 0x3000 + 8 * (DATA >> 12), ROUTINE | 7, 8)
    source = f"a: mov rax, [{DATA}]; pause; jmp a"
    guest = rig.guest(long(), asm(source), data, blocks=((0, 2 * MEMORY_SIZE),))
    guest.memory.write(DATA, b"\x01")
    guest.memory.write(ROUTINE, b"\x02")
    other = sibling(guest, long(cr3=OTHER_TABLES))
    for _ in range(3):
        guest.run(100)
        rig.pcpus[0].run(other, 100)
        assert (guest.vcpu.state.rax, other.state.rax) == (1, 2)


def test_two_cannot_run_at_once(rig):
    guest = rig.guest(real(), asm("out 0x80, al; hlt", bits=16))
    other = sibling(guest, real())
    guest.devices.on_access = lambda: rig.pcpus[1].run(other, 1)
    with pytest.raises(RuntimeError, match=r"^another vCPU of the guest is running$"):
        guest.run()


def test_a_loop_around_pause_ends_the_run_when_it_lasts(rig):
    guest = rig.guest(real(), asm("a: inc bx; pause; jmp a", bits=16))
    guest.vcpu.pause_window = WINDOW
    for turn in range(1, 4):
        assert guest.run().reason is ExitReason.PAUSE
        assert turn * WINDOW <= guest.vcpu.work <= turn * (WINDOW + 10)
    state = guest.vcpu.state
    assert state.rip in (CODE + 1, CODE + 3), "behind the PAUSE"
    assert guest.vcpu.counters()["pause"] == state.rbx


def test_without_a_window_it_may_last(rig):
    guest = rig.guest(real(), asm("a: pause; jmp a", bits=16))
    assert guest.run(10_000).reason is ExitReason.BUDGET


def test_a_window_can_be_set_while_it_lasts(rig):
    guest = rig.guest(real(), asm("out 0x80, al; a: pause; jmp a", bits=16))

    def set_window():
        guest.vcpu.pause_window = WINDOW

    guest.devices.on_access = set_window
    assert guest.run(100_000).reason is ExitReason.PAUSE


def test_pauses_that_are_far_apart_are_no_loop(rig):
    guest = rig.guest(real(), asm("a: pause;" + "nop;" * GAP + "jmp a", bits=16))
    guest.vcpu.pause_window = WINDOW
    assert guest.run(100_000).reason is ExitReason.BUDGET


@pytest.mark.parametrize("loaded", [False, True])
def test_ready(rig, loaded):
    guest = rig.guest(real(rflags=2), asm("hlt; sti; hlt", bits=16))
    vcpu = guest.vcpu
    assert vcpu.ready

    def run():
        assert guest.run().reason is ExitReason.HALT
        if not loaded:
            rig.pcpus[0].unload()

    run()
    assert not vcpu.ready
    vcpu.interrupt = True
    assert not vcpu.ready, "interrupts are disabled"
    vcpu.nmi = True
    assert vcpu.ready
    vcpu.nmi = vcpu.interrupt = vcpu.halted = False
    assert vcpu.ready
    run()
    assert not vcpu.ready
    vcpu.interrupt = True
    assert vcpu.ready
