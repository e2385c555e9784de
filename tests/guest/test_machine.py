"""A machine from power-on to each of its endings, with tiny flat guests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.errors import ImageError, OutOfFrames
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.machine.outcome import Ending, Outcome
from emuvisor.memory import FramePool
from emuvisor.units import KIB, MIB

PRINT_X = b"\xba\xf8\x03\xb0X\xee"  # mov dx, 3F8h; mov al, 'X'; out dx, al
POWER_OFF = b"\xba\x04\x06\xb8\x00\x20\xef"  # mov dx, 604h; mov ax, 2000h; out dx, ax
FOREVER = b"\xeb\xfe"  # jmp $
HALT = b"\xf4"
CLI = b"\xfa"


@pytest.fixture
def pool() -> FramePool:
    return FramePool(16 * MIB)


@pytest.fixture
def build(tmp_path: Path, pool: FramePool) -> Callable[..., Machine]:
    def machine(code: bytes, **options: object) -> Machine:
        image = tmp_path / "guest.bin"
        image.write_bytes(code)
        config = GuestConfig(memory=4 * MIB, flat=FlatConfig(image, 0x8000), **options)  # type: ignore[arg-type]
        new = Machine(config, pool)
        new.boot()
        return new

    return machine


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (POWER_OFF + FOREVER, Outcome(Ending.POWER_OFF)),
        (b"\xb0\x05\xe6\xf4" + FOREVER, Outcome(Ending.DEBUG_EXIT, 11)),
        (CLI + HALT, Outcome(Ending.HALTED, message="HLT with interrupts disabled")),
        # lidt of a zero limit, then int3: nothing can be delivered
        (b"\x0f\x01\x1e\x06\x80\xcc\x00\x00\x00\x00\x00\x00", Outcome(Ending.SHUTDOWN, message="at RIP 0x6")),
    ],
)
def test_endings(build: Callable[..., Machine], pool: FramePool, code: bytes, outcome: Outcome) -> None:
    machine = build(code)
    assert machine.run(Pcpu(pool)) == outcome
    assert machine.run_slice(Pcpu(pool), 1000).readiness is Readiness.ENDED


def test_until(build: Callable[..., Machine], pool: FramePool) -> None:
    same_block, next_block = PRINT_X, b"\xeb\x00" + PRINT_X
    machine = build(PRINT_X + same_block + same_block + next_block + FOREVER, until="XX")
    assert machine.run(Pcpu(pool)) == Outcome(Ending.UNTIL)
    assert machine.console.text == "XXX"  # the run ends behind the block that printed it
    machine.boot()
    assert machine.run(Pcpu(pool)) == Outcome(Ending.UNTIL)
    assert machine.console.text == "XXXXXX"


def test_reset_by_the_keyboard_controller_boots_again(build: Callable[..., Machine], pool: FramePool) -> None:
    counted = b"\xa0\x00\x90\xfe\xc0\xa2\x00\x90"  # mov al, [9000h]; inc al; mov [9000h], al
    machine = build(PRINT_X + counted + b"\xb0\xfe\xe6\x64" + FOREVER)  # out 64h, FEh
    resets = []
    machine.on_reset = lambda: resets.append(machine.memory.read(0x9000, 1))
    pcpu = Pcpu(pool)
    while machine.resets < 3:
        machine.run_slice(pcpu, 100_000)
    assert machine.console.text.startswith("XXX")
    assert resets == [b"\0"] * 3  # memory is empty again


def test_a_guest_that_waits_for_input_only(build: Callable[..., Machine], pool: FramePool) -> None:
    machine = build(b"\xfb" + HALT + POWER_OFF + FOREVER)  # sti; hlt: no timer is armed, no line is enabled
    assert machine.run(Pcpu(pool)) is None
    assert machine.outcome is None


def test_memory_above_the_pool_is_promised_but_not_given(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(range(1, 256)) * 64)
    pool = FramePool(8 * KIB)
    machine = Machine(
        GuestConfig(board="isa", memory=4 * MIB, flat=FlatConfig(tmp_path / "big.bin", 0x8000)), pool
    )
    with pytest.raises(
        OutOfFrames, match=r"^no frame for guest physical address 0xa000: the pool's 2 are taken$"
    ):
        machine.boot()


def test_a_starved_guest_goes_on_when_there_is_memory(tmp_path: Path) -> None:
    touch = b"\xb8\x00\x20\x8e\xd8\xa2\x00\x00"  # mov ax, 2000h; mov ds, ax; mov [0], al
    (tmp_path / "touch.bin").write_bytes(touch + POWER_OFF + FOREVER)
    pool = FramePool(8 * KIB)
    machine = Machine(
        GuestConfig(board="isa", memory=4 * MIB, flat=FlatConfig(tmp_path / "touch.bin", 0x8000)), pool
    )
    machine.boot()
    pcpu, kept = Pcpu(pool), pool.take()
    assert machine.run_slice(pcpu, 1000).readiness is Readiness.STARVED
    assert machine.run_slice(pcpu, 1000).readiness is Readiness.STARVED
    pool.release(np.array([kept], np.uint32))
    assert machine.run(pcpu) == Outcome(Ending.POWER_OFF)


def test_a_floppy_boots(tmp_path: Path) -> None:
    image = tmp_path / "floppy.img"
    image.write_bytes(firmware.boot_disk("hello").ljust(1440 * KIB, b"\0"))
    pool = FramePool(32 * MIB)
    machine = Machine(GuestConfig(memory=16 * MIB, disks=(DiskConfig(image, kind="floppy"),)), pool)
    machine.boot()
    assert machine.run(Pcpu(pool)) == Outcome(Ending.POWER_OFF)
    assert "Booting from drive 00h" in machine.console.text


@pytest.mark.parametrize("missing", ["no-such-kernel.bin"])
def test_an_image_that_cannot_be_read(tmp_path: Path, pool: FramePool, missing: str) -> None:
    machine = Machine(GuestConfig(memory=4 * MIB, flat=FlatConfig(tmp_path / missing, 0x8000)), pool)
    with pytest.raises(ImageError) as error:
        machine.boot()
    assert str(error.value) == f"{tmp_path / missing}: cannot be read: No such file or directory"


def test_virtual_time_is_work_and_skipped_idle_time(build: Callable[..., Machine], pool: FramePool) -> None:
    machine = build(PRINT_X + POWER_OFF + FOREVER)
    machine.run(Pcpu(pool))
    assert machine.clock.now_ns() == machine.vcpu.work + machine.vcpu.idle_ns == machine.vcpu.tsc
