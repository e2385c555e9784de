"""One attempt to deliver one event: the state it changes, the state a fault goes back to, linear memory."""

from dataclasses import replace

from emuvisor.cpu.reference.faults import Event, Fault, Vector
from emuvisor.cpu.reference.paging import Access, NonCanonical, PageFault, walk
from emuvisor.cpu.reference.physical import PhysicalMemory
from emuvisor.cpu.registers import FLAG_RF, SEG_DPL_SHIFT, in_vm86
from emuvisor.cpu.state import CpuState, Segment

__all__ = ["Attempt", "clone"]

_PAGE_BYTES = 4096
_IMPLICIT_READ = Access.READ | Access.IMPLICIT
_IMPLICIT_WRITE = Access.WRITE | Access.IMPLICIT


def clone(state: CpuState) -> CpuState:
    """A copy whose registers can be changed; the FPU, which no event changes, is the same object."""
    segments = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
    return replace(state, **{name: replace(getattr(state, name)) for name in segments})


class Attempt:
    """`state` is changed step by step. When a `Fault` is raised, `checkpoint` is the state to go on with."""

    def __init__(self, state: CpuState, memory: PhysicalMemory, event: Event) -> None:
        self.state = clone(state)
        self.checkpoint = clone(state)
        self.memory = memory
        self.event = event
        self.switched_task = False

    def commit(self) -> None:
        """From here on a fault belongs to the new state."""
        self.checkpoint = clone(self.state)

    @property
    def ext(self) -> int:
        """The EXT bit of error codes."""
        return self.event.ext

    @property
    def vm86(self) -> bool:
        """Whether a virtual-8086 program is interrupted."""
        return in_vm86(self.state.cr0, self.state.rflags)

    def selector_fault(self, vector: Vector, selector: int) -> Fault:
        """An exception whose error code names a selector (6.13)."""
        return Fault(vector, selector & 0xFFFC | self.ext)

    def saved_flags(self) -> int:
        """RFLAGS as the handler finds them: RF is set for faults, lest a breakpoint hit twice (17.3.1.1)."""
        return self.state.rflags | (FLAG_RF if self.event.is_fault else 0)

    def enter_privilege_level(self, level: int) -> None:
        """Make `level` the CPL of a task whose stack segment has not been loaded."""
        self.state.ss = Segment(self.state.ss.selector, 0, 0, level << SEG_DPL_SHIFT)

    # linear memory

    def translate(self, address: int, size: int, access: Access) -> list[tuple[int, int]]:
        """The (GPA, length) pieces of a linear range, in rising order.

        Raises Fault: #PF, or #GP(0) where the address is not canonical.
        """
        pieces = []
        while size:
            length = min(size, _PAGE_BYTES - address % _PAGE_BYTES)
            result = walk(self.state, self.memory, address, access)
            if isinstance(result, NonCanonical):
                raise Fault(Vector.GP, 0)
            if isinstance(result, PageFault):
                raise Fault(Vector.PF, result.error_code, result.address)
            pieces.append((result.gpa, length))
            address = address + length & (1 << 64) - 1
            size -= length
        return pieces

    def read(self, address: int, size: int) -> bytes:
        """Read system data (descriptors, TSS, vectors): an implicit supervisor access."""
        data = b""
        while len(data) < size:
            here = address + len(data)
            length = min(size - len(data), _PAGE_BYTES - here % _PAGE_BYTES)
            ((gpa, _),) = self.translate(here & (1 << 64) - 1, length, _IMPLICIT_READ)
            data += self.memory.read(gpa, length)
        return data

    def read_number(self, address: int, size: int) -> int:
        """A little-endian number of `size` bytes of system data."""
        return int.from_bytes(self.read(address, size), "little")

    def probe(self, address: int, size: int) -> None:
        """Raise the fault that writing system data here would raise."""
        self.translate(address, size, _IMPLICIT_WRITE)

    def write(self, address: int, data: bytes) -> None:
        """Write system data."""
        self.write_pieces(self.translate(address, len(data), _IMPLICIT_WRITE), data)

    def write_pieces(self, pieces: list[tuple[int, int]], data: bytes) -> None:
        """Store `data` where `translate` has found it to belong."""
        at = 0
        for gpa, length in pieces:
            self.memory.write(gpa, data[at : at + length])
            at += length
