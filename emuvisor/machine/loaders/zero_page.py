"""The "zero page": `struct boot_params`, which tells Linux about its memory, initrd and command line.

Offsets are those of the Linux documentation, `arch/x86/zero-page` and `arch/x86/boot`.
"""

import struct
from dataclasses import dataclass

from emuvisor.errors import ImageError
from emuvisor.machine.loaders.boot import Piece
from emuvisor.machine.loaders.entry import CMDLINE_ADDRESS, CMDLINE_LIMIT, INFO_ADDRESS
from emuvisor.machine.memory_map import BIOS_END, MemoryMap
from emuvisor.units import KIB, PAGE_SIZE

__all__ = [
    "HDRS_MAGIC",
    "RSDP_ADDRESS",
    "SETUP_HEADER",
    "Extras",
    "Kernel",
    "build",
    "encode_cmdline",
    "place_initrd",
]

RSDP_ADDRESS = 0xE0000
"""Where boards with ACPI have their root pointer when no firmware brings one."""

SETUP_HEADER = 0x1F1
"""Where the setup header begins, in a bzImage and in the zero page."""
SETUP_HEADER_END = 0x290
HDRS_MAGIC = b"HdrS"

SCREEN_INFO_MODE = 0x06
SCREEN_INFO_COLUMNS = 0x07
SCREEN_INFO_LINES = 0x0E
SCREEN_INFO_IS_VGA = 0x0F
SCREEN_INFO_POINTS = 0x10
EXT_MEM_K = 0x002
ACPI_RSDP_ADDR = 0x070
ALT_MEM_K = 0x1E0
E820_ENTRIES = 0x1E8
VID_MODE = 0x1FA
BOOT_FLAG = 0x1FE
HEADER_MAGIC = 0x202
VERSION = 0x206
TYPE_OF_LOADER = 0x210
LOADFLAGS = 0x211
CODE32_START = 0x214
RAMDISK_IMAGE = 0x218
RAMDISK_SIZE = 0x21C
CMD_LINE_PTR = 0x228
E820_TABLE = 0x2D0

BOOT_FLAG_MAGIC = 0xAA55
LOADER_UNDEFINED = 0xFF
LOADED_HIGH = 1 << 0
KASLR_FLAG = 1 << 1
VID_MODE_NORMAL = 0xFFFF
VGA_TEXT_MODE = 3
TEXT_COLUMNS, TEXT_LINES, TEXT_POINTS = 80, 25, 16

VMLINUX_PROTOCOL = 0x20C
"""What a vmlinux without a setup header is told: the version that brought the 64-bit entry."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a kernel gets beside itself.

    `text_mode` tells it that the display is in VGA text mode 3; otherwise there is no display. `acpi`: the board has
    put its ACPI root pointer at `RSDP_ADDRESS`.
    """

    initrd: bytes | None = None
    cmdline: str = ""
    text_mode: bool = False
    acpi: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """What its loader knows of a kernel: the setup header and the memory it occupies up to `end`.

    `header` is the bzImage's from offset 1F1h, or empty for a bare vmlinux. `cmdline_size` (bytes) and
    `initrd_addr_max` (last address) are its limits. `code32_start` says where the kernel's own decompressor
    was loaded, 0 if it does not run.
    """

    header: bytes
    cmdline_size: int
    initrd_addr_max: int
    end: int
    code32_start: int = 0


def build(name: str, kernel: Kernel, extras: Extras, memory: MemoryMap) -> list[Piece]:
    """Zero page, command line and initrd.

    Raises ImageError naming the image for a command line or an initrd that does not fit.
    """
    page = bytearray(PAGE_SIZE)
    if kernel.header:
        header = kernel.header[: SETUP_HEADER_END - SETUP_HEADER]
        page[SETUP_HEADER : SETUP_HEADER + len(header)] = header
    else:
        page[HEADER_MAGIC : HEADER_MAGIC + len(HDRS_MAGIC)] = HDRS_MAGIC
        struct.pack_into("<H", page, BOOT_FLAG, BOOT_FLAG_MAGIC)
        struct.pack_into("<H", page, VERSION, VMLINUX_PROTOCOL)
    struct.pack_into("<H", page, VID_MODE, VID_MODE_NORMAL)
    page[TYPE_OF_LOADER] = LOADER_UNDEFINED
    # Only the kernel's own decompressor may say that it has moved the kernel.
    page[LOADFLAGS] = (page[LOADFLAGS] | LOADED_HIGH) & ~KASLR_FLAG
    if kernel.code32_start:
        struct.pack_into("<I", page, CODE32_START, kernel.code32_start)
    _write_memory(page, memory)
    if extras.acpi:
        struct.pack_into("<Q", page, ACPI_RSDP_ADDR, RSDP_ADDRESS)
    if extras.text_mode:
        page[SCREEN_INFO_MODE] = VGA_TEXT_MODE
        page[SCREEN_INFO_COLUMNS] = TEXT_COLUMNS
        page[SCREEN_INFO_LINES] = TEXT_LINES
        page[SCREEN_INFO_IS_VGA] = 1
        struct.pack_into("<H", page, SCREEN_INFO_POINTS, TEXT_POINTS)

    limit = min(kernel.cmdline_size, CMDLINE_LIMIT - 1)
    pieces = [Piece(CMDLINE_ADDRESS, encode_cmdline(name, extras.cmdline, limit), "command line")]
    struct.pack_into("<I", page, CMD_LINE_PTR, CMDLINE_ADDRESS)
    if extras.initrd:
        base = place_initrd(
            name, len(extras.initrd), memory, addr_max=kernel.initrd_addr_max, kernel_end=kernel.end
        )
        pieces.append(Piece(base, extras.initrd, "initrd"))
        struct.pack_into("<II", page, RAMDISK_IMAGE, base, len(extras.initrd))
    pieces.append(Piece(INFO_ADDRESS, bytes(page), "zero page"))
    return pieces


def encode_cmdline(name: str, cmdline: str, limit: int) -> bytes:
    """The bytes of `cmdline` with the NUL that ends them.

    Raises ImageError beyond `limit` bytes (without the NUL) and for a NUL inside.
    """
    text = cmdline.encode()
    if b"\0" in text:
        raise ImageError(f"{name}: the command line has a NUL character at position {text.index(0)}")
    if len(text) > limit:
        raise ImageError(f"{name}: the command line has {len(text)} bytes, the kernel takes {limit}")
    return text + b"\0"


def place_initrd(name: str, size: int, memory: MemoryMap, *, addr_max: int, kernel_end: int) -> int:
    """The highest page-aligned address for `size` bytes up to `addr_max`, in RAM behind `kernel_end`.

    Raises ImageError when there is none.
    """
    top = min(memory.low_end, addr_max + 1)
    bottom = max(kernel_end, BIOS_END)
    base = (top - size) & ~(PAGE_SIZE - 1)
    if base < bottom:
        raise ImageError(
            f"{name}: the initrd has {size} bytes, {max(top - bottom, 0)} are free between the kernel's end "
            f"{bottom:#x} and {top:#x}"
        )
    return base


def _write_memory(page: bytearray, memory: MemoryMap) -> None:
    above_1m = max(memory.low_end - BIOS_END, 0) // KIB
    struct.pack_into("<H", page, EXT_MEM_K, min(above_1m, 0xFFFF))
    struct.pack_into("<I", page, ALT_MEM_K, above_1m)
    page[E820_ENTRIES] = len(memory.entries)
    for index, e in enumerate(memory.entries):
        struct.pack_into("<QQI", page, E820_TABLE + 20 * index, e.base, e.length, e.kind)
