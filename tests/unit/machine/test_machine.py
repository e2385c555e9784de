"""A machine on its own: what its processor asks of the local APIC, INIT and NMI, resets, and how runs end."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import keystone
import pytest

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.loaders.flat import FlatMode
from emuvisor.machine.machine import Machine
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FramePool
from emuvisor.units import MIB

ADDRESS = 0x8000
DATA = 0x7000
PATIENCE_S = 30
BITS: dict[FlatMode, int] = {
    "real16": keystone.KS_MODE_16,
    "protected32": keystone.KS_MODE_32,
    "long64": keystone.KS_MODE_64,
}
IA32_APIC_BASE = 0x1B
BASE_AFTER_RESET = 0xFEE00900
ICR_LOW, ICR_INIT, ICR_NMI = 0xFEE00300, 0x4500, 0x4400

POWER_OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt;"
IDLE = "sti; i: hlt; jmp i;"
ONE_SHOT = "mov al, 0x30; out 0x43, al; mov al, 0; out 0x40, al; mov al, 1; out 0x40, al;"
RESET = "mov al, 0xfe; out 0x64, al; r: jmp r;"

Build = Callable[..., Machine]


@cache
def asm(source: str, mode: FlatMode, at: int = ADDRESS) -> bytes:
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, BITS[mode]).asm(source, at)
    return bytes(code)


@pytest.fixture
def pool() -> Iterator[FramePool]:
    pool = FramePool(4 * MIB)
    yield pool
    assert pool.used == 0, "close gives everything back"


@pytest.fixture
def build(pool: FramePool, tmp_path: Path) -> Iterator[Build]:
    machines = []

    def build(source: str, mode: FlatMode = "real16", **fields: object) -> Machine:
        path = tmp_path / "guest.bin"
        path.write_bytes(asm(source, mode))
        flat = FlatConfig(path, ADDRESS, mode)
        config = GuestConfig(**{"memory": MIB, "flat": flat, **fields})  # type: ignore[arg-type]
        machines.append(Machine(config, pool))
        machines[-1].boot()
        return machines[-1]

    yield build
    for machine in machines:
        machine.close()


def run(machine: Machine, seconds: float = PATIENCE_S) -> Ending | None:
    outcome = machine.run(Pcpu(machine.memory.pool, machine.model), seconds=seconds)
    return None if outcome is None else outcome.ending


def number(machine: Machine, address: int, size: int = 8) -> int:
    return int.from_bytes(machine.memory.read(address, size), "little")


# ---- the local APIC ----


def test_the_apic_base(build: Build) -> None:
    machine = build(
        f"mov ecx, {IA32_APIC_BASE}; rdmsr; mov [{DATA}], eax; and ah, 0xf7; wrmsr; rdmsr; mov [{DATA + 4}], eax;"
        + POWER_OFF,
        "long64",
    )
    assert run(machine) is Ending.POWER_OFF
    assert number(machine, DATA, 4) == BASE_AFTER_RESET
    assert number(machine, DATA + 4, 4) == 0xFEE00100
    assert machine.board.local_apic is not None
    assert not machine.board.local_apic.enabled


def test_an_apic_base_elsewhere_is_a_fault(build: Build) -> None:
    source = f"mov ecx, {IA32_APIC_BASE}; xor edx, edx; mov eax, 0xd0000900; wrmsr;"
    assert run(build(source + POWER_OFF, "long64")) is Ending.SHUTDOWN


def test_the_isa_board_has_no_apic_base(build: Build) -> None:
    source = f"mov ecx, {IA32_APIC_BASE}; rdmsr;"
    assert run(build(source + POWER_OFF, "long64", board="isa")) is Ending.SHUTDOWN


@pytest.mark.parametrize(("board", "read"), [("pc", 5), ("isa", 0)])
def test_task_priority(board: str, read: int, build: Build) -> None:
    machine = build(
        f"mov eax, 5; mov cr8, rax; mov rbx, cr8; mov [{DATA}], rbx;" + POWER_OFF, "long64", board=board
    )
    assert run(machine) is Ending.POWER_OFF
    assert number(machine, DATA) == read
    assert machine.board.local_apic is None or machine.board.local_apic.tpr == read << 4


def test_an_nmi_from_the_apic(build: Build) -> None:
    # There is no interrupt descriptor table.
    machine = build(f"mov dword ptr [{ICR_LOW}], {ICR_NMI}; a: jmp a", "protected32")
    assert run(machine) is Ending.SHUTDOWN


def test_init_starts_the_processor_at_its_reset_vector(tmp_path: Path, pool: FramePool) -> None:
    """A ROM that sends INIT to itself on its first way through, and then finds what it left in memory."""
    gdt = 0xF800
    code = asm(
        f"""
        mov al, byte ptr [{DATA}]
        test al, al
        jnz again
        mov byte ptr [{DATA}], 0x42
        mov eax, 0
        .byte 0x2e, 0x0f, 0x01, 0x16
        .word {gdt}
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov ax, 8
        mov ds, ax
        .byte 0x67
        mov dword ptr [0xfee00300], {ICR_INIT}
        stop: jmp stop
        again:
        """,
        "real16",
        0xF000,
    )
    raise NotImplementedError(code)


# ---- resets ----


def test_a_guest_that_resets_itself(build: Build) -> None:
    machine = build("mov al, 0x41; mov dx, 0x3f8; out dx, al;" + RESET)
    resets = []

    def third() -> None:
        resets.append(machine.resets)
        if machine.resets == 2:
            machine._end(machine_outcome)

    raise NotImplementedError(third)
