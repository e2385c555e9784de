"""A walk over pages as machine code, for long mode: one access to each page, in order or all over the place.

    mov ecx, PAGES
    xor esi, esi
    1: mov eax, [rsi + DATA]        # or, to write: inc dword ptr [rsi + DATA]
       add esi, STEP * 4096
       and esi, PAGES * 4096 - 1
       dec ecx;  jnz 1b
    hlt

With a power of two of pages and an odd number of pages as STEP, each page is met once. The bytes are what GNU as makes
of it.
"""

import time
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.guests import machine
from benchmarks.harness import BenchmarkError
from emuvisor.cpu.exits import ExitReason
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB, PAGE_SIZE

__all__ = ["DATA_ADDRESS", "IN_ORDER", "SCATTERED", "PageWalker", "walker_machine"]

CODE_ADDRESS = 0x100000
DATA_ADDRESS = 4 * MIB
IN_ORDER = 1
SCATTERED = 1237
"""Pages of a step: a prime, so that no two accesses that follow each other are near each other."""
PROGRAM_SIZE = 64
BUDGET = 1 << 40


def code(pages: int, step: int, write: bool) -> bytes:
    """The program; it ends with HLT."""
    access = bytes.fromhex("ff86" if write else "8b86") + DATA_ADDRESS.to_bytes(4, "little")
    add = b"\x81\xc6" + (step * PAGE_SIZE).to_bytes(4, "little")
    wrap = b"\x81\xe6" + (pages * PAGE_SIZE - 1).to_bytes(4, "little")
    loop = access + add + wrap + b"\xff\xc9"
    back = b"\x75" + (-len(loop) - 2).to_bytes(1, "little", signed=True)
    return b"\xb9" + pages.to_bytes(4, "little") + b"\x31\xf6" + loop + back + b"\xf4"


VARIANTS = tuple((step, write) for step in (IN_ORDER, SCATTERED) for write in (False, True))


def walker_machine(folder: Path, pages: int, pool: FramePool) -> AbstractContextManager[Machine]:
    """A guest with the walks over `pages`, a power of two, from DATA_ADDRESS on."""
    image = folder / "walk.bin"
    image.write_bytes(b"".join(code(pages, *variant).ljust(PROGRAM_SIZE, b"\xf4") for variant in VARIANTS))
    flat = FlatConfig(image, CODE_ADDRESS, "long64")
    memory = DATA_ADDRESS + pages * PAGE_SIZE
    return machine(GuestConfig(name="walk", board="isa", memory=memory, flat=flat), pool)


class PageWalker:
    """Walks over the pages of `guest` (a `walker_machine`) on a pCPU of its own."""

    def __init__(self, guest: Machine, pages: int, pool: FramePool) -> None:
        self.memory = guest.memory
        self.pages = pages
        self._vcpu = guest.vcpu
        self._pcpu = Pcpu(pool)

    def walk(self, step: int, write: bool = False) -> float:
        """Microseconds that each access took. Raises BenchmarkError when it does not get round."""
        state = self._vcpu.state
        state.rip = CODE_ADDRESS + VARIANTS.index((step, write)) * PROGRAM_SIZE
        state.halted = False
        self._vcpu.state = state
        start = time.perf_counter()
        result = self._pcpu.run(self._vcpu, BUDGET)
        seconds = time.perf_counter() - start
        if result.reason is not ExitReason.HALT:
            raise BenchmarkError(f"the walk over {self.pages} pages ended with {result}")
        return seconds / self.pages * 1e6
