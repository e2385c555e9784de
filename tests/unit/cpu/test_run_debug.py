"""The host's breakpoints, watchpoints and trace."""

import pytest
from cpu_guest import identity_map, long, protected, tables
from run_rig import CODE, Rig, asm, real

from emuvisor.cpu.exits import Exit, ExitReason

SOURCE = "a: inc eax; jmp b; b: inc ebx; jmp c; c: mov [0x6000], eax; mov ecx, [0x6004]; jmp d; d: jmp a"
A, B, C = CODE, CODE + 3, CODE + 6


@pytest.fixture
def rig():
    return Rig(pcpus=2)


@pytest.fixture
def guest(rig):
    return rig.guest(protected(), asm(SOURCE, 32))


def stop_at(address):
    return Exit(ExitReason.DEBUG, address=address)


def test_a_breakpoint_stops_before_its_instruction_each_time(guest):
    guest.vcpu.set_breakpoints([B])
    for turn in range(1, 5):
        assert guest.run() == stop_at(B)
        state = guest.vcpu.state
        assert (state.rip, state.rax, state.rbx) == (B, turn, turn - 1)


def test_several_breakpoints_and_none(guest):
    guest.vcpu.set_breakpoints([A, B, C])
    assert [guest.run(pcpu=turn // 2 % 2).address for turn in range(6)] == [A, B, C, A, B, C]
    guest.vcpu.set_breakpoints([])
    assert guest.run(500).reason is ExitReason.BUDGET


def test_a_breakpoint_in_the_middle_of_a_block(rig):
    guest = rig.guest(protected(), asm("inc eax; inc ebx; inc ecx; hlt", 32))
    guest.vcpu.set_breakpoints([CODE + 1, CODE + 2])
    assert guest.run() == stop_at(CODE + 1)
    assert (guest.vcpu.work, guest.vcpu.state.rbx) == (1, 0)
    assert guest.run() == stop_at(CODE + 2)
    assert guest.vcpu.work == 2
    assert guest.run().reason is ExitReason.HALT
    assert guest.vcpu.work == 4


def test_breakpoints_do_not_change_the_run(rig):
    def result(breakpoints):
        guest = rig.guest(protected(), asm(SOURCE, 32))
        guest.vcpu.set_breakpoints(breakpoints)
        while guest.vcpu.work < 1000:
            guest.run(1000 - guest.vcpu.work)
        return guest.vcpu.digest()

    assert result([]) == result([B])


def test_breakpoints_are_the_guests_own(rig, guest):
    other = rig.guest(protected(), asm(SOURCE, 32))
    guest.vcpu.set_breakpoints([B])
    for _ in range(5):
        assert guest.run() == stop_at(B)
        assert other.run(300).reason is ExitReason.BUDGET


def test_a_breakpoint_is_a_linear_address(rig):
    guest = rig.guest(real(), asm("inc ax; inc bx; hlt", 16))
    state = guest.vcpu.state
    state.cs.selector, state.cs.base, state.rip = CODE >> 4, CODE, 0
    guest.vcpu.state = state
    guest.vcpu.set_breakpoints([CODE + 1])
    assert guest.run() == stop_at(CODE + 1)
    assert guest.vcpu.state.rax == 1


def test_limits_of_breakpoints_and_watchpoints(guest):
    guest.vcpu.set_breakpoints(list(range(32)))
    with pytest.raises(ValueError, match=r"^a vCPU has at most 32 breakpoints$"):
        guest.vcpu.set_breakpoints(list(range(33)))
    guest.vcpu.set_watchpoints([(0, 1, True, True)] * 8)
    with pytest.raises(ValueError, match=r"^a vCPU has at most 8 watchpoints$"):
        guest.vcpu.set_watchpoints([(0, 1, True, True)] * 9)
    for wrong in (5, ["x"], [None]):
        with pytest.raises(TypeError):
            guest.vcpu.set_breakpoints(wrong)
    with pytest.raises(TypeError):
        guest.vcpu.set_watchpoints([(1, 2)])


@pytest.mark.parametrize(
    ("watch", "hit"),
    [
        ((0x6000, 4, False, True), 0x6000),
        ((0x6003, 1, False, True), 0x6003),
        ((0x5FFE, 3, False, True), 0x6000),
        ((0x6004, 1, True, False), 0x6004),
        ((0x6006, 20, True, True), 0x6006),
        ((0x5000, 0x3000, False, True), 0x6000),
    ],
)
def test_a_watchpoint(guest, watch, hit):
    guest.vcpu.set_watchpoints([watch])
    for _ in range(3):
        assert guest.run() == stop_at(hit)


NOT_MET = [
    (0x6000, 4, True, False),
    (0x6004, 4, False, True),
    (0x5FFF, 1, True, True),
    (0x6008, 8, True, True),
    (0x20000, 8, True, True),
    (0x6000, 0, True, True),
]


@pytest.mark.parametrize("watch", NOT_MET)
def test_a_watchpoint_that_is_not_met(guest, watch):
    guest.vcpu.set_watchpoints([watch])
    assert guest.run(2000).reason is ExitReason.BUDGET


def test_a_watchpoint_is_a_physical_address(rig):
    data = identity_map(tables())
    data[0xD000 + 8 * 15 : 0xD000 + 8 * 16] = (0x6000 | 7).to_bytes(8, "little")
    guest = rig.guest(long(rbx=0xF010), asm("mov [rbx], rax; jmp a; a: hlt"), data)
    guest.vcpu.set_watchpoints([(0x6010, 8, False, True)])
    assert guest.run() == stop_at(0x6010)


def test_the_trace(guest):
    assert guest.vcpu.trace() == []
    guest.vcpu.set_trace(5)
    guest.run(40)
    trace = guest.vcpu.trace()
    assert len(trace) == 5
    assert set(trace) <= {A, B, C, CODE + len(asm(SOURCE, 32)) - 2}
    order = [A, B, C, CODE + len(asm(SOURCE, 32)) - 2]
    start = order.index(trace[0])
    assert trace == (order * 3)[start : start + 5]
    guest.vcpu.set_trace(0)
    guest.run(40)
    assert guest.vcpu.trace() == []


def test_an_impossible_trace(guest):
    with pytest.raises(MemoryError):
        guest.vcpu.set_trace(1 << 40)
    with pytest.raises(OverflowError):
        guest.vcpu.set_trace(-1)
