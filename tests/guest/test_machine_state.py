"""A guest that is saved in the middle and goes on in another machine ends as one that was left alone."""

import hashlib
from pathlib import Path

import pytest

from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB, PAGE_SIZE

COMPUTE = bytes.fromhex(
    "31c0 8ed8 8ec0 dbe3 66b9 00100000"  # xor ax, ax; mov ds, ax; mov es, ax; fninit; mov ecx, 1000h
    "66bb 78563412"  # mov ebx, 12345678h
    "6669db 0d661900"  # step: imul ebx, ebx, 19660Dh
    "6681c3 5ff36e3c"  # add ebx, 3C6EF35Fh
    "6653 665f 6681e7 fc0f0000"  # push ebx; pop edi; and edi, 0FFCh
    "66119d 0070"  # adc [di+7000h], ebx
    "d9e8 d80600 60 d91e0060"  # fld1; fadd dword [6000h]; fstp dword [6000h]
    "0f31 6601060464"  # rdtsc; add [6404h], eax
    "ba f803 88d8 ee"  # mov dx, 3f8h; mov al, bl; out dx, al
    "6649 75c7"  # dec ecx; jnz step
    "ba 0406 b80020 ef f4"  # mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
)
"""Sums of random numbers with carries, in memory and in the FPU, and of the time stamps; each is printed."""

VIRTIO = {"rng": True, "balloon": True, "vsock": 3, "console_ports": ("agent",), "input": ("tablet",)}
BOARDS = {
    "isa": {"serial_ports": 2},
    "pc": {"vcpus": 2, "serial_ports": 4, **VIRTIO},
    "microvm": {"vcpus": 2, **VIRTIO},
}
SLICES = 37


def config(tmp_path: Path, board: str, program: str, **options: object) -> GuestConfig:
    image = tmp_path / "guest.bin"
    image.write_bytes(COMPUTE if program == "compute" else firmware.image(program))
    options = {**BOARDS[board], **options}
    if board != "isa":
        disk = tmp_path / "disk.img"
        disk.write_bytes(bytes(MIB))
        virtio = DiskConfig(disk, overlay="temporary", bus="virtio")
        ide = (DiskConfig(disk, overlay="temporary", bus="ide"),) if board == "pc" else ()
        options["disks"] = (virtio, *ide)
    return GuestConfig(
        board=board,  # type: ignore[arg-type]
        memory=4 * MIB,
        flat=FlatConfig(image, firmware.FLAT_ADDRESS),
        **options,  # type: ignore[arg-type]
    )


def booted(made: GuestConfig, pool: FramePool) -> Machine:
    machine = Machine(made, pool)
    machine.boot()
    return machine


def fingerprint(machine: Machine) -> tuple[object, ...]:
    memory = hashlib.sha256()
    for gfn in machine.memory.written_pages():
        page = machine.memory.read(gfn * PAGE_SIZE, PAGE_SIZE)
        if any(page):
            memory.update(gfn.to_bytes(8, "little") + page)
    digests = [vcpu.digest() for vcpu in machine.vcpus]
    return machine.console.text, str(machine.outcome), tuple(digests), memory.hexdigest()


@pytest.fixture
def pool() -> FramePool:
    return FramePool(64 * MIB)


@pytest.mark.parametrize("program", ["compute", "ring", "halt"])
@pytest.mark.parametrize("board", BOARDS)
def test_a_guest_goes_on_in_another_machine(
    tmp_path: Path, pool: FramePool, board: str, program: str
) -> None:
    made = config(tmp_path, board, program)
    pcpu = Pcpu(pool)
    alone = booted(made, pool)
    alone.run(pcpu)
    machine = booted(made, pool)
    copies = 0
    while machine.run_slice(pcpu, 40_000 + SLICES * copies).readiness is not Readiness.ENDED:
        if copies == 4:
            continue
        copies += 1
        state = save_machine(machine)
        other = Machine(made, pool)
        if copies % 2:
            other.boot()
            other.run_slice(pcpu, 30_000)  # it is somewhere else altogether
        other.memory.take_over(machine.memory)
        load_machine(other, state)
        assert save_machine(other) == state
        machine.close()
        machine = other
    assert copies
    assert fingerprint(machine) == fingerprint(alone)
    machine.close()
    alone.close()
