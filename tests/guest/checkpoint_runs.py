"""A guest that goes back to checkpoints: how it ends, each time. `python checkpoint_runs.py [ROUNDS]` prints whether
all of ROUNDS (100) are the same."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from test_machine_state import booted, config, fingerprint

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.host.checkpoint import Checkpoint
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.sharing import PageSharing
from emuvisor.memory.stage2 import FrameState
from emuvisor.units import MIB

CASES = [
    *(("isa", program, 1) for program in ("compute", "ring", "halt")),
    *((board, "compute", 1) for board in ("pc", "microvm")),
    *((board, program, 2) for board in ("pc", "microvm") for program in ("ring", "halt", "smp")),
    *((board, "smp", 4) for board in ("pc", "microvm")),
]
"""Board, program, vCPUs."""
EARLY, LATE = 400_000, 700_000
"""Bytes of code from power-on to the checkpoints."""
SMP_ROUNDS = 40
PRIME = 4093


def repeats(
    folder: Path,
    board: str,
    program: str,
    vcpus: int,
    rounds: int,
    *,
    take_away: bool = False,
    pool: int = 64 * MIB,
) -> list[object]:
    """The ends of a guest that is left alone, and then goes back to each of two checkpoints `rounds` times, in slices
    of many lengths; with `take_away` its pages are compressed and shared on the way."""
    frames = FramePool(pool)
    options = {} if board == "isa" else {"vcpus": vcpus}
    made = config(folder, board, program, **options)
    pcpu = Pcpu(frames)
    alone = _boot(made, frames)
    ends: list[object] = [_run_to_the_end(alone, pcpu, 1_000_000, False)]
    alone.close()
    machine = _boot(made, frames)
    machine.memory.stores[FrameState.COMPRESSED] = store = CompressedStore(8 * MIB)
    machine.run_slice(pcpu, EARLY)
    early = Checkpoint.take("guest", machine)
    machine.run_slice(pcpu, LATE - EARLY)
    late = Checkpoint.take("guest", machine)
    for number in range(rounds):
        for start in (late, early):
            start.put_into("guest", machine)
            ends.append(_run_to_the_end(machine, pcpu, 20_011 + number * PRIME, take_away))
    for kept in (early, late):
        kept.close()
    machine.close()
    store.close()
    assert frames.used == 0
    return ends


def _boot(made: GuestConfig, frames: FramePool) -> Machine:
    machine = booted(made, frames)
    machine.memory.write(firmware.PARAMETERS, SMP_ROUNDS.to_bytes(8, "little"))
    return machine


def _run_to_the_end(machine: Machine, pcpu: Pcpu, slice_work: int, take_away: bool) -> object:
    while machine.run_slice(pcpu, slice_work).readiness is not Readiness.ENDED:
        if take_away:
            machine.memory.send_away(
                FrameState.COMPRESSED, machine.memory.evictable(64, FrameState.COMPRESSED)
            )
            machine.memory.share_zero(0, np.arange(len(machine.memory.slots[0].entries)))
            PageSharing(machine.memory.pool, seed=1).scan(machine.memory, 4096)
    return fingerprint(machine)


def main(rounds: int) -> None:
    """Of all programs on all boards."""
    for board, program, vcpus in CASES:
        with tempfile.TemporaryDirectory() as folder:
            ends = repeats(Path(folder), board, program, vcpus, rounds)
        print(f"{board}, {program}, {vcpus} vCPUs: {len(ends)} runs, {len(set(ends))} different ends")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
