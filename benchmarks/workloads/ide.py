"""How fast a guest's IDE disk is: the bus master, its interrupts, and the kernel's driver around them."""

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guests import NAME, EmuvisorProcess, has_image
from benchmarks.harness import BenchmarkError, Contender, Context, Task, one
from benchmarks.shell import GuestCommand, Shell, booted
from emuvisor.units import MIB

__all__ = ["Ide"]

SIZE_MIB = 128
QUICK_SIZE_MIB = 32
"""Of each transfer; the disk has two such halves, one to be read and one to be written."""
CHECKED_MIB = 4
LIMIT = 2.0
"""Times QEMU's seconds: half of its throughput."""
SEED = 1


class Ide:
    """Each contender boots once with a disk image of its own, whose content is checked after what it did to it."""

    name = "ide"
    measures = "host seconds of a sequential transfer between the Debian guest's page cache and its IDE disk"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Reading and writing."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        size = QUICK_SIZE_MIB if settings.quick else SIZE_MIB
        context.note(
            f"dd with blocks of 1 MiB reads the first {size} MiB of /dev/sda behind `echo 3 > drop_caches`, and writes "
            f"zeros to the {size} MiB behind them with conv=fsync, the cache's way to the disk and its flush "
            "included. Both guests use DMA on an image of the same content, which the host caches (QEMU: "
            "cache=writeback). "
            f'emuvisor runs with clock="host". At most {LIMIT:g} times QEMU\'s seconds is at least '
            f"{1 / LIMIT:g} of its throughput."
        )
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            content = random.Random(SEED).randbytes(size * MIB)
            guests: list[GuestCommand] = [
                EmuvisorProcess(settings, disk=_image(folder / f"{NAME}.img", content))
            ]
            if qemu.available(context):
                guests.append(qemu.Qemu(settings, disk=_image(folder / f"{qemu.NAME}.img", content)))
            disks = [
                GuestDisk(shell, folder / f"{guest.name}.img", size)
                for guest in guests
                if (shell := booted(stack, context, guest, functions(size)))
            ]
            for disk in disks:
                disk.check(content)
            yield [
                _task(f"read of {size} MiB", {disk.name: disk.read for disk in disks}),
                _task(f"write of {size} MiB", {disk.name: disk.write for disk in disks}),
            ]


def functions(size: int) -> dict[str, str]:
    """What is typed, by the name of the shell function; `size` in MiB."""
    return {
        # A kernel may still look for disks when the shell begins.
        "mode": "until [ -b /dev/sda ]; do sleep 0.1; done; cat /sys/class/ata_device/dev1.0/xfer_mode",
        "check": f"dd if=/dev/sda bs=1M count={CHECKED_MIB} 2>/dev/null | sha256sum",
        "drop": "echo 3 > /proc/sys/vm/drop_caches",
        "load": f"dd if=/dev/sda of=/dev/null bs=1M count={size}",
        "store": f"dd if=/dev/zero of=/dev/sda bs=1M count={size} seek={size} conv=fsync",
    }


class GuestDisk:
    """The disk of the guest at `shell`; `image` is its file on the host, `size` MiB are read and written."""

    def __init__(self, shell: Shell, image: Path, size: int) -> None:
        self.name = shell.name
        self._shell = shell
        self._image = image
        self._size = size

    def check(self, content: bytes) -> None:
        """Raises BenchmarkError unless the guest uses DMA and finds `content` at the start of its disk."""
        self._shell.time("mode", "DMA")
        self._shell.time("check", hashlib.sha256(content[: CHECKED_MIB * MIB]).hexdigest())

    def read(self) -> float:
        """Seconds to read the first half, none of which is in the guest's page cache."""
        self._shell.time("drop", "")
        return self._shell.time("load", f"{self._size}+0 records out")

    def write(self) -> float:
        """Seconds to write zeros to the second half. Raises BenchmarkError unless they are in the image then."""
        seconds = self._shell.time("store", f"{self._size}+0 records out")
        with self._image.open("rb") as file:
            file.seek(self._size * MIB)
            if any(file.read(MIB) != bytes(MIB) for _ in range(self._size)):
                raise BenchmarkError(f"{self.name}: what it wrote is not in the image")
        return seconds


def _image(path: Path, content: bytes) -> Path:
    """A disk with `content` twice."""
    with path.open("wb") as file:
        file.write(content)
        file.write(content)
    return path


def _task(figure: str, disks: Mapping[str, Callable[[], float]]) -> Task:
    return Task(
        name=figure,
        unit="s",
        contenders=[Contender(name, one(figure, transfer)) for name, transfer in disks.items()],
        goals={figure: Goal(LIMIT, qemu.NAME, NAME)},
        against=qemu.NAME,
    )
