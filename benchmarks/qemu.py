"""QEMU's TCG with the same files: one vCPU, the serial port on standard input and output."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Context, Settings
from benchmarks.machine import QEMU

__all__ = ["NAME", "Qemu", "available", "ide_drive", "installed", "virtio_drive"]

NAME = "qemu"


@dataclass(frozen=True, slots=True)
class Qemu:
    """`qemu-system-x86_64` as it boots the image."""

    settings: Settings
    machine: str = "pc"
    append: str = ""
    """More words for the kernel, which this machine needs."""
    disk: Path | None = None
    """A raw image on the first IDE channel."""
    options: Sequence[str] = ()
    """For further devices."""

    name = NAME

    def argv(self) -> list[str]:
        """The whole command line. Without a network card: its option ROM would lengthen QEMU's boot."""
        image = self.settings.image
        assert image is not None
        assert image.initrd is not None
        return [
            QEMU,
            *("-machine", self.machine, "-accel", "tcg", "-cpu", self.settings.qemu_cpu, "-smp", "1"),
            *("-m", str(self.settings.memory_mib)),
            *("-nographic", "-no-reboot", "-nic", "none"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", " ".join(filter(None, (image.append, self.append, self.settings.append)))),
            *(("-drive", ide_drive(self.disk)) if self.disk else ()),
            *self.options,
        ]


def ide_drive(image: Path) -> str:
    """QEMU's -drive for a raw image as an IDE disk, cached by the host as emuvisor's are."""
    return f"file={image},format=raw,if=ide,cache=writeback"


def virtio_drive(image: Path, format: str) -> str:
    """QEMU's -drive for an image as a virtio disk, cached by the host as emuvisor's are."""
    return f"file={image},format={format},if=virtio,cache=writeback"


def installed(context: Context) -> bool:
    """Whether QEMU is installed; a notice when it is not."""
    if shutil.which(QEMU) is None:
        context.notice(f"qemu is skipped: {QEMU} is not installed (Debian: qemu-system-x86)")
        return False
    return True


def available(context: Context) -> bool:
    """Whether QEMU can boot the image: a notice when it is not installed, and a note how it runs."""
    if not installed(context):
        return False
    context.note(
        f"QEMU runs with -machine pc (or as named) -accel tcg -cpu {context.settings.qemu_cpu} -smp 1 "
        f"-m {context.settings.memory_mib} -nographic -no-reboot -nic none, with the same kernel, initrd and "
        "command line."
    )
    return True
