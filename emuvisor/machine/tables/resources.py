"""Resource descriptors, as _CRS and _PRS hold them (ACPI specification 6.4, section 6.4).

`template` makes a buffer of them that ends with the End Tag.
"""

import struct

from emuvisor.errors import UsageError
from emuvisor.machine.tables.aml import buffer

__all__ = [
    "AddressSpace",
    "bus_numbers",
    "dma",
    "interrupt",
    "io",
    "io_window",
    "irq",
    "memory32_fixed",
    "memory_window",
    "template",
]

END_TAG = bytes([0x79, 0])
"""With checksum 0, which means that there is none."""
IRQ_NO_FLAGS = 0x22
DMA = 0x2A
IO_PORT = 0x47
MEMORY32_FIXED = 0x86
DWORD_ADDRESS_SPACE = 0x87
WORD_ADDRESS_SPACE = 0x88
EXTENDED_INTERRUPT = 0x89
QWORD_ADDRESS_SPACE = 0x8A

IO_DECODE_16 = 1
MEMORY_READ_WRITE = 1
DMA_COMPATIBILITY_8BIT = 0

INTERRUPT_CONSUMER = 1 << 0
INTERRUPT_EDGE = 1 << 1
INTERRUPT_SHARED = 1 << 3

# General flags of address space descriptors: both ends are fixed, decode is positive, and the device hands them on.
MIN_FIXED, MAX_FIXED = 1 << 2, 1 << 3
PRODUCER_FLAGS = MIN_FIXED | MAX_FIXED
IO_ENTIRE_RANGE = 3
MEMORY_CACHEABLE = 1 << 1


class AddressSpace:
    """Resource types of address space descriptors."""

    MEMORY = 0
    IO = 1
    BUS_NUMBERS = 2


def template(*descriptors: bytes) -> bytes:
    """ResourceTemplate () { descriptors }."""
    return buffer(b"".join(descriptors) + END_TAG)


def io(port: int, count: int) -> bytes:
    """`count` ports from `port` on, decoded with all 16 bits."""
    if not 0 <= port <= 0xFFFF or not 0 < count <= 0xFF:
        raise UsageError(f"resources: {count} ports at {port:#x} are not 1 to 255 ports below 0x10000")
    return struct.pack("<BBHHBB", IO_PORT, IO_DECODE_16, port, port, 1, count)


def irq(number: int) -> bytes:
    """An edge-triggered, active-high ISA interrupt, not shared."""
    if not 0 <= number <= 15:
        raise UsageError(f"resources: {number} is not an ISA interrupt, 0 to 15")
    return struct.pack("<BH", IRQ_NO_FLAGS, 1 << number)


def dma(channel: int) -> bytes:
    """An 8-bit channel of the ISA DMA controller."""
    if not 0 <= channel <= 7:
        raise UsageError(f"resources: {channel} is not a DMA channel, 0 to 7")
    return struct.pack("<BBB", DMA, 1 << channel, DMA_COMPATIBILITY_8BIT)


def interrupt(*numbers: int, edge: bool = False, shared: bool = True) -> bytes:
    """An active-high interrupt by its global system interrupt number, or a choice of several."""
    flags = INTERRUPT_CONSUMER | (INTERRUPT_EDGE if edge else 0) | (INTERRUPT_SHARED if shared else 0)
    body = struct.pack(f"<BB{len(numbers)}I", flags, len(numbers), *numbers)
    return struct.pack("<BH", EXTENDED_INTERRUPT, len(body)) + body


def memory32_fixed(base: int, length: int) -> bytes:
    """`length` bytes at `base`, below 4 GiB."""
    if base < 0 or length <= 0 or base + length > 1 << 32:
        raise UsageError(f"resources: {length:#x} bytes at {base:#x} are not below 4 GiB")
    return struct.pack("<BHBII", MEMORY32_FIXED, 9, MEMORY_READ_WRITE, base, length)


def bus_numbers(first: int, last: int) -> bytes:
    """The PCI buses from `first` to `last` behind a bridge."""
    return _window(WORD_ADDRESS_SPACE, AddressSpace.BUS_NUMBERS, 0, first, last)


def io_window(first: int, last: int) -> bytes:
    """The ports from `first` to `last` behind a bridge."""
    return _window(WORD_ADDRESS_SPACE, AddressSpace.IO, IO_ENTIRE_RANGE, first, last)


def memory_window(first: int, last: int, cacheable: bool = False) -> bytes:
    """The addresses from `first` to `last` behind a bridge; 64 bits wide if they have to be."""
    kind = DWORD_ADDRESS_SPACE if last < 1 << 32 else QWORD_ADDRESS_SPACE
    flags = MEMORY_READ_WRITE | (MEMORY_CACHEABLE if cacheable else 0)
    return _window(kind, AddressSpace.MEMORY, flags, first, last)


_NUMBER = {WORD_ADDRESS_SPACE: "H", DWORD_ADDRESS_SPACE: "I", QWORD_ADDRESS_SPACE: "Q"}


def _window(kind: int, space: int, type_flags: int, first: int, last: int) -> bytes:
    size = struct.calcsize(_NUMBER[kind])
    length = last - first + 1
    if not 0 <= first <= last < 1 << 8 * size or length >= 1 << 8 * size:
        raise UsageError(
            f"resources: {first:#x} to {last:#x} is not a range whose length is a {8 * size}-bit number"
        )
    granularity = translation = 0
    body = struct.pack("<BBB", space, PRODUCER_FLAGS, type_flags)
    body += struct.pack(f"<5{_NUMBER[kind]}", granularity, first, last, translation, length)
    return struct.pack("<BH", kind, len(body)) + body
