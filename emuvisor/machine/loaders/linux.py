"""Linux kernels: bzImage and vmlinux, by the x86 boot protocol (Linux documentation, `arch/x86/boot`).

A bzImage is a real-mode setup part, which is skipped, and a protected-mode part: a decompressor with the
packed vmlinux inside. `decompressor="host"` unpacks it here and enters vmlinux as the decompressor would,
without moving it (no KASLR); `decompressor="guest"` runs the kernel's own. An image without a payload
(memtest86+) always runs from its own entry.
"""

from dataclasses import dataclass
from typing import Literal

from emuvisor.cpu.state import CpuState
from emuvisor.errors import ImageError
from emuvisor.machine.loaders import elf as elf_file
from emuvisor.machine.loaders import entry
from emuvisor.machine.loaders.boot import Boot, Piece, Reader, check_pieces
from emuvisor.machine.loaders.payload import MAX_KERNEL_SIZE, unpack
from emuvisor.machine.loaders.zero_page import HDRS_MAGIC, SETUP_HEADER, Extras, Kernel, build
from emuvisor.machine.memory_map import BIOS_END, MemoryMap

__all__ = ["Decompressor", "SetupHeader", "is_bzimage", "load_bzimage", "load_vmlinux"]

Decompressor = Literal["host", "guest"]

SETUP_SECTS = 0x1F1
SYSSIZE = 0x1F4
HEADER_LENGTH = 0x201
HEADER_MAGIC = 0x202
VERSION = 0x206
LOADFLAGS = 0x211
INITRD_ADDR_MAX = 0x22C
KERNEL_ALIGNMENT = 0x230
RELOCATABLE_KERNEL = 0x234
XLOADFLAGS = 0x236
CMDLINE_SIZE = 0x238
PAYLOAD_OFFSET = 0x248
PAYLOAD_LENGTH = 0x24C
PREF_ADDRESS = 0x258
INIT_SIZE = 0x260

SECTOR = 512
PARAGRAPH = 16
DEFAULT_SETUP_SECTS = 4
LOADED_HIGH = 1 << 0
XLF_KERNEL_64 = 1 << 0
ENTRY_64_OFFSET = 0x200
DEFAULT_LOAD_ADDRESS = BIOS_END
OLDEST_PROTOCOL = 0x202
DEFAULT_INITRD_ADDR_MAX = 0x37FFFFFF
DEFAULT_CMDLINE_SIZE = 255
VMLINUX_CMDLINE_SIZE = 2047
VMLINUX_INITRD_ADDR_MAX = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """The fields of a bzImage's setup header that matter here; where it is older, the protocol's defaults.

    `raw` is the header itself from offset 1F1h; `setup_size` counts bytes before the protected-mode part.
    """

    raw: bytes
    version: int
    setup_size: int
    kernel_size: int
    is_64bit: bool
    relocatable: bool
    kernel_alignment: int
    pref_address: int
    init_size: int
    payload: tuple[int, int]
    """Offset in the protected-mode part, and length; 0 when there is none."""
    cmdline_size: int
    initrd_addr_max: int

    @classmethod
    def parse(cls, reader: Reader) -> "SetupHeader":
        """The header of the bzImage in `reader`.

        Raises ImageError for an image that is not one, is too old, or ends inside the header.
        """
        name = reader.name
        if reader.take(HEADER_MAGIC, len(HDRS_MAGIC), "the setup header") != HDRS_MAGIC:
            raise ImageError(f'{name}: not a bzImage: no "HdrS" at {HEADER_MAGIC:#x}')
        version = reader.number(VERSION, 2, "version")
        if version < OLDEST_PROTOCOL:
            raise ImageError(
                f"{name}: boot protocol {version >> 8}.{version & 0xFF:02} is older than "
                f"{OLDEST_PROTOCOL >> 8}.{OLDEST_PROTOCOL & 0xFF:02}"
            )
        if not reader.number(LOADFLAGS, 1, "loadflags") & LOADED_HIGH:
            raise ImageError(f"{name}: a zImage (loadflags lacks LOADED_HIGH); only bzImages are loaded")

        def field(offset: int, size: int, since: int, default: int, what: str) -> int:
            return reader.number(offset, size, what) if version >= since else default

        end = HEADER_MAGIC + reader.number(HEADER_LENGTH, 1, "jump")
        setup_size = (1 + (reader.number(SETUP_SECTS, 1, "setup_sects") or DEFAULT_SETUP_SECTS)) * SECTOR
        syssize = reader.number(SYSSIZE, 4 if version >= 0x204 else 2, "syssize") * PARAGRAPH
        return cls(
            raw=reader.take(SETUP_HEADER, end - SETUP_HEADER, "the setup header"),
            version=version,
            setup_size=setup_size,
            # Before 2.04 the field is too short to tell.
            kernel_size=syssize if version >= 0x204 else max(len(reader.data) - setup_size, 0),
            is_64bit=bool(field(XLOADFLAGS, 2, 0x20C, 0, "xloadflags") & XLF_KERNEL_64),
            relocatable=bool(field(RELOCATABLE_KERNEL, 1, 0x205, 0, "relocatable_kernel")),
            kernel_alignment=field(KERNEL_ALIGNMENT, 4, 0x205, 0, "kernel_alignment"),
            pref_address=field(PREF_ADDRESS, 8, 0x20A, DEFAULT_LOAD_ADDRESS, "pref_address"),
            init_size=field(INIT_SIZE, 4, 0x20A, 0, "init_size"),
            payload=(
                field(PAYLOAD_OFFSET, 4, 0x208, 0, "payload_offset"),
                field(PAYLOAD_LENGTH, 4, 0x208, 0, "payload_length"),
            ),
            cmdline_size=field(CMDLINE_SIZE, 4, 0x206, DEFAULT_CMDLINE_SIZE, "cmdline_size"),
            initrd_addr_max=field(INITRD_ADDR_MAX, 4, 0x203, DEFAULT_INITRD_ADDR_MAX, "initrd_addr_max"),
        )


def is_bzimage(data: bytes) -> bool:
    """Does `data` carry the setup header's magic number?"""
    return data[HEADER_MAGIC : HEADER_MAGIC + len(HDRS_MAGIC)] == HDRS_MAGIC


def load_bzimage(
    name: str, data: bytes, memory: MemoryMap, extras: Extras, decompressor: Decompressor = "host"
) -> Boot:
    """A bzImage in memory, ready to run.

    Raises ImageError for a malformed image, and for one that does not fit the guest's memory.
    """
    reader = Reader(name, data)
    header = SetupHeader.parse(reader)
    # The last paragraph need not be whole.
    available = len(data) - header.setup_size
    if available + PARAGRAPH - 1 < header.kernel_size or available <= 0:
        announced = header.setup_size + header.kernel_size
        raise ImageError(
            f"{name}: truncated: setup_sects and syssize announce {announced} bytes, the file has {len(data)}"
        )
    if decompressor == "host" and header.payload[1]:
        return _load_unpacked(reader, header, memory, extras)
    return _load_packed(reader, header, memory, extras)


def load_vmlinux(name: str, data: bytes, memory: MemoryMap, extras: Extras) -> Boot:
    """An ELF executable, such as Linux's vmlinux, at its physical addresses; (R/E)SI holds the zero page.

    Raises ImageError for a malformed file or one that does not fit the guest's memory.
    """
    elf = elf_file.parse(name, data)
    state, pieces = elf_file.enter(name, elf)
    pieces += elf_file.pieces_of(elf)
    kernel = Kernel(b"", VMLINUX_CMDLINE_SIZE, VMLINUX_INITRD_ADDR_MAX, elf.end)
    return _boot(
        name, f"ELF{elf.bits} executable", state, pieces, build(name, kernel, extras, memory), memory
    )


def _load_unpacked(reader: Reader, header: SetupHeader, memory: MemoryMap, extras: Extras) -> Boot:
    name = reader.name
    offset, length = header.payload
    payload = reader.take(header.setup_size + offset, length, "the kernel payload")
    vmlinux = unpack(name, payload, min(MAX_KERNEL_SIZE, memory.size))
    elf = elf_file.parse(f"{name} (unpacked)", vmlinux)
    state, pieces = elf_file.enter(name, elf)
    pieces += elf_file.pieces_of(elf)
    # Early Linux also uses memory behind its last segment, up to init_size from the first one.
    start = min(s.paddr for s in elf.segments)
    end = max(elf.end, start + header.init_size)
    if not memory.is_ram(start, end - start):
        raise ImageError(
            f"{name}: the kernel needs memory from {start:#x} to {end - 1:#x}; "
            f"usable RAM is {memory.describe_ram()}"
        )
    kernel = Kernel(header.raw, header.cmdline_size, header.initrd_addr_max, end)
    text = f"bzImage ({elf.bits}-bit, unpacked on the host)"
    return _boot(name, text, state, pieces, build(name, kernel, extras, memory), memory)


def _load_packed(reader: Reader, header: SetupHeader, memory: MemoryMap, extras: Extras) -> Boot:
    data = reader.data[header.setup_size : header.setup_size + header.kernel_size]
    base = _load_address(header, memory)
    piece = Piece(base, data, "kernel", max(header.init_size - len(data), 0))
    if header.is_64bit:
        state, pieces = entry.long_mode(base + ENTRY_64_OFFSET)
    else:
        state, pieces = entry.protected_mode(base)
    kernel = Kernel(header.raw, header.cmdline_size, header.initrd_addr_max, piece.end, code32_start=base)
    text = f"bzImage ({64 if header.is_64bit else 32}-bit entry)"
    tables = build(reader.name, kernel, extras, memory)
    return _boot(reader.name, text, state, [piece, *pieces], tables, memory)


def _boot(  # noqa: PLR0917 - the parts of one Boot
    name: str, text: str, state: CpuState, pieces: list[Piece], tables: list[Piece], memory: MemoryMap
) -> Boot:
    """The protocol wants boot_params in (R/E)SI, and EBP, EDI and EBX zero, as they already are."""
    state.rsi = entry.INFO_ADDRESS
    return Boot(text, state, check_pieces(name, [*pieces, *tables], memory))


def _load_address(header: SetupHeader, memory: MemoryMap) -> int:
    """Where the protected-mode part goes: its preferred address if it may move there, else 1 MiB."""
    if not header.relocatable:
        return DEFAULT_LOAD_ADDRESS
    size = max(header.init_size, header.kernel_size)
    if memory.is_ram(header.pref_address, size) and header.pref_address < entry.MAPPED_END:
        return header.pref_address
    alignment = max(header.kernel_alignment, 1)
    return -(-DEFAULT_LOAD_ADDRESS // alignment) * alignment
