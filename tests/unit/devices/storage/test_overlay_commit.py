"""Committing an overlay: the base gets everything, whenever the host stops."""

import errno
from pathlib import Path

import pytest
from storage_fakes import FakeDisk, pattern

from emuvisor.devices.storage.extents import data_extents
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.overlay_commit import commit_overlay
from emuvisor.errors import ImageError
from emuvisor.units import KIB

SECTOR = 512
CLUSTER = 64 * KIB
SECTORS = 10 * CLUSTER // SECTOR + 3


class SharedDisk(FakeDisk):
    """A base that outlives the overlays on it. `stop_after` writes the host stops."""

    stop_after = -1

    def write(self, lba: int, data: bytes) -> None:
        if self.stop_after == 0:
            raise KeyboardInterrupt
        self.stop_after -= 1
        super().write(lba, data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changes.overlay"


@pytest.fixture
def base() -> SharedDisk:
    return SharedDisk(SECTORS)


def changed(base: SharedDisk, path: Path) -> bytes:
    """Make an overlay with changes; returns what a guest sees with it."""
    with OverlayDisk.create(base, path) as disk:
        disk.write(5, b"a" * SECTOR)
        disk.write(3 * CLUSTER // SECTOR - 1, b"b" * 4 * SECTOR)
        disk.write_zeroes(4 * CLUSTER // SECTOR, 2 * CLUSTER // SECTOR, unmap=True)
        disk.write(6 * CLUSTER // SECTOR, b"e" * SECTOR)
        disk.write(SECTORS - 1, b"c" * SECTOR)
        return disk.read(0, SECTORS)


def test_everything_goes_into_the_base(base, path):
    expected = changed(base, path)
    steps = []
    base.flushes = 0
    all_bytes = 6 * CLUSTER + 3 * SECTOR
    assert commit_overlay(path, base, lambda *step: steps.append(step)) == all_bytes
    assert bytes(base.bytes) == expected
    assert base.flushes == 1
    assert steps[0] == (0, all_bytes)
    assert steps[-1] == (all_bytes, all_bytes)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_the_overlay_is_empty_then_and_of_use(base, path):
    expected = changed(base, path)
    before = path.stat()
    commit_overlay(path, base)
    assert path.stat().st_size == before.st_size
    assert path.stat().st_blocks < before.st_blocks
    with OverlayDisk(base, path) as disk:
        assert disk.clusters_present == 0
        assert disk.read(0, SECTORS) == expected
        disk.write(7, b"d" * SECTOR)
    with OverlayDisk(base, path) as disk:
        assert disk.read(7, 1) == b"d" * SECTOR


def test_nothing_to_commit(base, path):
    OverlayDisk.create(base, path).close()
    assert commit_overlay(path, base) == 0
    assert bytes(base.bytes) == pattern(SECTORS)
    OverlayDisk(base, path).close()


@pytest.mark.parametrize("writes", range(5))
def test_a_commit_that_stopped_is_ended_by_the_next(base, path, writes):
    expected = changed(base, path)
    base.stop_after = writes
    with pytest.raises(KeyboardInterrupt):
        commit_overlay(path, base)
    with pytest.raises(ImageError) as error:
        OverlayDisk(base, path)
    assert str(error.value) == (f"{path}: a commit of the overlay into its base did not end; commit it again")
    base.stop_after = -1
    commit_overlay(path, base)
    assert bytes(base.bytes) == expected
    with OverlayDisk(base, path) as disk:
        assert disk.read(0, SECTORS) == expected


def test_a_full_host(base, path):
    expected = changed(base, path)
    base.full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ImageError) as error:
        commit_overlay(path, base)
    assert str(error.value) == (f"{path}: cannot commit the overlay into fake.img: No space left on device")
    base.full = None
    commit_overlay(path, base)
    assert bytes(base.bytes) == expected


def test_another_base_is_refused_and_not_touched(base, path):
    changed(base, path)
    other = SharedDisk(SECTORS, name="other.img")
    other.bytes[0] ^= 1
    before = bytes(other.bytes)
    with pytest.raises(ImageError) as error:
        commit_overlay(path, other)
    assert str(error.value) == (
        f"{path}: the overlay is of another base, or other.img was changed after it was made"
    )
    assert other.bytes == before
    OverlayDisk(base, path).close()


def test_an_overlay_in_use(base, path):
    with OverlayDisk.create(base, path), pytest.raises(ImageError) as error:
        commit_overlay(path, base)
    assert str(error.value) == f"{path}: the overlay is in use by another guest or program"


def test_extents_of_an_overlay(base, path):
    """The overlay's holes are zeros, what is not in it the base's."""
    changed(base, path)
    with OverlayDisk(base, path) as disk:
        found = set()
        for start, end in data_extents(disk, 0, SECTORS):
            found |= set(range(start, end))
    zeroed = set(range(4 * CLUSTER // SECTOR, 6 * CLUSTER // SECTOR))
    assert found == set(range(SECTORS)) - zeroed
