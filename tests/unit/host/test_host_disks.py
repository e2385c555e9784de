"""The room that guests' disks were promised: a host counts its guests' images, and says when a file system fills up."""

import os
import threading
from pathlib import Path

import pytest

from emuvisor.host import Host
from emuvisor.host import host as module
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.units import MIB

PATIENCE_S = 120
SPIN = bytes.fromhex("ebfe")
IMAGE_SIZE = MIB


@pytest.fixture
def config(tmp_path: Path) -> GuestConfig:
    """A guest with two disks that does nothing, for ever."""
    program = tmp_path / "spin.bin"
    program.write_bytes(SPIN)
    images = [tmp_path / "one.img", tmp_path / "two.img"]
    for image in images:
        image.write_bytes(bytes(IMAGE_SIZE))
    return GuestConfig(
        memory=MIB,
        flat=FlatConfig(program, 0x8000),
        disks=(DiskConfig(images[0]), DiskConfig(images[1], bus="virtio")),
    )


class FillingFileSystem:
    """Of 100 blocks; counts how often somebody looks."""

    def __init__(self) -> None:
        self.free = 100
        self.looked = threading.Semaphore(0)

    def statvfs(self, _path: Path) -> os.statvfs_result:
        self.looked.release()
        return os.statvfs_result((4096, MIB, 100, self.free, self.free, 0, 0, 0, 0, 0, 255))

    def wait(self, looks: int) -> None:
        for _ in range(looks):
            assert self.looked.acquire(timeout=PATIENCE_S)


def test_images_count_while_their_guest_exists(config: GuestConfig) -> None:
    with Host(8 * MIB) as host:
        assert host.disks.usage() == []
        guest = host.create(config)
        (usage,) = host.disks.usage()
        assert (usage.disks, usage.promised) == (2, 2 * IMAGE_SIZE)
        guest.delete()
        assert host.disks.usage() == []


def test_a_file_system_that_fills_up_is_told_once(
    config: GuestConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FillingFileSystem()
    monkeypatch.setattr(os, "statvfs", files.statvfs)
    monkeypatch.setattr(module, "DISK_CHECK_S", 0.0)
    told: list[str] = []
    warned = threading.Event()
    with Host(8 * MIB) as host:
        host.warnings += [told.append, lambda _text: warned.set()]
        host.create(config).start()
        files.wait(2)
        assert told == []
        files.free = 5
        assert warned.wait(PATIENCE_S)
        files.looked = threading.Semaphore(0)
        files.wait(3)
    assert told == [
        f"{config.disks[0].path}: the host's file system is 95% full: 2 disks use {2 * IMAGE_SIZE} of "
        f"{2 * IMAGE_SIZE} promised bytes, and {5 * MIB} are free"
    ]


def test_a_file_system_that_is_gone_stops_nothing(
    config: GuestConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Semaphore(0)

    def statvfs(_path: Path) -> os.statvfs_result:
        looked.release()
        raise FileNotFoundError

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(module, "DISK_CHECK_S", 0.0)
    with Host(8 * MIB) as host:
        host.create(config).start()
        for _ in range(3):
            assert looked.acquire(timeout=PATIENCE_S)
