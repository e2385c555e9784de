"""A compute loop as machine code, for long mode: xorshift64 on registers, and a table in memory.

    movabs rax, 0x2545F4914F6CDD1D
    mov    edi, TABLE
    mov    ecx, TURNS
    1: mov rdx, rax;  shl rdx, 13;  xor rax, rdx
       mov rdx, rax;  shr rdx, 7;   xor rax, rdx
       mov rdx, rax;  shl rdx, 17;  xor rax, rdx
       mov edx, eax;  and edx, 0xFFF8          # an 8-byte word of a 64 KiB table
       add rax, [rdi + rdx]
       mov [rdi + rdx], rax
       dec ecx;  jnz 1b
    hlt

The bytes are what GNU as makes of it.
"""

from emuvisor.units import KIB

__all__ = ["CODE_ADDRESS", "TABLE_ADDRESS", "TABLE_SIZE", "checksum", "code"]

CODE_ADDRESS = 0x100000
TABLE_ADDRESS = 0x200000
TABLE_SIZE = 64 * KIB
SEED = 0x2545F4914F6CDD1D
WORD = (1 << 64) - 1

_LOOP = bytes.fromhex(
    "4889c2 48c1e20d 4831d0"
    "4889c2 48c1ea07 4831d0"
    "4889c2 48c1e211 4831d0"
    "89c2 81e2f8ff0000"
    "48030417"
    "48890417"
    "ffc9 75ce"
)
_HLT = b"\xf4"


def code(turns: int) -> bytes:
    """The program; RAX holds the checksum when it halts."""
    load_seed = b"\x48\xb8" + SEED.to_bytes(8, "little")
    load_table = b"\xbf" + TABLE_ADDRESS.to_bytes(4, "little")
    load_turns = b"\xb9" + turns.to_bytes(4, "little")
    return load_seed + load_table + load_turns + _LOOP + _HLT


def checksum(turns: int) -> int:
    """RAX at the end, computed in Python (about a microsecond a turn)."""
    table: dict[int, int] = {}
    value = SEED
    for _ in range(turns):
        value ^= value << 13 & WORD
        value ^= value >> 7
        value ^= value << 17 & WORD
        place = value & (TABLE_SIZE - 8)
        value = (value + table.get(place, 0)) & WORD
        table[place] = value
    return value
