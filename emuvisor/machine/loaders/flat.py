"""Programs without a format: a flat binary at an address, and a firmware ROM."""

from typing import Literal

from emuvisor.cpu.state import CpuState
from emuvisor.errors import ImageError
from emuvisor.machine.loaders import entry
from emuvisor.machine.loaders.boot import Boot, Piece, check_pieces
from emuvisor.machine.memory_map import BIOS_END, MemoryMap
from emuvisor.units import GIB, KIB, MIB, PAGE_SIZE, format_size

__all__ = ["FlatMode", "load_firmware", "load_flat"]

FlatMode = Literal["real16", "protected32", "long64"]

RESET_ROM_END = 4 * GIB
SHADOW_SIZE = 128 * KIB
"""The end of the ROM shows below 1 MiB too: 0E0000h to 0FFFFFh, where real mode can reach it."""
MAX_ROM_SIZE = 16 * MIB


def load_flat(name: str, data: bytes, address: int, mode: FlatMode, memory: MemoryMap) -> Boot:
    """`data` at guest physical `address`, entered at its first byte in `mode`.

    Raises ImageError for an empty file, one outside usable RAM, and one that overlaps what the mode needs.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    limit = BIOS_END if mode == "real16" else entry.MAPPED_END
    if not 0 <= address < limit:
        raise ImageError(
            f"{name}: address {address:#x} is not below {limit:#x}, the end of memory in mode {mode}"
        )
    extra: list[Piece] = []
    if mode == "real16":
        state = entry.real_mode(address)
    elif mode == "protected32":
        state, extra = entry.protected_mode(address)
    else:
        state, extra = entry.long_mode(address)
    pieces = check_pieces(name, [Piece(address, data, "flat image"), *extra], memory)
    return Boot(f"flat binary ({mode})", state, pieces)


def load_firmware(name: str, data: bytes, programs_chipset: bool = False) -> Boot:
    """A ROM that ends at 4 GiB, with its last 128 KiB also below 1 MiB; the processor starts from reset.

    `programs_chipset` as in `Boot`. Raises ImageError unless the size is a multiple of 4 KiB up to 16 MiB.
    """
    if not data or len(data) % PAGE_SIZE or len(data) > MAX_ROM_SIZE:
        raise ImageError(
            f"{name}: a firmware ROM has a multiple of 4 KiB up to {format_size(MAX_ROM_SIZE)}, "
            f"this file has {len(data)} bytes"
        )
    shadow = data[-SHADOW_SIZE:]
    roms = [
        Piece(BIOS_END - len(shadow), shadow, "ROM below 1 MiB"),
        Piece(RESET_ROM_END - len(data), data, "ROM below 4 GiB"),
    ]
    return Boot("firmware", CpuState(), roms=roms, programs_chipset=programs_chipset)
