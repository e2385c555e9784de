"""Stop a guest at its entry into 64-bit code, and see which blocks led there."""

import tempfile
from pathlib import Path

import capstone

from emuvisor import firmware
from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.pcpu import Pcpu
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
    pcpu = Pcpu(pool)

    machine.vcpu.set_trace(1 << 16)
    machine.run(pcpu)
    last = machine.vcpu.trace()[-1]  # the last block that the guest ran

    machine.boot()
    machine.vcpu.set_trace(8)
    machine.vcpu.set_breakpoints([last])
    result = pcpu.run(machine.vcpu, 1 << 40)

assert result.reason is ExitReason.DEBUG
print(f"stopped at {result.address:#x} after the blocks", ", ".join(f"{a:#x}" for a in machine.vcpu.trace()))
code = machine.memory.read(last, 32)
for instruction in list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, last))[:4]:
    print(f"{instruction.address:#x}: {instruction.mnemonic} {instruction.op_str}")
