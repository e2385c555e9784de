"""What a disk may hold after a crash: everything flushed, and of each sector written since, any of its contents."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from struct import pack

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw

SECTOR = 512
NOTHING = bytes(SECTOR)
SECTORS = 400
CLUSTER = 4096
KINDS = ("write", "write", "write", "zero", "unmap", "discard", "flush")


@dataclass(frozen=True)
class Step:
    """Something done to a disk; `number` makes what is written unique."""

    kind: str
    lba: int
    count: int
    number: int

    @property
    def data(self) -> bytes:
        return b"".join(pack("<II", self.number, lba) * 64 for lba in range(self.lba, self.lba + self.count))


def random_steps(seed: int, first: int) -> Iterator[Step]:
    """Steps without end, the same for the same seed, numbered from `first` on."""
    rng = random.Random(seed)
    number = first
    while True:
        lba = rng.randrange(SECTORS)
        yield Step(rng.choice(KINDS), lba, min(rng.choice((1, 3, 8, 40)), SECTORS - lba), number)
        number += 1


def perform(disk: BlockDevice, step: Step) -> None:
    if step.kind == "write":
        data = memoryview(step.data)
        disk.write_from(step.lba, [data[:200], data[200:]])
    elif step.kind == "discard":
        disk.discard(step.lba, step.count)
    elif step.kind == "flush":
        disk.flush()
    else:
        disk.write_zeroes(step.lba, step.count, unmap=step.kind == "unmap")


def content(disk: BlockDevice) -> bytes:
    data = bytearray(SECTORS * SECTOR)
    disk.read_into(0, [memoryview(data)])
    return bytes(data)


class Medium:
    """A disk as its guest knows it, beginning with `data` on stable storage."""

    def __init__(self, data: bytes) -> None:
        self.now = [{data[at : at + SECTOR]} for at in range(0, len(data), SECTOR)]
        """What each sector holds; more than one content after a discard."""
        self.since_flush = [set(contents) for contents in self.now]

    def apply(self, step: Step) -> None:
        """The guest has done `step`, or has begun it."""
        if step.kind == "flush":
            self.since_flush = [set(contents) for contents in self.now]
            return
        data = step.data
        for i, lba in enumerate(range(step.lba, step.lba + step.count)):
            if step.kind == "write":
                self.now[lba] = {data[i * SECTOR : (i + 1) * SECTOR]}
            elif step.kind == "discard":
                self.now[lba] = self.now[lba] | {NOTHING}
            else:
                self.now[lba] = {NOTHING}
            self.since_flush[lba] |= self.now[lba]

    def check(self, data: bytes, *, crashed: bool = True) -> None:
        """`data` is what was read from the disk, after a crash or without one."""
        allowed = self.since_flush if crashed else self.now
        wrong = [lba for lba in range(SECTORS) if data[lba * SECTOR : (lba + 1) * SECTOR] not in allowed[lba]]
        assert not wrong, f"sectors {wrong} hold what they must not"


@dataclass(frozen=True)
class Format:
    """How to make an image of `SECTORS` sectors in a folder, open it, and look for damage that reading does not show.
    `file` is the one that is written."""

    create: Callable[[Path], None]
    open: Callable[[Path], BlockDevice]
    file: str
    verify: Callable[[Path], None] = lambda _: None


def _create_base(folder: Path) -> None:
    (folder / "base.img").write_bytes(random.Random(7).randbytes(SECTORS * SECTOR))


def _create_raw(folder: Path) -> None:
    create_raw(folder / "disk.img", SECTORS * SECTOR)


def _open_raw(folder: Path) -> BlockDevice:
    return RawDisk(folder / "disk.img")


def _base(folder: Path) -> BlockDevice:
    return RawDisk(folder / "base.img", read_only=True)


def _create_overlay(folder: Path) -> None:
    _create_base(folder)
    OverlayDisk.create(_base(folder), folder / "disk.overlay", cluster_size=CLUSTER).close()


def _open_overlay(folder: Path) -> BlockDevice:
    return OverlayDisk(_base(folder), folder / "disk.overlay")


def _create_qcow2(folder: Path, *, backing: bool) -> None:
    path = folder / "disk.qcow2"
    if backing:
        _create_base(folder)
        create(path, SECTORS * SECTOR, cluster_size=CLUSTER, backing="base.img", backing_format="raw")
    else:
        create(path, SECTORS * SECTOR, cluster_size=CLUSTER)


def _open_qcow2(folder: Path) -> BlockDevice:
    return Qcow2Disk(folder / "disk.qcow2")


def _verify_qcow2(folder: Path) -> None:
    """A crash may leave clusters that nothing uses, and nothing worse."""
    report = check(folder / "disk.qcow2")
    assert not report.corruptions, report.messages


FORMATS = {
    "raw": Format(_create_raw, _open_raw, "disk.img"),
    "overlay": Format(_create_overlay, _open_overlay, "disk.overlay"),
    "qcow2": Format(partial(_create_qcow2, backing=False), _open_qcow2, "disk.qcow2", _verify_qcow2),
    "qcow2-backed": Format(partial(_create_qcow2, backing=True), _open_qcow2, "disk.qcow2", _verify_qcow2),
}
