"""Guests of a few instructions on real pCPUs, for the tests of running a vCPU.

A guest has 64 KiB of RAM with the tables of `cpu_guest` and its code at CODE; its devices write down every access.
"""

from functools import cache

import keystone
from cpu_guest import MEMORY_SIZE, gate, put, tables

from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.models import DEFAULT_MODEL
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.cpu.state import CpuState, Segment
from emuvisor.cpu.vcpu import Vcpu, bind
from emuvisor.memory import FramePool, GuestMemory
from emuvisor.units import MIB, PAGE_SIZE

CODE = 0x8000
HANDLERS = 0x9000
"""Where `handler` puts interrupt handlers."""
DATA = 0x7000
PLENTY = 1_000_000
PAGE = PAGE_SIZE


@cache
def _assembler(bits):
    mode = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[bits]
    return keystone.Ks(keystone.KS_ARCH_X86, mode)


@cache
def asm(source, bits=64, at=CODE):
    """Machine code of `source` (Intel syntax, one instruction a line or separated by ';') for address `at`."""
    code, _ = _assembler(bits).asm(source, at)
    return bytes(code)


class Devices:
    """A fake board: writes down accesses; `answers` gives what reads return, `on_access` may do more."""

    def __init__(self):
        self.log = []
        self.answers = {}
        self.on_access = lambda: None
        self.vectors = []
        self.msrs = {}
        self.cr8 = 0

    def _access(self, *access):
        self.log.append(access)
        self.on_access()

    def port_read(self, port, size):
        self._access("in", port, size)
        return self.answers.get(port, 0)

    def port_write(self, port, value, size):
        self._access("out", port, value, size)

    def mmio_read(self, gpa, size):
        self._access("load", gpa, size)
        return self.answers.get(gpa, (1 << 8 * size) - 1)

    def mmio_write(self, gpa, value, size):
        self._access("store", gpa, value, size)

    def cpuid(self, leaf, subleaf):
        return DEFAULT_MODEL.cpuid(leaf, subleaf)

    def msr_read(self, index):
        self._access("rdmsr", index)
        return self.msrs.get(index)

    def msr_write(self, index, value):
        self._access("wrmsr", index, value)
        if index not in self.msrs:
            return False
        self.msrs[index] = value
        return True

    def read_cr8(self):
        self._access("read cr8")
        return self.cr8

    def write_cr8(self, value):
        self._access("write cr8", value)
        self.cr8 = value

    def acknowledge(self):
        return self.vectors.pop(0) if self.vectors else None


class Guest:
    """A vCPU with memory and fake devices."""

    def __init__(self, pool, pcpus, memory):
        self.pcpus = pcpus
        self.memory = memory
        self.devices = Devices()
        self.stage2 = bind(memory)
        self.vcpu = Vcpu(self.stage2, self.devices)

    def run(self, budget=PLENTY, pcpu=0):
        return self.pcpus[pcpu].run(self.vcpu, budget)

    def run_to_halt(self, budget=PLENTY, pcpu=0):
        """Run; it must halt. Returns the state."""
        end = self.run(budget, pcpu)
        assert end.reason is ExitReason.HALT, f"{end}\n{self.vcpu.state}"
        return self.vcpu.state

    def at(self, address, size=8):
        """A number in the guest's memory."""
        return int.from_bytes(self.memory.read(address, size), "little")

    def outs(self):
        """The values written to ports, in order."""
        return [access[2] for access in self.devices.log if access[0] == "out"]


class Rig:
    """A frame pool, pCPUs over it, and guests."""

    def __init__(self, pool=4 * MIB, pcpus=1):
        self.pool = FramePool(pool)
        self.pcpus = [Pcpu(self.pool) for _ in range(pcpus)]

    def empty(self, blocks=((0, MEMORY_SIZE),)):
        return Guest(self.pool, self.pcpus, GuestMemory(self.pool, blocks))

    def guest(self, state, code, data=None, blocks=((0, MEMORY_SIZE),)):
        """A guest with `data` at 0 (default: `tables()`), `code` at CODE, and `state`."""
        guest = self.empty(blocks)
        data = bytearray(tables() if data is None else data)
        put(data, CODE, code)
        guest.memory.write(0, bytes(data))
        guest.vcpu.state = state
        return guest

    def clone(self, guest):
        """A second guest with the same memory, copy on write, and the same state."""
        twin = Guest(self.pool, self.pcpus, guest.memory.clone())
        twin.vcpu.state = guest.vcpu.state
        return twin


def real(**changes):
    """Real mode at 0000:CODE with flat-zero segments, stack below DATA."""
    state = CpuState(rip=CODE, rsp=DATA, cs=Segment(0, 0, 0xFFFF, 0x9B00))
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def put_handler(data, vector, offset, selector, idt, *, long=False, **fields):
    """An interrupt gate for `vector`."""
    size = 16 if long else 8
    put(data, idt + size * vector, gate(14, selector, offset, long=long, **fields))
