"""How fast a guest's virtio disk is: raw and qcow2, in sequence and at random, one request at a time and many."""

import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guest_programs import compiled, with_programs
from benchmarks.guests import NAME, EmuvisorProcess, has_image
from benchmarks.harness import Contender, Context, Figures, Settings, Task
from benchmarks.shell import GuestCommand, Shell, at_once, booted
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.units import KIB, MIB

__all__ = ["Disk"]

FORMATS = ("raw", "qcow2")
DEVICES = {"raw": "/dev/vda", "qcow2": "/dev/vdb"}
SPAN = 64 * MIB
"""Of each half of a disk: the first is read, the second written."""
SEQUENTIAL_BLOCK, SEQUENTIAL_DEPTH = MIB, 4
RANDOM_BLOCK, RANDOM_DEPTHS = 4 * KIB, (1, 32)
BLOCKS = {SEQUENTIAL_DEPTH: 2000, 1: 8000, 32: 30_000}
"""How many of them a measurement does, by depth: more than half a second of work."""
QUICK_PART = 8
LEAST = 0.5
"""Times QEMU's throughput."""
SEED = 1
_MASK = 0xFFFF_FFFF_FFFF_FFFF
XORSHIFT_START = 88172645463325252


@dataclass(frozen=True, slots=True)
class Job:
    """What the guest's `aio` does to one of the disks in a measurement: `count` blocks, `depth` at a time."""

    format: str
    operation: str
    depth: int
    count: int

    @property
    def sequential(self) -> bool:
        """Whether blocks follow each other."""
        return self.depth == SEQUENTIAL_DEPTH

    @property
    def block(self) -> int:
        """Bytes of a request."""
        return SEQUENTIAL_BLOCK if self.sequential else RANDOM_BLOCK

    @property
    def figure(self) -> str:
        """For people."""
        if self.sequential:
            return f"{self.format}, sequential {self.operation}"
        return f"{self.format}, random {self.operation}, depth {self.depth}"

    @property
    def function(self) -> str:
        """The name of the guest's shell function."""
        return f"{self.format}_{self.operation}_{self.depth}"

    @property
    def command(self) -> str:
        """What the function runs."""
        order = "sequential" if self.sequential else "random"
        start = 0 if self.operation == "read" else SPAN
        return (
            f"aio {DEVICES[self.format]} {self.operation} {order} {self.block} {self.depth} {self.count} "
            f"{start} {SPAN}"
        )

    def printed(self, content: bytes) -> str:
        """What `aio` prints when the part of the disk that it reads has this content."""
        return f"{self.count} blocks, {self._sum(content) if self.operation == 'read' else 0}"

    def _sum(self, content: bytes) -> int:
        blocks = SPAN // self.block
        numbers = range(self.count) if self.sequential else xorshift(self.count)
        starts = (number % blocks * self.block for number in numbers)
        return sum(int.from_bytes(content[start : start + 8], "little") for start in starts) & _MASK


def xorshift(count: int) -> Iterator[int]:
    """The first numbers of the generator in aio.c (Marsaglia 2003)."""
    state = XORSHIFT_START
    for _ in range(count):
        state ^= state << 13 & _MASK
        state ^= state >> 7
        state ^= state << 17 & _MASK
        yield state


def jobs(quick: bool) -> list[Job]:
    """All measurements. Reads and writes are of different halves, so that what is read stays as it is."""
    part = QUICK_PART if quick else 1
    return [
        Job(format, operation, depth, BLOCKS[depth] // part)
        for format in FORMATS
        for depth in (SEQUENTIAL_DEPTH, *RANDOM_DEPTHS)
        for operation in ("read", "write")
    ]


class Disk:
    """Each contender boots once, with a raw disk and a qcow2 one of its own, of the same content."""

    name = "disk"
    measures = "direct I/O of the Debian guest to its virtio disks, and the host's CPU time for it"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each job."""
        if not has_image(context, self.name):
            yield []
            return
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            program = compiled(context, "aio", folder, self.name)
            if program is None:
                yield []
                return
            image = context.settings.image
            assert image is not None
            settings = replace(context.settings, image=with_programs(image, {"aio": program}, folder))
            content = random.Random(SEED).randbytes(SPAN)
            work = jobs(settings.quick)
            guests = _guests(context, settings, folder, content)
            shells = at_once([partial(booted, stack, context, guest, functions(work)) for guest in guests])
            for shell in shells:
                shell.time("wait_for_disks", "")
            context.note(
                f"Sequential: blocks of 1 MiB, {SEQUENTIAL_DEPTH} at a time, in MB/s. Random: blocks of 4 KiB, in "
                f"requests a second. All in the {SPAN // MIB} MiB of one half of the disk, reads in one, writes in "
                "the other, by the kernel's asynchronous direct I/O, past the guest's page cache; a write's flush "
                "at the end is included. The image files are in the host's temporary folder and cached by the host "
                '(QEMU: cache=writeback). emuvisor runs with clock="host". CPU time is the whole process\'s: guest, '
                "device and the host's kernel."
            )
            yield [_task(job, shells, job.printed(content)) for job in work]


def functions(work: Sequence[Job]) -> dict[str, str]:
    """What is typed, by the name of the shell function."""
    last = DEVICES[FORMATS[-1]]
    return {
        # A kernel may still look for disks when the shell begins.
        "wait_for_disks": f"until [ -b {last} ]; do sleep 0.1; done",
        "check_raw": _check(DEVICES["raw"]),
        "check_qcow2": _check(DEVICES["qcow2"]),
        **{job.function: job.command for job in work},
    }


def _check(device: str) -> str:
    blocks = SPAN // SEQUENTIAL_BLOCK
    return f"aio {device} read sequential {SEQUENTIAL_BLOCK} {SEQUENTIAL_DEPTH} {blocks} {SPAN} {SPAN}"


def measured(shell: Shell, job: Job, printed: str) -> Figures:
    """Do the job once. Raises BenchmarkError when `aio` prints something else, or the disk has not what was written."""
    cost = shell.cost(job.function, printed)
    if job.operation == "write" and job.sequential:
        blocks = SPAN // SEQUENTIAL_BLOCK
        # Each block has the number of the request that was the last to write it.
        total = sum(range(job.count - blocks, job.count))
        shell.time(f"check_{job.format}", f"{blocks} blocks, {total}")
    amount = job.count * job.block / 1e6 if job.sequential else job.count
    return {job.figure: amount / cost.seconds, cpu_figure(job): cost.cpu_s / job.count * 1e6}


def cpu_figure(job: Job) -> str:
    """The name of the CPU time of a request."""
    return f"{job.figure}: CPU time of a request"


def _task(job: Job, shells: Sequence[Shell], printed: str) -> Task:
    return Task(
        name=job.figure,
        unit="MB/s" if job.sequential else "IOPS",
        contenders=[Contender(shell.name, partial(measured, shell, job, printed)) for shell in shells],
        goals={job.figure: Goal(LEAST, qemu.NAME, NAME, at_least=True)},
        units={cpu_figure(job): "us"},
        against=qemu.NAME,
    )


def _guests(context: Context, settings: Settings, folder: Path, content: bytes) -> list[GuestCommand]:
    images = _images(folder, content)
    drives = [{"path": str(path), "format": format, "bus": "virtio"} for format, path in images.items()]
    guests: list[GuestCommand] = [EmuvisorProcess(settings, devices={"disks": drives})]
    if qemu.available(context):
        options = []
        for format, path in images.items():
            copy = folder / f"{qemu.NAME}.{format}"
            shutil.copy(path, copy)
            options += ["-drive", qemu.virtio_drive(copy, format)]
        guests.append(qemu.Qemu(settings, options=options))
    return guests


def _images(folder: Path, content: bytes) -> dict[str, Path]:
    """Disks with `content` twice, by format: nothing has to be allocated while it is measured."""
    images = {format: folder / f"{NAME}.{format}" for format in FORMATS}
    images["raw"].write_bytes(content * 2)
    create(images["qcow2"], 2 * SPAN)
    disk = Qcow2Disk(images["qcow2"])
    try:
        for half in range(2):
            disk.write(half * SPAN // SECTOR_SIZE, content)
        disk.flush()
    finally:
        disk.close()
    return images
