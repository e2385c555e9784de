"""Processor states to enter a guest program with, and the low memory that they need.

    0x00500..0x07bff   stack, growing down from 0x7c00
    0x10000            GDT: null, null, code (10h), data (18h)
    0x11000            zero page of the Linux boot protocol, or multiboot's tables
    0x12000..0x17fff   identity page tables for the first 4 GiB (long mode only)
    0x20000..0x2ffff   command line

Segment and register values are those that the Linux boot protocol and the multiboot specification ask for.
"""

import struct

from emuvisor.cpu.state import CpuState, DescriptorTable, Segment
from emuvisor.machine.loaders.boot import Piece
from emuvisor.units import GIB, MIB, PAGE_SIZE

__all__ = [
    "CMDLINE_ADDRESS",
    "CMDLINE_LIMIT",
    "INFO_ADDRESS",
    "MAPPED_END",
    "STACK_TOP",
    "long_mode",
    "protected_mode",
    "real_mode",
]

STACK_TOP = 0x7C00
GDT_ADDRESS = 0x10000
INFO_ADDRESS = 0x11000
PAGE_TABLES_ADDRESS = 0x12000
CMDLINE_ADDRESS = 0x20000
CMDLINE_LIMIT = 0x10000

MAPPED_END = 4 * GIB
"""The identity page tables of `long_mode` reach up to here."""

CODE_SELECTOR = 0x10
DATA_SELECTOR = 0x18

CR0_PE = 1 << 0
CR0_ET = 1 << 4
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
EFER_LME = 1 << 8
EFER_LMA = 1 << 10

PTE_P = 1 << 0
PTE_RW = 1 << 1
PTE_PS = 1 << 7
TABLE_ENTRIES = 512
LARGE_PAGE = 2 * MIB

TYPE_DATA_RW_ACCESSED = 3 << 8
TYPE_CODE_ER_ACCESSED = 11 << 8
DESC_S = 1 << 12
DESC_P = 1 << 15
DESC_L = 1 << 21
DESC_D = 1 << 22
DESC_G = 1 << 23
LIMIT_HIGH = 0xF << 16
LIMIT_LOW = 0xFFFF
FLAT_LIMIT = 0xFFFFFFFF

DATA = TYPE_DATA_RW_ACCESSED | DESC_S | DESC_P | DESC_D | DESC_G
CODE32 = TYPE_CODE_ER_ACCESSED | DESC_S | DESC_P | DESC_D | DESC_G
CODE64 = TYPE_CODE_ER_ACCESSED | DESC_S | DESC_P | DESC_L | DESC_G


def long_mode(entry: int) -> tuple[CpuState, list[Piece]]:
    """64-bit mode at `entry`: interrupts off, the first 4 GiB identity mapped with 2 MiB pages."""
    state = _flat(entry, CODE64)
    state.cr0 |= CR0_PG
    state.cr3 = PAGE_TABLES_ADDRESS
    state.cr4 = CR4_PAE
    state.efer = EFER_LME | EFER_LMA
    return state, [_gdt(CODE64), Piece(PAGE_TABLES_ADDRESS, _identity_tables(), "page tables")]


def protected_mode(entry: int) -> tuple[CpuState, list[Piece]]:
    """32-bit protected mode at `entry`: interrupts and paging off, flat segments."""
    return _flat(entry, CODE32), [_gdt(CODE32)]


def real_mode(entry: int) -> CpuState:
    """Real mode at linear address `entry` (below 1 MiB), stack below 7C00h."""
    state = CpuState(rip=entry & 0xF, rsp=STACK_TOP)
    state.cs.selector = entry >> 4
    state.cs.base = entry & ~0xF
    return state


def _flat(entry: int, code: int) -> CpuState:
    def data() -> Segment:
        return Segment(DATA_SELECTOR, 0, FLAT_LIMIT, DATA)

    return CpuState(
        rip=entry,
        rsp=STACK_TOP,
        cr0=CR0_PE | CR0_ET,
        cs=Segment(CODE_SELECTOR, 0, FLAT_LIMIT, code),
        ds=data(),
        es=data(),
        fs=data(),
        gs=data(),
        ss=data(),
        gdtr=DescriptorTable(GDT_ADDRESS, len(_gdt(code).data) - 1),
        idtr=DescriptorTable(0, 0),
    )


def _gdt(code: int) -> Piece:
    words = [0, 0, 0, 0]
    for flags in (code, DATA):
        words += [LIMIT_LOW, flags | LIMIT_HIGH]
    return Piece(GDT_ADDRESS, struct.pack("<8I", *words), "GDT")


def _identity_tables() -> bytes:
    """PML4, PDPT and a page directory for each GiB, in this order."""
    pdpt = PAGE_TABLES_ADDRESS + PAGE_SIZE
    directories = [pdpt + PAGE_SIZE * (1 + i) for i in range(MAPPED_END // GIB)]
    tables = [[pdpt | PTE_P | PTE_RW], [d | PTE_P | PTE_RW for d in directories]]
    for gib in range(len(directories)):
        base = gib * GIB
        tables.append([base + i * LARGE_PAGE | PTE_P | PTE_RW | PTE_PS for i in range(TABLE_ENTRIES)])
    return b"".join(struct.pack(f"<{len(t)}Q", *t).ljust(PAGE_SIZE, b"\0") for t in tables)
