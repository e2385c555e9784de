"""A file as a disk."""

import os
import signal
from pathlib import Path

import pytest

from emuvisor import holes
from emuvisor.devices.storage.rawdisk import Preallocation, RawDisk, create_raw
from emuvisor.errors import ImageError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"a" * 512 + b"b" * 512 + b"c" * 512)
    return path


def test_reads_and_writes_sectors_of_the_file(image: Path) -> None:
    with RawDisk(image) as disk:
        assert (disk.name, disk.sectors, disk.read_only) == (str(image), 3, False)
        assert disk.read(1, 2) == b"b" * 512 + b"c" * 512
        disk.write(1, b"x" * 512)
        assert disk.read(0, 3) == b"a" * 512 + b"x" * 512 + b"c" * 512
    assert image.read_bytes() == b"a" * 512 + b"x" * 512 + b"c" * 512


def test_read_only_does_not_need_write_permission(image: Path) -> None:
    image.chmod(0o400)
    with RawDisk(image, read_only=True) as disk:
        assert disk.read_only
        assert disk.read(0, 1) == b"a" * 512
        with pytest.raises(OSError, match="Bad file descriptor"):
            disk.write(0, bytes(512))


def test_a_file_that_became_shorter_is_a_host_error(image: Path) -> None:
    with RawDisk(image) as disk:
        image.write_bytes(b"a" * 600)
        with pytest.raises(OSError, match="the disk image became shorter"):
            disk.read(1, 1)


def test_close_twice(image: Path) -> None:
    disk = RawDisk(image)
    disk.close()
    disk.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.read(0, 1)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        RawDisk(tmp_path / "none.img")
    assert str(error.value) == f"{tmp_path}/none.img: cannot open the disk image: No such file or directory"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.img").touch()
    with pytest.raises(ImageError) as error:
        RawDisk(tmp_path / "empty.img")
    assert str(error.value) == f"{tmp_path}/empty.img: the disk image is empty"


def test_part_of_a_sector(tmp_path: Path) -> None:
    (tmp_path / "odd.img").write_bytes(bytes(1000))
    with pytest.raises(ImageError) as error:
        RawDisk(tmp_path / "odd.img")
    assert (
        str(error.value)
        == f"{tmp_path}/odd.img: the disk image has 1000 bytes, not a multiple of the 512-byte sector"
    )


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        RawDisk(tmp_path)
    assert str(error.value) == f"{tmp_path}: cannot open the disk image: Is a directory"


# ---- locks ----


def refused(path: Path, read_only: bool = False) -> str:
    with pytest.raises(ImageError) as error:
        RawDisk(path, read_only)
    return str(error.value)


def test_one_writer_or_many_readers(image: Path) -> None:
    with RawDisk(image):
        assert refused(image) == f"{image}: the disk image is in use by another guest or program"
        assert (
            refused(image, read_only=True)
            == f"{image}: the disk image is being written by another guest or program"
        )
    with RawDisk(image, read_only=True), RawDisk(image, read_only=True) as disk:
        assert disk.read(0, 1) == b"a" * 512
        assert refused(image) == f"{image}: the disk image is in use by another guest or program"
    RawDisk(image).close()


def test_a_lock_ends_with_its_process(image: Path) -> None:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            RawDisk(image)
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        finally:
            os._exit(1)
    assert os.read(ready[0], 1) == b"x"
    assert refused(image) == f"{image}: the disk image is in use by another guest or program"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    RawDisk(image).close()
    for fd in ready + done:
        os.close(fd)


# ---- new images ----


def test_a_new_image_is_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    create_raw(path, 1 << 40)
    with RawDisk(path) as disk:
        assert (disk.sectors, disk.allocated, disk.host_path) == (1 << 31, 0, path)
        assert disk.read((1 << 31) - 1, 1) == bytes(512)


@pytest.mark.parametrize("preallocation", ["falloc", "full"])
def test_a_new_image_with_its_space(tmp_path: Path, preallocation: Preallocation) -> None:
    path = tmp_path / "new.img"
    steps: list[tuple[int, int]] = []
    size = (2 << 20) + 512
    create_raw(path, size, preallocation, lambda done, of: steps.append((done, of)))
    with RawDisk(path) as disk:
        assert disk.allocated >= size
        assert disk.read(0, disk.sectors) == bytes(size)
    assert steps == ([(1 << 20, size), (2 << 20, size), (size, size)] if preallocation == "full" else [])


def not_made(path: Path, size: int, preallocation: Preallocation = "off") -> str:
    with pytest.raises(ImageError) as error:
        create_raw(path, size, preallocation)
    return str(error.value)


@pytest.mark.parametrize("size", [0, -512, 1000])
def test_sizes_that_no_disk_has(tmp_path: Path, size: int) -> None:
    path = tmp_path / "new.img"
    assert not_made(path, size) == (
        f"{path}: a disk image cannot have {size} bytes; a positive multiple of the 512-byte sector is allowed"
    )
    assert not path.exists()


def test_an_image_that_exists_is_kept(image: Path) -> None:
    assert not_made(image, 512) == f"{image}: cannot make the disk image: File exists"
    assert image.read_bytes().startswith(b"aaa")


def test_nothing_is_left_of_an_image_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.img"

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert not_made(path, 512, "full") == f"{path}: cannot make the disk image: No space left on device"
    assert not path.exists()
    monkeypatch.setattr(holes, "_fallocate", None)
    assert not_made(path, 512, "falloc") == (
        f"{path}: cannot make the disk image: its file system cannot preallocate; "
        "preallocation full writes zeros instead"
    )
    assert not path.exists()
