"""Full hosts, full tables: what cannot be done changes nothing, and can be done once there is room."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from qcow2_rig import SECTOR, SECTORS, Rig, noise

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2 import refcounts as refcounts_module
from emuvisor.devices.storage.qcow2 import references
from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.resize import resize
from emuvisor.errors import ImageError
from emuvisor.units import MIB


@contextmanager
def full_after(writes: int) -> Iterator[None]:
    """The host takes so many writes, and then no more."""
    left = writes

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        write, write_from = ImageFile.write, ImageFile.write_from
        patch.setattr(ImageFile, "write", lambda *arguments: (count(), write(*arguments))[1])
        patch.setattr(ImageFile, "write_from", lambda *arguments: (count(), write_from(*arguments))[1])
        yield


@pytest.mark.parametrize("operation", ["write", "compress", "zero", "unmap", "flush", "grow"])
@pytest.mark.parametrize(
    "kind", [{"cluster_size": 512, "refcount_bits": 64}, {"cluster_size": 4096, "version": 2}]
)
def test_a_full_host(tmp_path: Path, operation: str, kind: dict[str, object]) -> None:
    for writes in range(12):
        with Rig(tmp_path / "disk.qcow2", noise(1, 90 * SECTOR), **kind) as rig:
            rig.run("write", 30, 20, 1)
            rig.disk.flush()
            rig.run("write", 100, 20, 2)
            before = bytes(rig.model)
            try:
                with full_after(writes):
                    rig.run(operation, 41, 60, 6)
                    rig.disk.flush()
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017  not every operation needs so many writes
                found = rig.disk.read(0, SECTORS)
                for start in range(0, len(before), SECTOR):
                    place = slice(start, start + SECTOR)
                    changed = 36 * SECTOR <= start < 104 * SECTOR and operation in (
                        "write",
                        "compress",
                        "zero",
                        "unmap",
                    )
                    assert found[place] == before[place] or changed
                rig.model[:] = found
                rig.run(operation, 41, 60, 6)
            assert rig.disk.read(0, rig.disk.sectors) == rig.model
            rig.disk.close()
            assert check(rig.path).corruptions == 0
            rig.disk = Qcow2Disk(rig.path)


def test_the_refcount_table_moves_when_it_is_full(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, 16 * MIB, cluster_size=512, refcount_bits=64)
    with Qcow2Disk(path) as disk:
        place = disk.image.header.refcount_table_offset
        for start in range(0, 6 * MIB, 64 * 1024):
            disk.write(start // 512, noise(start, 64 * 1024))
        disk.flush()
        assert disk.image.header.refcount_table_offset != place
    assert check(path).clean
    with Qcow2Disk(path) as disk:
        for start in range(0, 6 * MIB, 64 * 1024):
            assert disk.read(start // 512, 128) == noise(start, 64 * 1024)


def test_the_refcount_table_moves_more_than_once_before_a_flush(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, 32 * MIB, cluster_size=512, refcount_bits=64)
    with Qcow2Disk(path) as disk:
        disk.write(0, noise(1, 16 * MIB))
    assert check(path).clean
    with Qcow2Disk(path) as disk:
        assert disk.read(0, 32768) == noise(1, 16 * MIB)


def nearly_full(path: Path) -> bytes:
    """An image whose refcount table has room for 2 MiB, and has little left; returns the disk's first 1800 KiB."""
    create(path, 16 * MIB, cluster_size=512, refcount_bits=64)
    data = noise(1, 1800 * 1024)
    with Qcow2Disk(path) as disk:
        disk.write(0, data)
    return data


def test_a_host_that_is_full_when_the_refcount_table_moves(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    data = nearly_full(path)
    more = noise(2, 300 * 1024)
    image = path.read_bytes()
    for writes in range(24):
        path.write_bytes(image)
        with Qcow2Disk(path) as disk:
            with full_after(writes), pytest.raises(OSError, match="No space left"):
                disk.write(len(data) // 512, more)
            disk.flush()
            disk.write(len(data) // 512, more)
            disk.flush()
            assert disk.image.header.refcount_table_offset > 512
        assert check(path, repair=True).corruptions == 0
        with Qcow2Disk(path) as disk:
            assert disk.read(0, 4200) == data + more


def test_a_larger_l1_table_needs_a_larger_refcount_table(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    data = nearly_full(path)
    resize(path, 1 << 30)
    assert check(path).clean
    with Qcow2Disk(path) as disk:
        assert disk.read(0, len(data) // 512) == data


def test_leaks_in_an_image_with_many_refcount_blocks(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    data = nearly_full(path)
    with Qcow2Disk(path) as disk:
        disk.image.refcounts.allocate_behind_end(60)
    assert check(path).leaks == 60
    assert check(path, repair=True).clean
    with Qcow2Disk(path) as disk:
        assert disk.read(0, len(data) // 512) == data


def test_a_search_for_free_clusters_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refcounts_module, "SCAN_BYTES", 512)
    path = tmp_path / "disk.qcow2"
    data = nearly_full(path)
    with Qcow2Disk(path) as disk:
        disk.write(len(data) // 512, bytes(512))
        table = disk.image.header.refcount_table_offset
    assert check(path).clean
    image = bytearray(path.read_bytes())
    end = len(image) // 512 // 64 * 8 + table
    image[end : end + 8] = image[
        table : table + 8
    ]  # clusters behind the end count as the first ones, which are used
    image[end + 8 : end + 16] = image[table : table + 8]
    path.write_bytes(image)
    with (
        Qcow2Disk(path) as disk,
        pytest.raises(OSError, match="its refcount table counts clusters behind the file's end"),
    ):
        disk.write(len(data) // 512 + 1, bytes(512))


def test_a_refcount_block_that_is_missing_where_it_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, 1 << 29, cluster_size=512, refcount_bits=64)  # an L1 table of 256 clusters
    image = bytearray(path.read_bytes())
    image[520:528] = bytes(8)
    path.write_bytes(image)
    with Qcow2Disk(path) as disk, pytest.raises(OSError, match="its refcount table misses a block"):
        disk.write(0, bytes(512))


def test_an_image_that_is_too_large_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MAX_CHUNKS", 0)
    path = tmp_path / "disk.qcow2"
    create(path, MIB)
    with pytest.raises(ImageError) as error:
        check(path)
    assert (
        str(error.value) == f"{path}: the qcow2 image uses more clusters than can be checked; 0 are possible"
    )


def test_a_refcount_table_that_cannot_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refcounts_module, "MAX_REFCOUNT_TABLE_BYTES", 512)
    path = tmp_path / "disk.qcow2"
    create(path, 16 * MIB, cluster_size=512, refcount_bits=64)
    with (
        Qcow2Disk(path) as disk,
        pytest.raises(OSError, match="the refcount table of the qcow2 image is full"),
    ):
        disk.write(0, bytes(4 * MIB))
    assert check(path).clean


def test_more_refcount_blocks_than_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refcounts_module, "CACHE_BYTES", 1024)
    path = tmp_path / "disk.qcow2"
    create(path, MIB, cluster_size=512, refcount_bits=64)
    with Qcow2Disk(path) as disk:
        for lba in range(0, 2048, 8):
            disk.write(lba, noise(lba, 8 * SECTOR))
            if lba % 256 == 0:
                disk.flush()
        disk.discard(0, 512)
    with Qcow2Disk(path) as disk:
        assert disk.read(512, 1536) == b"".join(noise(lba, 8 * SECTOR) for lba in range(512, 2048, 8))
    assert check(path).clean


def test_offsets_that_entries_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig(tmp_path / "disk.qcow2", cluster_size=512) as rig:
        monkeypatch.setattr(rig.disk.image.compressed_entries, "end", 512)
        with pytest.raises(OSError, match="the qcow2 image cannot grow further"):
            rig.run("compress", 0, 1, 0)
        monkeypatch.setattr(rig.disk.image.refcounts, "_limit", 4)
        with pytest.raises(OSError, match="the qcow2 image cannot grow further"):
            rig.run("write", 0, 1, 0)
        rig.disk.flush()
