"""One guest, run in the calling thread."""

import tempfile
from pathlib import Path

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "hello.bin"
    path.write_bytes(firmware.image("hello"))
    pool = FramePool(64 * MIB)
    machine = Machine(
        GuestConfig(board="isa", memory=32 * MIB, flat=FlatConfig(path, firmware.FLAT_ADDRESS)), pool
    )
    machine.boot()
    outcome = machine.run(Pcpu(pool))

print(machine.console.text, end="")
print(f"outcome: {outcome}")
print(f"retired: {machine.vcpu.work} bytes of code, {machine.clock.now_ns() / 1e6:.2f} ms of guest time")
print(f"frames:  {pool.used} of {machine.memory.size // 4096}")
