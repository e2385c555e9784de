"""What others put into an image stays: internal snapshots are never written to, bitmaps are counted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from struct import pack

import pytest
from qcow2_rig import SECTOR, SECTORS, Rig

from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.entries import COMPRESSED, COPIED, OFFSET, encode_table
from emuvisor.devices.storage.qcow2.header import BITMAPS, BITMAPS_EXTENSION
from emuvisor.devices.storage.qcow2.info import info
from emuvisor.devices.storage.qcow2.resize import resize
from emuvisor.errors import ImageError

SIZE = 1024


def take_snapshot(disk: Qcow2Disk) -> int:
    """Do what QEMU does for an internal snapshot named "before"; returns where its L1 table is."""
    image = disk.image
    tables, refcounts = image.tables, image.refcounts
    l1, table = refcounts.allocate_behind_end(1) * SIZE, refcounts.allocate_behind_end(1) * SIZE
    for number, entry in enumerate(tables.l1):
        if entry:
            entries = tables.own(number)
            for index, cluster in enumerate(entries):
                if cluster & COMPRESSED:
                    offset, length = image.compressed_entries.decode(cluster)
                    for used in range(offset // SIZE, (offset + length - 1) // SIZE + 1):
                        assert refcounts.share(used)
                elif cluster & OFFSET:
                    assert refcounts.share((cluster & OFFSET) // SIZE)
                    entries[index] &= ~COPIED
            tables.touch(number, 0, len(entries))
            assert refcounts.share((tables.l1[number] & OFFSET) // SIZE)
            tables.l1[number] &= ~COPIED
    disk.flush()
    image.file.write(image.tables.l1_offset, encode_table(tables.l1))
    image.file.write(l1, encode_table(tables.l1))
    fields = pack(">QIHHIIQII", l1, len(tables.l1), 1, 6, 1_700_000_000, 5, 0, 0, 16)
    image.file.write(table, fields + pack(">QQ", 0, SECTORS * SECTOR) + b"1before")
    header = replace(image.header, nb_snapshots=1, snapshots_offset=table)
    image.file.write(0, header.encode_fields())
    return l1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "disk.qcow2"


@pytest.mark.parametrize("version", [2, 3])
def test_snapshots_are_not_written_to(path: Path, version: int) -> None:
    with Rig(path, cluster_size=SIZE, version=version) as rig:
        for number, operation in enumerate(["write", "compress", "zero", "compress", "compress"]):
            rig.run(operation, number * 20, 30, number)
        before = bytes(rig.model)
        l1 = take_snapshot(rig.disk)
        rig.reopen()
        for number, operation in enumerate(
            ["write", "unmap", "discard", "compress", "write", "flush", "write"]
        ):
            rig.run(operation, number * 19 + 5, 40, 100 + number)
        rig.verify()
        (snapshot,) = info(path).snapshots if rig.disk.close() is None else ()
        assert (snapshot.id, snapshot.name, snapshot.disk_size) == ("1", "before", len(before))
        assert (snapshot.time_ns, snapshot.vm_state_size) == (1_700_000_000_000_000_005, 0)
        with pytest.raises(ImageError) as error:
            resize(path, 2 * len(before))
        assert str(error.value) == f"{path}: a qcow2 image with internal snapshots cannot be resized"
        image = bytearray(path.read_bytes())
        image[40:48] = l1.to_bytes(8, "big")
        path.write_bytes(image)
        with Qcow2Disk(path, read_only=True) as disk:
            assert disk.read(0, SECTORS) == before


def test_what_a_snapshot_shares_is_forgotten_once(path: Path) -> None:
    with Rig(path, cluster_size=SIZE) as rig:
        rig.run("write", 0, SECTORS, 1)
        take_snapshot(rig.disk)
        rig.reopen()
        rig.disk.forget(0, rig.disk.image.header.clusters)
        rig.model[:] = bytes(len(rig.model))
        rig.verify()
        take = rig.disk.image.refcounts.allocate(1)[0]
        assert take > SECTORS * SECTOR // SIZE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: (table, pack(">Q", 7)),
            "the L1 table of snapshot 0 is misaligned, too large, or outside the file",
        ),
        (
            lambda table: (table + 8, pack(">I", 2**32 - 1)),
            "the L1 table of snapshot 0 is misaligned, too large, or outside the file",
        ),
        (
            lambda table: (table + 36, pack(">I", 2**32 - 1)),
            "its snapshot table does not end inside the file",
        ),
        (lambda table: (60, pack(">I", 2)), "its snapshot table does not end inside the file"),
    ],
)
def test_snapshot_tables_that_cannot_be_right(
    path: Path, change: Callable[[int], tuple[int, bytes]], message: str
) -> None:
    with Rig(path, cluster_size=SIZE) as rig:
        take_snapshot(rig.disk)
    image = bytearray(path.read_bytes())
    table = int.from_bytes(image[64:72], "big")
    del image[table + 63 :]  # nothing behind the table's only entry
    offset, data = change(table)
    image[offset : offset + len(data)] = data
    path.write_bytes(image)
    for attempt in (Qcow2Disk, info, check):
        with pytest.raises(ImageError) as error:
            attempt(path)
        assert str(error.value) == f"{path}: the qcow2 image is damaged: {message}"


def test_more_snapshots_than_can_be_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.devices.storage.qcow2.snapshots.MAX_ALL_L1_BYTES", 7)
    with Rig(path, cluster_size=SIZE) as rig:
        take_snapshot(rig.disk)
    with pytest.raises(ImageError) as error:
        info(path)
    assert str(error.value) == (
        f"{path}: the qcow2 image is damaged: the L1 tables of its snapshots have more than 7 bytes"
    )


def with_bitmap(path: Path, **wrong: int) -> None:
    """An image with a bitmap: a directory, a table of two entries, one cluster of bits."""
    with Rig(path, cluster_size=SIZE) as rig:
        rig.run("write", 0, 20, 1)
        image = rig.disk.image
        directory, table, bits = (image.refcounts.allocate_behind_end(1) * SIZE for _ in range(3))
        image.file.write(
            directory, pack(">QIIBBHI", wrong.get("table", table), wrong.get("entries", 2), 0, 1, 16, 2, 0)
        )
        image.file.write(directory + 24, b"b0")
        image.file.write(table, pack(">QQ", bits, 1))
        image.file.write(bits, bytes(SIZE))
        data = pack(
            ">IIQQ", wrong.get("count", 1), 0, wrong.get("length", 32), wrong.get("directory", directory)
        )
        rig.disk.flush()
        header = replace(
            image.header,
            autoclear_features=BITMAPS,
            extensions=((BITMAPS_EXTENSION, data[: wrong.get("cut", 24)]), *image.header.extensions),
        )
        image.file.write(0, header.encode())


def test_bitmaps_are_counted(path: Path) -> None:
    with_bitmap(path)
    assert check(path).clean
    assert info(path).features == ("bitmaps",)
    with Qcow2Disk(path):
        pass  # that a writer does not keep them is said when it opens the image
    assert info(path).features == ()
    assert check(path).leaks == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": 5},
        {"entries": 2**32 - 1},
        {"count": 2},
        {"count": 2**32 - 1},
        {"length": 2**60},
        {"directory": 3},
        {"cut": 8},
    ],
    ids=str,
)
def test_bitmaps_that_cannot_be_right(path: Path, wrong: dict[str, int]) -> None:
    with_bitmap(path, **wrong)
    with pytest.raises(ImageError) as error:
        check(path)
    assert str(error.value) == (
        f"{path}: the qcow2 image is damaged: its bitmaps are misaligned, too large, or outside the file"
    )
