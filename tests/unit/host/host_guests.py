"""Small guests in real mode for the tests of the host, written to disk as flat binaries; on the isa board, whose
guests have no frame but what they touch."""

from functools import cache

import keystone

from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

ADDRESS = 0x8000

SPIN = "a: jmp a"
HALT = "cli; hlt"
IDLE = "sti; a: hlt; jmp a"
CRASH = "lidt [0x9000]; int3"  # zeros: an empty IDT
POWER_OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt"
FLOOD = "mov dx, 0x3f8; mov al, 0x78; a: out dx, al; jmp a"
COUNT = "mov byte ptr [0x7000], 0; a: inc dword ptr [0x7004]; jmp a"
TOUCH = "mov ax, 0x9000; xor di, di; t: mov es, ax; mov es:[di], ax; sub ax, 0x100; cmp ax, 0x1000; ja t"
BROKEN = "mov dx, 0x300; in al, dx; a: jmp a"
REWRITE = "a: mov bx, 0x8020;" + "add byte ptr [bx], 0;" * 300 + "jmp a"
ECHO = """
a:  mov dx, 0x3fd
    in al, dx
    test al, 1
    jz a
    mov dx, 0x3f8
    in al, dx
    out dx, al
    jmp a
"""


def say(text, then=SPIN):
    """Print `text` on COM1, then do something else."""
    return "mov dx, 0x3f8;" + "".join(f"mov al, {ord(c)}; out dx, al;" for c in text) + then


@cache
def asm(source):
    """Machine code for real mode at ADDRESS."""
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16).asm(source, ADDRESS)
    return bytes(code)


class Maker:
    """Writes the program and makes a guest of `host`."""

    def __init__(self, folder):
        self.folder = folder

    def config(self, name, source, memory=MIB, **fields):
        path = self.folder / f"{name}.bin"
        path.write_bytes(asm(source))
        return GuestConfig(name=name, board="isa", memory=memory, flat=FlatConfig(path, ADDRESS), **fields)

    def __call__(self, host, name, source, **fields):
        return host.create(self.config(name, source, **fields))
