"""A tiny Linux program that switches the machine off through the PM1a control register.

Debian's cloud kernel has no /dev/port, and without ACPI it does not know how to switch off. So this program
asks for the port with ioperm(2) and writes SLP_EN to it, as QEMU's and emuvisor's PCs expect it.
"""

import struct

__all__ = ["PM1A_CONTROL", "SLP_EN", "program"]

PM1A_CONTROL = 0x604
SLP_EN = 0x2000
SYS_EXIT = 60
SYS_IOPERM = 173

LOAD_ADDRESS = 0x400000
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
ET_EXEC, EM_X86_64, EV_CURRENT = 2, 62, 1
PT_LOAD, PF_R_X, PAGE = 1, 5, 0x1000

MOV_EAX, MOV_EDX, MOV_ESI, MOV_EDI = b"\xb8", b"\xba", b"\xbe", b"\xbf"
SYSCALL = b"\x0f\x05"
OUT_DX_AX = b"\x66\xef"


def program() -> bytes:
    """The static x86-64 executable. It exits with 1 if the machine is still on afterwards."""

    def load(register: bytes, value: int) -> bytes:
        return register + struct.pack("<I", value)

    code = b"".join(
        (
            load(MOV_EAX, SYS_IOPERM),
            load(MOV_EDI, PM1A_CONTROL),
            load(MOV_ESI, 2),
            load(MOV_EDX, 1),
            SYSCALL,
            load(MOV_EDX, PM1A_CONTROL),
            load(MOV_EAX, SLP_EN),
            OUT_DX_AX,
            load(MOV_EAX, SYS_EXIT),
            load(MOV_EDI, 1),
            SYSCALL,
        )
    )
    headers = EHDR.size + PHDR.size
    entry = LOAD_ADDRESS + headers
    size = headers + len(code)
    elf = EHDR.pack(
        IDENT, ET_EXEC, EM_X86_64, EV_CURRENT, entry, EHDR.size, 0, 0, EHDR.size, PHDR.size, 1, 0, 0, 0
    )
    return elf + PHDR.pack(PT_LOAD, PF_R_X, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, PAGE) + code
