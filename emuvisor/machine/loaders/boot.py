"""What a loader hands to the machine: bytes for guest memory and a processor state to start with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from emuvisor.cpu.state import CpuState
from emuvisor.errors import ImageError
from emuvisor.machine.memory_map import MemoryMap

__all__ = ["Boot", "Piece", "Reader", "check_pieces"]


@dataclass(frozen=True, slots=True)
class Piece:
    """`data` for guest physical address `gpa`; `what` names it in messages ("segment 2").

    `zeros` bytes behind the data belong to it as well (a program's BSS).
    """

    gpa: int
    data: bytes | memoryview = field(repr=False)
    what: str
    zeros: int = 0

    @property
    def size(self) -> int:
        """Bytes of data and zeros."""
        return len(self.data) + self.zeros

    @property
    def end(self) -> int:
        """First address behind the piece."""
        return self.gpa + self.size

    def __str__(self) -> str:
        return f"{self.what} at {self.gpa:#x}..{self.end - 1:#x}"


@dataclass(frozen=True, slots=True)
class Boot:
    """A guest about to run.

    The machine gives the guest RAM that reads as zeros (the pieces' `zeros` count on it), writes `pieces`
    there, makes `roms` read-only memory, and starts the boot vCPU with `state`. `format` says what the image
    turned out to be. `programs_chipset`: firmware that starts from reset sets the board up by itself; otherwise the
    machine leaves it as firmware would have, with ACPI and MP tables in memory.
    """

    format: str
    state: CpuState
    pieces: list[Piece] = field(default_factory=list)
    roms: list[Piece] = field(default_factory=list)
    programs_chipset: bool = False


def check_pieces(name: str, pieces: Iterable[Piece], memory: MemoryMap) -> list[Piece]:
    """`pieces` by ascending address, without empty ones.

    Raises ImageError naming image `name` and the piece that overlaps another one or leaves usable RAM.
    """
    ordered = sorted((p for p in pieces if p.size), key=lambda p: p.gpa)
    for piece in ordered:
        if not memory.is_ram(piece.gpa, piece.size):
            raise ImageError(f"{name}: {piece} is outside the guest's usable RAM ({memory.describe_ram()})")
    for first, second in pairwise(ordered):
        if second.gpa < first.end:
            raise ImageError(f"{name}: {second} overlaps {first}")
    return ordered


class Reader:
    """Bounds-checked little-endian fields of the image `name`."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data

    def take(self, offset: int, size: int, what: str) -> bytes:
        """`size` bytes at `offset`.

        Raises ImageError naming the field `what` when the image ends before.
        """
        self.check(offset, size, what)
        return self.data[offset : offset + size]

    def check(self, offset: int, size: int, what: str) -> None:
        """Raises ImageError unless there are `size` bytes at `offset`."""
        end = offset + size
        if end > len(self.data):
            raise ImageError(
                f"{self.name}: truncated: {what} needs bytes {offset:#x}..{end - 1:#x}, "
                f"the file has {len(self.data):#x}"
            )

    def view(self, offset: int, size: int, what: str) -> memoryview:
        """`size` bytes at `offset` without copying them; raises ImageError as `take` does."""
        self.check(offset, size, what)
        return memoryview(self.data)[offset : offset + size]

    def number(self, offset: int, size: int, what: str) -> int:
        """The unsigned number of `size` bytes at `offset`; raises ImageError as `take` does."""
        return int.from_bytes(self.take(offset, size, what), "little")
