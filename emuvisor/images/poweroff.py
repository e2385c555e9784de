"""A tiny Linux program that switches the machine off through the PM1a control register.

Debian's cloud kernel has no /dev/port, and without ACPI it does not know how to switch off. So this program
asks for the port with ioperm(2) and writes SLP_EN to it, as QEMU's and emuvisor's PCs expect it.
"""

import struct
from dataclasses import dataclass

__all__ = ["PM1A_CONTROL", "SLP_EN", "program"]

PM1A_CONTROL = 0x604
SLP_EN = 0x2000
PORTS = 2

IDENT_PADDING = 16
ET_EXEC, EV_CURRENT = 2, 1
PT_LOAD, PF_R_X, PAGE = 1, 5, 0x1000

MOV_EAX, MOV_ECX, MOV_EDX, MOV_EBX, MOV_ESI, MOV_EDI = (bytes((0xB8 + n,)) for n in (0, 1, 2, 3, 6, 7))
OUT_DX_AX = b"\x66\xef"


@dataclass(frozen=True, slots=True)
class _Target:
    """An ELF class and a Linux system call convention."""

    ident: bytes
    machine: int
    header: struct.Struct
    program_header: struct.Struct
    load_address: int
    system_call: bytes
    arguments: tuple[bytes, bytes, bytes]
    ioperm: int
    exit: int


TARGETS = {
    "amd64": _Target(
        ident=b"\x7fELF\x02\x01\x01",
        machine=62,
        header=struct.Struct("<16sHHIQQQIHHHHHH"),
        program_header=struct.Struct("<IIQQQQQQ"),
        load_address=0x400000,
        system_call=b"\x0f\x05",  # syscall
        arguments=(MOV_EDI, MOV_ESI, MOV_EDX),
        ioperm=173,
        exit=60,
    ),
    "i386": _Target(
        ident=b"\x7fELF\x01\x01\x01",
        machine=3,
        header=struct.Struct("<16sHHIIIIIHHHHHH"),
        program_header=struct.Struct("<8I"),
        load_address=0x8048000,
        system_call=b"\xcd\x80",  # int 80h
        arguments=(MOV_EBX, MOV_ECX, MOV_EDX),
        ioperm=101,
        exit=1,
    ),
}


def program(architecture: str = "amd64") -> bytes:
    """The static executable for "amd64" or "i386". It exits with 1 if the machine is still on afterwards."""
    target = TARGETS[architecture]
    first, second, third = target.arguments
    code = b"".join(
        (
            _load(MOV_EAX, target.ioperm),
            _load(first, PM1A_CONTROL),
            _load(second, PORTS),
            _load(third, 1),
            target.system_call,
            _load(MOV_EDX, PM1A_CONTROL),
            _load(MOV_EAX, SLP_EN),
            OUT_DX_AX,
            _load(MOV_EAX, target.exit),
            _load(first, 1),
            target.system_call,
        )
    )
    return _executable(target, code)


def _load(register: bytes, value: int) -> bytes:
    return register + struct.pack("<I", value)


def _executable(target: _Target, code: bytes) -> bytes:
    headers = target.header.size + target.program_header.size
    base, size = target.load_address, headers + len(code)
    ident = target.ident.ljust(IDENT_PADDING, b"\0")
    # Offset of the program headers, none of sections, flags; then sizes and counts.
    rest = (target.header.size, 0, 0, target.header.size, target.program_header.size, 1, 0, 0, 0)
    elf = target.header.pack(ident, ET_EXEC, target.machine, EV_CURRENT, base + headers, *rest)
    if target is TARGETS["amd64"]:
        segment = target.program_header.pack(PT_LOAD, PF_R_X, 0, base, base, size, size, PAGE)
    else:
        segment = target.program_header.pack(PT_LOAD, 0, base, base, size, size, PF_R_X, PAGE)
    return elf + segment + code
