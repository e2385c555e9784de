"""Formats follow from what is said, or from names; never from content."""

from pathlib import Path

import pytest
from storage_fakes import FakeDisk

from emuvisor.devices.storage.formats import format_of, open_image
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.errors import ImageError
from emuvisor.units import MIB


@pytest.mark.parametrize(
    ("name", "format", "found"),
    [
        ("disk.img", None, "raw"),
        ("disk", None, "raw"),
        ("disk.qcow2", None, "qcow2"),
        ("DISK.QCOW2", None, "qcow2"),
        ("disk.qcow", None, "qcow2"),
        ("disk.qcow2.img", None, "raw"),
        ("disk.qcow2", "raw", "raw"),
        ("disk.img", "qcow2", "qcow2"),
    ],
)
def test_the_format(name, format, found):
    assert format_of(name, format) == found


def test_a_raw_image(tmp_path: Path):
    path = tmp_path / "disk.img"
    create_raw(path, MIB)
    for read_only in (False, True):
        disk = open_image(path, read_only=read_only)
        assert isinstance(disk, RawDisk)
        assert (disk.read_only, disk.sectors) == (read_only, 2048)
        disk.close()


def test_a_qcow2_image(tmp_path: Path):
    for name, format in (("disk.qcow2", None), ("disk.img", "qcow2")):
        path = tmp_path / name
        create(path, MIB)
        for read_only in (False, True):
            disk = open_image(path, format, read_only=read_only)
            assert isinstance(disk, Qcow2Disk)
            assert (disk.read_only, disk.sectors) == (read_only, 2048)
            disk.close()


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as error:
        open_image(path)
    return str(error.value)


def test_what_a_guest_wrote_decides_nothing(tmp_path: Path):
    """A raw disk becomes no qcow2 image because its first bytes are those of one."""
    path = tmp_path / "disk.img"
    create(path, MIB)
    assert refused(path) == (
        f"{path}: the file begins as a qcow2 image does, but its name says raw; say which format it is"
    )
    disk = open_image(path, "raw")
    assert disk.read(0, 1)[:4] == b"QFI\xfb"
    disk.close()


def test_an_overlay_is_no_disk(tmp_path: Path):
    path = tmp_path / "changes"
    OverlayDisk.create(FakeDisk(100), path).close()
    assert refused(path) == (
        f"{path}: the file begins as an emuvisor overlay does, but its name says raw; say which format it is"
    )


def test_a_file_that_is_not_there(tmp_path: Path):
    path = tmp_path / "disk.img"
    assert refused(path) == f"{path}: cannot open the disk image: No such file or directory"
