"""Disks that are frozen: everybody sees what was there at their moment, whatever is written since."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule
from storage_fakes import FakeDisk, pattern

from emuvisor.devices.storage import layer as layer_module
from emuvisor.devices.storage import layerfiles
from emuvisor.devices.storage.blockdevice import BlockDevice, is_host_full
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.extents import data_extents
from emuvisor.devices.storage.formats import open_image
from emuvisor.devices.storage.layered import Frozen, LayeredDisk
from emuvisor.devices.storage.overlay import OverlayDisk, TemporaryOverlay
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.devices.storage.scatter import Buffers
from emuvisor.devices.storage.temporary import TemporaryFile, temporary_folder
from emuvisor.errors import ImageError, StateError, UsageError

CLUSTER = CLUSTER_SIZE // 512
SECTORS = 5 * CLUSTER + 3
"""Five clusters and three sectors."""
START = pattern(SECTORS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(START)
    return path


@pytest.fixture
def disk(path: Path) -> Iterator[LayeredDisk]:
    with closing(LayeredDisk(RawDisk(path))) as disk:
        yield disk


def changed(content: bytes, lba: int, data: bytes) -> bytes:
    return content[: lba * 512] + data + content[lba * 512 + len(data) :]


A, B, C = b"a" * 512, b"b" * 512, b"c" * 512


# ---- a moment ----


def test_what_was_frozen_stays_and_the_file_is_the_guests(disk: LayeredDisk, path: Path) -> None:
    frozen = disk.freeze()
    disk.write(3, A)
    disk.write_from(CLUSTER - 1, [memoryview(B), memoryview(C)])
    disk.write_zeroes(2 * CLUSTER, 7, unmap=True)
    disk.discard(4 * CLUSTER, CLUSTER)
    now = changed(changed(START, 3, A), CLUSTER - 1, B + C)
    now = changed(changed(now, 2 * CLUSTER, bytes(7 * 512)), 4 * CLUSTER, bytes(CLUSTER_SIZE))
    assert disk.read(0, SECTORS) == now
    assert frozen.read(0, SECTORS) == START
    assert path.read_bytes() == now
    frozen.close()
    assert path.read_bytes() == now


def test_a_frozen_disk_is_read_only(disk: LayeredDisk) -> None:
    with closing(disk.freeze()) as frozen:
        assert (frozen.name, frozen.sectors, frozen.read_only) == (disk.name, SECTORS, True)
        assert (frozen.host_path, frozen.allocated) == (disk.host_path, disk.allocated)
        with pytest.raises(OSError, match="Read-only"):
            frozen.write(0, A)


def test_moments_in_a_row_and_closed_in_any_order(disk: LayeredDisk) -> None:
    contents, moments = [], []
    for number in range(4):
        contents.append(disk.read(0, SECTORS))
        moments.append(disk.freeze())
        disk.write(number, bytes([number]) * 512)
        disk.write(number * CLUSTER, bytes([100 + number]) * 512)
    for number in (1, 3, 0, 2):
        for content, moment in zip(contents, moments, strict=True):
            if moment is not None:
                assert moment.read(0, SECTORS) == content
        moments[number].close()
        moments[number].close()
        moments[number] = None
    assert not disk.layer.is_saving


def test_nothing_is_saved_twice_or_for_nobody(disk: LayeredDisk) -> None:
    disk.write(0, A)
    before = disk.allocated
    first = disk.freeze()
    second = disk.freeze()
    assert first.is_same(second)
    assert disk.allocated == before
    disk.write(0, B)
    third = disk.freeze()
    disk.write(1, B)
    assert disk.allocated == before + 2 * CLUSTER_SIZE
    for frozen in (first, second):
        frozen.close()
    assert disk.allocated == before + CLUSTER_SIZE
    third.close()
    disk.write(CLUSTER, B)
    assert disk.allocated == before


def test_a_handle_more(disk: LayeredDisk) -> None:
    frozen = disk.freeze()
    other = frozen.share()
    frozen.close()
    disk.write(0, A)
    assert other.read(0, SECTORS) == START
    other.close()
    assert not disk.layer.is_saving


def test_going_back(disk: LayeredDisk, path: Path) -> None:
    frozen = disk.freeze()
    for fill in (A, B):
        disk.write(1, fill)
        disk.write(2 * CLUSTER, bytes(512))
        disk.go_back(frozen)
        assert path.read_bytes() == START
    frozen.close()


def test_going_back_to_zeros_gives_the_space_back(tmp_path: Path) -> None:
    path = tmp_path / "sparse.img"
    path.touch()
    os.truncate(path, 4 * CLUSTER_SIZE)
    with closing(LayeredDisk(RawDisk(path))) as disk, closing(disk.freeze()) as frozen:
        disk.write(0, A * CLUSTER)
        disk.go_back(frozen)
        assert (disk.layer.disk.allocated, disk.read(0, CLUSTER)) == (0, bytes(CLUSTER_SIZE))


def test_going_back_to_an_older_moment_keeps_newer_ones(disk: LayeredDisk) -> None:
    old = disk.freeze()
    disk.write(0, A)
    new = disk.freeze()
    disk.write(CLUSTER, B)
    disk.go_back(old)
    assert disk.read(0, SECTORS) == START
    assert new.read(0, SECTORS) == changed(START, 0, A)
    disk.go_back(new)
    assert disk.read(0, SECTORS) == changed(START, 0, A)
    assert old.read(0, SECTORS) == START


def test_going_back_to_what_is_of_another_size(disk: LayeredDisk, tmp_path: Path) -> None:
    other = LayeredDisk(FakeDisk(8))
    with closing(other.freeze()) as frozen, pytest.raises(UsageError) as error:
        disk.go_back(frozen)
    assert str(error.value) == (
        f"disk {disk.name} has {SECTORS * 512} bytes; it cannot go back to what had 4096"
    )


def test_the_disk_goes_and_its_moment_stays(disk: LayeredDisk, path: Path) -> None:
    frozen = disk.freeze()
    disk.write(0, A)
    disk.close()
    disk.close()
    assert frozen.read(0, SECTORS) == START
    with pytest.raises(ImageError, match="in use by another guest"):
        RawDisk(path)
    frozen.close()
    RawDisk(path).close()


def test_where_there_is_data(tmp_path: Path) -> None:
    path = tmp_path / "sparse.img"
    path.touch()
    os.truncate(path, 6 * CLUSTER_SIZE)
    with closing(LayeredDisk(RawDisk(path))) as disk:
        disk.write(CLUSTER, A)
        with closing(disk.freeze()) as frozen:
            disk.write(3 * CLUSTER, A)
            disk.write(CLUSTER, B)
            assert list(data_extents(frozen, 0, frozen.sectors)) == [(CLUSTER, 2 * CLUSTER)]
            assert {start for start, _ in data_extents(disk, 0, disk.sectors)} == {CLUSTER, 3 * CLUSTER}


# ---- disks on top ----


def test_disks_on_top_are_written_by_themselves(disk: LayeredDisk, path: Path) -> None:
    frozen = disk.freeze()
    one, two = frozen.open(), frozen.open()
    frozen.close()
    one.write(0, A)
    two.write(0, B)
    disk.write(0, C)
    disk.write(CLUSTER, C)
    assert one.read(0, SECTORS) == changed(START, 0, A)
    assert two.read(0, SECTORS) == changed(START, 0, B)
    again = one.freeze()
    one.write(1, C)
    three = again.open()
    again.close()
    one.close()
    assert three.read(0, SECTORS) == changed(START, 0, A)
    for layered in (two, three):
        layered.close()
    assert not disk.layer.is_saving


def test_a_disk_on_top_goes_back_to_where_it_began(disk: LayeredDisk) -> None:
    frozen = disk.freeze()
    clone = frozen.open()
    clone.write(0, A)
    clone.go_back(frozen)
    assert (clone.read(0, SECTORS), clone.allocated) == (START, 0)
    with closing(clone.freeze()) as later:
        clone.write(0, B)
        clone.go_back(frozen)
        assert clone.read(0, SECTORS) == START
        clone.write(0, A)
        clone.go_back(later)
        assert clone.read(0, SECTORS) == START
    clone.close()
    frozen.close()


def test_no_file_before_the_first_write(disk: LayeredDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    frozen = disk.freeze()
    clone = frozen.open()
    monkeypatch.setattr(os, "open", no)
    assert clone.read(0, 1) == START[:512]
    for written in (disk, clone):
        with pytest.raises(OSError, match="No space") as error:
            written.write(0, A)
        assert is_host_full(error.value)
        assert written.read(0, SECTORS) == START
    monkeypatch.undo()
    disk.write(0, A)
    clone.write(0, B)
    assert frozen.read(0, SECTORS) == START
    clone.close()
    frozen.close()


def test_a_host_that_is_full_at_any_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a write, a discard and going back: what failed is done again, and nothing is lost."""
    real = {name: getattr(os, name) for name in ("open", "pwrite", "pwritev", "ftruncate")}
    left = 0

    def failing(name: str) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real[name](*arguments)

        return call

    now = changed(changed(START, 5, A), 2 * CLUSTER, bytes(2 * CLUSTER_SIZE))
    for step in range(1, 60):
        path.write_bytes(START)
        disk = LayeredDisk(RawDisk(path))
        frozen = disk.freeze()
        clone = frozen.open()
        for name in real:
            monkeypatch.setattr(os, name, failing(name))
        left = step

        def again(action: Callable[[], object], moment: Frozen = frozen) -> None:
            try:
                action()
            except OSError:
                assert moment.read(0, SECTORS) == START
                action()

        again(lambda disk=disk: disk.write(5, A))
        again(lambda disk=disk: disk.discard(2 * CLUSTER, 2 * CLUSTER))
        assert disk.read(0, SECTORS) == now
        again(lambda clone=clone: clone.write(7, B))
        again(lambda disk=disk, frozen=frozen: disk.go_back(frozen))
        monkeypatch.undo()
        assert (disk.read(0, SECTORS), frozen.read(0, SECTORS)) == (START, START)
        assert clone.read(0, SECTORS) == changed(START, 7, B)
        for closable in (clone, frozen, disk):
            closable.close()
        if left > 0:  # every step failed once
            break
    assert 5 < step < 50


def test_threads_read_a_moment_while_the_disk_is_written(disk: LayeredDisk) -> None:
    frozen = disk.freeze()
    wrong = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            if frozen.read(0, SECTORS) != START:
                wrong.append(1)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60):
        disk.write(number * 7 % SECTORS, bytes([number]) * 512)
        disk.go_back(frozen)
        if number % 10 == 0:
            disk.freeze().close()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    frozen.close()


def test_a_cluster_that_is_written_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk of which only one thread reads at a time, too."""
    disk = LayeredDisk(FakeDisk(SECTORS))
    frozen = disk.freeze()
    layer = disk.layer
    enter, extents = layer._enter, layer_module.data_extents

    def write_first() -> object:
        monkeypatch.setattr(layer, "_enter", enter)
        disk.write(0, A)
        return enter()

    def save_first(device: BlockDevice, lba: int, count: int) -> object:
        monkeypatch.setattr(layer_module, "data_extents", extents)
        layer.changing(CLUSTER, 1)
        return extents(device, lba, count)

    monkeypatch.setattr(layer, "_enter", write_first)
    assert frozen.read(0, SECTORS) == START
    monkeypatch.setattr(layer_module, "data_extents", save_first)
    assert list(data_extents(frozen, 0, SECTORS)) == [
        (0, CLUSTER),
        (CLUSTER, 2 * CLUSTER),
        (2 * CLUSTER, SECTORS),
    ]
    frozen.close()


class ParallelDisk(FakeDisk):
    reads_in_parallel = True

    def __init__(self) -> None:
        super().__init__(SECTORS)
        self.while_reading: Callable[[], None] = lambda: None

    def read_into(self, lba: int, views: Buffers) -> None:
        self.while_reading()
        super().read_into(lba, views)


def test_a_disk_that_is_replaced_while_it_is_read() -> None:
    old, new = ParallelDisk(), ParallelDisk()
    disk = LayeredDisk(old)
    frozen = disk.freeze()
    closed = []

    def replace() -> None:
        disk.replace(new)
        closed.append(old.closed)

    old.while_reading = replace
    assert frozen.read(0, SECTORS) == START
    assert (closed, old.closed, disk.layer.disk) == ([False], True, new)
    data = bytearray(512)
    disk.read_into(3, [memoryview(data)])
    assert data == START[3 * 512 : 4 * 512]
    frozen.close()


# ---- temporary files ----


def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without(path: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", without)
    file = TemporaryFile(tmp_path, CLUSTER_SIZE)
    assert file.read(0, 512) == bytes(512)
    file.write(0, A)
    assert (file.read(0, 512), list(tmp_path.iterdir())) == (A, [])
    file.close()
    assert (file.allocated, file.read(0, 512)) == (0, bytes(512))
    file.close()


def test_a_temporary_file_that_cannot_have_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "ftruncate", no)
    file = TemporaryFile(tmp_path, CLUSTER_SIZE)
    with pytest.raises(OSError, match="File too large"):
        file.write(0, A)
    assert [path for path in open_files() if path.startswith(str(tmp_path))] == []


def test_where_temporary_files_go(path: Path, tmp_path: Path) -> None:
    assert temporary_folder(path) == temporary_folder(tmp_path) == tmp_path
    assert temporary_folder(Path("/dev/null")) == Path(gettempdir())


# ---- overlay files ----


def test_frozen_with_an_overlay_file(disk: LayeredDisk, path: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "one.overlay"
    disk.write(0, A)
    frozen = disk.freeze(overlay)
    disk.write(1, B)
    then, now = changed(START, 0, A), changed(START, 0, A + B)
    assert (frozen.read(0, SECTORS), disk.read(0, SECTORS)) == (then, now)
    assert (path.read_bytes(), disk.name, frozen.paths) == (then, str(overlay), [path])
    frozen.sync()
    RawDisk(path, read_only=True).close()
    with pytest.raises(ImageError, match="in use by another guest"):
        RawDisk(path)
    disk.flush()
    disk.close()
    frozen.close()
    with closing(OverlayDisk(RawDisk(path, read_only=True), overlay)) as again:
        assert again.read(0, SECTORS) == now


def test_somebody_takes_the_file_when_it_is_shared(
    disk: LayeredDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = disk.freeze(tmp_path / "top")
    real = fcntl.flock

    def taken(fd: int, how: int) -> None:
        if how & fcntl.LOCK_SH:
            raise BlockingIOError(errno.EAGAIN, "taken")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", taken)
    with pytest.raises(OSError, match="the disk image is being written by another guest or program"):
        disk.flush()
    monkeypatch.undo()
    disk.flush()
    frozen.close()


def test_moments_before_and_after_an_overlay_file(disk: LayeredDisk, tmp_path: Path) -> None:
    first = disk.freeze()
    disk.write(0, A)
    second = disk.freeze(tmp_path / "one")
    disk.write(1, B)
    third = disk.freeze()
    disk.write(2, C)
    contents = [START, changed(START, 0, A), changed(START, 0, A + B), changed(START, 0, A + B + C)]
    moments = [first, second, third]
    assert [moment.read(0, SECTORS) for moment in moments] == contents[:3]
    assert disk.read(0, SECTORS) == contents[3]
    for number in (1, 0, 2, 0):
        disk.go_back(moments[number])
        assert disk.read(0, SECTORS) == contents[number]
    assert [moment.read(0, SECTORS) for moment in moments] == contents[:3]
    assert second.paths == [tmp_path / "disk.img"]
    with pytest.raises(StateError) as error:
        _ = first.paths
    assert str(error.value) == (
        f"disk {tmp_path}/disk.img was frozen without an overlay file: no file has what it was"
    )
    for moment in moments:
        moment.close()


def test_a_disk_on_top_in_a_file(disk: LayeredDisk, tmp_path: Path) -> None:
    frozen = disk.freeze(tmp_path / "top")
    clone = frozen.open(tmp_path / "clone")
    clone.write(0, A)
    assert disk.read(0, 1) == START[:512]
    deeper = clone.freeze(tmp_path / "deeper")
    assert deeper.paths == [tmp_path / "clone", tmp_path / "disk.img"]
    for closable in (deeper, clone, frozen):
        closable.close()


def test_an_overlay_file_needs_a_file_below(disk: LayeredDisk, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    frozen = disk.freeze()
    with pytest.raises(ImageError) as error:
        frozen.open(overlay)
    assert str(error.value) == (
        f"{overlay}: no file has what disk {disk.name} was; freeze it with an overlay file"
    )
    clone = frozen.open()
    with pytest.raises(ImageError) as error:
        clone.freeze(overlay)
    assert str(error.value) == f"{overlay}: disk {disk.name} is temporary, and can be no file's base"
    assert not overlay.exists()
    clone.close()
    frozen.close()


def test_an_overlay_file_that_is_there(disk: LayeredDisk, path: Path) -> None:
    with pytest.raises(ImageError) as error:
        disk.freeze(path)
    assert str(error.value) == f"{path}: cannot make the overlay: File exists"
    disk.write(0, A)
    assert path.read_bytes() == changed(START, 0, A)


def test_an_overlay_without_the_name_of_its_base(path: Path, tmp_path: Path) -> None:
    OverlayDisk.create(RawDisk(path, read_only=True), tmp_path / "old").close()
    disk = LayeredDisk(OverlayDisk(RawDisk(path, read_only=True), tmp_path / "old"))
    with pytest.raises(ImageError) as error:
        disk.freeze(tmp_path / "new")
    assert str(error.value) == (
        f"{tmp_path}/new: disk {tmp_path}/old does not say what its base is, and can be no file's base"
    )
    disk.close()


def test_too_many_layers(disk: LayeredDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emuvisor.devices.storage.layered.MAX_LAYERS", 2)
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(closing(disk.freeze(tmp_path / str(number))))
        frozen = stack.enter_context(closing(disk.freeze()))
        with pytest.raises(ImageError) as error:
            frozen.open()
        text = "3 layers of a disk would be below it, 2 are the most; move the disk into a single file first"
        assert str(error.value) == f"{tmp_path}/1: {text}"
        with pytest.raises(ImageError) as error:
            disk.freeze(tmp_path / "x")
        assert str(error.value) == f"{tmp_path}/x: {text}"


def test_as_many_layers_as_there_can_be(disk: LayeredDisk, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number in range(layerfiles.MAX_LAYERS - 1):
            stack.enter_context(closing(disk.freeze(tmp_path / str(number))))
            disk.write(number, A)
        frozen = stack.enter_context(closing(disk.freeze()))
        disk.write(0, B)
        count = layerfiles.MAX_LAYERS - 1
        assert frozen.read(0, SECTORS) == changed(START, 0, A * count)
        clone = stack.enter_context(closing(frozen.open()))
        assert clone.read(0, SECTORS) == frozen.read(0, SECTORS)
        with (
            closing(clone.freeze()) as deeper,
            pytest.raises(ImageError, match="64 layers of a disk would be below"),
        ):
            deeper.open()


# ---- what is below ----


def test_a_qcow2_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, SECTORS * 512)
    disk = LayeredDisk(Qcow2Disk(path))
    disk.write(0, START)
    first = disk.freeze()
    disk.write(0, A)
    second = disk.freeze(tmp_path / "top")
    disk.write(0, B)
    second.sync()
    assert first.read(0, SECTORS) == START
    with closing(Qcow2Disk(path, read_only=True)) as below:
        assert below.read(0, SECTORS) == changed(START, 0, A)
    assert list(data_extents(first, 0, 1)) == [(0, 1)]
    assert second.paths == [path]
    disk.go_back(first)
    assert disk.read(0, SECTORS) == START
    for closable in (disk, first, second):
        closable.close()


def test_a_temporary_overlay(path: Path) -> None:
    disk = LayeredDisk(TemporaryOverlay(RawDisk(path, read_only=True)))
    disk.write(0, A)
    with closing(disk.freeze()) as frozen:
        disk.write(0, B)
        assert frozen.read(0, SECTORS) == changed(START, 0, A)
        disk.go_back(frozen)
        assert disk.read(0, SECTORS) == changed(START, 0, A)
    with closing(disk.freeze()) as frozen, pytest.raises(StateError) as error:
        layerfiles.files_of(disk.layer.disk)
    assert str(error.value) == f"disk {path} has a temporary layer: no file has what it is"
    disk.close()
    assert path.read_bytes() == START


def test_a_flush_reaches_every_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: LayeredDisk
) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    frozen = disk.freeze()
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    disk.flush()
    frozen.sync()
    assert synced == ["disk.img", "disk.img"]
    synced.clear()
    with closing(disk.freeze(tmp_path / "top")):
        disk.write(0, A)
        disk.flush()
        assert synced == ["disk.img", "top", "top", "top", "top"]
        synced.clear()
        disk.flush()
        assert synced == ["top"]
    frozen.close()


def test_a_flush_that_fails_is_one_of_every_layer(
    disk: LayeredDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = disk.freeze(tmp_path / "top")

    def fdatasync(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(OSError, match="cannot flush"):
        disk.flush()
    with pytest.raises(ImageError) as error:
        frozen.open(tmp_path / "clone")
    assert (
        str(error.value)
        == f"{tmp_path}/disk.img: cannot be stored: an earlier flush of the disk image failed"
    )
    monkeypatch.undo()
    with pytest.raises(OSError, match="earlier flush"):
        disk.close()
    frozen.close()


def test_a_bad_sector_below(path: Path) -> None:
    fake = FakeDisk(SECTORS)
    disk = LayeredDisk(fake)
    frozen = disk.freeze()
    fake.bad = {CLUSTER + 1}
    with pytest.raises(OSError, match="no such luck"):
        disk.write(CLUSTER, A)
    fake.bad = set()
    assert (frozen.read(0, SECTORS), disk.read(0, SECTORS)) == (START, START)
    frozen.close()
    disk.close()
    assert fake.closed


# ---- sets of clusters ----


def test_a_set_of_clusters() -> None:
    clusters = ClusterMap(SECTORS * 512)
    assert (bool(clusters), len(clusters), clusters.bytes, list(clusters.runs())) == (False, 0, 0, [])
    clusters.remove(0, CLUSTER_SIZE)
    clusters.add(CLUSTER_SIZE + 1, 2 * CLUSTER_SIZE + 1)
    clusters.add(SECTORS * 512 - 1, SECTORS * 512)
    assert list(clusters.runs()) == [(CLUSTER_SIZE, 3 * CLUSTER_SIZE), (5 * CLUSTER_SIZE, SECTORS * 512)]
    assert list(clusters.runs(2 * CLUSTER_SIZE, 4 * CLUSTER_SIZE)) == [(2 * CLUSTER_SIZE, 3 * CLUSTER_SIZE)]
    assert (len(clusters), clusters.bytes) == (3, 2 * CLUSTER_SIZE + 3 * 512)
    other = ClusterMap(SECTORS * 512)
    other.update(clusters)
    other.add(0, 1)
    clusters.remove(0, 2 * CLUSTER_SIZE)
    clusters.update(other)
    clusters.update(ClusterMap(SECTORS * 512))
    assert (len(clusters), len(other)) == (4, 4)
    clusters.clear()
    assert not clusters


# ---- against a model ----


class Layers(RuleBasedStateMachine):
    """Disks and moments of them, each with the bytes that it must have."""

    disks = Bundle("disks")
    moments = Bundle("moments")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.made = 0
        self.contents: dict[object, bytes] = {}

    def new_path(self) -> Path:
        self.made += 1
        return Path(self.folder.name) / str(self.made)

    @initialize(target=disks, qcow2=st.booleans())
    def begin(self, qcow2: bool) -> LayeredDisk:
        path = self.new_path()
        if qcow2:
            create(path, SECTORS * 512)
        else:
            path.touch()
            os.truncate(path, SECTORS * 512)
        disk = LayeredDisk(Qcow2Disk(path) if qcow2 else RawDisk(path))
        disk.write(CLUSTER, pattern(2 * CLUSTER))
        self.contents[disk] = changed(bytes(SECTORS * 512), CLUSTER, pattern(2 * CLUSTER))
        return disk

    @rule(
        disk=disks,
        what=st.sampled_from(["write", "pieces", "zero", "unmap", "discard", "flush"]),
        lba=st.integers(0, SECTORS - 1),
        count=st.integers(1, 2 * CLUSTER),
        fill=st.integers(0, 255),
    )
    def change(self, disk: LayeredDisk, what: str, lba: int, count: int, fill: int) -> None:
        count = min(count, SECTORS - lba)
        data = bytes([fill]) * count * 512
        if what == "write":
            disk.write(lba, data)
        elif what == "pieces":
            disk.write_from(lba, [memoryview(data)[:512], memoryview(data)[512:]])
        elif what == "flush":
            disk.flush()
            return
        elif what == "discard":
            disk.discard(lba, count)
            data = disk.read(lba, count)
            old = self.contents[disk][lba * 512 : (lba + count) * 512]
            for start in range(0, len(data), 512):
                assert data[start : start + 512] in (bytes(512), old[start : start + 512])
        else:
            disk.write_zeroes(lba, count, unmap=what == "unmap")
            data = bytes(count * 512)
        self.contents[disk] = changed(self.contents[disk], lba, data)

    @rule(target=moments, disk=disks, file=st.booleans())
    def freeze(self, disk: LayeredDisk, file: bool) -> object:
        if file and isinstance(disk.layer.disk, TemporaryOverlay):
            with pytest.raises(ImageError, match="is temporary, and can be no file's base"):
                disk.freeze(self.new_path())
            return multiple()
        frozen = disk.freeze(self.new_path() if file else None)
        self.contents[frozen] = self.contents[disk]
        return frozen

    @rule(target=moments, moment=moments)
    def share(self, moment: Frozen) -> Frozen:
        other = moment.share()
        self.contents[other] = self.contents[moment]
        return other

    @rule(target=disks, moment=moments, file=st.booleans())
    def open(self, moment: Frozen, file: bool) -> object:
        if file and moment.saved is not None:
            with pytest.raises(ImageError, match="no file has what disk"):
                moment.open(self.new_path())
            return multiple()
        disk = moment.open(self.new_path() if file else None)
        self.contents[disk] = self.contents[moment]
        return disk

    @rule(disk=disks, moment=moments)
    def go_back(self, disk: LayeredDisk, moment: Frozen) -> None:
        disk.go_back(moment)
        self.contents[disk] = self.contents[moment]

    @rule(moment=moments)
    def sync(self, moment: Frozen) -> None:
        moment.sync()

    @rule(target=disks, moment=moments)
    def save(self, moment: Frozen) -> LayeredDisk:
        files = moment.save(self.new_path())
        disk = LayeredDisk(open_image(files.path, files.format))
        self.contents[disk] = self.contents[moment]
        return disk

    @rule(moment=consumes(moments))
    def close_moment(self, moment: Frozen) -> None:
        moment.close()
        del self.contents[moment]

    @rule(disk=consumes(disks))
    def close_disk(self, disk: LayeredDisk) -> None:
        disk.close()
        del self.contents[disk]

    @rule()
    def look(self) -> None:
        for device, content in self.contents.items():
            assert isinstance(device, (LayeredDisk, Frozen))
            assert device.read(0, SECTORS) == content
            holes = bytearray(content)
            for start, end in data_extents(device, 0, SECTORS):
                holes[start * 512 : end * 512] = bytes((end - start) * 512)
            assert not any(holes)

    def teardown(self) -> None:
        self.look()
        for device in self.contents:
            assert isinstance(device, (LayeredDisk, Frozen))
            device.close()
        assert [path for path in open_files() if path.startswith(self.folder.name)] == []
        self.folder.cleanup()


def open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            yield str(link.readlink())


TestLayers = Layers.TestCase
TestLayers.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
