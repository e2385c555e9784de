"""Image files: short reads and writes, holes; CD images; disks that refuse in their middle."""

import errno
import os
from pathlib import Path

import pytest

from emuvisor.devices.storage import holes
from emuvisor.devices.storage.blockdevice import sectors_that_work
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
    with RawDisk(image, read_only=True) as disk, pytest.raises(OSError, match="Bad file descriptor"):
        disk.discard(1, 1)


def test_a_host_without_holes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "_fallocate", None)
    with RawDisk(image) as disk, pytest.raises(OSError, match="the host has no fallocate"):
        disk.discard(1, 1)


def test_cd_image(tmp_path: Path) -> None:
    path = tmp_path / "cd.iso"
    path.write_bytes(b"x" * 2048 + b"y" * 1000)
    with CdImage(path) as disc:
        assert (disc.name, disc.sectors, disc.read_only) == (str(path), 8, True)
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
