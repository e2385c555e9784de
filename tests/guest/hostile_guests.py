"""Guests that mean harm, each made from a seed, run beside a neighbour that must not notice.

    python hostile_guests.py KIND FIRST COUNT

runs seeds FIRST to FIRST + COUNT - 1 of KIND in this process, and prints each seed before it runs: when the process
dies, the last line says who did it. It is a program of its own so that the test survives what it looks for.
"""

import contextlib
import faulthandler
import hashlib
import random
import struct
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import capstone

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.cpu.state import CpuState, DescriptorTable
from emuvisor.errors import ConfigError, ImageError
from emuvisor.machine.config import FlatConfig, GuestConfig, KernelConfig
from emuvisor.machine.loaders import entry
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.units import MIB, PAGE_SIZE

POOL = 64 * MIB
MEMORY = 2 * MIB
SLICE = 20_000
SLICES = 15
HANG_S = 20
"""One seed never takes this long: whoever does hangs, and the process dies with its traceback."""
PATIENCE_S = 0.1
"""A slice that takes longer is stopped, as the host does: code that rewrites itself all the time is slow."""

BOOT_SECTOR = 0x7C00
SOUP = 0x40000
"""Where soups begin, well above the tables of the entry states."""
CHUNK = 64
"""Bytes between the places where a soup goes on after a crash."""
CHUNKS = 96
IDT = 0x30000
HANDLERS = 0x31000
SCRATCH = 0x80000

# ---- the neighbour ----

NEIGHBOUR_CODE = bytes.fromhex(
    "31c0 8ed8 8ec0"  # xor ax, ax; mov ds, ax; mov es, ax
    "bb0090"  # mov bx, 9000h
    "b90001"  # again: mov cx, 100h
    "8b07 0fafc1 05bd1f 8907 d9e8 dec0"  # step: mov ax, [bx]; imul ax, cx; add ax, 1fbdh; mov [bx], ax; fld1; faddp
    "fe0690a0"  # inc byte [0a090h]: another page
    "e2ed"  # loop step
    "83c302 80e79f ebe2"  # add bx, 2; and bh, 9fh; jmp again
)


def neighbour(pool, folder):
    path = folder / "neighbour.bin"
    path.write_bytes(NEIGHBOUR_CODE)
    machine = Machine(GuestConfig(name="neighbour", memory=MIB, flat=FlatConfig(path, 0x8000)), pool)
    machine.boot()
    return machine


def digest(machine):
    """Of a guest's registers and memory."""
    memory = hashlib.sha256()
    for gfn in machine.memory.written_pages():
        page = machine.memory.read(gfn * PAGE_SIZE, PAGE_SIZE)
        memory.update(struct.pack("<Q", gfn) + page)
    return machine.vcpu.digest(), memory.hexdigest()


# ---- what a guest is made of ----


def flat_machine(pool, folder, data, address, mode):
    path = folder / "guest.bin"
    path.write_bytes(data)
    machine = Machine(GuestConfig(name="hostile", memory=MEMORY, flat=FlatConfig(path, address, mode)), pool)
    machine.boot()
    return machine


def mutated_header(rng):
    """Random bytes, often behind the header of an image format with a few fields made up."""
    data = bytearray(rng.randbytes(rng.choice([0, 1, 511, 0x300, 5000, 40000])))
    kind = rng.randrange(5)
    if kind == 1 and len(data) > 0x290:  # bzImage
        struct.pack_into("<4s", data, 0x202, b"HdrS")
        struct.pack_into("<H", data, 0x206, rng.choice([0x20F, 0x204, 0x20C]))
        struct.pack_into("<H", data, 0x1FE, 0xAA55)
        data[0x1F1] = rng.choice([0, 1, 4, 64])
        data[0x211] |= 1
        struct.pack_into("<IH", data, 0x248, rng.choice([0, 0x100, rng.getrandbits(32)]), rng.getrandbits(16))
    if kind == 2 and len(data) > 0x40:  # ELF
        form = "<4sBBBBQHHIQQQIHHHHHH"
        header = [
            b"\x7fELF",
            rng.choice([1, 2, 2]),
            1,
            1,
            0,
            0,
            2,
            rng.choice([3, 62]),
            1,
            0x100000,
            64,
            0,
            0,
        ]
        struct.pack_into(form, data, 0, *header, 64, 56, rng.choice([1, 2, 0xFFFF]), 0, 0, 0)
        if len(data) > 0x200:
            sizes = [rng.choice([0x100, 0x200, 1 << 40]) for _ in range(2)]
            struct.pack_into("<IIQQQQQQ", data, 64, 1, 5, 0x100, 0x100000, 0x100000, *sizes, 0x1000)
    if kind in (3, 4) and len(data) > 0x30:  # multiboot
        flags = rng.choice([0, 0x10000, 0x10003, rng.getrandbits(17)])
        words = [0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, 0x100000, 0x100000]
        words += [rng.choice([0, 0x101000, rng.getrandbits(32)]) for _ in range(2)] + [0x100030]
        struct.pack_into("<8I", data, rng.choice([0, 4]), *words)
    return bytes(data)


def kernel(rng, pool, folder):
    path = folder / "kernel.bin"
    path.write_bytes(mutated_header(rng))
    machine = Machine(GuestConfig(name="hostile", memory=MEMORY, kernel=KernelConfig(path)), pool)
    try:
        machine.boot()
    except (ImageError, ConfigError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"the message does not name the file: {error}") from error
        machine.close()
        return None
    return machine


def boot_sector(rng, pool, folder):
    return flat_machine(pool, folder, rng.randbytes(510) + b"\x55\xaa", BOOT_SECTOR, "real16")


def bios(rng, pool, folder):
    path = folder / "bios.bin"
    path.write_bytes(rng.randbytes(rng.choice([1, 16, 32]) * PAGE_SIZE))
    machine = Machine(GuestConfig(name="hostile", memory=MEMORY, firmware=path), pool)
    machine.boot()
    return machine


def noise(mode):
    """Random code with random descriptor tables, and in long mode random page tables in part."""

    def make(rng, pool, folder):
        machine = flat_machine(pool, folder, rng.randbytes(0x8000), SOUP, mode)
        state = machine.vcpu.state
        machine.memory.write(IDT, rng.randbytes(PAGE_SIZE))
        state.idtr = DescriptorTable(IDT, 0xFFF)
        if rng.randrange(2):
            machine.memory.write(entry.GDT_ADDRESS + 0x20, rng.randbytes(0x400))
            state.gdtr = DescriptorTable(entry.GDT_ADDRESS, 0x3FF)
        if rng.randrange(2):
            tables = rng.randbytes(PAGE_SIZE // 2)
            machine.memory.write(
                entry.PAGE_TABLES_ADDRESS + PAGE_SIZE * rng.choice([2, 5]) + PAGE_SIZE // 2, tables
            )
        state.rsp = SCRATCH
        for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"):
            setattr(state, name, rng.choice([SCRATCH + rng.randrange(PAGE_SIZE), rng.getrandbits(64)]))
        state.cr4 |= rng.getrandbits(23) & 0x3006F0
        machine.vcpu.state = state
        return machine

    return make


# ---- instruction soups ----

CAPSTONE_MODE = {
    "real16": capstone.CS_MODE_16,
    "protected32": capstone.CS_MODE_32,
    "long64": capstone.CS_MODE_64,
}
PREFIXES = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65]
OPCODES = [
    *(bytes([op]) for op in range(0x100)),
    # segment loads, far transfers, string I/O, stack frames, flags, interrupts: more often than their share
    *(
        bytes([op])
        for op in (0x8E, 0x8C, 0x07, 0x17, 0x1F, 0xC4, 0xC5, 0x9A, 0xEA, 0xCA, 0xCB, 0xCF, 0xFF, 0xC8)
    ),
    *(
        bytes([op])
        for op in (0x6C, 0x6D, 0x6E, 0x6F, 0xA4, 0xA5, 0xAA, 0xAB, 0xE4, 0xE6, 0xEC, 0xEE, 0x9D, 0xFB)
    ),
    *(
        bytes([op])
        for op in (0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xCC, 0xCD, 0xF1, 0xF4, 0x9C, 0xCE)
    ),
    *(bytes([0x0F, op]) for op in range(0x100)),
    # system: descriptor tables, control and debug registers, MSRs, SYSCALL, RDTSC, CPUID, FXSAVE
    *(
        bytes([0x0F, op])
        for op in (0x00, 0x01, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x09, 0x20, 0x21, 0x22)
    ),
    *(
        bytes([0x0F, op])
        for op in (0x22, 0x23, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0xA2, 0xAA, 0xAE, 0xB2, 0xC7)
    ),
    *(bytes([0x0F, 0x38, op]) for op in range(0, 0x100, 3)),
    *(bytes([0x0F, 0x3A, op]) for op in range(0, 0x68, 3)),
]
MSRS = [
    0x10,
    0x1B,
    0x174,
    0x175,
    0x176,
    0x1A0,
    0x200,
    0x277,
    0x2FF,
    0xC0000080,
    0xC0000081,
    0xC0000082,
    0xC0000084,
]
MSRS += [
    0xC0000100,
    0xC0000101,
    0xC0000102,
    0xC0000103,
    0x8B,
    0x79,
    0x400,
    0x17A,
    0xC0010117,
    0xD90,
    0x48,
    0x6E0,
]


def instruction(rng, decoder):
    """The bytes of one instruction that capstone can decode."""
    while True:
        prefixes = bytes(rng.choices(PREFIXES, k=rng.choice([0, 0, 0, 1, 1, 2, 12])))
        if decoder.mode == capstone.CS_MODE_64 and rng.randrange(2):
            prefixes += bytes([0x40 | rng.getrandbits(4)])
        code = prefixes + rng.choice(OPCODES) + rng.randbytes(2)
        code += rng.choice([bytes(8), rng.randbytes(8), struct.pack("<II", SCRATCH, 0)])
        for _, size, _, _ in decoder.disasm_lite(code, 0, 1):
            return code[:size]


def setup(rng, mode):
    """Instructions that make what follows more interesting: an MSR, a control register, a pointer."""
    wide = b"\x48" if mode == "long64" else b"" if mode == "protected32" else b"\x66"
    choice = rng.randrange(6)
    if choice == 0:
        prefix = b"\x66" if mode == "real16" else b""
        return prefix + b"\xb9" + struct.pack("<I", rng.choice(MSRS)) + rng.choice([b"\x0f\x30", b"\x0f\x32"])
    if choice == 1:  # mov eax, cr; xor or btc one bit; mov cr, eax
        number = rng.choice([0, 0, 3, 4, 4]) << 3
        flip = b"\x0f\xba\xf8" + bytes([rng.choice([0, 1, 2, 3, 4, 5, 7, 9, 10, 16, 18, 20, 21, 29, 30, 31])])
        return b"\x0f\x20" + bytes([0xC0 | number]) + wide + flip + b"\x0f\x22" + bytes([0xC0 | number])
    if choice == 2:  # debug registers
        return b"\x0f\x23" + bytes([0xC0 | rng.randrange(64)])
    if choice == 3:  # flip EFLAGS bits: TF, IF, IOPL, NT, AC, RF
        bits = rng.choice([0x100, 0x200, 0x3000, 0x4000, 0x40000, 0x400])
        push = b"\x66\x9c\x66\x58\x66\x35" if mode == "real16" else b"\x9c\x58\x35"
        pop = b"\x66\x50\x66\x9d" if mode == "real16" else b"\x50\x9d"
        return push + struct.pack("<I", bits) + pop
    if choice == 4:  # a selector
        return (
            b"\x66\xb8"[mode == "real16" :]
            + struct.pack("<H", rng.randrange(0x40))
            + b"\x8e"
            + bytes([0xC0 | rng.randrange(48)])
        )
    pointer = struct.pack(
        "<I", rng.choice([SCRATCH, SOUP, IDT, HANDLERS, 0xB8000, 0xFFFFF, MEMORY - 3, 0xFEE00000])
    )
    register = bytes([0xB8 + rng.choice([0, 1, 2, 3, 5, 6, 7])])
    return (b"\x66" if mode == "real16" else b"") + register + pointer


def soup(mode):
    """Valid instructions in random order; after each crash it goes on with the next chunk."""

    def make(rng, pool, folder):
        decoder = capstone.Cs(capstone.CS_ARCH_X86, CAPSTONE_MODE[mode])
        code = bytearray()
        address = 0xA000 if mode == "real16" else SOUP
        for n in range(CHUNKS):
            while len(code) < CHUNK * (n + 1) - 12:
                code += setup(rng, mode) if rng.randrange(4) == 0 else instruction(rng, decoder)
            code = code[: CHUNK * (n + 1) - 2].ljust(CHUNK * (n + 1) - 2, b"\x90") + b"\xeb\x00"
        machine = flat_machine(pool, folder, bytes(code), address, mode)
        state = machine.vcpu.state
        state.rsp = SCRATCH & 0xFFFF | 0x6000 if mode == "real16" else SCRATCH
        if mode != "real16" and rng.randrange(4):
            _handlers(rng, machine, state, mode)
        if rng.randrange(3) == 0:
            state.cr0 |= 1 << 16 | 1 << 5
        if rng.randrange(2):
            state.cr4 |= 3 << 9
        machine.vcpu.state = state
        return machine

    return make


def _handlers(rng, machine, state, mode):
    """An IDT whose handlers go on in some chunk of the soup."""
    size, kind = (16, 14) if mode == "long64" else (8, 14)
    for vector in range(64):
        offset = SOUP + CHUNK * rng.randrange(CHUNKS)
        level = rng.choice([0, 3])
        low = offset & 0xFFFF | entry.CODE_SELECTOR << 16 | (kind << 8 | level << 13 | 0x8000) << 32
        low |= (offset >> 16 & 0xFFFF) << 48
        machine.memory.write(IDT + size * vector, low.to_bytes(size, "little"))
    state.idtr = DescriptorTable(IDT, 64 * size - 1)


KINDS = {
    "kernel": kernel,
    "boot_sector": boot_sector,
    "bios": bios,
    "noise32": noise("protected32"),
    "noise64": noise("long64"),
    "soup16": soup("real16"),
    "soup32": soup("protected32"),
    "soup64": soup("long64"),
}

# ---- running ----


def revive(machine, start: CpuState, turn):
    """After the end of a guest: let it go on with the next chunk of its code."""
    machine.outcome = None
    machine.vcpu.state = replace(start, rip=start.rip + CHUNK * turn)


class Watchdog(threading.Thread):
    """Stops what runs, now and then: a guest's slice must end then."""

    def __init__(self):
        super().__init__(daemon=True)
        self.machine = None
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(PATIENCE_S):
            if self.machine is not None:
                self.machine.vcpu.stop()


def run(kind, seed, *, pool, pcpu, folder, alone, watchdog):
    rng = random.Random(f"{kind} {seed}")
    machine = KINDS[kind](rng, pool, folder)
    if machine is None:
        return "refused"
    other = neighbour(pool, folder)
    watchdog.machine = machine
    start = machine.vcpu.state
    endings = set()
    for turn in range(SLICES):
        if machine.run_slice(pcpu, SLICE * 5).readiness is Readiness.ENDED:
            endings.add(str(machine.outcome.ending))
            assert machine.outcome.ending != "engine-error", f"{machine.outcome}\n{machine.vcpu.state}"
            revive(machine, start, turn)
        other.run_slice(pcpu, SLICE)
    watchdog.machine = None
    assert digest(other) == alone, "the neighbour noticed"
    machine.close()
    other.close()
    assert pool.used == 0, f"{pool.used} frames were not given back"
    return " ".join(sorted(endings))


def main(kind, first, count):
    faulthandler.enable()
    pool = FramePool(POOL)
    pcpu = Pcpu(pool)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(sys.stdout):
        folder = Path(name)
        quiet = neighbour(pool, folder)
        for _ in range(SLICES):
            quiet.run_slice(pcpu, SLICE)
        alone = digest(quiet)
        quiet.close()
        watchdog = Watchdog()
        watchdog.start()
        for seed in range(first, first + count):
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            print(f"{kind} {seed}", end=" ", flush=True)
            outcome = run(kind, seed, pool=pool, pcpu=pcpu, folder=folder, alone=alone, watchdog=watchdog)
            print(outcome, flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
