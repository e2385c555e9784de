"""A machine on its own: what its processor asks of the local APIC, INIT and NMI, resets, and how runs end."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keystone
import pytest

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import ImageError, OutOfFrames
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.machine.loaders.flat import FlatMode
from emuvisor.machine.machine import Activity, Machine, Readiness
from emuvisor.machine.outcome import Ending, Outcome
from emuvisor.memory import FramePool
from emuvisor.units import KIB, MIB, PAGE_SIZE

ADDRESS = 0x8000
DATA = 0x7000
PATIENCE_S = 120
SLICE = 1_000_000
BITS: dict[FlatMode, int] = {
    "real16": keystone.KS_MODE_16,
    "protected32": keystone.KS_MODE_32,
    "long64": keystone.KS_MODE_64,
}
IA32_APIC_BASE = 0x1B
BASE_AFTER_RESET = 0xFEE00900
ICR_LOW, ICR_INIT, ICR_NMI = 0xFEE00300, 0x4500, 0x4400

ROM_START, GDT, RESET_VECTOR = 0xF000, 0xF800, 0xFFF0
"""Offsets in the segment that the processor starts in, which ends at 4 GiB."""
GDT_ADDRESS = 0xFFFF_F810
GDT_AND_POINTER = (
    (15).to_bytes(2, "little")
    + GDT_ADDRESS.to_bytes(4, "little")
    + bytes(10 + 8)
    + bytes.fromhex("ffff000000 92cf00")  # data: base 0, limit 4 GiB
)

POWER_OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt;"
DEBUG_EXIT = "mov al, 1; out 0xf4, al; e: jmp e;"
IDLE = "sti; i: hlt; jmp i;"
MASK_ALL = "mov al, 0xff; out 0x21, al; out 0xa1, al;"
PIC = (
    "mov al, 0x11; out 0x20, al; mov al, 8; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al;"
    "mov al, {mask}; out 0x21, al;"
)
"""The first 8259: vectors from 8 on, and a mask."""
ONE_SHOT = "mov al, 0x30; out 0x43, al; mov al, 0; out 0x40, al; mov al, 1; out 0x40, al;"
"""Timer 0 in 256 ticks."""
LISTEN = "mov dx, 0x3fc; mov al, 0x0b; out dx, al; mov dx, 0x3f9; mov al, 1; out dx, al;"
"""COM1 interrupts (IRQ 4) when it has received something."""
RESET = "mov al, 0xfe; out 0x64, al; r: jmp r;"
TOUCH = "mov ax, 0x1000; t: mov es, ax; mov es:[di], ax; add ax, 0x100; cmp ax, 0x9000; jb t; a: jmp a"
INIT_ITSELF = f"""
    mov al, byte ptr [{DATA}]
    test al, al
    jnz again
    mov byte ptr [{DATA}], 0x42
    .byte 0x66, 0x2e, 0x0f, 0x01, 0x16
    .word {GDT}
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov ax, 8
    mov ds, ax
    mov dword ptr [{ICR_LOW}], {ICR_INIT}
stop:
    jmp stop
again:
    {DEBUG_EXIT}
"""
"""The bytes are lgdt cs:[GDT]."""


HANDLER = 0x6000


def on_interrupt(number: int, setup: str) -> str:
    """Sleeps after `setup`; IRQ `number` is handled at HANDLER."""
    vector = 4 * (8 + number)
    pic = PIC.format(mask=0xFF & ~(1 << number))
    return f"{pic} {setup} mov word ptr [{vector}], {HANDLER}; mov word ptr [{vector + 2}], 0; {IDLE}"


Build = Callable[..., Machine]


@cache
def asm(source: str, mode: FlatMode, at: int = ADDRESS) -> bytes:
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, BITS[mode]).asm(source, at)
    return bytes(code)


@pytest.fixture
def build(pool: FramePool, tmp_path: Path) -> Iterator[Build]:
    machines: list[Machine] = []

    def build(source: str, mode: FlatMode = "real16", **fields: Any) -> Machine:
        path = tmp_path / "guest.bin"
        path.write_bytes(asm(source, mode))
        flat = FlatConfig(path, ADDRESS, mode)
        machines.append(Machine(GuestConfig(memory=MIB, flat=flat, **fields), pool))
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
    assert machine.board.local_apics is not None
    assert not machine.board.local_apics[0].enabled


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
    assert machine.board.local_apics is None or machine.board.local_apics[0].tpr == read << 4


def test_an_nmi_from_the_apic(build: Build) -> None:
    # There is no interrupt descriptor table.
    machine = build(f"mov dword ptr [{ICR_LOW}], {ICR_NMI}; a: jmp a", "protected32")
    assert run(machine) is Ending.SHUTDOWN


def test_init_starts_the_processor_at_its_reset_vector(tmp_path: Path, pool: FramePool) -> None:
    """A ROM that sends its processor INIT on the first way through, and then finds what it left in memory."""
    code = asm(INIT_ITSELF, "real16", ROM_START)
    rom = bytearray(4 * KIB)
    rom[: len(code)] = code
    rom[GDT - ROM_START : GDT - ROM_START + len(GDT_AND_POINTER)] = GDT_AND_POINTER
    start = asm(f"jmp {ROM_START}", "real16", RESET_VECTOR)
    rom[RESET_VECTOR - ROM_START : RESET_VECTOR - ROM_START + len(start)] = start
    path = tmp_path / "rom"
    path.write_bytes(rom)
    machine = Machine(GuestConfig(memory=MIB, firmware=path), pool)
    machine.boot()
    assert run(machine) is Ending.DEBUG_EXIT
    assert machine.resets == 0
    assert machine.memory.read(DATA, 1) == b"B"
    machine.close()


# ---- resets ----


def test_a_guest_that_resets_itself(build: Build) -> None:
    machine = build("mov al, 0x41; mov dx, 0x3f8; out dx, al;" + RESET)
    resets: list[int] = []
    machine.on_reset = lambda: resets.append(machine.resets)
    pcpu = Pcpu(machine.memory.pool, machine.model)
    for _ in range(2):  # a slice ends there
        assert machine.run_slice(pcpu, SLICE) == Activity(Readiness.RUNNABLE)
    assert (resets, machine.console.text) == ([1, 2], "AA")


def test_until_is_awaited_again_after_a_reset(build: Build) -> None:
    machine = build("mov al, 0x41; mov dx, 0x3f8; out dx, al; a: jmp a", until="A")
    machine.reset()
    assert run(machine) is Ending.UNTIL
    machine.reset()
    assert machine.outcome is None
    assert run(machine) is Ending.UNTIL
    assert machine.console.text == "AA"


@pytest.mark.parametrize("act", ["switch_off", "close"])
def test_whoever_talks_to_the_guest_hears_that_it_is_gone(act: str, build: Build) -> None:
    machine = build(IDLE, vsock=3)
    assert machine.virtio is not None
    assert machine.virtio.vsock is not None
    hung_up: list[str] = []
    machine.virtio.vsock.quiesced = lambda: hung_up.append("quiesced")  # type: ignore[method-assign]
    getattr(machine, act)()
    assert hung_up == ["quiesced"]


# ---- runs ----


def test_a_halt_for_good(build: Build) -> None:
    machine = build("cli; hlt")
    assert run(machine) is Ending.HALTED
    assert machine.outcome is not None
    assert machine.outcome.message == "HLT with interrupts disabled"


def test_a_panic(build: Build) -> None:
    assert run(build("mov dx, 0x505; mov al, 1; out dx, al; a: jmp a")) is Ending.PANIC


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_a_guest_that_only_input_can_wake(clock: str, build: Build) -> None:
    assert run(build(MASK_ALL + IDLE, clock=clock)) is None


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_a_timer_wakes(clock: str, build: Build) -> None:
    machine = build(on_interrupt(0, ONE_SHOT), clock=clock)
    machine.memory.write(HANDLER, asm(POWER_OFF, "real16"))
    assert run(machine) is Ending.POWER_OFF


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_input_wakes(clock: str, build: Build) -> None:
    machine = build(on_interrupt(4, LISTEN), clock=clock)
    machine.memory.write(HANDLER, asm(POWER_OFF, "real16"))
    assert run(machine) is None
    machine.console.feed(b"!")
    assert run(machine) is Ending.POWER_OFF


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_a_call_from_elsewhere_is_made_between_two_runs(clock: str, build: Build) -> None:
    machine = build(IDLE, clock=clock)
    woken: list[str] = []
    machine.on_call = lambda: woken.append("woken")
    machine.call_soon(lambda: woken.append("first"))
    machine.call_soon(lambda: machine._end(Outcome(Ending.POWER_OFF)))
    assert (woken, machine.has_calls) == (["woken"], True)
    assert run(machine) is Ending.POWER_OFF
    assert (woken, machine.has_calls) == (["woken", "first"], False)


def test_a_call_that_asks_for_another_does_not_hold_the_guest(build: Build) -> None:
    machine = build("inc dword ptr [0x7000]; a: jmp a")
    calls: list[int] = []

    def again() -> None:
        calls.append(number(machine, DATA, 4))
        machine.call_soon(again)

    machine.call_soon(again)
    pcpu = Pcpu(machine.memory.pool, machine.model)
    for _ in range(3):
        assert machine.run_slice(pcpu, SLICE) == Activity(Readiness.RUNNABLE)
    assert calls[0] == 0
    assert calls[-1] == 1


class Failing:
    """A device at port 300h: a write of `reason` asks for the guest to be suspended."""

    name = "failing"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        self.machine._wiring().on_suspend("the disk is full")

    def reset(self) -> None:
        pass


def test_a_device_suspends_the_guest(build: Build) -> None:
    machine = build("mov dx, 0x300; out dx, al; jmp go; go:" + POWER_OFF)
    machine.board.ports.attach(0x300, 1, Failing(machine))
    pcpu = Pcpu(machine.memory.pool, machine.model)
    assert machine.run_slice(pcpu, SLICE) == Activity(Readiness.SUSPENDED, reason="the disk is full")
    assert machine.run(pcpu, seconds=PATIENCE_S) == Outcome(Ending.POWER_OFF)


def test_a_run_ends_where_a_device_suspends(build: Build) -> None:
    machine = build("mov dx, 0x300; out dx, al; jmp go; go:" + POWER_OFF)
    machine.board.ports.attach(0x300, 1, Failing(machine))
    assert run(machine) is None
    assert machine.outcome is None


def test_a_timer_that_finds_no_frame_starves_the_guest(build: Build) -> None:
    def fail(_deadline_ns: int) -> None:
        raise OutOfFrames("all frames are taken")

    machine = build(IDLE)
    machine.clock.timer(fail).arm(0)
    assert machine.run_slice(Pcpu(machine.memory.pool, machine.model), SLICE) == Activity(Readiness.STARVED)


def test_a_run_of_no_time(build: Build) -> None:
    machine = build("a: jmp a")
    assert run(machine, seconds=0) is None
    assert machine.vcpu.work == 0


def test_a_guest_that_the_pool_cannot_supply(tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(asm(TOUCH, "real16"))
    pool = FramePool(8 * PAGE_SIZE)
    config = GuestConfig(memory=MIB, board="isa", flat=FlatConfig(path, ADDRESS))
    machine = Machine(config, pool)
    machine.boot()
    assert run(machine) is None
    assert (machine.outcome, pool.free) == (None, 0)
    machine.close()
    assert pool.used == 0


def test_an_option_rom_that_is_not_there(tmp_path: Path, pool: FramePool) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    missing = tmp_path / "none.rom"
    config = GuestConfig(memory=MIB, disks=(DiskConfig(disk),), option_roms=(missing,))
    with pytest.raises(ImageError) as error:
        Machine(config, pool)
    assert str(error.value) == f"{missing}: cannot be read: No such file or directory"
