"""Where a PC's RAM lies in its physical address space, and how firmware reports it (E820)."""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from emuvisor.errors import ConfigError
from emuvisor.units import GIB, MIB, PAGE_SIZE, TIB, format_size

__all__ = [
    "BIOS_END",
    "EBDA_START",
    "MAX_MEMORY",
    "MIN_MEMORY",
    "MMIO_HOLE_END",
    "MMIO_HOLE_START",
    "PLUG_BLOCK",
    "E820Entry",
    "E820Type",
    "MemoryMap",
]

EBDA_START = 0x9FC00
"""Extended BIOS data area: the last KiB of conventional memory."""
BIOS_END = 0x100000
MMIO_HOLE_START = 3 * GIB
"""From here to 4 GiB: PCI windows, APICs, the firmware's ROM. RAM that does not fit below goes on behind."""
MMIO_HOLE_END = 4 * GIB
MIN_MEMORY = MIB
MAX_MEMORY = TIB // 2
PLUG_BLOCK = 2 * MIB
"""The unit in which RAM is plugged: a large page, so that a kernel need not split one."""
_PLUG_ALIGN = 2 * GIB
_PLUG_UNIT = 128 * MIB
"""Linux adds memory in blocks of 128 MiB, and of up to 2 GiB where it has much; it leaves parts of them alone."""


class E820Type(IntEnum):
    """Address range types of INT 15h, AX=E820h (ACPI specification, section 15)."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4


@dataclass(frozen=True, slots=True)
class E820Entry:
    """`length` bytes from guest physical address `base`."""

    base: int
    length: int
    kind: E820Type

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.base + self.length


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The physical address space of a PC with `size` bytes of RAM.

    `blocks` are where RAM chips answer, (base, length) by ascending base; `entries` are what firmware tells
    the operating system, in which 9FC00h to FFFFFh (EBDA, video memory, ROMs) are reserved although RAM lies
    beneath.
    """

    size: int
    blocks: tuple[tuple[int, int], ...]
    entries: tuple[E820Entry, ...]
    pluggable: tuple[int, int] | None = None
    """Where further RAM can be plugged, (base, length): above 4 GiB and the RAM, below the PCI window for large BARs.
    No `entries` are there."""

    @classmethod
    @lru_cache(maxsize=32)
    def for_ram(cls, size: int, most: int | None = None) -> "MemoryMap":
        """The map of a PC with `size` bytes of RAM, which can grow to `most` while it runs.

        Raises ConfigError unless `size` is a multiple of 4 KiB from 1 MiB to 512 GiB, and `most` as much or up to
        512 GiB in steps of 2 MiB more.
        """
        if not MIN_MEMORY <= size <= MAX_MEMORY:
            raise ConfigError(
                f"memory: {size} bytes ({format_size(size)}) is outside "
                f"{format_size(MIN_MEMORY)} to {format_size(MAX_MEMORY)}"
            )
        if size % PAGE_SIZE:
            raise ConfigError(f"memory: {size} bytes is not a multiple of 4 KiB")
        low = min(size, MMIO_HOLE_START)
        blocks = [(0, low)]
        entries = [
            E820Entry(0, EBDA_START, E820Type.RAM),
            E820Entry(EBDA_START, BIOS_END - EBDA_START, E820Type.RESERVED),
        ]
        if low > BIOS_END:
            entries.append(E820Entry(BIOS_END, low - BIOS_END, E820Type.RAM))
        if size > low:
            blocks.append((MMIO_HOLE_END, size - low))
            entries.append(E820Entry(MMIO_HOLE_END, size - low, E820Type.RAM))
        return cls(size, tuple(blocks), tuple(entries), _place_for(blocks, size, most))

    @property
    def low_end(self) -> int:
        """End of the RAM below 4 GiB."""
        return self.blocks[0][1]

    def is_ram(self, base: int, length: int) -> bool:
        """Do all of the `length` bytes from `base` lie in one range that is reported as usable RAM?"""
        return any(e.kind == E820Type.RAM and e.base <= base and base + length <= e.end for e in self.entries)

    def describe_ram(self) -> str:
        """The usable RAM for a message: "0x0..0x9fbff, 0x100000..0xfffffff"."""
        return ", ".join(f"{e.base:#x}..{e.end - 1:#x}" for e in self.entries if e.kind == E820Type.RAM)


def _place_for(blocks: list[tuple[int, int]], size: int, most: int | None) -> tuple[int, int] | None:
    """Where what `most` is beyond `size` can be plugged."""
    if most is None or most == size:
        return None
    if not size < most <= MAX_MEMORY:
        raise ConfigError(
            f"memory_max: {most} bytes ({format_size(most)}) is outside "
            f"{format_size(size)}, which is the guest's memory, to {format_size(MAX_MEMORY)}"
        )
    if (most - size) % PLUG_BLOCK:
        raise ConfigError(
            f"memory_max: {most} bytes is not the guest's memory of {size} and a multiple of "
            f"{format_size(PLUG_BLOCK)} more"
        )
    end = max(MMIO_HOLE_END, sum(blocks[-1]))
    return _up(end, _PLUG_ALIGN), _up(most - size, _PLUG_UNIT)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
