"""Machines with several processors that run a few instructions each."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keystone

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FramePool
from emuvisor.units import MIB

FIRST, SECOND, FLAG = 0x8000, 0x9000, 0x7000
"""Where the processors' code is, and a byte for what they tell each other."""
PATIENCE_S = 120
SLICE = 200_000
INIT = "mov dword ptr [0xfee00300], 0xc4500;"
START = INIT + f"mov dword ptr [0xfee00300], {0xC4600 | SECOND >> 12};"
"""All the others."""
POWER_OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt;"
STOP = "cli; hlt;"

Build = Callable[..., Machine]


@cache
def asm(source: str, bits: int, at: int) -> bytes:
    modes = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32}
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, modes[bits]).asm(source, at)
    return bytes(code)


def build_machine(
    pool: FramePool,
    path: Path,
    first: str,
    second: str,
    handler: str = "",
    *,
    turn: int = 0,
    **fields: Any,
) -> Machine:
    """A machine whose first processor runs `first` (32 bits), and whose others, when they are started, run `second`
    (16 bits); its image is written to `path`."""
    image = asm(first, 32, FIRST).ljust(SECOND - FIRST, b"\0") + asm(second, 16, SECOND).ljust(0x100, b"\0")
    path.write_bytes(image + (asm(handler, 16, SECOND + 0x100) if handler else b""))
    flat = FlatConfig(path, FIRST, "protected32")
    usual: dict[str, Any] = {"memory": MIB, "vcpus": 2}
    config = GuestConfig(flat=flat, **(usual | fields))
    machine = Machine(config, pool, turn=turn) if turn else Machine(config, pool)
    machine.boot()
    return machine


def run(machine: Machine, pool: FramePool) -> tuple[Ending, str]:
    """How it ends."""
    outcome = machine.run(Pcpu(pool, machine.model), SLICE, seconds=PATIENCE_S)
    assert outcome is not None, machine.vcpus.running.state
    return outcome.ending, outcome.message
