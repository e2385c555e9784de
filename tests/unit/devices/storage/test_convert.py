"""Copying disks: zeros stay unwritten, failures leave nothing behind."""

import errno
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_fakes import FakeDisk

from emuvisor.devices.storage.convert import compress_disk, copy_disk, write_image
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.errors import ImageError
from emuvisor.units import MIB

SECTOR = 512
CLUSTER = 4096


class RecordingDisk(FakeDisk):
    """An empty disk that notes where it is written."""

    def __init__(self, sectors: int) -> None:
        super().__init__(sectors, name="target.img")
        self.bytes = bytearray(sectors * SECTOR)
        self.written: list[tuple[int, int]] = []

    def write(self, lba: int, data: bytes) -> None:
        super().write(lba, data)
        self.written.append((lba, lba + len(data) // SECTOR))


class CompressingDisk(RecordingDisk):
    """A disk that stores compressed clusters."""

    cluster_size = CLUSTER

    def __init__(self, sectors: int) -> None:
        super().__init__(sectors)
        self.compressed: list[int] = []

    def pack(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def write_compressed(self, cluster: int, data: bytes, packed: bytes) -> None:
        assert zlib.decompress(packed) == data
        assert len(data) == min(CLUSTER, len(self.bytes) - cluster * CLUSTER)
        self.bytes[cluster * CLUSTER : cluster * CLUSTER + len(data)] = data
        self.compressed.append(cluster)


class SparseDisk(FakeDisk):
    """A disk that says that only `extents` have data."""

    extents: tuple[tuple[int, int], ...] = ()

    def data_extents(self, lba, count):
        assert (lba, count) == (0, self.sectors)
        yield from self.extents


def source_of(content: bytes) -> FakeDisk:
    disk = FakeDisk(len(content) // SECTOR)
    disk.bytes = bytearray(content)
    return disk


def test_zeros_are_not_written():
    content = bytearray(64 * SECTOR)
    content[9 * SECTOR] = content[10 * SECTOR] = content[63 * SECTOR] = 1
    target = RecordingDisk(64)
    steps = []
    copy_disk(source_of(content), target, lambda *step: steps.append(step))
    assert target.bytes == content
    assert target.written == [(8, 16), (56, 64)]
    assert steps == [(0, 64), (64, 64)]
    assert target.flushes == 0


def test_only_the_extents_are_read():
    source = SparseDisk(64)
    source.extents = ((1, 3), (5, 6), (60, 62))
    source.bad = set(range(8, 56))
    target = RecordingDisk(64)
    copy_disk(source, target)
    assert target.bytes[: 8 * SECTOR] == source.bytes[: 8 * SECTOR]
    assert target.written == [(0, 8), (56, 64)]


def test_a_larger_disk_in_pieces():
    content = random.Random(1).randbytes(5 * MIB + 3 * SECTOR)
    source = source_of(content)
    target = RecordingDisk(source.sectors + 8)
    steps = []
    copy_disk(source, target, lambda done, _all: steps.append(done))
    assert target.bytes[: len(content)] == content
    assert steps == [0, 4096, 8192, source.sectors]


def test_a_source_that_cannot_be_read():
    source = FakeDisk(64)
    source.bad = {40}
    for copy, target in ((copy_disk, RecordingDisk(64)), (compress_disk, CompressingDisk(64))):
        with pytest.raises(ImageError) as error:
            copy(source, target)
        assert str(error.value) == "fake.img: cannot read the disk image: no such luck"


CONTENT = st.lists(st.sampled_from([b"\0", b"x", None]), min_size=1, max_size=12).flatmap(
    lambda kinds: st.integers(1, 8).map(lambda tail: (kinds, tail))
)


@settings(max_examples=60)
@given(CONTENT, st.integers(0, 99))
def test_compression(content, seed):
    kinds, tail = content
    chance = random.Random(seed)
    data = b"".join(chance.randbytes(CLUSTER) if kind is None else kind * CLUSTER for kind in kinds)
    data += b"t" * tail * SECTOR
    source = source_of(data)
    target = CompressingDisk(source.sectors)
    compress_disk(source, target)
    assert target.bytes == data
    used = [number for number, kind in enumerate(kinds) if kind != b"\0"]
    assert target.compressed == [*used, len(kinds)]
    assert target.written == []


def test_compression_keeps_little_waiting(monkeypatch):
    """What is compressed is stored long before all is read."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    source = source_of(b"z" * 12 * MIB)
    target = CompressingDisk(source.sectors)
    stored = []
    compress_disk(source, target, lambda done, _all: stored.append((done, len(target.compressed))))
    assert stored[-2][1] > 0
    assert target.bytes == source.bytes


def make(path: Path) -> RawDisk:
    create_raw(path, MIB)
    return RawDisk(path)


def fill(disk: RawDisk) -> None:
    disk.write(0, b"n" * SECTOR)


def test_an_image_is_written(tmp_path):
    path = tmp_path / "new.img"
    write_image(path, make, fill)
    assert path.read_bytes()[:SECTOR] == b"n" * SECTOR
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "old.img"
    path.write_bytes(b"o" * SECTOR)
    with pytest.raises(ImageError) as error:
        write_image(path, make, fill)
    assert str(error.value) == f"{path}: the file exists already"
    dangling = tmp_path / "link.img"
    dangling.symlink_to("nowhere")
    with pytest.raises(ImageError) as error:
        write_image(dangling, make, fill)
    assert str(error.value) == f"{dangling}: the file exists already"
    assert path.read_bytes() == b"o" * SECTOR


def test_an_existing_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "old.img"
    path.write_bytes(b"o" * SECTOR)

    def fill_and_look(disk: RawDisk) -> None:
        fill(disk)
        assert path.read_bytes() == b"o" * SECTOR

    write_image(path, make, fill_and_look, replace=True)
    assert path.read_bytes()[:SECTOR] == b"n" * SECTOR
    assert list(tmp_path.iterdir()) == [path]


def test_an_image_in_use_is_not_replaced(tmp_path):
    path = tmp_path / "old.img"
    path.write_bytes(b"o" * SECTOR)
    guest = ImageFile(path, read_only=True)
    with pytest.raises(ImageError) as error:
        write_image(path, make, fill, replace=True)
    assert str(error.value) == f"{path}: the disk image is in use by another guest or program"
    guest.close()
    write_image(path, make, fill, replace=True)


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_file_is_not_replaced(path):
    with pytest.raises(ImageError) as error:
        write_image(Path(path), make, fill, replace=True)
    assert str(error.value) == f"{path}: only a regular file can be replaced"


def test_a_full_host_leaves_nothing(tmp_path):
    path = tmp_path / "new.img"

    def fail(disk: RawDisk) -> None:
        fill(disk)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ImageError) as error:
        write_image(path, make, fail)
    assert str(error.value) == f"{path}: cannot write the image: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_messages_name_the_file_and_not_its_other_name(tmp_path):
    def make_nothing(path: Path) -> RawDisk:
        create_raw(path, 100)
        raise AssertionError

    path = tmp_path / "new.img"
    with pytest.raises(ImageError) as error:
        write_image(path, make_nothing, fill)
    assert str(error.value) == (
        f"{path}: a disk image cannot have 100 bytes; a positive multiple of the 512-byte sector is allowed"
    )


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupt(_disk: RawDisk) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "new.img", make, interrupt)
    assert list(tmp_path.iterdir()) == []
