"""What a machine tells its vCPUs of stolen time: when, how much, and on which clock."""

import time

import pytest
from smp_rig import FLAG, SLICE, START, STOP, Build

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.units import PAGE_SIZE

RECORD, OTHER_RECORD = 0x6000, 0x6040
TURN = 20_000
HOUR_NS = 3_600 * 10**9
SPIN = "s: jmp s;"
IDLE = "sti; i: hlt; jmp i;"
HOST_CLOCK = {"clock": "host", "vcpus": 1}


def tell_me(address: int) -> str:
    """Set MSR_KVM_STEAL_TIME."""
    return f"mov ecx, 0x4b564d03; mov eax, {address | 1}; xor edx, edx; wrmsr;"


def record(machine: Machine, address: int = RECORD) -> tuple[int, int]:
    """Stolen time and version."""
    data = machine.memory.read(address, 12)
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")


@pytest.fixture
def pcpu(pool: FramePool) -> Pcpu:
    return Pcpu(pool)


# ---- a guest that waits for a pCPU ----


def test_each_wait_is_told_once(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + SPIN, STOP, **HOST_CLOCK)
    machine.run_slice(pcpu, 10)
    found = []
    for stolen_ns in (0, 500, 500, 2_000, 2_000):
        machine.run_slice(pcpu, SLICE, stolen_ns)
        found.append(record(machine))
    assert found == [(0, 0), (500, 2), (500, 2), (2_000, 4), (2_000, 4)]


def test_what_was_stolen_before_it_asked_is_not_told(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + SPIN, STOP, **HOST_CLOCK)
    machine.run_slice(pcpu, 10, 10_000)
    machine.run_slice(pcpu, SLICE, 10_300)
    assert record(machine) == (300, 2)


def test_on_the_virtual_clock_no_wait_for_a_pcpu_is_told(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + SPIN, STOP, vcpus=1)
    for stolen_ns in range(0, 5_000, 1_000):
        machine.run_slice(pcpu, SLICE, stolen_ns)
    assert record(machine) == (0, 0)


def test_a_guest_that_was_woken_for_the_host_alone_lost_nothing(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + IDLE, STOP, **HOST_CLOCK)
    while machine.run_slice(pcpu, SLICE).readiness is not Readiness.IDLE:
        pass
    called: list[None] = []
    machine.call_soon(lambda: called.append(None))
    machine.run_slice(pcpu, SLICE, 4_000)
    assert called == [None]
    machine.run_slice(pcpu, SLICE, 4_000)
    assert record(machine) == (0, 0)


def test_an_interrupt_that_came_while_it_waited(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + IDLE, STOP, **HOST_CLOCK)
    while machine.run_slice(pcpu, SLICE).readiness is not Readiness.IDLE:
        pass
    machine.call_soon(lambda: machine.vcpus.nmi(0))
    machine.run_slice(pcpu, SLICE, 4_000)  # there is no handler, which ends the guest
    assert record(machine) == (4_000, 2)


def test_a_record_without_a_frame_starves_the_guest_until_there_is_one(build: Build, pool: FramePool) -> None:
    machine = build(tell_me(0x80000) + SPIN, STOP, **HOST_CLOCK)
    pcpu = Pcpu(pool)
    machine.run_slice(pcpu, 10)
    frames = pool.take_many(pool.free)
    work = machine.vcpus.work
    assert machine.run_slice(pcpu, SLICE, 900).readiness is Readiness.STARVED
    assert machine.run_slice(pcpu, SLICE, 1_000).readiness is Readiness.STARVED
    assert machine.vcpus.work == work
    for frame in frames:
        pool.release_one(int(frame))
    assert machine.run_slice(pcpu, SLICE, 1_000).readiness is Readiness.RUNNABLE
    assert record(machine, 0x80000) == (1_000, 2)


@pytest.mark.parametrize("address", [0xB8000, 0xE0000, 0xFEE00000, 0xFFFFF000, 0x7FFFF000])
def test_a_record_where_no_ram_is_harms_nobody(build: Build, pcpu: Pcpu, address: int) -> None:
    machine = build(tell_me(address) + SPIN, STOP, **HOST_CLOCK)
    for stolen_ns in range(0, 5_000, 1_000):
        assert machine.run_slice(pcpu, SLICE, stolen_ns).readiness is Readiness.RUNNABLE
    assert machine.vcpus.work > SLICE


def test_a_record_in_the_code_that_runs(build: Build, pcpu: Pcpu) -> None:
    """What is written there is what runs next."""
    at, counter = 0x8000 + PAGE_SIZE // 2, 0x7100
    up, down = (int.from_bytes(bytes.fromhex(code), "little") for code in ("ff03eb0c", "ff0beb0c"))
    # inc dword ptr [ebx] or dec dword ptr [ebx], then a jump behind the version, to a jump back
    source = f"mov ebx, {counter};" + tell_me(at) + f"w: cmp byte ptr [{FLAG}], 1; jne w; jmp {at}"
    machine = build(source, STOP, **HOST_CLOCK)
    machine.memory.write(at + 16, bytes.fromhex("ebee"))
    machine.run_slice(pcpu, SLICE)
    machine.run_slice(pcpu, SLICE, up)
    machine.memory.write(FLAG, b"\1")
    counts = [0]
    for stolen_ns in (up, down):
        machine.run_slice(pcpu, SLICE, stolen_ns)
        assert record(machine, at)[0] == stolen_ns
        counts.append(int.from_bytes(machine.memory.read(counter, 4), "little", signed=True))
    assert counts[0] < counts[1] > counts[2]


# ---- siblings ----

SECOND_SPINS = tell_me(OTHER_RECORD) + SPIN


def both(machine: Machine) -> list[tuple[int, int]]:
    return [record(machine, RECORD), record(machine, OTHER_RECORD)]


def test_siblings_take_turns_at_each_others_expense(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + START + SPIN, SECOND_SPINS, turn=TURN)
    while machine.vcpus.work < 20 * TURN:
        machine.run_slice(pcpu, SLICE)
    for number, (stolen, _) in enumerate(both(machine)):
        others_work = machine.vcpus[1 - number].work
        assert others_work - 2 * TURN < stolen <= others_work


def test_the_same_is_told_however_it_is_sliced(build: Build, pool: FramePool) -> None:
    found = set()
    for slice_work in (333, 10_007, 50_000_000):
        machine = build(tell_me(RECORD) + START + SPIN, SECOND_SPINS, turn=TURN)
        pcpu, end = Pcpu(pool), 11 * TURN
        while machine.vcpus.work < end:
            machine.run_slice(pcpu, min(slice_work, end - machine.vcpus.work), slice_work)
        found.add((*both(machine), machine.vcpus.work))
    assert len(found) == 1, found


def test_on_the_hosts_clock_both_wait_for_the_pcpu(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + START + SPIN, SECOND_SPINS, clock="host", turn=TURN)
    while not record(machine, OTHER_RECORD)[1]:
        machine.run_slice(pcpu, SLICE)
    before = both(machine)
    machine.run_slice(pcpu, SLICE, HOUR_NS)
    turns = machine.vcpus.switches
    while machine.vcpus.switches < turns + 2:
        machine.run_slice(pcpu, SLICE, HOUR_NS)
    for (now, _), (then, _) in zip(both(machine), before, strict=True):
        assert HOUR_NS <= now - then < 2 * HOUR_NS


def test_one_that_was_woken_between_two_slices(build: Build, pcpu: Pcpu) -> None:
    """A person's key or a frame from the network: the host's clock goes on, but the guest does not want a pCPU yet."""
    source = tell_me(RECORD) + START + f"w: cmp byte ptr [{FLAG}], 1; jne w; cli; hlt"
    machine = build(
        source, tell_me(OTHER_RECORD) + f"mov byte ptr [{FLAG}], 1;" + SPIN, clock="host", turn=TURN
    )
    while not (machine.vcpu.halted and machine.vcpus.number == 1):
        machine.run_slice(pcpu, SLICE)
    before = record(machine)[0]
    later = time.perf_counter_ns() + 1_000_000
    while time.perf_counter_ns() < later:
        pass
    machine.vcpus.nmi(0)
    while machine.run_slice(pcpu, SLICE).readiness is not Readiness.ENDED:  # there is no handler
        pass
    assert machine.vcpus.number == 0
    assert before <= record(machine)[0] < before + HOUR_NS


def test_init_and_reset_end_it(build: Build, pcpu: Pcpu) -> None:
    machine = build(tell_me(RECORD) + START + SPIN, SECOND_SPINS, turn=TURN)
    while not record(machine, OTHER_RECORD)[1]:
        machine.run_slice(pcpu, SLICE)
    assert [vcpu.steal_time for vcpu in machine.vcpus] == [RECORD | 1, OTHER_RECORD | 1]
    machine.vcpus[1].init()
    assert [vcpu.steal_time for vcpu in machine.vcpus] == [RECORD | 1, 0]
    machine.reset()
    assert [vcpu.steal_time for vcpu in machine.vcpus] == [0, 0]
