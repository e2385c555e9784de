"""Run a guest into long mode, then let the Python model explain how it translates an address."""

import tempfile
from pathlib import Path

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.cpu.reference.paging import Access, walk
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "hello.bin"
    path.write_bytes(firmware.image("hello"))
    pool = FramePool(64 * MIB)
    machine = Machine(GuestConfig(memory=32 * MIB, flat=FlatConfig(path, firmware.FLAT_ADDRESS)), pool)
    machine.boot()
    machine.run(Pcpu(pool))

state = machine.vcpu.state
print(state, end="\n\n")
print(walk(state, machine.memory, state.rip, Access.FETCH), end="\n\n")
print(walk(state, machine.memory, 0x7FFF_0000_0000, Access.READ))
