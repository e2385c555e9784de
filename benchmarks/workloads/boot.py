"""How long a stock kernel takes to its first line of user space."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guests import NAME, EmuvisorProcess, has_image
from benchmarks.harness import Contender, Context, Task, one
from benchmarks.shell import GuestCommand, boot_seconds

__all__ = ["Boot"]

TSC_HINT = "tsc_early_khz=1000000"
"""QEMU's microvm has nothing that the kernel could calibrate its time stamp counter by, and hangs without a hint."""


class Boot:
    """Whole processes: Python's start, loading and unpacking the kernel, and QEMU's firmware count."""

    name = "boot"
    measures = "seconds from the start of the process to the guest's EMUVISOR-BOOT-OK"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each board: the contenders boot the same image on the matching machine."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        microvm: list[GuestCommand] = [EmuvisorProcess(settings, board="microvm")]
        pc: list[GuestCommand] = [EmuvisorProcess(settings)]
        if qemu.available(context):
            microvm.append(qemu.Qemu(settings, "microvm", TSC_HINT))
            pc.append(qemu.Qemu(settings))
        pc.append(EmuvisorProcess(settings, clock="virtual", name="emuvisor, virtual clock"))
        pc.append(
            EmuvisorProcess(settings, decompressor="guest", name="emuvisor, bzImage's own decompressor")
        )
        context.note(
            'emuvisor runs with clock="host", because QEMU\'s guest follows the wall clock too: both '
            "get as many timer interrupts a second, and both wait when the kernel waits. The kernel's "
            "payload is unpacked by the host, and QEMU's by the kernel's own code, unless the line "
            "says otherwise. QEMU's microvm boots with tsc_early_khz=1000000: without it the kernel hangs in its "
            "calibration there."
        )
        yield [_task("microvm", microvm, 0.8), _task("pc", pc, 1.0)]


def _task(board: str, guests: Sequence[GuestCommand], goal: float) -> Task:
    figure = f"boot to user space, {board}"
    return Task(
        name=figure,
        unit="s",
        contenders=[Contender(guest.name, one(figure, partial(boot_seconds, guest))) for guest in guests],
        goals={figure: Goal(goal, qemu.NAME, NAME)},
        against=qemu.NAME,
    )
