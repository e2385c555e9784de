"""Thin provisioning: what is promised, used and free, and when people hear of it."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from emuvisor.devices.storage import thin
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.devices.storage.thin import ThinPool, ThinUsage, is_high, measure
from emuvisor.errors import UsageError
from emuvisor.units import MIB


@dataclass
class FakeDisk:
    host_path: Path
    sectors: int = 2 * MIB // 512
    allocated: int = MIB


@dataclass
class FakeHost:
    """A file system of 100 blocks of 1 MiB, of which 4 are the administrator's."""

    taken: int

    def statvfs(self, path: Path) -> os.statvfs_result:
        free = 100 - self.taken
        return os.statvfs_result((4096, MIB, 100, free, free - 4, 0, 0, 0, 0, 255))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    host = FakeHost(48)
    monkeypatch.setattr(os, "statvfs", host.statvfs)
    return host


def usage_of(taken: int) -> ThinUsage:
    return ThinUsage(Path("/d"), 1, 1, MIB, MIB, 96 * MIB - taken * MIB, 96 * MIB)


def test_promised_used_and_free(host: FakeHost, tmp_path: Path) -> None:
    (usage,) = measure([FakeDisk(tmp_path), FakeDisk(tmp_path, sectors=120 * MIB // 512)])
    assert (usage.path, usage.device, usage.disks) == (tmp_path, tmp_path.stat().st_dev, 2)
    assert (usage.promised, usage.used) == (122 * MIB, 2 * MIB)
    assert (usage.free, usage.capacity) == (48 * MIB, 96 * MIB)
    assert usage.fill_level == 0.5
    assert usage.overcommitted == 72 * MIB
    assert str(usage) == (
        f"{tmp_path}: the host's file system is 50% full: 2 disks use 2097152 of 127926272 promised bytes, "
        "and 50331648 are free"
    )


def test_what_fits_is_not_overcommitted(host: FakeHost, tmp_path: Path) -> None:
    (usage,) = measure([FakeDisk(tmp_path)])
    assert usage.overcommitted == 0


def test_a_file_system_without_a_size_is_full() -> None:
    assert ThinUsage(Path("/d"), 1, 1, 0, 0, 0, 0).fill_level == 1.0


def test_file_systems_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = FakeDisk(tmp_path), FakeDisk(Path("/proc/self"))
    assert [usage.disks for usage in measure([here, there, here])] == [2, 1]
    assert measure([]) == []


def test_real_images(tmp_path: Path) -> None:
    create_raw(tmp_path / "thin.img", 64 * MIB)
    create_raw(tmp_path / "thick.img", MIB, "full")
    with RawDisk(tmp_path / "thin.img") as one, RawDisk(tmp_path / "thick.img") as other:
        (usage,) = measure([one, other])
    assert usage.promised == 65 * MIB
    assert MIB <= usage.used < 2 * MIB


def test_the_mark_has_hysteresis() -> None:
    assert not is_high(usage_of(86), 0.9, was_high=False)
    assert is_high(usage_of(87), 0.9, was_high=False)
    assert is_high(usage_of(85), 0.9, was_high=True)
    assert not is_high(usage_of(84), 0.9, was_high=True)


def test_each_crossing_is_told_once(host: FakeHost, tmp_path: Path) -> None:
    warnings: list[ThinUsage] = []
    pool = ThinPool(on_warning=warnings.append)
    pool.add(FakeDisk(tmp_path))
    told = []
    for taken in (50, 88, 90, 85, 88, 80, 87, 87):
        host.taken = taken
        (usage,) = pool.check()
        assert usage == pool.usage()[0]
        told.append(len(warnings))
    assert told == [0, 1, 1, 1, 1, 1, 2, 2]
    assert warnings[0].free == 8 * MIB


def test_disks_come_and_go(host: FakeHost, tmp_path: Path) -> None:
    host.taken = 95
    pool = ThinPool()
    disk = FakeDisk(tmp_path)
    pool.add(disk)
    assert len(pool.check()) == 1
    pool.remove(disk)
    assert pool.check() == []
    assert pool.high_water == thin.HIGH_WATER


@pytest.mark.parametrize("mark", [0, -1, 1.01])
def test_marks_that_make_no_sense(mark: float) -> None:
    with pytest.raises(UsageError) as error:
        ThinPool(high_water=mark)
    assert str(error.value) == f"high-water mark {mark}: above 0 and at most 1 is allowed"
