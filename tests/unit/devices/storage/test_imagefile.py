"""Image files: short reads and writes, pieces of memory, holes; CD images; disks that refuse in their middle."""

import ctypes
import errno
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor import holes
from emuvisor.devices.storage import imagefile, scatter
from emuvisor.devices.storage.blockdevice import BlockDefaults, BlockDevice, sectors_that_work
from emuvisor.devices.storage.cdimage import CdImage
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"a" * 5120)
    return path


def test_what_the_host_does_in_pieces_is_put_together(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ImageFile(image, read_only=False)
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 100), offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:100], offset))
    file.write(10, bytes(range(256)))
    assert file.read(9, 258) == b"a" + bytes(range(256)) + b"a"
    file.close()


def test_a_file_that_cannot_be_read(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(ImageError) as error:
        ImageFile(image, read_only=True)
    assert str(error.value) == f"{image}: cannot read the disk image: Input/output error"


def test_discarded_sectors_are_a_hole(image: Path) -> None:
    image.write_bytes(b"a" * (1 << 20))
    with RawDisk(image) as disk:
        disk.discard(1, 2000)
        disk.flush()
        assert disk.read(0, 2) == b"a" * 512 + bytes(512)
        assert disk.read(2000, 2) == bytes(512) + b"a" * 512
    assert image.stat().st_size == 1 << 20
    assert image.stat().st_blocks < 64


def test_a_hole_that_the_host_refuses(image: Path) -> None:
    with RawDisk(image, read_only=True) as disk:
        with pytest.raises(OSError, match="Bad file descriptor"):
            disk.discard(1, 1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            disk.write_zeroes(1, 1, unmap=True)


def test_a_host_without_holes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "_fallocate", None)
    monkeypatch.setattr(imagefile, "ZEROS", bytes(1000))
    with RawDisk(image) as disk:
        disk.discard(1, 1)
        assert disk.read(0, 10) == b"a" * 5120
        disk.write_zeroes(1, 5, unmap=True)
        disk.write_zeroes(8, 1, unmap=False)
        assert disk.read(0, 10) == b"a" * 512 + bytes(2560) + b"a" * 1024 + bytes(512) + b"a" * 512


def test_an_interrupted_call_is_made_again(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [errno.EINTR, 0]

    def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
        ctypes.set_errno(results.pop(0))
        return -1 if ctypes.get_errno() else 0

    monkeypatch.setattr(holes, "_fallocate", fallocate)
    with RawDisk(image) as disk:
        disk.discard(1, 1)
    assert results == []


def test_zeros_keep_their_space_or_give_it_back(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(1 << 20)
    with RawDisk(image) as disk:
        assert disk.allocated == 0
        disk.write_zeroes(0, 2048, unmap=True)
        assert disk.allocated == 0
        disk.write_zeroes(0, 2048, unmap=False)
        disk.flush()
        assert disk.allocated >= 1 << 20
        disk.write_zeroes(0, 2048, unmap=True)
        disk.flush()
        assert disk.allocated == 0


def test_what_a_flush_could_not_store_stays_unflushed(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    disk = RawDisk(image)
    with monkeypatch.context() as host:
        host.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="cannot flush: No space left on device") as error:
            disk.flush()
        assert error.value.errno == errno.EIO
    with pytest.raises(OSError, match="an earlier flush of the disk image failed"):
        disk.flush()
    disk.close()


# ---- scatter and gather ----


def views(data: bytearray, *lengths: int) -> list[memoryview]:
    result, rest = [], memoryview(data)
    for length in lengths:
        result.append(rest[:length])
        rest = rest[length:]
    return [*result, rest]


def test_pieces_of_memory_without_copies(image: Path) -> None:
    with RawDisk(image) as disk:
        disk.write_from(2, views(bytearray(range(256)) * 4, 1, 0, 700))
        data = bytearray(2048)
        disk.read_into(1, views(data, 100, 512, 3))
        assert data == b"a" * 512 + bytes(range(256)) * 4 + b"a" * 512
        disk.read_into(1, [])
        with pytest.raises(OSError, match="the disk image became shorter"):
            disk.read_into(9, views(bytearray(1024)))


def test_more_pieces_than_one_call_takes(image: Path) -> None:
    data = bytearray(random.Random(1).randbytes(5120))
    pieces = [memoryview(data)[i : i + 2] for i in range(0, 5120, 2)]
    assert len(pieces) > 2 * scatter.MOST_BUFFERS
    with RawDisk(image) as disk:
        disk.write_from(0, pieces)
        assert disk.read(0, 10) == data
        data[:] = bytes(5120)
        disk.read_into(0, pieces)
        assert disk.read(0, 10) == data


def test_calls_that_stop_early_go_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, pwritev = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, data, at: preadv(fd, scatter.part(data, 0, 333), at))
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: pwritev(fd, scatter.part(data, 0, 333), at))
    written = bytearray(random.Random(2).randbytes(5120))
    data = bytearray(5120)
    with RawDisk(image) as disk:
        disk.write_from(0, views(written, 100, 1000, 0, 333))
        disk.read_into(0, views(data, 333, 333, 1000))
    assert data == written == image.read_bytes()


@given(lengths=st.lists(st.integers(0, 20), max_size=8), start=st.integers(0, 80), length=st.integers(0, 80))
def test_a_part_of_pieces(lengths: list[int], start: int, length: int) -> None:
    data = bytearray(range(sum(lengths)))
    pieces = views(data, *lengths)
    assert scatter.total_length(pieces) == len(data)
    assert b"".join(scatter.part(pieces, start, start + length)) == data[start : start + length]


# ---- defaults, CD images ----


class PlainDisk(BlockDefaults):
    """As little of a disk as works."""

    def __init__(self) -> None:
        self.name = "/somewhere/plain"
        self.sectors = 5000
        self.read_only = False
        self.bytes = bytearray(b"a" * 5000 * 512)
        self.most = 0

    def read(self, lba: int, count: int) -> bytes:
        return bytes(self.bytes[lba * 512 : (lba + count) * 512])

    def write(self, lba: int, data: bytes) -> None:
        self.most = max(self.most, len(data))
        self.bytes[lba * 512 : lba * 512 + len(data)] = data

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_a_disk_can_be_without() -> None:
    disk: BlockDevice = PlainDisk()
    assert (disk.host_path, disk.allocated) == (Path("/somewhere/plain"), 5000 * 512)
    disk.write_from(1, views(bytearray(b"b" * 1024), 7))
    data = bytearray(2048)
    disk.read_into(0, views(data, 600, 0))
    assert data == b"a" * 512 + b"b" * 1024 + b"a" * 512
    disk.discard(0, 5000)
    disk.write_zeroes(10, 4980, unmap=True)
    assert (
        disk.read(0, 5000) == b"a" * 512 + b"b" * 1024 + b"a" * 7 * 512 + bytes(4980 * 512) + b"a" * 10 * 512
    )
    assert disk.most == 1 << 20


def test_cd_image(tmp_path: Path) -> None:
    path = tmp_path / "cd.iso"
    path.write_bytes(b"x" * 2048 + b"y" * 1000)
    with CdImage(path) as disc:
        assert (disc.name, disc.sectors, disc.read_only) == (str(path), 8, True)
        assert disc.allocated == path.stat().st_blocks * 512
        assert disc.read(0, 8) == b"x" * 2048 + b"y" * 1000 + bytes(1048)
        assert disc.read(6, 2) == bytes(1024)
        with pytest.raises(OSError, match="Read-only file system"):
            disc.write(0, bytes(512))
        disc.flush()
        path.write_bytes(b"x" * 2048)
        with pytest.raises(OSError, match="the CD image became shorter"):
            disc.read(4, 1)


def test_cd_images_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "cd.iso"
    with pytest.raises(ImageError) as error:
        CdImage(path)
    assert str(error.value) == f"{path}: cannot open the CD image: No such file or directory"
    path.write_bytes(bytes(2047))
    with pytest.raises(ImageError) as error:
        CdImage(path)
    assert str(error.value) == f"{path}: the CD image has 2047 bytes; a CD has at least one block of 2048"


@pytest.mark.parametrize("count", [1, 2, 3, 100, 2048])
def test_the_first_bad_sector_is_found_in_few_attempts(count: int) -> None:
    for good in {0, 1, count // 2, count - 1}:
        attempts = []

        def attempt(n: int, good: int = good, attempts: list[int] = attempts) -> None:
            attempts.append(n)
            if n > good:
                raise OSError(errno.EIO, "bad")

        assert sectors_that_work(attempt, count) == min(good, count - 1)
        assert len(attempts) <= 11
