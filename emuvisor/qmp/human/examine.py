"""`x` and `xp`: memory as people read it, by virtual and by physical address.

`x/4xw 0x7c00`: how many, in which form (x, d, u, o, c, or i for instructions), of which size (b, h, w, g).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import capstone  # type: ignore[import-untyped] # it has no types

from emuvisor.cpu.reference.paging import Access, Walk, walk
from emuvisor.cpu.registers import CR4_SMAP, in_long_mode
from emuvisor.cpu.state import CpuState
from emuvisor.errors import GuestAddressError
from emuvisor.host import Guest
from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.human.line import Line
from emuvisor.qmp.monitor import Monitor
from emuvisor.units import PAGE_SIZE

__all__ = ["EXAMINE"]

_FORMAT = re.compile(r"(?P<count>[0-9]{0,6})(?P<form>[xduoci]?)(?P<size>[bhwg]?)|"
                     r"(?P<count2>[0-9]{0,6})(?P<size2>[bhwg])(?P<form2>[xduoci])")  # fmt: skip
SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
MAX_COUNT = 4096
LINE = 16
"""Bytes in a line."""
LONGEST_INSTRUCTION = 15
ADDRESS_BITS = 64
CODE_LONG, CODE_32 = 1 << 21, 1 << 22
"""CS.L and CS.D in a segment's flags."""


@dataclass(frozen=True, slots=True)
class Format:
    """`count` items of `size` bytes in form `form`."""

    count: int
    form: str
    size: int

    @classmethod
    def parse(cls, text: str) -> "Format":
        """Raises QmpError."""
        match = _FORMAT.fullmatch(text)
        if match is None:
            raise QmpError(f"invalid format: '{text}'; write it as in x/4xw")
        count = int(match["count"] or match["count2"] or 1)
        form = match["form"] or match["form2"] or "x"
        size = SIZES[match["size"] or match["size2"] or ("b" if form == "c" else "w")]
        if not 1 <= count <= MAX_COUNT:
            raise QmpError(f"1 to {MAX_COUNT} items can be shown, not {count}")
        return cls(count, form, size)

    def item(self, data: bytes) -> str:
        """One of them."""
        value = int.from_bytes(data, "little", signed=self.form == "d")
        match self.form:
            case "x":
                return f"0x{value:0{2 * self.size}x}"
            case "o":
                return f"{value:#o}"
            case "c":
                return repr(chr(value)) if 0x20 <= value < 0x7F else f"'\\x{value:02x}'"
        return str(value)


class _TableMemory:
    """Memory for a page walk that must not leave a trace in it."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def read(self, gpa: int, size: int) -> bytes:
        try:
            return self._guest.memory.read(gpa, size)
        except GuestAddressError:
            return b"\xff" * size

    def write(self, gpa: int, data: bytes) -> None:
        """Accessed and dirty bits stay as they are."""


def _physical(_guest: Guest, _state: CpuState, address: int) -> int:
    return address


def _virtual(guest: Guest, state: CpuState, address: int) -> int:
    """Where the processor finds it. Raises QmpError where that is nowhere."""
    state = replace(state, cr4=state.cr4 & ~CR4_SMAP)  # who looks may look at a program's pages, too
    found = walk(state, _TableMemory(guest), address, Access.READ)
    if not isinstance(found, Walk):
        raise QmpError(f"Cannot access memory: {address:#x} is not mapped")
    return found.gpa


def _read(
    guest: Guest, state: CpuState, address: int, length: int, place: Callable[[Guest, CpuState, int], int]
) -> bytes:
    parts = []
    while length:
        size = min(length, PAGE_SIZE - address % PAGE_SIZE)
        try:
            parts.append(guest.memory.read(place(guest, state, address), size))
        except GuestAddressError:
            raise QmpError(f"Cannot access memory: nothing is at {address:#x}") from None
        address, length = address + size, length - size
    return b"".join(parts)


def _examiner(place: Callable[[Guest, CpuState, int], int], digits: int) -> Callable[[Monitor, Line], str]:
    def examine(monitor: Monitor, line: Line) -> str:
        format = Format.parse(line.format)
        address = line.number("an address")
        line.end()
        if not 0 <= address < 1 << ADDRESS_BITS:
            raise QmpError(f"{address:#x} is no address")

        def look(guest: Guest) -> tuple[CpuState, bytes]:
            state = guest.machine.vcpus[processor(guest, line)].state
            size = LONGEST_INSTRUCTION if format.form == "i" else format.size
            length = format.count * size
            if format.form != "i":
                return state, _read(guest, state, address, length, place)
            length = min(length, PAGE_SIZE - address % PAGE_SIZE)  # what follows may not be there
            return state, _read(guest, state, address, length, place)

        state, data = monitor.look(look)
        if format.form == "i":
            return "\n".join(_instructions(state, data, address, format.count))
        return "\n".join(_lines(format, data, address, digits))

    return examine


def processor(guest: Guest, line: Line) -> int:
    """The number of the processor that is meant. Raises QmpError when there is none such."""
    if not 0 <= line.processor < guest.config.vcpus:
        raise QmpError(f"there is no processor {line.processor}; there are {guest.config.vcpus}")
    return line.processor


def _lines(format: Format, data: bytes, address: int, digits: int) -> Iterator[str]:
    for start in range(0, len(data), LINE):
        end = min(start + LINE, len(data))
        items = [format.item(data[at : at + format.size]) for at in range(start, end, format.size)]
        yield f"{address + start:0{digits}x}: {' '.join(items)}"


def _instructions(state: CpuState, data: bytes, address: int, count: int) -> Iterator[str]:
    if in_long_mode(state.efer) and state.cs.flags & CODE_LONG:
        mode = capstone.CS_MODE_64
    else:
        mode = capstone.CS_MODE_32 if state.cs.flags & CODE_32 else capstone.CS_MODE_16
    for found in capstone.Cs(capstone.CS_ARCH_X86, mode).disasm(data, address, count):
        yield f"0x{found.address:08x}:  {found.bytes.hex(' '):30}  {found.mnemonic} {found.op_str}".rstrip()


EXAMINE = {"x": _examiner(_virtual, 16), "xp": _examiner(_physical, 16)}
EXAMINE["x"].__doc__ = "show memory by virtual address: x/4xw ADDRESS"
EXAMINE["xp"].__doc__ = "show memory by physical address: xp/4xw ADDRESS"
