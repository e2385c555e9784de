"""Bits of the control and flags registers and of segment attributes, by the manual's names.

Source: Intel SDM volume 3, 2.3 (RFLAGS), 2.5 (CR0, CR4), 2.2.1 (EFER), 3.4.5 (descriptors).
"""

from typing import Final

CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
CR0_WP: Final = 1 << 16
CR0_NW: Final = 1 << 29
CR0_CD: Final = 1 << 30
CR0_PG: Final = 1 << 31

CR4_VME: Final = 1 << 0
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_OSFXSR: Final = 1 << 9
CR4_SMEP: Final = 1 << 20
CR4_SMAP: Final = 1 << 21

EFER_SCE: Final = 1 << 0
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11

FLAG_TF: Final = 1 << 8
FLAG_IF: Final = 1 << 9
FLAG_DF: Final = 1 << 10
FLAG_IOPL: Final = 3 << 12
FLAG_IOPL_SHIFT: Final = 12
FLAG_NT: Final = 1 << 14
FLAG_RF: Final = 1 << 16
FLAG_VM: Final = 1 << 17
FLAG_AC: Final = 1 << 18
FLAG_VIF: Final = 1 << 19
FLAG_FIXED: Final = 1 << 1
"""The bit that is always 1."""
FLAGS_ARITHMETIC: Final = 0x8D5
"""CF, PF, AF, ZF, SF, OF."""
FLAGS_IMPLEMENTED: Final = 0x3F7FD5
"""Every flag that exists, CF to ID."""

SEG_ACCESSED: Final = 1 << 8
SEG_WRITABLE: Final = 1 << 9
"""Data segments; in a code segment the same bit means readable."""
SEG_READABLE: Final = 1 << 9
SEG_EXPAND_DOWN: Final = 1 << 10
SEG_CONFORMING: Final = 1 << 10
SEG_CODE: Final = 1 << 11
SEG_NOT_SYSTEM: Final = 1 << 12
"""S: a code or data segment."""
SEG_DPL_SHIFT: Final = 13
SEG_PRESENT: Final = 1 << 15
SEG_LONG: Final = 1 << 21
SEG_BIG: Final = 1 << 22
"""D/B: 32-bit code or stack."""
SEG_GRANULARITY: Final = 1 << 23
SEG_ATTRIBUTES: Final = 0xF0FF00

SELECTOR_RPL: Final = 3
SELECTOR_TI: Final = 4


def in_long_mode(efer: int) -> bool:
    """Whether IA-32e mode is active: 64-bit or compatibility mode."""
    return bool(efer & EFER_LMA)


def in_vm86(cr0: int, rflags: int) -> bool:
    """Whether the processor is in virtual-8086 mode."""
    return bool(cr0 & CR0_PE and rflags & FLAG_VM)


def is_canonical(address: int) -> bool:
    """Whether bits 63 to 47 of a 64-bit linear address are all equal."""
    return address >> 47 in (0, (1 << 17) - 1)
