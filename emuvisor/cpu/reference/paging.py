"""The page walk (Intel SDM volume 3, chapter 4).

A paging mode is a list of levels; one loop walks them all.
"""

from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from emuvisor.cpu.reference.physical import PhysicalMemory
from emuvisor.cpu.registers import (
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_NXE,
    FLAG_AC,
    in_long_mode,
    is_canonical,
)
from emuvisor.cpu.state import CpuState

__all__ = ["Access", "NonCanonical", "PageFault", "Step", "Walk", "walk"]

PHYSICAL_ADDRESS_BITS: Final = 40
"""MAXPHYADDR, as CPUID leaf 80000008h reports it."""


class Access(IntFlag):
    """What is done (one of the first three) and by whom; by default an explicit supervisor access."""

    READ = 1
    WRITE = 2
    FETCH = 4
    USER = 8
    """Made at CPL 3."""
    IMPLICIT = 16
    """An implicit supervisor access: descriptor tables, TSS, event stacks, at whatever CPL (4.6.1)."""


class ErrorCode(IntFlag):
    """The page-fault error code (4.7)."""

    P = 1
    """The page is present: the fault is about rights."""
    W = 2
    U = 4
    RSVD = 8
    I = 16  # noqa: E741 - the manual's name


# paging entries (4.3 to 4.5)
PRESENT: Final = 1 << 0
WRITABLE: Final = 1 << 1
USER: Final = 1 << 2
ACCESSED: Final = 1 << 5
DIRTY: Final = 1 << 6
PAGE_SIZE: Final = 1 << 7
NO_EXECUTE: Final = 1 << 63


def _bits(high: int, low: int) -> int:
    """A mask of bits `high` to `low`, as the manual writes them."""
    return (1 << high + 1) - (1 << low)


@dataclass(frozen=True)
class Level:
    """One level of a paging mode.

    `shift` and `bits` say which address bits are the index. `reserved` are the bits that must be 0 in any
    entry, `page_reserved` also those of an entry that maps a page. `maps_page`: by bit PS; the last level
    always does.
    """

    name: str
    shift: int
    bits: int = 9
    maps_page: bool = False
    reserved: int = 0
    page_reserved: int = 0
    has_rights: bool = True
    """False for the entries of PAE's pointer table, which carry neither rights nor an accessed bit."""


@dataclass(frozen=True)
class Mode:
    """A paging mode: its levels, the bytes of an entry, and which bits of CR3 locate the first table."""

    name: str
    levels: tuple[Level, ...]
    entry_size: int
    cr3_mask: int


_LONG_HIGH: Final = _bits(51, PHYSICAL_ADDRESS_BITS)
_PAE_HIGH: Final = _bits(62, PHYSICAL_ADDRESS_BITS)

FOUR_LEVEL: Final = Mode(
    "4-level paging",
    (
        Level("PML4E", 39, reserved=_LONG_HIGH | PAGE_SIZE),
        Level("PDPTE", 30, maps_page=True, reserved=_LONG_HIGH, page_reserved=_bits(29, 13)),
        Level("PDE", 21, maps_page=True, reserved=_LONG_HIGH, page_reserved=_bits(20, 13)),
        Level("PTE", 12, reserved=_LONG_HIGH),
    ),
    entry_size=8,
    cr3_mask=_bits(PHYSICAL_ADDRESS_BITS - 1, 12),
)
PAE: Final = Mode(
    "PAE paging",
    (
        Level(
            "PDPTE",
            30,
            bits=2,
            reserved=_bits(63, PHYSICAL_ADDRESS_BITS) | _bits(8, 5) | _bits(2, 1),
            has_rights=False,
        ),
        Level("PDE", 21, maps_page=True, reserved=_PAE_HIGH, page_reserved=_bits(20, 13)),
        Level("PTE", 12, reserved=_PAE_HIGH),
    ),
    entry_size=8,
    cr3_mask=_bits(31, 5),
)
THIRTY_TWO_BIT: Final = Mode(
    "32-bit paging",
    (Level("PDE", 22, bits=10), Level("PTE", 12, bits=10)),
    entry_size=4,
    cr3_mask=_bits(31, 12),
)
THIRTY_TWO_BIT_PSE: Final = Mode(
    "32-bit paging with 4 MiB pages",
    (Level("PDE", 22, bits=10, maps_page=True, page_reserved=1 << 21), Level("PTE", 12, bits=10)),
    entry_size=4,
    cr3_mask=_bits(31, 12),
)


@dataclass
class Step:
    """One entry that the walk read: where, what, and what it means."""

    level: str
    gpa: int
    value: int
    meaning: str

    def __str__(self) -> str:
        return f"{self.level:<6} at {self.gpa:010x} = {self.value:016x}  {self.meaning}"


@dataclass
class Walk:
    """A walk that reached a page.

    `gpa` is that of the accessed byte; `page_size` is in bytes. `writable`: the same kind of access may
    write, and the dirty bit is set; `executable`: it may fetch.
    """

    address: int
    mode: str
    gpa: int
    page_size: int
    writable: bool
    executable: bool
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        rights = "".join(("r", "w" if self.writable else "-", "x" if self.executable else "-"))
        end = f"=> {self.gpa:010x}, a page of {self.page_size >> 10} KiB, {rights}"
        return "\n".join((f"{self.address:016x} by {self.mode}", *map(str, self.steps), end))


@dataclass
class PageFault:
    """A walk that ended in #PF: the error code to push, and why."""

    address: int
    mode: str
    error_code: int
    reason: str
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        names = "|".join(bit.name or "" for bit in ErrorCode if bit & self.error_code) or "0"
        end = f"=> #PF, error code {names}: {self.reason}"
        return "\n".join((f"{self.address:016x} by {self.mode}", *map(str, self.steps), end))


@dataclass
class NonCanonical:
    """An address with unequal bits 63 to 47: #GP or #SS, before any walk (SDM volume 1, 3.3.7.1)."""

    address: int

    def __str__(self) -> str:
        return f"{self.address:016x} is not canonical"


def walk(
    state: CpuState, memory: PhysicalMemory, address: int, access: Access
) -> Walk | PageFault | NonCanonical:
    """Translate a linear address for `access`, setting accessed and dirty bits as the processor does.

    Outside of long mode addresses wrap at 4 GiB.
    """
    if in_long_mode(state.efer):
        if not is_canonical(address):
            return NonCanonical(address)
    else:
        address &= 0xFFFFFFFF
    if not state.cr0 & CR0_PG:
        return Walk(address, "no paging", _through_a20(state, address), 1 << 12, True, True)

    mode = _paging_mode(state)
    reserved_everywhere = 0 if state.efer & EFER_NXE or mode.entry_size == 4 else NO_EXECUTE
    steps: list[Step] = []

    def fault(cause: ErrorCode, reason: str) -> PageFault:
        return PageFault(address, mode.name, _error_code(state, access, cause), reason, steps)

    marked: list[tuple[int, int]] = []  # GPA and value of each entry that has an accessed bit
    rights = WRITABLE | USER
    no_execute = 0
    table = state.cr3 & mode.cr3_mask
    for level in mode.levels:
        index = address >> level.shift & (1 << level.bits) - 1
        gpa = _through_a20(state, table + index * mode.entry_size)
        entry = int.from_bytes(memory.read(gpa, mode.entry_size), "little")
        is_page = level is mode.levels[-1] or bool(level.maps_page and entry & PAGE_SIZE)
        steps.append(Step(level.name, gpa, entry, _meaning(entry, is_page)))
        if not entry & PRESENT:
            return fault(ErrorCode(0), f"{level.name} is not present")
        must_be_zero = level.reserved | reserved_everywhere | (level.page_reserved if is_page else 0)
        if entry & must_be_zero:
            return fault(ErrorCode.P | ErrorCode.RSVD, f"{level.name} has reserved bits set")
        if level.has_rights:
            rights &= entry
            no_execute |= entry & NO_EXECUTE
            marked.append((gpa, entry))
        if is_page:
            break
        table = entry & _bits(PHYSICAL_ADDRESS_BITS - 1, 12)

    allowed = _allowed(state, access, bool(rights & USER), bool(rights & WRITABLE), not no_execute)
    if not access & allowed:
        return fault(ErrorCode.P, "the access rights do not allow it")
    for i, (gpa, entry) in enumerate(marked):
        is_last = i == len(marked) - 1
        new = entry | ACCESSED | (DIRTY if is_last and access & Access.WRITE else 0)
        memory.write(gpa, new.to_bytes(mode.entry_size, "little"))
    dirty = bool(access & Access.WRITE or marked[-1][1] & DIRTY)
    size = 1 << level.shift
    return Walk(
        address,
        mode.name,
        _through_a20(state, _frame(entry, mode, level) | address & size - 1),
        size,
        bool(allowed & Access.WRITE) and dirty,
        bool(allowed & Access.FETCH),
        steps,
    )


def _paging_mode(state: CpuState) -> Mode:
    if in_long_mode(state.efer):
        return FOUR_LEVEL
    if state.cr4 & CR4_PAE:
        return PAE
    return THIRTY_TWO_BIT_PSE if state.cr4 & CR4_PSE else THIRTY_TWO_BIT


def _frame(entry: int, mode: Mode, level: Level) -> int:
    """The physical address of the page that `entry` maps."""
    if mode is THIRTY_TWO_BIT_PSE and level.maps_page:
        # Table 4-4: bits 20:13 are bits 39:32 of the address
        return entry & _bits(31, 22) | (entry >> 13 & 0xFF) << 32
    return entry & _bits(PHYSICAL_ADDRESS_BITS - 1, level.shift)


def _allowed(state: CpuState, access: Access, user_page: bool, writable: bool, executable: bool) -> Access:
    """What the accessing side may do with a page (4.6.1)."""
    allowed = Access(0)
    if access & Access.USER:
        if user_page:
            allowed |= Access.READ
            if writable:
                allowed |= Access.WRITE
            if executable:
                allowed |= Access.FETCH
        return allowed
    explicit_with_ac = state.rflags & FLAG_AC and not access & Access.IMPLICIT
    if not user_page or not state.cr4 & CR4_SMAP or explicit_with_ac:
        allowed |= Access.READ
        if writable or not state.cr0 & CR0_WP:
            allowed |= Access.WRITE
    if executable and not (user_page and state.cr4 & CR4_SMEP):
        allowed |= Access.FETCH
    return allowed


def _error_code(state: CpuState, access: Access, cause: ErrorCode) -> int:
    """The error code of 4.7. I is reported only where something can forbid a fetch."""
    code = cause
    if access & Access.WRITE:
        code |= ErrorCode.W
    if access & Access.USER:
        code |= ErrorCode.U
    can_forbid_fetch = (state.cr4 & CR4_PAE and state.efer & EFER_NXE) or state.cr4 & CR4_SMEP
    if access & Access.FETCH and can_forbid_fetch:
        code |= ErrorCode.I
    return int(code)


def _meaning(entry: int, is_page: bool) -> str:
    if not entry & PRESENT:
        return "not present"
    words = ["page" if is_page else "table"]
    words.append("writable" if entry & WRITABLE else "read-only")
    words.append("user" if entry & USER else "supervisor")
    if entry & NO_EXECUTE:
        words.append("no-execute")
    if entry & ACCESSED:
        words.append("accessed")
    if is_page and entry & DIRTY:
        words.append("dirty")
    return " ".join(words)


def _through_a20(state: CpuState, gpa: int) -> int:
    """The A20 gate forces bit 20 of every physical address to 0 while it is closed."""
    return gpa if state.a20 else gpa & ~(1 << 20)
