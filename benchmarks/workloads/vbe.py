"""How fast a guest draws into the display's linear framebuffer, and what looking at the screen costs."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import qemu
from benchmarks.guests import NAME, STEP_WORK, machine
from benchmarks.harness import BenchmarkError, Contender, Context, Settings, Task, one
from benchmarks.machine import QEMU
from benchmarks.process import ConsoleProcess
from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.devices.display.screen import Screen
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine, Readiness
from emuvisor.memory import FramePool
from emuvisor.units import MIB

__all__ = ["Vbe"]

GUEST = "vbe"
STARTS = "vbe: 640 x 480 pixels of 32 bits"
ENDS = "vbe: frames: "
"""What it prints before its first frame and behind its last."""
MEMORY = 16 * MIB
POOL = 64 * MIB
"""For the guest's memory, its display's, and nothing else."""
FRAMES = 400
QUICK_FRAMES = 100
SCREENS_PER_S = 30
TIMEOUT_S = 300

DRAWING = "drawing"
LOOKING = "looking"
SCREEN = "screen() of 640x480x32"
PNG = "png() of it"
PICTURES = 10
"""Of which the cost of one is the mean."""


class Vbe:
    """The firmware guest `vbe`, timed between two lines that it prints."""

    name = "vbe"
    measures = "frames a second of a guest that draws all of 640x480x32, and the cost of a picture of it"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Drawing, with nobody and with somebody who looks; then looking alone."""
        settings = context.settings
        frames = QUICK_FRAMES if settings.quick else FRAMES
        context.note(
            f"{frames} frames, computed pixel by pixel; more frames a second are better. emuvisor's guest runs in "
            f"this process; somebody who looks calls screen() {SCREENS_PER_S} times a second of host time."
        )
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder, f"{GUEST}.bin")
            image.write_bytes(firmware.image(GUEST))
            pool = FramePool(POOL)
            pcpu = Pcpu(pool)
            draw = partial(_emuvisor, image, pool, pcpu, frames)
            contenders = [
                Contender(NAME, one(DRAWING, draw)),
                Contender(
                    f"emuvisor, {SCREENS_PER_S} screens a second", one(DRAWING, partial(draw, SCREENS_PER_S))
                ),
            ]
            if qemu.installed(context):
                context.note(
                    f"QEMU (-accel tcg -cpu {settings.qemu_cpu}) boots the guest from a disk, with a VGA that "
                    "nobody looks at (-display none)."
                )
                disk = Path(folder, f"{GUEST}.img")
                disk.write_bytes(firmware.boot_disk(GUEST, _parameters(frames)))
                contenders.append(Contender(qemu.NAME, one(DRAWING, partial(_qemu, settings, disk, frames))))
            yield [
                Task(DRAWING, "frames/s", contenders, against=qemu.NAME),
                Task(LOOKING, "ms", [Contender(NAME, partial(_look, image, pool, pcpu))]),
            ]


def _parameters(frames: int) -> bytes:
    return frames.to_bytes(8, "little")


@contextmanager
def _guest(image: Path, pool: FramePool, frames: int) -> Iterator[Machine]:
    flat = FlatConfig(image, firmware.FLAT_ADDRESS)
    with machine(GuestConfig(name=GUEST, board="pc", memory=MEMORY, flat=flat), pool) as guest:
        guest.memory.write(firmware.PARAMETERS, _parameters(frames))
        yield guest


def _emuvisor(image: Path, pool: FramePool, pcpu: Pcpu, frames: int, screens_per_s: int = 0) -> float:
    """Frames a second."""
    with _guest(image, pool, frames) as guest:
        times: list[float] = []
        for text in (STARTS, ENDS):
            guest.console.watch(text, lambda: times.append(time.perf_counter()))
        _run(guest, pcpu, screens_per_s)
        if len(times) != 2:
            raise BenchmarkError(f"{GUEST} ended with {guest.outcome}; it printed {guest.console.text!r}")
        return frames / (times[1] - times[0])


def _run(guest: Machine, pcpu: Pcpu, screens_per_s: int = 0) -> None:
    """Run `guest` to its end, and look at its screen so often. Raises BenchmarkError when it does not end."""
    start = time.perf_counter()
    screens = 0
    while guest.run_slice(pcpu, STEP_WORK).readiness is not Readiness.ENDED:
        passed = time.perf_counter() - start
        if passed > TIMEOUT_S:
            raise BenchmarkError(f"{GUEST} did not end within {TIMEOUT_S} s")
        if passed * screens_per_s > screens:
            _screen(guest)
            screens += 1


def _screen(guest: Machine) -> Screen:
    assert guest.board.display is not None
    return guest.board.display.screen()


def _look(image: Path, pool: FramePool, pcpu: Pcpu) -> dict[str, float]:
    """Milliseconds of a picture of the drawn screen, and of making a PNG file of it."""
    with _guest(image, pool, 1) as guest:
        _run(guest, pcpu)
        start = time.perf_counter()
        screens = [_screen(guest) for _ in range(PICTURES)]
        middle = time.perf_counter()
        for screen in screens:
            screen.png()
        end = time.perf_counter()
        return {SCREEN: (middle - start) / PICTURES * 1e3, PNG: (end - middle) / PICTURES * 1e3}


def _qemu(settings: Settings, disk: Path, frames: int) -> float:
    """Frames a second."""
    argv = [
        *(QEMU, "-machine", "pc", "-accel", "tcg", "-cpu", settings.qemu_cpu, "-smp", "1"),
        *("-m", str(MEMORY // MIB), "-nodefaults", "-no-reboot"),
        *("-vga", "std", "-display", "none", "-serial", "stdio"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
        *("-drive", qemu.ide_drive(disk)),
    ]
    with ConsoleProcess(qemu.NAME, argv) as process:
        _, start = process.expect(STARTS, TIMEOUT_S)
        _, end = process.expect(ENDS, TIMEOUT_S)
        return frames / (end - start)
