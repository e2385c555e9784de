"""What is said of a machine that cannot be saved, and of states that are none of this machine's."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import smp_rig

from emuvisor.bus.clock import HostClock
from emuvisor.bus.device import SavedState
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import SnapshotError
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.machine.outcome import Ending, Outcome
from emuvisor.memory import FramePool
from emuvisor.units import MIB

SPIN = "a: jmp a"


@pytest.fixture
def pool() -> FramePool:
    return FramePool(16 * MIB)


@pytest.fixture
def machine(tmp_path: Path, pool: FramePool) -> Iterator[Machine]:
    machine = smp_rig.build_machine(pool, tmp_path / "guest.bin", SPIN, SPIN)
    machine.run_slice(Pcpu(pool), 10_000)
    yield machine
    machine.close()


def refused(machine: Machine, state: SavedState) -> str:
    with pytest.raises(SnapshotError) as caught:
        load_machine(machine, state)
    return str(caught.value)


@pytest.mark.parametrize("ending", [Ending.POWER_OFF, Ending.SHUTDOWN])
def test_a_guest_that_has_ended(machine: Machine, ending: Ending) -> None:
    machine.outcome = Outcome(ending)
    with pytest.raises(
        SnapshotError, match=r"^machine: the guest has ended; there is nothing to go on with$"
    ):
        save_machine(machine)


def test_a_guest_that_waits_for_its_boot_image(machine: Machine) -> None:
    machine.power_on()
    with pytest.raises(SnapshotError, match=r"^machine: the guest's boot image is not yet in its memory$"):
        save_machine(machine)


def test_a_guest_that_was_stopped_by_its_text_can_go_on(machine: Machine) -> None:
    machine.outcome = Outcome(Ending.UNTIL)
    state = save_machine(machine)
    load_machine(machine, state)
    assert machine.outcome is None


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("device",), "pc", "the saved state is of device 'pc', not 'machine'"),
        (("version",), 9, "machine: saved state has version 9; this emuvisor reads 1 to 2"),
        (
            ("resets",),
            -1,
            "machine: saved field 'resets' is -1; expected an integer from 0 to 9223372036854775807",
        ),
        (("host_clock",), 1, "machine: saved field 'host_clock' is 1; expected True or False"),
        (
            ("until",),
            "x",
            "machine: saved field 'until' is 'x'; expected an integer from 0 to 9223372036854775807 or None",
        ),
        (("stolen_ns",), [0], "machine: saved field 'stolen_ns' is [0]; expected 2 times"),
        (("stolen_ns",), [0, -1], "machine: saved field 'stolen_ns' is [0, -1]; expected 2 times"),
        (("processors",), [], "machine: saved field 'processors' is []; this guest needs 2 of them"),
        (("consoles",), [1, 2], "machine: saved field 'consoles' is [1, 2]; this guest needs 2 of them"),
        (("signals",), None, "machine: saved signals None are none of this guest's"),
        (("signals",), [[2, None]], "machine: saved signals [[2, None]] are none of this guest's"),
        (("signals",), [[1, 256]], "machine: saved signals [[1, 256]] are none of this guest's"),
        (("clock",), 5, "machine: saved field 'clock' is 5; expected a saved state"),
        (
            ("processors", 1, "work"),
            None,
            "processor: saved field 'work' is None; expected an integer from 0 to 9223372036854775807",
        ),
        (
            ("processors", 0, "inside_block"),
            0,
            "processor: saved field 'inside_block' is 0; expected True or False",
        ),
        (
            ("processors", 0, "registers"),
            [],
            "processor: saved field 'registers' is []; expected a saved state",
        ),
    ],
)
def test_a_state_of_no_machine(machine: Machine, path: tuple[Any, ...], value: Any, text: str) -> None:
    state = copy.deepcopy(save_machine(machine))
    part: Any = state
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert refused(machine, state) == text


def test_signals_and_stolen_time_come_back(machine: Machine) -> None:
    machine._signals.extend([(1, None), (1, 0x9A)])
    machine._steal_times[1].pending_ns = 77
    state = save_machine(machine)
    machine._signals.clear()
    machine._steal_times[1].pending_ns = 0
    load_machine(machine, state)
    assert list(machine._signals) == [(1, None), (1, 0x9A)]
    assert save_machine(machine) == state


def test_what_slices_have_taken_does_not_become_less(machine: Machine, pool: FramePool) -> None:
    state = save_machine(machine)
    pcpu = Pcpu(pool)
    machine.run_slice(pcpu, 50_000)
    spent = machine.spent
    load_machine(machine, state)
    assert machine.spent == spent
    machine.run_slice(pcpu, 50_000)
    assert machine.spent > spent


@pytest.mark.parametrize("clocks", [("virtual", "host"), ("host", "virtual"), ("host", "host")])
def test_time_stamps_go_on_on_another_clock(tmp_path: Path, pool: FramePool, clocks: tuple[str, str]) -> None:
    source, target = (
        smp_rig.build_machine(pool, tmp_path / f"{number}.bin", SPIN, SPIN, clock=clock)
        for number, clock in enumerate(clocks)
    )
    source.run_slice(Pcpu(pool), 10_000)
    state = save_machine(source)
    target.memory.take_over(source.memory)
    load_machine(target, state)
    now = state["clock"]["now_ns"]
    assert now <= target.vcpus.running.tsc
    assert now <= target.clock.now_ns()
    if not isinstance(target.clock, HostClock):
        assert target.vcpu.tsc == target.clock.now_ns() == now
    source.close()
    target.close()


def test_registers_may_come_packed(machine: Machine, pool: FramePool) -> None:
    state, packed = save_machine(machine), [vcpu.registers for vcpu in machine.vcpus]
    machine.run_slice(Pcpu(pool), 50_000)
    load_machine(machine, state, packed)
    assert save_machine(machine) == state
