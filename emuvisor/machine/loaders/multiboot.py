"""Multiboot 1 kernels (Multiboot Specification 0.6.96): an ELF, or a file that gives its addresses."""

import struct
from dataclasses import dataclass

from emuvisor.errors import ImageError
from emuvisor.machine.loaders import elf as elf_file
from emuvisor.machine.loaders import entry
from emuvisor.machine.loaders.boot import Boot, Piece, Reader, check_pieces
from emuvisor.machine.loaders.zero_page import Extras, encode_cmdline, place_initrd
from emuvisor.machine.memory_map import BIOS_END, EBDA_START, MemoryMap
from emuvisor.units import KIB, PAGE_SIZE

__all__ = ["MultibootHeader", "find_header", "is_multiboot", "load"]

HEADER_MAGIC = 0x1BADB002
BOOTLOADER_MAGIC = 0x2BADB002
SEARCH_SIZE = 8192
ALIGNMENT = 4

# Header flags: bits 0 to 15 must be understood, the others may be ignored.
PAGE_ALIGN = 1 << 0
MEMORY_INFO = 1 << 1
VIDEO_MODE = 1 << 2
AOUT_KLUDGE = 1 << 16
REQUIREMENTS = 0xFFFF
UNDERSTOOD = PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE

BASIC_HEADER = struct.Struct("<III")  # magic flags checksum
ADDRESS_FIELDS = struct.Struct("<5I")  # header_addr load_addr load_end_addr bss_end_addr entry_addr

# Information structure: flags and offsets
INFO_MEMORY = 1 << 0
INFO_CMDLINE = 1 << 2
INFO_MODS = 1 << 3
INFO_MEM_MAP = 1 << 6
INFO_BOOT_LOADER_NAME = 1 << 9
INFO_FRAMEBUFFER = 1 << 12
INFO_SIZE = 116
MEM_LOWER, MEM_UPPER = 4, 8
CMDLINE = 16
MODS_COUNT, MODS_ADDR = 20, 24
MMAP_LENGTH, MMAP_ADDR = 44, 48
BOOT_LOADER_NAME = 64
FRAMEBUFFER = 88

MMAP_ENTRY = struct.Struct("<IQQI")  # size of the rest, base, length, type
FRAMEBUFFER_FIELDS = struct.Struct("<QIIIBB")  # address pitch width height bpp type
FRAMEBUFFER_EGA_TEXT = 2
TEXT_MEMORY = 0xB8000
TEXT_COLUMNS, TEXT_LINES, TEXT_CELL = 80, 25, 2

LOADER_NAME = b"emuvisor\0"
ADDRESS_LIMIT = 1 << 32


@dataclass(frozen=True, slots=True)
class MultibootHeader:
    """The header at `offset` of the file; `addresses` are the five address fields, if the flags say so."""

    offset: int
    flags: int
    addresses: tuple[int, int, int, int, int] | None


def find_header(name: str, data: bytes) -> MultibootHeader | None:
    """The header in the first 8 KiB of `data`, or None.

    Raises ImageError for a header whose address fields lie behind the end of the file.
    """
    head = data[:SEARCH_SIZE]
    magic = struct.pack("<I", HEADER_MAGIC)
    offset = head.find(magic)
    while offset >= 0:
        if offset % ALIGNMENT == 0 and offset + BASIC_HEADER.size <= len(head):
            _, flags, checksum = BASIC_HEADER.unpack_from(head, offset)
            if (HEADER_MAGIC + flags + checksum) % ADDRESS_LIMIT == 0:
                addresses = None
                if flags & AOUT_KLUDGE:
                    raw = Reader(name, data).take(
                        offset + BASIC_HEADER.size, ADDRESS_FIELDS.size, "the multiboot address block"
                    )
                    addresses = ADDRESS_FIELDS.unpack(raw)
                return MultibootHeader(offset, flags, addresses)
        offset = head.find(magic, offset + 1)
    return None


def is_multiboot(data: bytes) -> bool:
    """Is there a multiboot header, even one that cannot be loaded?"""
    try:
        return find_header("", data) is not None
    except ImageError:
        return True


def load(name: str, data: bytes, memory: MemoryMap, extras: Extras) -> Boot:
    """A multiboot kernel in 32-bit protected mode; the initrd is its one module.

    Raises ImageError for a malformed image, one with an unknown requirement, and one that does not fit the
    guest's memory.
    """
    header = find_header(name, data)
    if header is None:
        raise ImageError(f"{name}: no multiboot header in the first {SEARCH_SIZE} bytes")
    if unknown := header.flags & REQUIREMENTS & ~UNDERSTOOD:
        raise ImageError(f"{name}: the multiboot header requires unknown features (flags {unknown:#x})")
    if header.addresses is not None:
        address, pieces = _load_by_addresses(name, data, header.offset, header.addresses)
    else:
        elf = elf_file.parse(name, data)
        address, pieces = elf.entry, elf_file.pieces_of(elf)
    if not any(p.gpa <= address < p.end for p in pieces):
        raise ImageError(f"{name}: the entry {address:#x} is in no loaded part")
    kernel_end = max(p.end for p in pieces)
    state, extra = entry.protected_mode(address)
    state.rax = BOOTLOADER_MAGIC
    state.rbx = entry.INFO_ADDRESS
    pieces += extra
    pieces += _information(name, memory, extras, header.flags, kernel_end)
    return Boot("multiboot kernel", state, check_pieces(name, pieces, memory))


def _load_by_addresses(
    name: str, data: bytes, offset: int, addresses: tuple[int, int, int, int, int]
) -> tuple[int, list[Piece]]:
    """Entry and image of a file that is not an ELF (the "a.out kludge")."""
    header_addr, load_addr, load_end, bss_end, entry_addr = addresses
    start = offset - (header_addr - load_addr)
    if load_addr > header_addr or start < 0:
        raise ImageError(
            f"{name}: multiboot load_addr {load_addr:#x} does not fit header_addr {header_addr:#x} "
            f"of the header at file offset {offset:#x}"
        )
    size = load_end - load_addr if load_end else len(data) - start
    if size <= 0:
        raise ImageError(
            f"{name}: multiboot load_end_addr {load_end:#x} is not behind load_addr {load_addr:#x}"
        )
    image = Reader(name, data).take(start, size, "the part from load_addr to load_end_addr")
    zeros = max(bss_end - (load_addr + size), 0) if bss_end else 0
    return entry_addr, [Piece(load_addr, image, "multiboot image", zeros)]


def _information(name: str, memory: MemoryMap, extras: Extras, flags: int, kernel_end: int) -> list[Piece]:
    """The multiboot information structure with all that it points to."""
    base = entry.INFO_ADDRESS
    info = bytearray(INFO_SIZE)
    tables = bytearray()

    def add(data: bytes) -> int:
        """Append `data` behind the structure; its address."""
        address = base + INFO_SIZE + len(tables)
        tables.extend(data)
        return address

    given = INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MEM_MAP | INFO_BOOT_LOADER_NAME
    struct.pack_into("<I", info, MEM_LOWER, EBDA_START // KIB)
    struct.pack_into("<I", info, MEM_UPPER, max(memory.low_end - BIOS_END, 0) // KIB)
    struct.pack_into("<I", info, CMDLINE, entry.CMDLINE_ADDRESS)
    struct.pack_into(
        "<I", info, BOOT_LOADER_NAME, add(LOADER_NAME.ljust(-(-len(LOADER_NAME) // 4) * 4, b"\0"))
    )
    rest = MMAP_ENTRY.size - 4
    table = b"".join(MMAP_ENTRY.pack(rest, e.base, e.length, e.kind) for e in memory.entries)
    struct.pack_into("<II", info, MMAP_LENGTH, len(table), add(table))
    cmdline = encode_cmdline(name, extras.cmdline, entry.CMDLINE_LIMIT - 1)
    pieces = [Piece(entry.CMDLINE_ADDRESS, cmdline, "command line")]
    if extras.initrd:
        start = place_initrd(
            name, len(extras.initrd), memory, addr_max=ADDRESS_LIMIT - 1, kernel_end=kernel_end
        )
        pieces.append(Piece(start, extras.initrd, "module 0"))
        module = struct.pack("<4I", start, start + len(extras.initrd), add(b"\0\0\0\0"), 0)
        struct.pack_into("<II", info, MODS_COUNT, 1, add(module))
    if flags & VIDEO_MODE:
        given |= INFO_FRAMEBUFFER
        pitch = TEXT_COLUMNS * TEXT_CELL
        FRAMEBUFFER_FIELDS.pack_into(
            info,
            FRAMEBUFFER,
            TEXT_MEMORY,
            pitch,
            TEXT_COLUMNS,
            TEXT_LINES,
            8 * TEXT_CELL,
            FRAMEBUFFER_EGA_TEXT,
        )
    struct.pack_into("<I", info, 0, given)
    assert len(info) + len(tables) <= PAGE_SIZE
    return [*pieces, Piece(base, bytes(info + tables), "multiboot information")]
