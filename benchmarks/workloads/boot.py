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

FIGURE = "boot to user space"


class Boot:
    """Whole processes: Python's start, loading and unpacking the kernel, and QEMU's firmware count."""

    name = "boot"
    measures = "seconds from the start of the process to the guest's EMUVISOR-BOOT-OK"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """One task: each contender boots the same image."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        guests: list[GuestCommand] = [EmuvisorProcess(settings)]
        if qemu.available(context):
            guests.append(qemu.Qemu(settings))
        guests.append(EmuvisorProcess(settings, clock="virtual", name="emuvisor, virtual clock"))
        guests.append(
            EmuvisorProcess(settings, decompressor="guest", name="emuvisor, bzImage's own decompressor")
        )
        context.note(
            'emuvisor runs with clock="host", because QEMU\'s guest follows the wall clock too: both '
            "get as many timer interrupts a second, and both wait when the kernel waits. The kernel's "
            "payload is unpacked by the host, and QEMU's by the kernel's own code, unless the line "
            "says otherwise."
        )
        yield [
            Task(
                name=FIGURE,
                unit="s",
                contenders=[Contender(g.name, one(FIGURE, partial(boot_seconds, g))) for g in guests],
                goals={FIGURE: Goal(0.9, qemu.NAME, NAME)},
                against=qemu.NAME,
            )
        ]
