"""Disks of guests move to other files while they are written; whatever goes wrong leaves them where they are."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from host_guests import SPIN, asm

from emuvisor.devices.storage.formats import DiskFormat, open_image
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import HostError, ImageError, StateError, UsageError
from emuvisor.host import Host, disk_moving
from emuvisor.host.disk_moving import DiskMove
from emuvisor.host.guest import Guest
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import DiskConfig, FlatConfig, GuestConfig
from emuvisor.units import MIB

SIZE = 3 * MIB
CLUSTER = CLUSTER_SIZE // 512
START = bytes(range(256)) * (SIZE // 256)
A, B = b"a" * 512, b"b" * 512


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(16 * MIB) as host:
        yield host


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(START)
    return path


Maker = Callable[..., Guest]


@pytest.fixture
def make(host: Host, tmp_path: Path) -> Maker:
    program = tmp_path / "spin.bin"
    program.write_bytes(asm(SPIN))

    def make(*disks: DiskConfig, clock: ClockMode = "virtual") -> Guest:
        flat = FlatConfig(program, 0x8000)
        return host.create(GuestConfig(memory=MIB, flat=flat, disks=disks, clock=clock))

    return make


@pytest.fixture
def guest(make: Maker, image: Path) -> Guest:
    return make(DiskConfig(image))


def disk_of(guest: Guest) -> LayeredDisk:
    disk = guest.machine.drives[0].image
    assert isinstance(disk, LayeredDisk)
    return disk


def changed(content: bytes, lba: int, data: bytes) -> bytes:
    return content[: lba * 512] + data + content[lba * 512 + len(data) :]


def content_of(path: Path, form: DiskFormat) -> bytes:
    with closing(open_image(path, form, read_only=True)) as disk:
        return disk.read(0, disk.sectors)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_moves_while_it_is_written(
    host: Host, guest: Guest, image: Path, tmp_path: Path, form: DiskFormat
) -> None:
    disk = disk_of(guest)
    path = tmp_path / f"new.{'img' if form == 'raw' else 'qcow2'}"
    heard = []

    def progress(done: int, total: int) -> None:
        if not heard:
            disk.write(5, A)
            disk.write_zeroes(8 * CLUSTER, CLUSTER, unmap=True)
            disk.write(4 * CLUSTER, bytes(512))
        heard.append((done, total))

    moved = guest.move_disk("disk.img", path, progress=progress)
    now = changed(changed(START, 5, A), 8 * CLUSTER, bytes(CLUSTER_SIZE))
    now = changed(now, 4 * CLUSTER, bytes(512))
    assert (moved.path, moved.format, moved.copied) == (path, form, SIZE + 3 * CLUSTER_SIZE)
    assert (moved.passes, moved.stop_ns > 0) == (2, True)
    all_bytes = SIZE + 3 * CLUSTER_SIZE
    assert heard == [(MIB, SIZE), (2 * MIB, all_bytes), (SIZE, all_bytes), (all_bytes, all_bytes)]
    assert disk.read(0, disk.sectors) == now
    disk.write(6, B)
    assert disk.name == str(path)
    assert guest.config.disks == (DiskConfig(path, format=form),)
    assert guest.machine.config is guest.config
    assert image.read_bytes() == now
    RawDisk(image).close()
    with pytest.raises(ImageError, match="in use"):
        open_image(path, form)
    assert [usage.disks for usage in host.disks.usage()] == [1]
    guest.delete()
    assert content_of(path, form) == changed(now, 6, B)


def test_holes_stay_holes(make: Maker, tmp_path: Path) -> None:
    path = tmp_path / "sparse.img"
    path.touch()
    os.truncate(path, 64 * MIB)
    guest = make(DiskConfig(path))
    disk_of(guest).write(9 * CLUSTER, A)
    moved = guest.move_disk(0, tmp_path / "new.img")
    assert (moved.copied, disk_of(guest).allocated <= CLUSTER_SIZE) == (CLUSTER_SIZE, True)


def test_moments_outlive_the_move(guest: Guest, tmp_path: Path) -> None:
    disk = disk_of(guest)
    frozen = disk.freeze()
    disk.write(0, A)
    later = disk.freeze(tmp_path / "top")
    disk.write(1, B)
    guest.move_disk(0, tmp_path / "new.img")
    disk.write(2, B)
    assert frozen.read(0, 3) == START[:1536]
    assert later.read(0, 3) == A + START[512:1536]
    disk.go_back(frozen)
    assert disk.read(0, disk.sectors) == START
    for moment in (frozen, later):
        moment.close()
    guest.delete()
    assert content_of(tmp_path / "new.img", "raw") == START


def test_a_clones_disk_becomes_a_file(guest: Guest, tmp_path: Path, host: Host) -> None:
    with closing(disk_of(guest).freeze()) as frozen:
        clone = frozen.open()
    disk_of(guest).write(0, A)
    clone.write(1, B)
    own = guest.machine.drives[0]
    guest.machine.drives[0] = replace(guest.machine.drives[0], image=clone)
    guest.move_disk(0, tmp_path / "new.img")
    assert clone.layer.base is None
    guest.machine.drives[0] = own
    clone.close()
    assert content_of(tmp_path / "new.img", "raw") == changed(START, 1, B)


def test_only_the_top_layer(make: Maker, image: Path, tmp_path: Path) -> None:
    guest = make(DiskConfig(image, overlay=tmp_path / "overlay"))
    disk = disk_of(guest)
    disk.write(0, A)
    first = guest.move_disk(0, tmp_path / "moved", "overlay")
    assert (first.copied, guest.config.disks) == (
        CLUSTER_SIZE,
        (DiskConfig(tmp_path / "moved", format="overlay"),),
    )
    frozen = disk.freeze(tmp_path / "top")
    disk.write(1, B)
    second = guest.move_disk(0, tmp_path / "moved again", "overlay")
    assert second.copied == CLUSTER_SIZE
    assert frozen.paths == [tmp_path / "moved", image]
    disk.go_back(frozen)
    disk.write(2, B)
    frozen.close()
    guest.delete()
    assert content_of(tmp_path / "moved again", "overlay") == changed(changed(START, 0, A), 2, B)


def test_no_overlay_of_what_stands_on_nothing(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        guest.move_disk(0, tmp_path / "new", "overlay")
    assert str(error.value) == (
        f"{tmp_path}/new: disk {tmp_path}/disk.img does not stand on another file, which an overlay would need; "
        "move it to a raw or qcow2 image"
    )
    with closing(disk_of(guest).freeze()) as frozen:
        clone = frozen.open()
    own = guest.machine.drives[0]
    guest.machine.drives[0] = replace(own, image=clone)
    with pytest.raises(ImageError) as error:
        guest.move_disk(0, tmp_path / "new", "overlay")
    assert str(error.value) == (
        f"{tmp_path}/new: disk {tmp_path}/disk.img is temporary, and can be no file's base"
    )
    assert not (tmp_path / "new").exists()
    guest.machine.drives[0] = own
    clone.close()


def test_no_overlay_of_a_base_that_was_changed(make: Maker, image: Path, tmp_path: Path) -> None:
    guest = make(DiskConfig(image, overlay=tmp_path / "overlay"))
    (tmp_path / "new").write_bytes(b"")
    with pytest.raises(ImageError, match="new: cannot make the overlay: File exists"):
        guest.move_disk(0, tmp_path / "new", "overlay")
    guest.delete()
    RawDisk(image).close()


def test_what_cannot_be_moved(make: Maker, image: Path, tmp_path: Path) -> None:
    guest = make(DiskConfig(image, readonly=True))
    with pytest.raises(UsageError) as error:
        guest.move_disk(0, tmp_path / "new.img")
    assert str(error.value) == "guest 'guest': disk 0 cannot be written, so it can be copied as a file"
    with pytest.raises(UsageError, match="has no hard disk 1"):
        guest.move_disk(1, tmp_path / "new.img")
    guest.delete()
    guest = make(DiskConfig(image))
    with pytest.raises(UsageError) as error:
        guest.move_disk(0, tmp_path / "new.img", bytes_per_s=0)
    assert str(error.value) == "0 bytes in a second are no limit for a disk's move"
    with pytest.raises(ImageError, match="File exists"):
        guest.move_disk(0, image)
    assert image.read_bytes() == START


def unmoved(guest: Guest, image: Path, new: Path) -> None:
    """The guest is on its old file, and can be moved again."""
    disk = disk_of(guest)
    assert not new.exists()
    assert (disk.name, guest.config.disks[0].path) == (str(image), image)
    assert disk.layer.watchers == []
    assert disk.read(0, disk.sectors) == image.read_bytes()
    assert not disk.moving.locked()


def test_a_move_that_is_cancelled(guest: Guest, image: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.img"
    move = DiskMove(guest, 0, new, progress=lambda _done, _all: move.cancel())
    with pytest.raises(StateError) as error:
        move.run()
    assert str(error.value) == f"guest 'guest': disk {image}: the move to {new} was cancelled"
    unmoved(guest, image, new)

    def stop(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guest.move_disk(0, new, progress=stop)
    unmoved(guest, image, new)


def test_one_move_at_a_time(guest: Guest, image: Path, tmp_path: Path) -> None:
    texts = []

    def again(_done: int, _all: int) -> None:
        with pytest.raises(StateError) as error:
            guest.move_disk(0, tmp_path / "other.img")
        texts.append(str(error.value))

    guest.move_disk(0, tmp_path / "new.img", progress=again)
    assert set(texts) == {f"guest 'guest': disk {image} is being moved already"}


def test_a_guest_that_is_deleted(guest: Guest, image: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError) as error:
        guest.move_disk(0, tmp_path / "new.img", progress=lambda _done, _all: guest.delete() and None)
    assert str(error.value) == f"guest 'guest': disk {image} cannot be moved: the guest is deleted"
    assert not (tmp_path / "new.img").exists()
    RawDisk(image).close()


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_host_that_is_full_at_any_step(
    guest: Guest, image: Path, tmp_path: Path, form: DiskFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    real = {name: getattr(os, name) for name in ("pwrite", "pwritev", "fdatasync", "fsync", "ftruncate")}
    left = 0

    def failing(name: str) -> Callable[..., object]:
        def call(fd: int, *rest: object) -> object:
            nonlocal left
            if Path(f"/proc/self/fd/{fd}").readlink().name == "new":
                left -= 1
                if left < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return real[name](fd, *rest)

        return call

    for name in real:
        monkeypatch.setattr(os, name, failing(name))
    disk = disk_of(guest)
    for step in range(200):
        left = step
        failures: list[Exception] = []
        try:
            guest.move_disk(0, new, form, progress=lambda _done, _all: disk.write(0, A))
            break
        except (HostError, ImageError) as error:
            failures.append(error)
        assert re.search("No space left on device|cannot flush", str(failures))
        unmoved(guest, image, new)
    assert 4 < step < 100
    assert disk.name == str(new)
    monkeypatch.undo()
    guest.delete()
    assert content_of(new, form) == changed(START, 0, A)


def test_a_disk_that_cannot_be_read(
    guest: Guest, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(RawDisk, "read", bad)
    with pytest.raises(HostError) as error:
        guest.move_disk(0, tmp_path / "new.img")
    monkeypatch.undo()
    assert str(error.value) == (
        f"guest 'guest': disk {image} cannot be moved to {tmp_path}/new.img: Input/output error"
    )
    unmoved(guest, image, tmp_path / "new.img")


def test_a_guest_that_writes_faster_than_it_is_copied(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_moving, "STOP_BYTES", CLUSTER_SIZE)
    disk = disk_of(guest)
    numbers = iter(range(1000))

    def write(_done: int, _all: int) -> None:
        fill = bytes([next(numbers) % 256])
        for cluster in range(12):
            disk.write(cluster * CLUSTER, fill * 512)

    moved = guest.move_disk(0, tmp_path / "new.img", progress=write)
    assert disk_moving.PATIENT_PASSES < moved.passes < 12
    content = disk.read(0, disk.sectors)
    assert content[:512] == content[11 * CLUSTER_SIZE : 11 * CLUSTER_SIZE + 512]
    guest.delete()
    assert content_of(tmp_path / "new.img", "raw") == content


class Waits:
    """In place of an event: a clock that goes on while somebody waits."""

    now_ns = 0

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        self.waited_s.append(seconds)
        Waits.now_ns += int(seconds * 1e9)
        return False


def test_no_faster_than_was_said(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_moving.threading, "Event", Waits)
    Waits.now_ns = 0
    move = DiskMove(guest, 0, tmp_path / "new.img", bytes_per_s=MIB, now_ns=lambda: Waits.now_ns)
    move.run()
    assert 1.9e9 < Waits.now_ns < 2.1e9  # three MiB, of which one passes at once


def test_the_new_file_systems_limits_hold(host: Host, make: Maker, image: Path, tmp_path: Path) -> None:
    guest = make(DiskConfig(image), clock="host")
    host.set_backend_limit(tmp_path, bytes=10 * MIB)
    drive = guest.machine.drives[0]
    share = drive.meter.throttle.share
    guest.move_disk(0, tmp_path / "new.img")
    assert drive.meter.throttle.share is share
    host.backends.moved(guest.name, drive, -1)
    assert drive.meter.throttle.share is None
    host.backends.moved(guest.name, drive, tmp_path.stat().st_dev)
    assert drive.meter.throttle.share is not None


def test_from_qcow2(make: Maker, tmp_path: Path) -> None:
    path = tmp_path / "old.qcow2"
    create(path, SIZE)
    guest = make(DiskConfig(path, bus="virtio"))
    disk_of(guest).write(3, A)
    guest.move_disk("old.qcow2", tmp_path / "new.img")
    guest.delete()
    assert content_of(tmp_path / "new.img", "raw") == changed(bytes(SIZE), 3, A)
