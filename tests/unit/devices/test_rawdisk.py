"""A file as a disk."""

from pathlib import Path

import pytest

from emuvisor.devices.storage.rawdisk import RawDisk
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
