"""What a base address register shows at the address that the guest gives it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from emuvisor.bus.device import Device
from emuvisor.devices.pci.registers import BAR_IO, BAR_PREFETCHABLE, BAR_WIDE, IO_FLAGS, MEMORY_FLAGS
from emuvisor.errors import ImageError, UsageError
from emuvisor.units import KIB, MIB, PAGE_SIZE

__all__ = ["Bar", "OptionRom", "Region"]

MIN_IO = 4
MAX_IO = 256
"""PCI 3.0, section 6.2.5.1: a device must not take more than 256 bytes of I/O space by one register."""
MIN_MEMORY = 16
MAX_MEMORY_32 = 1 << 31
MAX_MEMORY_64 = 1 << 40

ROM_SIGNATURE = b"\x55\xaa"
ROM_LENGTH = 2
ROM_BLOCK = 512
"""Byte 2 of an option ROM counts blocks of this many bytes."""
MIN_ROM = 2 * KIB
MAX_ROM = 16 * MIB


class Region(Protocol):
    """A device's own memory that can be put into the guest's physical address space."""

    @property
    def length(self) -> int:
        """Bytes."""
        ...

    def place(self, gpa: int | None) -> None:
        """Show it at `gpa`; None: nowhere."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Bar:
    """`size` bytes (a power of two) of I/O or memory space, behind which is a `device` or, in memory, a `region`.

    `width` is the widest access that the device takes; `wide` makes a 64-bit register of it, which takes
    two places. Raises UsageError for a combination that PCI does not have.
    """

    size: int
    space: Literal["io", "memory"]
    device: Device | None = None
    region: Region | None = None
    width: int = 4
    prefetchable: bool = False
    wide: bool = False

    def __post_init__(self) -> None:
        largest = MAX_IO if self.space == "io" else MAX_MEMORY_64 if self.wide else MAX_MEMORY_32
        smallest = MIN_IO if self.space == "io" else MIN_MEMORY
        if not smallest <= self.size <= largest or self.size & (self.size - 1):
            raise UsageError(
                f"BAR: {self.size} bytes of {self.space} space; it has a power of two from {smallest} to {largest}"
            )
        if self.space == "io" and (self.wide or self.prefetchable or self.region is not None):
            raise UsageError(
                "BAR: I/O space is neither 64-bit nor prefetchable, and holds a device, no region"
            )
        if (self.device is None) == (self.region is None):
            raise UsageError("BAR: it shows either a device or a region")
        if self.region is not None and (self.region.length != self.size or self.size % PAGE_SIZE):
            raise UsageError(
                f"BAR: {self.size} bytes for a region of {self.region.length}; both are the same whole pages"
            )

    @property
    def flags(self) -> int:
        """The register's read-only low bits."""
        if self.space == "io":
            return BAR_IO
        return (BAR_WIDE if self.wide else 0) | (BAR_PREFETCHABLE if self.prefetchable else 0)

    @property
    def address_mask(self) -> int:
        """The register's writable bits, 64 of them for a wide one."""
        flags = IO_FLAGS if self.space == "io" else MEMORY_FLAGS
        return ((1 << (64 if self.wide else 32)) - 1) & ~(self.size - 1) & ~flags


class OptionRom:
    """The expansion ROM of a function: `data` behind its ROM register, ones behind its end.

    `source` names the ROM in messages. Raises ImageError for what firmware would not accept as an option ROM
    (PCI Firmware Specification 3.0, section 5.2).
    """

    name = "option-rom"

    def __init__(self, data: bytes, source: str = "option ROM") -> None:
        if data[: len(ROM_SIGNATURE)] != ROM_SIGNATURE or len(data) <= ROM_LENGTH:
            raise ImageError(f"{source}: not an option ROM; it does not begin with 55h AAh")
        length = data[ROM_LENGTH] * ROM_BLOCK
        if not 0 < length <= len(data):
            raise ImageError(f"{source}: {len(data)} bytes, but its header says {length}")
        if len(data) > MAX_ROM:
            raise ImageError(f"{source}: {len(data)} bytes; an option ROM has at most {MAX_ROM}")
        self.data = data
        self.size = max(MIN_ROM, 1 << (len(data) - 1).bit_length())
        """Bytes of address space, a power of two."""

    def read(self, offset: int, size: int) -> int:
        """Bytes of the ROM."""
        return int.from_bytes(self.data[offset : offset + size].ljust(size, b"\xff"), "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """ROM: nothing happens."""

    def reset(self) -> None:
        """Nothing to forget."""
