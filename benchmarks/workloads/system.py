"""How long a whole Debian takes from its disk to its login prompt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guests import NAME, program_for
from benchmarks.harness import Contender, Context, Task, one
from benchmarks.machine import QEMU
from benchmarks.process import ConsoleProcess
from emuvisor.images.cache import find
from emuvisor.units import MIB

__all__ = ["System"]

IMAGE = "debian-system"
LOGIN = "login:"
MEMORY_MIB = 512
TIMEOUT_S = 300
FIGURE = "boot of a whole Debian to its login prompt"
LIMIT = 1.0


@dataclass(frozen=True, slots=True)
class Boot:
    """A command that boots the disk with the serial console on standard output."""

    name: str
    argv: Sequence[str]

    def seconds(self) -> float:
        """From the start of the process to the prompt."""
        with ConsoleProcess(self.name, self.argv) as process:
            _, when = process.expect(LOGIN, TIMEOUT_S)
            return when - process.started


class System:
    """SeaBIOS, GRUB, the generic kernel with its initramfs, ext4 on IDE, systemd: all in the figure."""

    name = "system"
    measures = "seconds from the start of the process to the login prompt of a minimal Debian on an IDE disk"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """One task: each contender boots the same disk image, which stays as it is."""
        image = find(IMAGE)
        if image is None or image.disk is None or find("seabios") is None:
            context.notice(f"system is skipped: run `emuvisor images pull {IMAGE} seabios`")
            yield []
            return
        boots = [Boot(NAME, emuvisor_command(image.disk))]
        if qemu.available(context):
            boots.append(Boot(qemu.NAME, qemu_command(image.disk, context.settings.qemu_cpu)))
        context.note(
            f"{MEMORY_MIB} MiB, one vCPU. Both boot by SeaBIOS, each by its own copy of it, and forget what the guest "
            'writes (a temporary overlay, -snapshot). emuvisor runs with clock="host".'
        )
        yield [
            Task(
                name=FIGURE,
                unit="s",
                contenders=[Contender(boot.name, one(FIGURE, partial(boot.seconds))) for boot in boots],
                goals={FIGURE: Goal(LIMIT, qemu.NAME, NAME)},
                against=qemu.NAME,
            )
        ]


def emuvisor_command(disk: Path) -> list[str]:
    """The disk on the pc board."""
    return program_for(
        {
            "memory": MEMORY_MIB * MIB,
            "clock": "host",
            "firmware": "seabios",
            "disks": [{"path": str(disk), "overlay": "temporary"}],
        }
    )


def qemu_command(disk: Path, cpu: str) -> list[str]:
    """The disk on QEMU's pc."""
    return [
        QEMU,
        *("-machine", "pc", "-accel", "tcg", "-cpu", cpu, "-smp", "1", "-m", str(MEMORY_MIB)),
        *("-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", "none"),
        *("-drive", qemu.ide_drive(disk), "-snapshot"),
    ]
