"""Freezing disks: what a moment costs, what writing costs while one is kept, and reading through many layers."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.harness import Contender, Context, Figures, Task
from benchmarks.workloads.wakeup import quantile
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.layered import Frozen, LayeredDisk
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.units import GIB

__all__ = ["Layers"]

DISK_SIZE = 20 * GIB
MOST_FREEZE_US = 200.0
ROUNDS, QUICK_ROUNDS = 500, 50
DEPTHS = (1, 2, 11, 21, 41, 63)
CLUSTER = CLUSTER_SIZE // SECTOR_SIZE
DATA = b"data" * 1024
"""4 KiB."""
FREEZE, WRITE, READ = "freeze and open for a clone", "write of 4 KiB", "read of 4 KiB"


class Layers:
    """In this process, on a raw image in the page cache."""

    name = "layers"
    measures = "freezing a disk, writing while a moment is kept, reading through layers"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Of a disk of 20 GiB that has data in its first clusters."""
        rounds = QUICK_ROUNDS if context.settings.quick else ROUNDS
        context.note(
            f"Median of {rounds} calls each; the image's data is in the page cache, nothing is synced."
        )
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            disk = stack.enter_context(closing(_disk(folder / "disk.img", rounds)))
            deep = [
                (depth, stack.enter_context(closing(_deep(folder / str(depth), depth)))) for depth in DEPTHS
            ]
            yield [
                Task(
                    "freeze, 20 GiB",
                    "us",
                    [Contender("emuvisor", partial(_freezes, disk, rounds))],
                    goals={FREEZE: Goal(MOST_FREEZE_US)},
                ),
                Task(
                    "write",
                    "us",
                    [
                        Contender("not frozen", partial(_writes, disk, rounds)),
                        Contender("frozen, first to a cluster", partial(_first_writes, disk, rounds)),
                        Contender("frozen, later", partial(_later_writes, disk, rounds)),
                        Contender("clone, first to a cluster", partial(_clones_writes, disk, rounds)),
                    ],
                    against="not frozen",
                ),
                Task(
                    "read below layers",
                    "us",
                    [Contender(f"{depth} layers", partial(_reads, below, rounds)) for depth, below in deep],
                    against=f"{DEPTHS[0]} layers",
                ),
            ]


def _disk(path: Path, clusters: int) -> LayeredDisk:
    create_raw(path, DISK_SIZE)
    disk = LayeredDisk(RawDisk(path))
    for lba in range(0, clusters * CLUSTER, CLUSTER):
        disk.write(lba, DATA * (CLUSTER_SIZE // len(DATA)))
    return disk


def _deep(folder: Path, depth: int) -> LayeredDisk:
    """A disk of `depth` layers, each with a cluster of its own."""
    folder.mkdir()
    disk = _disk(folder / "disk.img", 1)
    for number in range(1, depth):
        disk.freeze(folder / str(number)).close()
        disk.write(DISK_SIZE // 2 // SECTOR_SIZE + number * CLUSTER, DATA)
    return disk


def _median_us(action: Callable[[int], object], rounds: int) -> float:
    """Of calls with 0, 1, 2 ..."""
    times = []
    for number in range(rounds):
        start = time.perf_counter_ns()
        action(number)
        times.append(time.perf_counter_ns() - start)
    return quantile(times, 0.5) / 1000


def _freezes(disk: LayeredDisk, rounds: int) -> Figures:
    made: list[Frozen | LayeredDisk] = []

    def freeze(_number: int) -> None:
        frozen = disk.freeze()
        made.extend((frozen, frozen.open()))

    median = _median_us(freeze, rounds)
    for each in made:
        each.close()
    return {FREEZE: median}


def _writes(disk: LayeredDisk, rounds: int) -> Figures:
    return {WRITE: _median_us(lambda number: disk.write(number * CLUSTER, DATA), rounds)}


def _first_writes(disk: LayeredDisk, rounds: int) -> Figures:
    with closing(disk.freeze()):
        return _writes(disk, rounds)


def _later_writes(disk: LayeredDisk, rounds: int) -> Figures:
    with closing(disk.freeze()):
        _writes(disk, rounds)
        return _writes(disk, rounds)


def _clones_writes(disk: LayeredDisk, rounds: int) -> Figures:
    with closing(disk.freeze()) as frozen, closing(frozen.open()) as clone:
        return _writes(clone, rounds)


def _reads(disk: LayeredDisk, rounds: int) -> Figures:
    """Of what the lowest layer has."""
    return {READ: _median_us(lambda _number: disk.read(0, len(DATA) // SECTOR_SIZE), rounds)}
