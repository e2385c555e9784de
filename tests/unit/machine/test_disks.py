"""What a configuration calls a disk, opened."""

from dataclasses import replace
from pathlib import Path

import pytest

from emuvisor.devices.storage.qcow2.create import create
from emuvisor.errors import ImageError
from emuvisor.machine.config import DiskConfig
from emuvisor.machine.disks import open_disk

SECTOR = b"base" * 128
WRITTEN = b"disk" * 128


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(SECTOR * 8)
    return path


def test_a_raw_disk_is_written_where_it_is(image: Path) -> None:
    disk = open_disk(DiskConfig(image))
    disk.write(1, WRITTEN)
    disk.close()
    assert image.read_bytes() == SECTOR + WRITTEN + SECTOR * 6


def test_a_read_only_disk_and_a_floppy(image: Path) -> None:
    for config in (DiskConfig(image, readonly=True), DiskConfig(image, readonly=True, kind="floppy")):
        disk = open_disk(config)
        assert (disk.read_only, disk.sectors) == (True, 8)
        disk.close()


def test_a_cd(image: Path) -> None:
    disk = open_disk(DiskConfig(image, kind="cdrom"))
    assert (disk.read_only, disk.read(4, 1)) == (True, SECTOR)
    disk.close()


def test_a_temporary_overlay_is_forgotten(image: Path) -> None:
    for _ in range(2):
        disk = open_disk(DiskConfig(image, overlay="temporary"))
        assert disk.read(2, 1) == SECTOR
        disk.write(2, WRITTEN)
        assert disk.read(2, 1) == WRITTEN
        disk.close()
    assert image.read_bytes() == SECTOR * 8


def test_an_overlay_file_is_made_and_found_again(image: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "disk.overlay"
    config = DiskConfig(image, overlay=overlay)
    disk = open_disk(config)
    disk.write(3, WRITTEN)
    disk.close()
    again = open_disk(config)
    assert again.read(2, 2) == SECTOR + WRITTEN
    again.close()
    assert image.read_bytes() == SECTOR * 8


def test_a_qcow2_image_by_its_name_or_as_said(tmp_path: Path) -> None:
    for config in (DiskConfig(tmp_path / "disk.qcow2"), DiskConfig(tmp_path / "disk", format="qcow2")):
        create(config.path, 8 * 512)
        disk = open_disk(config)
        disk.write(1, WRITTEN)
        disk.close()
        again = open_disk(replace(config, readonly=True))
        assert (again.sectors, again.read_only, again.read(0, 2)) == (8, True, bytes(512) + WRITTEN)
        again.close()


def test_an_overlay_on_a_qcow2_image(tmp_path: Path) -> None:
    base, overlay = tmp_path / "disk.qcow2", tmp_path / "disk.overlay"
    create(base, 8 * 512)
    before = base.read_bytes()
    for expected in (bytes(512), WRITTEN):
        disk = open_disk(DiskConfig(base, overlay=overlay))
        assert disk.read(3, 1) == expected
        disk.write(3, WRITTEN)
        disk.close()
    assert base.read_bytes() == before


def test_a_raw_disk_that_begins_as_another_format(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(path, 8 * 512)
    with pytest.raises(ImageError) as error:
        open_disk(DiskConfig(path))
    assert str(error.value) == (
        f"{path}: the file begins as a qcow2 image does, but its name says raw; say which format it is"
    )
    open_disk(DiskConfig(path, format="raw")).close()


def test_a_file_that_is_no_overlay(image: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"x" * 4096)
    with pytest.raises(ImageError) as error:
        open_disk(DiskConfig(image, overlay=wrong))
    assert str(error.value).startswith(f"{wrong}: ")
