"""A whole guest as plain data and back, apart from what is in its memory and on its disks."""

import reprlib
import time
from collections.abc import Sequence
from typing import Any

from emuvisor.bus.clock import HostClock
from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.saved import Flag, Kind, Number, saved_part
from emuvisor.cpu.saved_state import load_cpu, save_cpu
from emuvisor.cpu.state import CpuState
from emuvisor.cpu.vcpu import Registers, Vcpu
from emuvisor.errors import SnapshotError
from emuvisor.machine.console import Console
from emuvisor.machine.machine import Machine
from emuvisor.machine.outcome import Ending

__all__ = ["load_machine", "save_machine"]

_DEVICE = "machine"
_VERSION = 2
"""Of the whole, with what is in it; `state_versions` reads the earlier ones."""
_COUNT = Number(maximum=2**63 - 1)
_RUN_FIELDS: dict[str, Kind] = {
    "work": _COUNT,
    "idle_ns": _COUNT,
    "pause_window": _COUNT,
    "pause_loop_start": _COUNT,
    "last_pause": _COUNT,
    "spinning": Flag(),
    "inside_block": Flag(),
}
"""What a vCPU has besides registers, of where its last run ended."""
_CPU_FIELDS: dict[str, Kind] = {**_RUN_FIELDS, "interrupt": Flag()}
_FIELDS: dict[str, Kind] = {
    "resets": _COUNT,
    "reset_requested": Flag(),
    "host_clock": Flag(),
    "until": Number(maximum=2**63 - 1, optional=True),
}
_MAX_VECTOR = 0xFF


def save_machine(machine: Machine) -> SavedState:
    """The state of `machine` between two slices: processors, board, clock, consoles. Memory and disks are saved by
    themselves, in the same pause. Raises SnapshotError for a guest that has ended or whose boot image is not yet in
    memory, and for a device that cannot be saved.
    """
    outcome = machine._request or machine.outcome
    if outcome is not None and outcome.ending is not Ending.UNTIL:  # with that it can be resumed
        raise SnapshotError(f"{_DEVICE}: the guest has ended; there is nothing to go on with")
    if machine._loading is not None:
        raise SnapshotError(f"{_DEVICE}: the guest's boot image is not yet in its memory")
    until = machine._until
    return {
        "device": _DEVICE,
        "version": _VERSION,
        "until": until.start if until is not None and machine.console.watches(until) else None,
        "stolen_ns": [steal.pending_ns for steal in machine._steal_times],
        "resets": machine.resets,
        "reset_requested": machine._reset_requested,
        "host_clock": isinstance(machine.clock, HostClock),
        "processors": [_save_vcpu(vcpu) for vcpu in machine.vcpus],
        "turns": machine.vcpus.save(),
        "signals": [list(signal) for signal in machine._signals],
        "clock": machine.clock.save(),
        "board": machine.board.save(),
        "consoles": [console.save() for console in _consoles(machine)],
    }


def _consoles(machine: Machine) -> list[Console]:
    ports = () if machine.virtio is None else machine.virtio.ports.values()
    return [*machine.consoles, machine.debug, *ports]


def _save_vcpu(vcpu: Vcpu) -> SavedState:
    own = {field: getattr(vcpu, field) for field in _CPU_FIELDS}
    return {**own, "registers": save_cpu(vcpu.state)}


def load_machine(machine: Machine, state: SavedState, packed: Sequence[Registers] | None = None) -> None:
    """Let `machine`, which was built of the same configuration and has the memory that belongs to `state`, be where
    `save_machine` found the other one; it need not have been booted. On a host clock the time goes on from there.

    Stolen time of which the guest has not been told belongs to the state: with several vCPUs it is a part of what the
    guest sees, and repeats on the virtual clock. What it waited for its host's pCPUs before is not: that is told from
    now on. `packed` are the processors' registers once more, which saves reading those in `state`.

    Raises SnapshotError; the machine can then be reset or thrown away, but not run.
    """
    check_saved(state, _DEVICE, _VERSION)
    _check(state, _FIELDS, _DEVICE)
    clock, board, turns = (saved_part(state, _DEVICE, part) for part in ("clock", "board", "turns"))
    processors = _list(state, "processors", len(machine.vcpus))
    consoles = _list(state, "consoles", len(_consoles(machine)))
    stolen = state.get("stolen_ns")
    if type(stolen) is not list or len(stolen) != len(machine.vcpus) or not all(map(_COUNT.accepts, stolen)):
        raise SnapshotError(
            f"{_DEVICE}: saved field 'stolen_ns' is {reprlib.repr(stolen)}; expected {len(machine.vcpus)} times"
        )
    spent = machine.spent
    signals = _signals(state.get("signals"), len(machine.vcpus))
    for saved in processors:
        _check(saved, _CPU_FIELDS, "processor")
    registers = [_registers(saved) for saved in processors] if packed is None else None

    for number, (vcpu, saved) in enumerate(zip(machine.vcpus, processors, strict=True)):
        if registers is not None:
            vcpu.state = registers[number]
        elif packed is not None:
            vcpu.registers = packed[number]
        for field in _RUN_FIELDS:  # behind the registers, which begin a block
            setattr(vcpu, field, saved[field])
    nmis = [vcpu.nmi for vcpu in machine.vcpus]
    machine.vcpus.load(turns)
    machine.clock.load(clock)
    machine.board.load(board)
    machine.clock.load_timers(clock)
    # Again, what the board has changed on the way: pins as its chips were loaded, one after the other.
    machine.vcpus.load(turns)
    for vcpu, saved, nmi in zip(machine.vcpus, processors, nmis, strict=True):
        vcpu.interrupt, vcpu.nmi = saved["interrupt"], nmi
        vcpu.pause_window = saved["pause_window"]
    _set_time_stamps(machine, state["host_clock"])
    for steal, pending_ns in zip(machine._steal_times, stolen, strict=True):
        steal.pending_ns = pending_ns
    for console, saved in zip(_consoles(machine), consoles, strict=True):
        console.load(saved)

    machine.resets = state["resets"]
    machine._reset_requested = state["reset_requested"]
    machine._signals.clear()
    machine._signals.extend(signals)
    machine.outcome = machine._request = machine._loading = None
    machine._suspend = ""
    machine._unwatch_until()
    if state["until"] is not None:
        machine._watch_until(state["until"])
    machine.overhead = spent - machine.vcpus.work  # what its slices have taken does not become less


def _set_time_stamps(machine: Machine, was_host_clock: bool) -> None:
    """Time stamp counters go on with the clock, also when the guest's clock is of the other kind from now on."""
    now_ns = machine.clock.now_ns()
    if isinstance(machine.clock, HostClock):
        origin = time.monotonic_ns() - now_ns
        for vcpu in machine.vcpus:
            vcpu.tsc_origin = origin
    elif was_host_clock:
        running = machine.vcpus.running
        machine.vcpus.idle(now_ns - running.work - running.idle_ns)


def _check(state: SavedState, fields: dict[str, Kind], what: str) -> None:
    for field, kind in fields.items():
        if not kind.accepts(state.get(field)):
            raise SnapshotError(
                f"{what}: saved field {field!r} is {reprlib.repr(state.get(field))}; expected {kind}"
            )


def _list(state: SavedState, field: str, length: int) -> list[SavedState]:
    """A list of as many saved states as this guest needs."""
    found = state.get(field)
    if (
        not isinstance(found, list)
        or len(found) != length
        or not all(isinstance(item, dict) for item in found)
    ):
        raise SnapshotError(
            f"{_DEVICE}: saved field {field!r} is {reprlib.repr(found)}; this guest needs {length} of them"
        )
    return found


def _registers(saved: SavedState) -> CpuState:
    return load_cpu(saved_part(saved, "processor", "registers"))


def _signals(saved: Any, processors: int) -> list[tuple[int, int | None]]:
    """INIT and start-up IPIs on their way."""
    number, vector = Number(processors - 1), Number(_MAX_VECTOR, optional=True)
    signals: list[tuple[int, int | None]] = []
    for item in saved if isinstance(saved, list) else [None]:
        match item:
            case [to, start] if number.accepts(to) and vector.accepts(start):
                signals.append((to, start))
            case _:
                raise SnapshotError(
                    f"{_DEVICE}: saved signals {reprlib.repr(saved)} are none of this guest's"
                )
    return signals
