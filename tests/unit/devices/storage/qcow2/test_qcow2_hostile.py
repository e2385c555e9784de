"""Damaged images end in ImageError or OSError, whatever is damaged, and never cost much."""

import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qcow2_rig import SECTOR, SECTORS, Rig, flips, noise

from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.header import COMPRESSION_LENGTH
from emuvisor.devices.storage.qcow2.info import info
from emuvisor.errors import ImageError


def sample(path: Path, **kind: object) -> bytes:
    """A small image with clusters of every kind."""
    with Rig(path, noise(3, 40 * SECTOR), **kind) as rig:
        for number, operation in enumerate(
            ["write", "compress", "compress", "zero", "unmap", "discard", "write"]
        ):
            rig.run(operation, number * 21, 5, number)
    return path.read_bytes()


def use(path: Path) -> None:
    """Do everything with an image; only these errors may come."""
    with suppress(ImageError):
        info(path)
    with suppress(ImageError):
        check(path)
    for read_only in (True, False):
        with suppress(ImageError, OSError), Qcow2Disk(path, read_only=read_only) as disk:
            for lba in range(0, min(disk.sectors, SECTORS), 30):
                count = min(30, disk.sectors - lba)
                with suppress(OSError):
                    disk.read(lba, count)
                if not read_only:
                    with suppress(OSError):
                        disk.write(lba, bytes(SECTOR))
                    with suppress(OSError):
                        disk.discard(lba, count)
    with suppress(ImageError):
        check(path, repair=True)


def test_every_bit_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    for damaged in flips(sample(path, cluster_size=512), COMPRESSION_LENGTH):
        path.write_bytes(damaged)
        use(path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    kind=st.sampled_from(
        [
            {"cluster_size": 512},
            {"cluster_size": 1024, "refcount_bits": 1, "compression": "zstd"},
            {"cluster_size": 512, "version": 2},
        ]
    ),
    seed=st.integers(0, 2**32),
    cut=st.booleans(),
)
def test_anything_anywhere(tmp_path: Path, kind: dict[str, object], seed: int, cut: bool) -> None:
    path = tmp_path / "disk.qcow2"
    image = bytearray(sample(path, **kind))
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 8)):
        image[chance.randrange(len(image))] = chance.choice([0, 1, 255, chance.randrange(256)])
    for _ in range(chance.randint(0, 3)):  # numbers where tables have them
        place = chance.randrange(len(image) // 8) * 8
        number = chance.choice([0, 512, 1024, len(image) // 512 * 512, 2**63, 2**64 - 1, 2**62 + 700, 1])
        image[place : place + 8] = number.to_bytes(8, "big")
    path.write_bytes(image[: chance.randrange(len(image))] if cut else image)
    use(path)


def entry_of(path: Path) -> int:
    """Where in the file the first L2 entry is."""
    image = path.read_bytes()
    l1 = int.from_bytes(image[40:48], "big")
    return int.from_bytes(image[l1 : l1 + 8], "big") & ~(1 << 63)


def with_entry(path: Path, entry: int) -> None:
    """A version 3 image whose first L2 entry is `entry`."""
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 0, 3, 0)
    place = entry_of(path)
    image = bytearray(path.read_bytes())
    image[place : place + 8] = entry.to_bytes(8, "big")
    path.write_bytes(image)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(1 << 63 | 1 << 40, id="outside the file"),
        pytest.param(1 << 63, id="copied and nowhere"),
        pytest.param(1 << 63 | 2048 + 2, id="reserved bits"),
        pytest.param(1 << 63 | 512, id="on the refcount table"),
        pytest.param(1 << 62 | 1 << 40, id="compressed, outside the file"),
        pytest.param(1 << 62 | 1 << 63 | 4096, id="compressed and copied"),
        pytest.param(1 << 62 | 700, id="compressed, on the refcount table"),
    ],
)
def test_an_entry_that_cannot_be_right(tmp_path: Path, entry: int) -> None:
    path = tmp_path / "disk.qcow2"
    with_entry(path, entry)
    before = path.read_bytes()
    with Qcow2Disk(path) as disk:
        for attempt in (
            lambda: disk.read(0, 1),
            lambda: disk.read(0, 10),
            lambda: disk.write(0, bytes(512)),
            lambda: disk.write_zeroes(0, 1, unmap=True),
            lambda: disk.discard(0, 1),
            lambda: disk.write_compressed(0, bytes(512)),
            lambda: list(disk.extents()),
            lambda: disk.forget(0, 64),
        ):
            with pytest.raises(OSError, match="image is damaged: entry 0 of L2 table 0 cannot be right"):
                attempt()
        assert disk.read(1, 2) == noise(0, 3 * SECTOR)[SECTOR:]
        disk.write(4, noise(1, SECTOR))
    after = path.read_bytes()
    place = entry_of(path)
    assert after[place : place + 8] == before[place : place + 8]
    with Qcow2Disk(path) as disk:
        assert disk.read(1, 4) == noise(0, 3 * SECTOR)[SECTOR:] + bytes(SECTOR) + noise(1, SECTOR)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_data_that_is_something_else(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "disk.qcow2"
    with Rig(path, cluster_size=4096, compression=compression) as rig:
        rig.run("compress", 0, 1, 0)
        (extent, *_) = rig.disk.extents()
        offset, length = rig.disk.image.compressed_entries.decode(extent.entry)
    image = bytearray(path.read_bytes())
    image[offset : offset + length] = noise(1, length)
    path.write_bytes(image)
    with Qcow2Disk(path) as disk:
        with pytest.raises(OSError, match=f"the compressed cluster at byte {offset} cannot be unpacked"):
            disk.read(0, 1)
        disk.write_zeroes(0, 8, unmap=True)
        assert disk.read(0, 8) == bytes(4096)


def test_an_l1_entry_that_cannot_be_right(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 0, 3, 0)
        l1 = rig.disk.image.header.l1_table_offset
    image = bytearray(path.read_bytes())
    for entry in (1 << 63, 1 << 63 | 1024 + 2, 1 << 60 | 1024):
        image[l1 : l1 + 8] = entry.to_bytes(8, "big")
        path.write_bytes(image)
        with Qcow2Disk(path) as disk, pytest.raises(OSError, match="entry 0 of its L1 table cannot be right"):
            disk.write(0, bytes(512))
        assert check(path).messages[0] == "entry 0 of an L1 table is misaligned or outside the file"


def test_refcounts_of_nothing_do_not_cost_metadata(tmp_path: Path) -> None:
    """An image that says that all is free: header, tables and their blocks are not given out."""
    path = tmp_path / "disk.qcow2"
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 0, 3, 0)
    block = 1024
    image = bytearray(path.read_bytes())
    image[block : block + 512] = bytes(512)
    path.write_bytes(image)
    with Qcow2Disk(path) as disk:
        disk.write(64, noise(9, 20 * SECTOR))
    with Qcow2Disk(path) as disk:
        assert disk.read(64, 20) == noise(9, 20 * SECTOR)


def test_refcounts_that_leave_nothing_free(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 0, 3, 0)
    image = bytearray(path.read_bytes())
    image[512:1024] = (1024).to_bytes(8, "big") * 64  # every block is the same
    image[1024:1536] = b"\1" * 512
    path.write_bytes(image)
    with Qcow2Disk(path) as disk:
        disk.write(100, bytes(512))  # behind what the table can tell
        assert disk.image.refcounts.end > 64 * 256
    image[512:1024] = (1 << 50).to_bytes(8, "big") * 64
    path.write_bytes(image)
    with (
        Qcow2Disk(path) as disk,
        pytest.raises(OSError, match="its refcount table has a block at byte 112589990684"),
    ):
        disk.write(100, bytes(512))


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk.qcow2"
    sample(path, cluster_size=512)
    pread = os.pread

    def broken(fd: int, length: int, offset: int) -> bytes:
        if length > 1:
            raise OSError(5, "Input/output error")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", broken)
    for attempt, what in ((Qcow2Disk, "read"), (info, "read"), (check, "check")):
        with pytest.raises(ImageError) as error:
            attempt(path)
        assert str(error.value) == f"{path}: cannot {what} the qcow2 image: Input/output error"
