"""Disks in qcow2 images against their model, a bytearray."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.resize import resize_open

SECTOR = 512
SECTORS = 300

KINDS = st.sampled_from(
    [
        {"cluster_size": 512},
        {"cluster_size": 512, "refcount_bits": 64},
        {"cluster_size": 1024, "refcount_bits": 1},
        {"cluster_size": 2048, "refcount_bits": 2},
        {"cluster_size": 4096, "refcount_bits": 8, "compression": "zstd"},
        {"cluster_size": 4096, "version": 2},
        {"cluster_size": 1024, "version": 2},
        {"cluster_size": 65536, "refcount_bits": 32},
        {"cluster_size": 4096, "preallocation": "metadata"},
    ]
)

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "write",
                "write",
                "write",
                "zero",
                "unmap",
                "discard",
                "compress",
                "flush",
                "reopen",
                "grow",
                "shrink",
            ]
        ),
        st.integers(0, SECTORS - 1),
        st.integers(1, 60),
    ),
    max_size=25,
)


def noise(number: int, length: int) -> bytes:
    return random.Random(number).randbytes(length)


class Rig:
    """An image, and what its disk should read as."""

    def __init__(self, path: Path, below: bytes = b"", **kind: Any) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        if below:
            base = path.with_name("base.img")
            base.write_bytes(below)
            kind = {name: value for name, value in kind.items() if name != "preallocation"}
            kind |= {"backing": "base.img", "backing_format": "raw"}
        create(path, SECTORS * SECTOR, **kind)
        self.model = bytearray(below[: SECTORS * SECTOR].ljust(SECTORS * SECTOR, b"\0"))
        self.disk = Qcow2Disk(path)

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *_: object) -> None:
        self.disk.close()

    def reopen(self) -> None:
        self.disk.close()
        self.disk = Qcow2Disk(self.path)

    def run(self, operation: str, lba: int, count: int, number: int) -> None:
        disk, model = self.disk, self.model
        lba = min(lba, disk.sectors - 1)
        count = min(count, disk.sectors - lba)
        start, end = lba * SECTOR, (lba + count) * SECTOR
        if operation == "write":
            data = noise(number, end - start)
            middle = len(data) // 1024 * 512
            disk.write_from(lba, [memoryview(data)[:middle], memoryview(data)[middle:]])
            model[start:end] = data
        elif operation in ("zero", "unmap"):
            disk.write_zeroes(lba, count, unmap=operation == "unmap")
            model[start:end] = bytes(end - start)
        elif operation == "discard":
            before = bytes(model[start:end])
            disk.discard(lba, count)
            after = disk.read(lba, count)
            for sector in range(0, end - start, SECTOR):
                now = after[sector : sector + SECTOR]
                assert now in (before[sector : sector + SECTOR], bytes(SECTOR))
            model[start:end] = after
        elif operation == "compress":
            size = disk.cluster_size
            cluster = start // size
            random_part = size * (number % 4 * 2) // 6  # up to all of it, which cannot be compressed
            data = noise(number, random_part).ljust(size, b"x")[: len(model) - cluster * size]
            disk.write_compressed(cluster, data)
            model[cluster * size : cluster * size + len(data)] = data
        elif operation == "flush":
            disk.flush()
        elif operation == "reopen":
            self.reopen()
        elif operation == "grow":
            resize_open(disk, len(model) + count * SECTOR)
            model += bytes(count * SECTOR)
        elif disk.sectors > count:
            resize_open(disk, len(model) - count * SECTOR, shrink=True)
            del model[len(model) - count * SECTOR :]

    def verify(self) -> None:
        """The disk reads as the model, before and after it was closed, and nothing is wrong in the image."""
        for _ in range(2):
            assert self.disk.read(0, self.disk.sectors) == self.model
            self.reopen()
        self.disk.close()
        report = check(self.path)
        assert report.clean, report
        self.disk = Qcow2Disk(self.path)


def flips(image: bytes, length: int) -> Iterator[bytes]:
    """`image` with one bit of the first `length` bytes flipped, for every bit."""
    for position in range(length * 8):
        damaged = bytearray(image)
        damaged[position // 8] ^= 1 << position % 8
        yield bytes(damaged)
