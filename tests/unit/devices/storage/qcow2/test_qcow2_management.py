"""Making, resizing, committing, checking, repairing and looking at qcow2 images."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from qcow2_rig import SECTOR, SECTORS, Rig, noise

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2 import create as create_module
from emuvisor.devices.storage.qcow2.backing import MAX_CHAIN, Chain
from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.commit import commit
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.entries import Kind
from emuvisor.devices.storage.qcow2.info import info
from emuvisor.devices.storage.qcow2.resize import resize
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError
from emuvisor.units import MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "disk.qcow2"


def test_what_an_image_says_of_itself(path: Path) -> None:
    create(path, MIB, compression="zstd", lazy_refcounts=True, refcount_bits=8, cluster_size=4096)
    found = info(path)
    assert (found.path, found.version, found.size, found.cluster_size) == (str(path), 3, MIB, 4096)
    assert (found.refcount_bits, found.compression, found.snapshots) == (8, "zstd", ())
    assert (found.backing_file, found.backing_format, found.dirty, found.corrupt) == (
        None,
        None,
        False,
        False,
    )
    assert found.features == ("compression type", "lazy refcounts")
    assert found.file_size == path.stat().st_size
    assert found.allocated <= found.file_size


def test_a_disk_describes_itself(path: Path) -> None:
    create(path, MIB, cluster_size=4096)
    with Qcow2Disk(path) as disk:
        assert (disk.name, disk.host_path, disk.sectors, disk.cluster_size) == (str(path), path, 2048, 4096)
        assert not disk.read_only
        assert disk.backing is None
        before = disk.allocated
        disk.write(0, b"x" * 65536)
        disk.flush()
        assert disk.allocated >= before + 65536
    disk.close()
    with Qcow2Disk(path, read_only=True) as disk:
        disk.flush()
        assert disk.read_only
        for attempt in (
            lambda: disk.write(600, bytes(512)),
            lambda: disk.discard(0, 1),
            lambda: disk.write_zeroes(0, 1, unmap=False),
            lambda: disk.write_compressed(0, b""),
        ):
            with pytest.raises(OSError, match="Read-only file system"):
                attempt()


def test_an_image_in_use(path: Path) -> None:
    create(path, MIB)
    with (
        Qcow2Disk(path),
        pytest.raises(ImageError, match="the qcow2 image is being written by another guest"),
    ):
        info(path)


def test_discard_gives_space_back(path: Path) -> None:
    create(path, 4 * MIB)
    with Qcow2Disk(path) as disk:
        disk.write(0, b"x" * 4 * MIB)
        disk.flush()
        full = disk.allocated
        disk.discard(0, disk.sectors)
        disk.flush()
        assert disk.allocated < full - 3 * MIB
        assert [extent.kind for extent in disk.extents()] == [Kind.BACKING]


def test_much_that_waits_is_given_back_without_a_flush(path: Path) -> None:
    create(path, 8 * MIB, cluster_size=512)
    with Qcow2Disk(path) as disk:
        disk.write(0, b"x" * 8 * MIB)
        disk.flush()
        full = disk.allocated
        disk.discard(0, disk.sectors)
        assert disk.allocated < full - 5 * MIB


def test_a_host_without_holes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: ImageFile, offset: int, length: int) -> None:
        raise OSError(errno.EIO, "no")

    with Rig(path) as rig:
        rig.run("write", 0, 300, 1)
        monkeypatch.setattr(ImageFile, "discard", refuse)
        rig.run("unmap", 0, 256, 0)
        rig.disk.flush()
        rig.run("write", 0, 100, 2)
        rig.verify()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": None}, "a disk image without a backing file needs a size"),
        (
            {"size": 1},
            "a disk image cannot have 1 bytes; a positive multiple of the 512-byte sector is allowed",
        ),
        (
            {"cluster_size": 1000},
            "clusters cannot have 1000 bytes; a power of two from 512 to 2097152 is allowed",
        ),
        (
            {"cluster_size": 256},
            "clusters cannot have 256 bytes; a power of two from 512 to 2097152 is allowed",
        ),
        ({"cluster_size": 0}, "clusters cannot have 0 bytes; a power of two from 512 to 2097152 is allowed"),
        ({"version": 4}, "qcow2 has no version 4; 2 and 3 are supported"),
        ({"refcount_bits": 3}, "reference counts cannot have 3 bits; 1, 2, 4, 8, 16, 32, 64 are allowed"),
        ({"compression": "lz4"}, "the compression 'lz4' is not one of zlib, zstd"),
        (
            {"version": 2, "refcount_bits": 8},
            "version 2 has only reference counts of 16 bits, zlib compression and no lazy refcounts",
        ),
        (
            {"backing": "b.img", "backing_format": "raw", "preallocation": "full"},
            "an image with a backing file cannot be preallocated",
        ),
        (
            {"backing": "b.img"},
            "the qcow2 image does not say in which format its backing file is; "
            "set it with: qemu-img rebase -u -F raw|qcow2 -b BACKING IMAGE",
        ),
        (
            {"backing": "b.img", "backing_format": "vmdk"},
            "the backing file has the format 'vmdk'; raw and qcow2 are supported",
        ),
        (
            {"backing": "nbd://host/x", "backing_format": "raw"},
            "the backing file 'nbd://host/x' is not a plain file name, which alone is supported",
        ),
        ({"backing": "x" * 1024}, "the name of the backing file has 1024 bytes; 1 to 1023 are allowed"),
    ],
)
def test_images_that_cannot_be_made(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError) as error:
        create(path, **{"size": MIB, **arguments})
    assert str(error.value) == f"{path}: {message}"
    assert not path.exists()


def test_a_backing_name_that_a_small_cluster_cannot_hold(path: Path) -> None:
    folder = path.parent / ("d" * 200) / ("e" * 200)
    folder.mkdir(parents=True)
    (folder / "base.img").write_bytes(bytes(512))
    name = os.path.relpath(folder / "base.img", path.parent)
    with pytest.raises(ImageError) as error:
        create(path, backing=name, backing_format="raw", cluster_size=512)
    assert str(error.value) == (
        f"{path}: the header would have 546 bytes, and must fit into a cluster of 512; "
        "take a larger cluster size or a shorter backing file name"
    )
    create(path, backing=name, backing_format="raw", cluster_size=1024)
    assert info(path).backing_file == name


def test_an_existing_file_is_left_alone(path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(ImageError) as error:
        create(path, MIB)
    assert str(error.value) == f"{path}: cannot make the disk image: File exists"
    assert path.read_bytes() == b"mine"


def test_a_host_that_cannot_preallocate(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(create_module, "allocate", refuse)
    with pytest.raises(ImageError) as error:
        create(path, MIB, preallocation="falloc")
    assert str(error.value) == (
        f"{path}: cannot make the disk image: "
        "its file system cannot preallocate; preallocation full writes zeros instead"
    )
    assert not path.exists()


@pytest.mark.parametrize("preallocation", ["metadata", "falloc", "full"])
def test_preallocated_images(path: Path, preallocation: Any) -> None:
    create(path, 3 * MIB, preallocation=preallocation, cluster_size=4096)
    assert check(path).allocated_clusters == 768
    with Qcow2Disk(path) as disk:
        assert {extent.kind for extent in disk.extents()} == {Kind.DATA}
        assert disk.read(0, disk.sectors) == bytes(3 * MIB)
        if preallocation != "metadata":
            assert disk.allocated >= 3 * MIB


def test_images_are_their_own_backing_file(path: Path) -> None:
    other = path.with_name("other.qcow2")
    create(other, MIB)
    create(path, MIB, backing="other.qcow2", backing_format="qcow2")
    other.unlink()
    other.symlink_to(path)
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert str(error.value) == f"{other}: the disk image is its own backing file"


def test_a_chain_has_an_end(path: Path) -> None:
    chain = Chain()
    for number in range(MAX_CHAIN):
        place = path.with_name(f"{number}.img")
        place.write_bytes(b"")
        chain.enter(place)
    path.write_bytes(b"")
    with pytest.raises(ImageError) as error:
        chain.enter(path)
    assert (
        str(error.value) == f"{path}: more than 64 disk images are backing files of one another; merge some"
    )


def test_a_backing_file_that_is_not_there(path: Path) -> None:
    base = path.with_name("base.img")
    base.write_bytes(bytes(512))
    create(path, MIB, backing=base, backing_format="raw")
    base.unlink()
    with pytest.raises(ImageError) as error:
        Qcow2Disk(path)
    assert str(error.value) == f"{base}: cannot open the disk image: No such file or directory"
    with Qcow2Disk(path, backing=None) as disk:
        assert disk.read(0, 1) == bytes(512)


def test_resizing_by_name(path: Path) -> None:
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 280, 20, 1)
        size = len(rig.model)
    resize(path, size + 64 * MIB)  # needs a larger L1 table
    resize(path, size + 64 * MIB)
    assert check(path).clean
    with Qcow2Disk(path) as disk:
        assert disk.read(0, SECTORS + 10) == rig.model + bytes(10 * SECTOR)
    resize(path, size)
    assert info(path).size == size
    with pytest.raises(ImageError) as error:
        resize(path, 285 * SECTOR)
    assert str(error.value) == (
        f"{path}: the disk has 7680 bytes in clusters behind byte 145920, which would be lost; "
        "shrink it explicitly to lose them"
    )
    resize(path, 285 * SECTOR, shrink=True)
    resize(path, size)
    with Qcow2Disk(path) as disk:
        assert disk.read(280, 20) == rig.model[280 * SECTOR : 285 * SECTOR] + bytes(15 * SECTOR)
    assert check(path).clean


def test_a_resize_that_the_host_refuses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path, MIB, cluster_size=512)

    def full(file: ImageFile, offset: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "write", full)
        with pytest.raises(ImageError) as error:
            resize(path, 64 * MIB)
        assert str(error.value) == f"{path}: cannot resize the disk image: No space left on device"
    assert info(path).size == MIB
    assert check(path).corruptions == 0


@pytest.mark.parametrize("base_format", ["raw", "qcow2"])
@pytest.mark.parametrize("base_sectors", [100, 300, 500])
def test_commit(path: Path, base_format: Any, base_sectors: int) -> None:
    base = path.with_name("base")
    below = noise(1, base_sectors * SECTOR)
    if base_format == "raw":
        base.write_bytes(below)
    else:
        create(base, len(below), cluster_size=1024)
        with Qcow2Disk(base) as disk:
            disk.write(0, below)
    create(path, 400 * SECTOR, backing="base", backing_format=base_format, cluster_size=1024)
    model = bytearray(below[: 400 * SECTOR].ljust(400 * SECTOR, b"\0"))
    with Qcow2Disk(path) as disk:
        disk.write(20, noise(2, 90 * SECTOR))
        model[20 * SECTOR : 110 * SECTOR] = noise(2, 90 * SECTOR)
        disk.write_zeroes(50, 20, unmap=True)
        model[50 * SECTOR : 70 * SECTOR] = bytes(20 * SECTOR)
        disk.write_compressed(0, b"z" * 1024)
        model[:1024] = b"z" * 1024
    commit(path)
    assert check(path).allocated_clusters == 0
    with Qcow2Disk(path) as disk:
        assert disk.read(0, 400) == model
    with Qcow2Disk(base) if base_format == "qcow2" else RawDisk(base) as disk:
        assert disk.sectors == max(400, base_sectors)
        assert disk.read(0, 400) == model
        assert disk.read(400, disk.sectors - 400) == below[400 * SECTOR :]


def test_commits_that_cannot_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path, MIB)
    with pytest.raises(ImageError) as error:
        commit(path)
    assert str(error.value) == f"{path}: the qcow2 image has no backing file to commit to"
    above = path.with_name("above.qcow2")
    create(above, backing="disk.qcow2", backing_format="qcow2")
    with Qcow2Disk(above) as disk:
        disk.write(0, noise(1, 512))

    def full(disk: Qcow2Disk, lba: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Qcow2Disk, "write", full)
    with pytest.raises(ImageError) as error:
        commit(above)
    assert str(error.value) == f"{above}: cannot commit the qcow2 image: No space left on device"


def test_leaks_are_found_and_given_back(path: Path) -> None:
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 0, 50, 1)
        rig.disk.image.refcounts.allocate(7)
        rig.disk.flush()
    report = check(path)
    assert (report.corruptions, report.leaks, report.clean, report.repaired) == (0, 7, False, False)
    report = check(path, repair=True)
    assert (report.leaks, report.clean, report.repaired, report.total_clusters) == (0, True, True, SECTORS)
    assert not check(path, repair=True).repaired
    with Qcow2Disk(path) as disk:
        assert disk.read(0, SECTORS) == rig.model


@pytest.mark.parametrize("kind", [{"cluster_size": 512}, {"cluster_size": 1024, "refcount_bits": 1}])
def test_wrong_refcounts_and_flags_are_repaired(path: Path, kind: dict[str, Any]) -> None:
    with Rig(path, **kind) as rig:
        rig.run("write", 0, 200, 1)
        size, table = rig.disk.cluster_size, rig.disk.image.header.refcount_table_offset
        entry = rig.disk.image.tables.l1[0] & ~(1 << 63)
    image = bytearray(path.read_bytes())
    block = int.from_bytes(image[table : table + 8], "big")
    image[block : block + size] = bytes(size)
    image[entry] &= 0x7F  # the first cluster is no longer marked as the image's own
    image[72:80] = (2).to_bytes(8, "big")  # corrupt
    path.write_bytes(image)
    report = check(path)
    assert report.corruptions > 100
    assert report.messages[0] == "1 entries have a wrong COPIED flag"
    assert len(report.messages) == 20
    assert check(path, repair=True).clean
    assert not info(path).corrupt
    with Qcow2Disk(path) as disk:
        assert disk.read(0, SECTORS) == rig.model


def damage(path: Path, offset: int, number: int) -> None:
    image = bytearray(path.read_bytes())
    image[offset : offset + 8] = number.to_bytes(8, "big")
    path.write_bytes(image)


def test_damage_that_no_repair_mends(path: Path) -> None:
    with Rig(path, cluster_size=512) as rig:
        rig.run("write", 0, 70, 1)
        l1, table = rig.disk.image.header.l1_table_offset, rig.disk.image.header.refcount_table_offset
        l2 = rig.disk.image.tables.l1[0] & ~(1 << 63)
    image = path.read_bytes()
    damage(path, l2, 1 << 63 | l1)
    cluster = l1 // 512
    assert check(path).messages[0] == f"cluster {cluster} holds metadata and is used for something else too"
    with pytest.raises(ImageError) as error:
        check(path, repair=True)
    assert str(error.value) == (
        f"{path}: the qcow2 image is damaged: cluster {cluster} holds metadata and is used for something else too, "
        "which cannot be repaired"
    )
    path.write_bytes(image)
    damage(path, l2, 1 << 63 | 3)
    report = check(path, repair=True)
    assert report.messages == (
        f"entry 0 of the L2 table in cluster {l2 // 512} is misaligned or outside the file",
    )
    path.write_bytes(image)
    damage(path, table, 513)
    assert check(path).messages[0] == "entry 0 of the refcount table is misaligned or outside the file"
    assert check(path, repair=True).clean
    path.write_bytes(image)
    damage(path, table, 0)
    assert check(path).messages[0].startswith("refcount block 0 is missing: ")
    assert check(path, repair=True).clean
    path.write_bytes(image)
    damage(path, table + 8, 1024)
    assert check(path).messages[0] == "cluster 2 holds metadata and is used for something else too"
    assert check(path, repair=True).clean


def test_a_use_that_cannot_be_counted(path: Path) -> None:
    with Rig(path, cluster_size=512, refcount_bits=1) as rig:
        rig.run("write", 0, 2, 1)
        l2 = rig.disk.image.tables.l1[0] & ~(1 << 63)
    image = bytearray(path.read_bytes())
    image[l2 + 8 : l2 + 16] = image[l2 : l2 + 8]
    path.write_bytes(image)
    with pytest.raises(ImageError) as error:
        check(path, repair=True)
    assert str(error.value) == (
        f"{path}: the qcow2 image is damaged: a cluster is used 2 times, more than 1 bits can count"
    )
    with Qcow2Disk(path) as disk:  # the second discard frees what is free already
        disk.discard(0, 2)
        disk.flush()
        assert disk.read(0, 2) == bytes(1024)
