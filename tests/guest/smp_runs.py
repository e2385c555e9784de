"""Runs of the firmware guest `smp`, and a thousand of them: python tests/guest/smp_runs.py [RUNS]

Each has another number of vCPUs, another length of turns and of slices, from a fixed seed.
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB

IMAGE = Path(firmware.__file__).with_name("smp.bin")
SEED = 6
MOST_SLICES = 100_000
BOARDS: tuple[BoardName, ...] = ("pc", "microvm")


@dataclass(frozen=True)
class Run:
    vcpus: int
    board: BoardName = "microvm"
    turn: int = 100_000
    slice_work: int = 2_000_000
    rounds: int = 200


@dataclass(frozen=True)
class Result:
    outcome: str
    output: str
    digest: str
    """Of all vCPUs at the end."""
    switches: int


def run(this: Run, pcpus: int = 1) -> Result:
    """Run the guest, each slice on the next of `pcpus` engines."""
    pool = FramePool(64 * MIB)
    config = GuestConfig(
        board=this.board,
        memory=4 * MIB,
        vcpus=this.vcpus,
        flat=FlatConfig(IMAGE, firmware.FLAT_ADDRESS),
    )
    machine = Machine(config, pool, turn=this.turn)
    try:
        machine.boot()
        machine.memory.write(firmware.PARAMETERS, this.rounds.to_bytes(8, "little"))
        engines = [Pcpu(pool, machine.model) for _ in range(pcpus)]
        slices = 0
        while machine.outcome is None and slices < MOST_SLICES:
            machine.run_slice(engines[slices % pcpus], this.slice_work)
            slices += 1
        digest = hashlib.sha256("".join(vcpu.digest() for vcpu in machine.vcpus).encode())
        output = machine.console.text.replace("\r\n", "\n")
        return Result(str(machine.outcome), output, digest.hexdigest(), machine.vcpus.switches)
    finally:
        machine.close()


def expected(this: Run) -> str:
    """What it prints, after its README."""
    total, signals = this.vcpus * this.rounds, this.rounds // 8
    return (
        f"smp: processors: {this.vcpus}\n"
        f"smp: sum by LOCK XADD: {total}\n"
        f"smp: sum by LOCK CMPXCHG: {total}\n"
        f"smp: sum by LOCK CMPXCHG16B: {total}\n"
        f"smp: sum across two pages by LOCK XADD: {total}\n"
        f"smp: sum under a spin lock: {total}\n"
        "smp: time never ran backwards\n"
        f"smp: interrupts from neighbour to neighbour, each: {signals}\n"
        f"smp: modified code seen by all, times: {signals}\n"
        f"smp: translations changed for all, times: {signals}\n"
        "smp: PASS\n"
    )


def mix(runs: int, seed: int = SEED) -> Iterator[Run]:
    """Random runs; turns from a few instructions to longer than the whole run."""
    chance = random.Random(seed)
    for _ in range(runs):
        yield Run(
            vcpus=chance.randint(1, 8),
            board=chance.choice(BOARDS),
            turn=int(10 ** chance.uniform(1, 6.5)),
            slice_work=int(10 ** chance.uniform(4, 7)),
            rounds=chance.randrange(8, 200, 8),
        )


def main() -> int:
    """The runs that the command line asks for, 1000 by default; 1 when one is not as it should be."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    switches = 0
    for number, this in enumerate(mix(runs)):
        result = run(this)
        switches += result.switches
        if (result.outcome, result.output) != ("power-off", expected(this)):
            print(f"run {number}: {this}: {result.outcome}\n{result.output}")
            return 1
    print(f"{runs} runs passed, with {switches} changes of vCPUs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
