"""Segment descriptors and the tables that hold them (Intel SDM volume 3, 3.4.5 and 3.5)."""

from dataclasses import dataclass
from enum import IntEnum

from emuvisor.cpu.reference.attempt import Attempt
from emuvisor.cpu.registers import (
    SEG_ACCESSED,
    SEG_ATTRIBUTES,
    SEG_BIG,
    SEG_CODE,
    SEG_CONFORMING,
    SEG_DPL_SHIFT,
    SEG_GRANULARITY,
    SEG_LONG,
    SEG_NOT_SYSTEM,
    SEG_PRESENT,
    SEG_READABLE,
    SEG_WRITABLE,
    SELECTOR_TI,
)
from emuvisor.cpu.state import Segment

__all__ = ["Descriptor", "SystemType", "find", "is_null", "load", "mark_accessed"]

_BYTES = 8
_ACCESS_BYTE = 5


class SystemType(IntEnum):
    """Types of system segments and gates (table 3-2)."""

    TSS_16 = 1
    LDT = 2
    BUSY_TSS_16 = 3
    TASK_GATE = 5
    INTERRUPT_GATE_16 = 6
    TRAP_GATE_16 = 7
    TSS_32 = 9
    BUSY_TSS_32 = 11
    INTERRUPT_GATE_32 = 14
    TRAP_GATE_32 = 15


@dataclass
class Descriptor:
    """Eight bytes of a descriptor table, and the linear address they lie at."""

    address: int
    raw: int

    @property
    def high(self) -> int:
        """The high doubleword, which holds the attributes."""
        return self.raw >> 32

    @property
    def base(self) -> int:
        """The segment's base address."""
        return self.raw >> 16 & 0xFFFFFF | (self.raw >> 56) << 24

    @property
    def limit(self) -> int:
        """The highest offset in bytes, granularity applied."""
        limit = self.raw & 0xFFFF | self.high & 0xF0000
        return (limit << 12) + 0xFFF if self.high & SEG_GRANULARITY else limit

    @property
    def type(self) -> int:
        """The type field."""
        return self.high >> 8 & 15

    @property
    def dpl(self) -> int:
        """The descriptor privilege level."""
        return self.high >> SEG_DPL_SHIFT & 3

    @property
    def present(self) -> bool:
        """The P bit."""
        return bool(self.high & SEG_PRESENT)

    @property
    def is_system(self) -> bool:
        """Whether it is a gate, TSS or LDT and not code or data."""
        return not self.high & SEG_NOT_SYSTEM

    @property
    def is_code(self) -> bool:
        """Whether it is a code segment."""
        return not self.is_system and bool(self.high & SEG_CODE)

    @property
    def is_conforming(self) -> bool:
        """Whether it is code that runs at its caller's privilege level."""
        return self.is_code and bool(self.high & SEG_CONFORMING)

    @property
    def is_writable_data(self) -> bool:
        """Whether it can be a stack."""
        return not self.is_system and not self.is_code and bool(self.high & SEG_WRITABLE)

    @property
    def is_readable(self) -> bool:
        """Whether it is data, or code that can be read."""
        return not self.is_system and (not self.is_code or bool(self.high & SEG_READABLE))

    @property
    def is_64_bit_code(self) -> bool:
        """Whether it is code for 64-bit mode: L set, D clear."""
        return self.is_code and bool(self.high & SEG_LONG) and not self.high & SEG_BIG

    def segment(self, selector: int) -> Segment:
        """The segment register's content after loading it."""
        return Segment(selector, self.base, self.limit, self.high & SEG_ATTRIBUTES)


def is_null(selector: int) -> bool:
    """Whether a selector names no segment: index 0 of the GDT, whatever its RPL."""
    return selector & 0xFFFC == 0


def find(attempt: Attempt, selector: int) -> int | None:
    """The linear address of the descriptor in the GDT or LDT; None outside of the table's limit."""
    table = attempt.state.ldtr if selector & SELECTOR_TI else attempt.state.gdtr
    offset = selector & 0xFFF8
    return None if offset + _BYTES - 1 > table.limit else table.base + offset & (1 << 64) - 1


def load(attempt: Attempt, address: int) -> Descriptor:
    """Read the descriptor at `address`."""
    return Descriptor(address, attempt.read_number(address, _BYTES))


def mark_accessed(attempt: Attempt, descriptor: Descriptor) -> None:
    """Set the accessed bit, in the table and in `descriptor`, when a code or data segment is loaded."""
    if not descriptor.high & SEG_ACCESSED:
        descriptor.raw |= SEG_ACCESSED << 32
        attempt.write(descriptor.address + _ACCESS_BYTE, bytes([descriptor.high >> 8 & 0xFF]))
