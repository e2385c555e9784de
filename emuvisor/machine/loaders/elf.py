"""ELF executables: their PT_LOAD segments at physical addresses, entered flat (System V ABI, ELF chapter)."""

import struct
from dataclasses import dataclass

from emuvisor.cpu.state import CpuState
from emuvisor.errors import ImageError
from emuvisor.machine.loaders import entry
from emuvisor.machine.loaders.boot import Piece, Reader

__all__ = ["ELF_MAGIC", "Elf", "Segment", "enter", "parse", "pieces_of"]

ELF_MAGIC = b"\x7fELF"
EI_CLASS, EI_DATA = 4, 5
ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB = 1
ET_EXEC, ET_DYN = 2, 3
EM_386, EM_X86_64 = 3, 62
PT_LOAD = 1
MAX_SEGMENTS = 64
MAX_ADDRESS = 1 << 52

# e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum
EHDR = {ELFCLASS32: struct.Struct("<HHIIIIIHHH"), ELFCLASS64: struct.Struct("<HHIQQQIHHH")}
EHDR_OFFSET = 16
PHDR32 = struct.Struct("<8I")  # p_type p_offset p_vaddr p_paddr p_filesz p_memsz p_flags p_align
PHDR64 = struct.Struct("<2I6Q")  # p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD segment: `data`, then zeros up to `memory_size` bytes, at `paddr` (linked for `vaddr`)."""

    vaddr: int
    paddr: int
    data: memoryview
    memory_size: int


@dataclass(frozen=True, slots=True)
class Elf:
    """An x86 executable. `bits` is 32 or 64; `entry` is its physical entry address."""

    bits: int
    entry: int
    segments: tuple[Segment, ...]

    @property
    def end(self) -> int:
        """First physical address behind the highest segment, its zeros included."""
        return max(s.paddr + s.memory_size for s in self.segments)


def parse(name: str, data: bytes) -> Elf:
    """The executable in `data`.

    An entry that lies in a segment's virtual addresses only is translated to its physical address. Raises
    ImageError naming the field that is wrong or missing.
    """
    reader = Reader(name, data)
    if reader.take(0, len(ELF_MAGIC), "the ELF magic") != ELF_MAGIC:
        raise ImageError(f"{name}: not an ELF file: it begins with {data[:4].hex(' ')}")
    elf_class = reader.number(EI_CLASS, 1, "e_ident[EI_CLASS]")
    if elf_class not in EHDR:
        raise ImageError(f"{name}: ELF class {elf_class} is neither 1 (32-bit) nor 2 (64-bit)")
    if (order := reader.number(EI_DATA, 1, "e_ident[EI_DATA]")) != ELFDATA2LSB:
        raise ImageError(f"{name}: ELF data encoding {order} is not 1 (little-endian)")
    header = EHDR[elf_class]
    e_type, machine, _, address, phoff, _, _, _, phentsize, phnum = header.unpack(
        reader.take(EHDR_OFFSET, header.size, "the ELF header")
    )
    expected = EM_386 if elf_class == ELFCLASS32 else EM_X86_64
    if machine != expected:
        raise ImageError(f"{name}: ELF machine {machine} is not {expected} (x86 of the file's class)")
    if e_type not in (ET_EXEC, ET_DYN):
        raise ImageError(f"{name}: ELF type {e_type} is not 2 (executable) or 3 (shared)")
    smallest = (PHDR32 if elf_class == ELFCLASS32 else PHDR64).size
    if phentsize < smallest:
        raise ImageError(f"{name}: e_phentsize {phentsize} is less than {smallest}")
    if phnum > MAX_SEGMENTS:
        raise ImageError(f"{name}: e_phnum {phnum} is more than {MAX_SEGMENTS}")
    found = (_segment(reader, elf_class, phoff + i * phentsize, i) for i in range(phnum))
    segments = []
    left = len(data)
    for segment in found:
        if segment is None:
            continue
        left -= len(segment.data)
        if left < 0:
            raise ImageError(f"{name}: its segments hold more bytes than the file has ({len(data):#x})")
        segments.append(segment)
    if not segments:
        raise ImageError(f"{name}: no PT_LOAD segment with anything in it")
    return Elf(32 if elf_class == ELFCLASS32 else 64, _physical_entry(address, segments), tuple(segments))


def _segment(reader: Reader, elf_class: int, offset: int, index: int) -> Segment | None:
    """Program header `index`, or None if there is nothing to load."""
    layout = PHDR32 if elf_class == ELFCLASS32 else PHDR64
    fields = layout.unpack(reader.take(offset, layout.size, f"program header {index}"))
    if elf_class == ELFCLASS32:
        p_type, start, vaddr, paddr, filesz, memsz = fields[:6]
    else:
        p_type, _, start, vaddr, paddr, filesz, memsz = fields[:7]
    if p_type != PT_LOAD or memsz == 0:
        return None
    if filesz > memsz:
        raise ImageError(f"{reader.name}: segment {index}: p_filesz {filesz:#x} exceeds p_memsz {memsz:#x}")
    if paddr + memsz > MAX_ADDRESS:
        raise ImageError(
            f"{reader.name}: segment {index}: it ends at {paddr + memsz:#x}, behind the last physical "
            f"address {MAX_ADDRESS - 1:#x}"
        )
    return Segment(vaddr, paddr, reader.view(start, filesz, f"segment {index}"), memsz)


def _physical_entry(address: int, segments: list[Segment]) -> int:
    if any(s.paddr <= address < s.paddr + s.memory_size for s in segments):
        return address
    for s in segments:
        if s.vaddr <= address < s.vaddr + s.memory_size:
            return address - s.vaddr + s.paddr
    return address


def pieces_of(elf: Elf) -> list[Piece]:
    """The segments as pieces."""
    return [
        Piece(segment.paddr, segment.data, f"segment {index}", segment.memory_size - len(segment.data))
        for index, segment in enumerate(elf.segments)
    ]


def enter(name: str, elf: Elf) -> tuple[CpuState, list[Piece]]:
    """The state that starts `elf` in long mode (64-bit) or flat protected mode (32-bit), and what it needs.

    Raises ImageError for an entry outside the segments or not below 4 GiB.
    """
    if not any(s.paddr <= elf.entry < s.paddr + s.memory_size for s in elf.segments):
        raise ImageError(f"{name}: the entry {elf.entry:#x} is in no segment")
    if elf.entry >= entry.MAPPED_END:
        raise ImageError(f"{name}: the entry {elf.entry:#x} is not below 4 GiB")
    return entry.long_mode(elf.entry) if elf.bits == 64 else entry.protected_mode(elf.entry)
