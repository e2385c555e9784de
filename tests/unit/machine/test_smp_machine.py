"""A machine with two processors: starting them, NMI, halts, shutdown, reset, and stopping whichever runs."""

import pytest
from smp_rig import FLAG, INIT, POWER_OFF, SLICE, START, STOP, Build, run

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.machine import Readiness
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FramePool

NMI_OTHERS = "mov dword ptr [0xfee00300], 0xc4400;"
WAIT = f"w: pause; cmp byte ptr [{FLAG}], 1; jne w;"
TELL = f"mov byte ptr [{FLAG}], 1;"
SPIN = "s: jmp s;"
NMI_VECTOR = "mov word ptr [8], 0x9100; mov word ptr [10], 0;"
"""The handler of vector 2 is behind the second processor's code."""


@pytest.mark.parametrize("board", ["pc", "microvm"])
def test_the_first_starts_the_second(build: Build, pool: FramePool, board: str) -> None:
    machine = build(START + WAIT + POWER_OFF, TELL + STOP, board=board)
    assert run(machine, pool) == (Ending.POWER_OFF, "")
    assert machine.vcpus[1].work > 0


def test_it_waits_until_it_is_started(build: Build, pool: FramePool) -> None:
    machine = build(INIT + STOP, TELL + STOP)
    assert run(machine, pool) == (Ending.HALTED, "HLT with interrupts disabled")
    assert machine.vcpus[1].work == 0
    assert machine.processors[1].waits_for_sipi


def test_it_waits_again_after_an_init(build: Build, pool: FramePool) -> None:
    machine = build(START + WAIT + INIT + STOP, TELL + SPIN)
    assert run(machine, pool) == (Ending.HALTED, "HLT with interrupts disabled")


def test_it_ends_when_all_have_halted_for_good(build: Build, pool: FramePool) -> None:
    machine = build(START + STOP, "mov cx, 500; l: loop l; cli; hlt")
    assert run(machine, pool) == (Ending.HALTED, "HLT with interrupts disabled")
    assert machine.vcpus[1].work > 500


def test_it_is_idle_while_one_can_be_woken(build: Build, pool: FramePool) -> None:
    machine = build(START + STOP, "sti; hlt")
    activity = machine.run_slice(Pcpu(pool, machine.model), SLICE)
    while activity.readiness is Readiness.RUNNABLE:
        activity = machine.run_slice(Pcpu(pool, machine.model), SLICE)
    assert (activity.readiness, activity.wake_ns) == (Readiness.IDLE, None)


def test_the_shutdown_of_one_is_the_guests(build: Build, pool: FramePool) -> None:
    machine = build(START + SPIN, "lidt [0x7100]; int3")
    ending, message = run(machine, pool)
    assert (ending, message) == (Ending.SHUTDOWN, f"at RIP {machine.vcpus[1].state.rip:#x}")


def test_an_nmi_wakes_it(build: Build, pool: FramePool) -> None:
    machine = build(START + WAIT + NMI_OTHERS + SPIN, NMI_VECTOR + TELL + STOP, POWER_OFF)
    assert run(machine, pool) == (Ending.POWER_OFF, "")


def test_an_nmi_is_nothing_to_one_that_was_not_started(build: Build, pool: FramePool) -> None:
    machine = build(NMI_OTHERS + START + WAIT + POWER_OFF, TELL + STOP)
    assert run(machine, pool) == (Ending.POWER_OFF, "")


def test_a_reset_is_for_all(build: Build, pool: FramePool) -> None:
    machine = build(START + SPIN, "mov al, 0x61; out 0xe9, al; mov al, 0xfe; out 0x64, al; hlt")
    pcpu = Pcpu(pool, machine.model)
    while machine.resets < 3:
        machine.run_slice(pcpu, SLICE)
    assert machine.debug.text == "aaa"
    assert machine.processors[1].waits_for_sipi
    assert machine.vcpus.number == 0


def test_the_a20_gate_is_for_all(build: Build, pool: FramePool) -> None:
    machine = build("mov al, 0; out 0x92, al; cli; hlt", STOP)
    run(machine, pool)
    assert [vcpu.state.a20 for vcpu in machine.vcpus] == [False, False]


def test_stop_reaches_the_one_that_runs(build: Build, pool: FramePool) -> None:
    machine = build(START + SPIN, "mov al, 0x61; out 0xe9, al; s: jmp s")
    machine.debug.listeners.append(lambda _data: machine.stop())
    pcpu = Pcpu(pool, machine.model)
    activity = machine.run_slice(pcpu, 10**9)
    assert activity.readiness is Readiness.RUNNABLE
    assert machine.vcpus.number == 1
    assert machine.vcpus[1].work < SLICE


def test_stop_before_a_slice_ends_it_and_no_other(build: Build, pool: FramePool) -> None:
    machine = build(SPIN, STOP)
    pcpu = Pcpu(pool, machine.model)
    machine.stop()
    machine.run_slice(pcpu, SLICE)
    assert machine.vcpus.work == 0
    machine.run_slice(pcpu, SLICE)
    assert machine.vcpus.work >= SLICE


def test_stop_reaches_one_whose_turn_came_since(build: Build, pool: FramePool) -> None:
    machine = build(START + WAIT + SPIN, TELL + SPIN)
    pcpu = Pcpu(pool, machine.model)
    while not machine.vcpus[1].work:
        machine.run_slice(pcpu, SLICE)
    while machine.vcpus.budget(10**9) > 1:
        machine.run_slice(pcpu, machine.vcpus.budget(10**9))
    now = machine.vcpus.number
    machine.stop()
    before = machine.vcpus.work
    machine.run_slice(pcpu, 10**9)
    assert (machine.vcpus.number, machine.vcpus.work) == (1 - now, before)


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_all_have_the_same_time(build: Build, pool: FramePool, clock: str) -> None:
    """The second's time stamp lies between two of the first's."""
    stamp = "rdtsc; mov [{0}], eax; mov [{0} + 4], edx;"
    machine = build(
        START + stamp.format("0x7200") + WAIT + stamp.format("0x7210") + POWER_OFF,
        "p: " + stamp.format("0x7208") + TELL + STOP,
        clock=clock,
    )
    assert run(machine, pool) == (Ending.POWER_OFF, "")
    stamps = [int.from_bytes(machine.memory.read(0x7200 + 8 * n, 8), "little") for n in range(3)]
    assert stamps == sorted(set(stamps))
