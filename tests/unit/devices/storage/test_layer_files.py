"""Layers of a disk in files: written, opened again, refused when one of them is not what it was."""

import json
import os
import shutil
import zlib
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_fakes import pattern

from emuvisor.devices.storage.formats import open_image
from emuvisor.devices.storage.imageinfo import image_info
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay import OverlayDisk, TemporaryOverlay
from emuvisor.devices.storage.overlay_file import read_base_file
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE, UNBOUND, BaseFile, Layout
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.devices.storage.saving import DiskFiles
from emuvisor.errors import ImageError
from emuvisor.machine.config import DiskConfig
from emuvisor.machine.disks import open_disk

CLUSTER = CLUSTER_SIZE // 512
SECTORS = 5 * CLUSTER + 3
START = pattern(SECTORS)
A, B = b"a" * 512, b"b" * 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(START)
    return path


def changed(content: bytes, lba: int, data: bytes) -> bytes:
    return content[: lba * 512] + data + content[lba * 512 + len(data) :]


def layers(path: Path, *names: str) -> None:
    """Overlay files above the raw image, each with another sector."""
    disk = LayeredDisk(RawDisk(path))
    for number, name in enumerate(names):
        with closing(disk.freeze(path.parent / name)):
            disk.write(number, A)
    disk.flush()
    disk.close()


def content_of(path: Path) -> bytes:
    with closing(open_image(path, "overlay", read_only=True)) as disk:
        return disk.read(0, disk.sectors)


# ---- chains ----


def test_a_chain_is_opened_by_its_top(path: Path, tmp_path: Path) -> None:
    layers(path, "one", "two")
    with closing(open_image(tmp_path / "two", "overlay")) as disk:
        assert (disk.read_only, disk.read(0, SECTORS)) == (False, changed(START, 0, A * 2))
        disk.write(3, B)
    with closing(open_image(tmp_path / "two", "overlay", read_only=True)) as disk:
        assert (disk.read_only, disk.read(3, 1)) == (True, B)
        assert content_of(tmp_path / "one") == changed(START, 0, A)


def test_a_guests_disk_on_a_chain(path: Path, tmp_path: Path) -> None:
    layers(path, "one")
    config = DiskConfig(tmp_path / "one", format="overlay", overlay=tmp_path / "own")
    for number in (1, 2):
        with closing(open_disk(config)) as disk:
            assert disk.read(0, 1) == A
            disk.write(number, B)
    assert content_of(tmp_path / "own") == changed(START, 0, A + B * 2)
    assert content_of(tmp_path / "one") == changed(START, 0, A)


def test_a_folder_that_was_moved_or_copied(path: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    path = path.rename(tmp_path / "old" / path.name)
    layers(path, "one", "two")
    (tmp_path / "old").rename(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "copy", copy_function=shutil.copy)
    for folder in ("new", "copy"):
        assert content_of(tmp_path / folder / "two") == changed(START, 0, A * 2)
    (tmp_path / "copy" / "disk.img").write_bytes(bytes(len(START)))
    with pytest.raises(
        ImageError, match=r"is of another base, or .*/copy/disk\.img was changed after it was made"
    ):
        open_image(tmp_path / "copy" / "two", "overlay")


def test_a_base_in_another_folder(path: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with closing(LayeredDisk(RawDisk(path))) as disk:
        disk.freeze(tmp_path / "store" / "top").close()
    (tmp_path / "store").rename(tmp_path / "moved")
    assert content_of(tmp_path / "moved" / "top") == START


def test_a_base_that_was_changed_behind_our_back(path: Path, tmp_path: Path) -> None:
    layers(path, "one", "two")
    one = tmp_path / "one"
    with path.open("r+b") as file:
        file.seek(len(START) // 2 + 100)  # not one of the samples
        file.write(b"!")
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "two", "overlay")
    assert (
        str(error.value) == f"{one}: the overlay is of another base, or {path} was changed after it was made"
    )


def test_a_layer_that_somebody_writes(path: Path, tmp_path: Path) -> None:
    layers(path, "one", "two")
    with closing(open_image(tmp_path / "one", "overlay")) as disk:
        with pytest.raises(ImageError, match="one: the overlay is being written by another guest or program"):
            open_image(tmp_path / "two", "overlay")
        disk.write(0, B)
    with pytest.raises(ImageError, match="was changed after it was made"):
        open_image(tmp_path / "two", "overlay")


def test_an_overlay_without_its_base(path: Path, tmp_path: Path) -> None:
    OverlayDisk.create(RawDisk(path, read_only=True), tmp_path / "old").close()
    with pytest.raises(ImageError) as error:
        open_image(tmp_path / "old", "overlay")
    assert str(error.value) == (
        f"{tmp_path}/old: the overlay does not say what its base is; give the base as the disk, and this as its overlay"
    )
    open_disk(DiskConfig(path, overlay=tmp_path / "old")).close()
    assert content_of(tmp_path / "old") == START
    with pytest.raises(ImageError, match="none: cannot open the disk image: No such file or directory"):
        open_image(tmp_path / "none", "overlay")


def test_an_overlay_that_is_its_own_base(path: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    layers(path, "top")
    layout = Layout.decode(top.read_bytes()[:4096], "top")
    header = Layout(layout.cluster_size, layout.base_size, layout.identity, "top", "overlay").encode()
    with top.open("r+b") as file:
        file.write(header)
    with pytest.raises(ImageError, match="top: the disk image is its own backing file"):
        open_image(top, "overlay")


def test_a_host_that_stops_before_the_first_flush(path: Path, tmp_path: Path) -> None:
    """The file is there, without clusters and without knowing its base."""
    disk = LayeredDisk(RawDisk(path))
    frozen = disk.freeze(tmp_path / "top")
    disk.write(0, A)
    shutil.copy(tmp_path / "top", tmp_path / "left")
    disk.close()
    frozen.close()
    assert Layout.decode((tmp_path / "left").read_bytes()[:4096], "").identity == UNBOUND
    assert content_of(tmp_path / "left") == START
    with closing(open_image(tmp_path / "left", "overlay")) as disk:
        disk.write(0, B)
    assert content_of(tmp_path / "left") == changed(START, 0, B)


def test_clusters_of_no_known_base(path: Path, tmp_path: Path) -> None:
    layers(path, "top")
    top = tmp_path / "top"
    layout = Layout.decode(top.read_bytes()[:4096], "")
    with top.open("r+b") as file:
        file.write(Layout(layout.cluster_size, layout.base_size, UNBOUND, "disk.img").encode())
    with pytest.raises(ImageError) as error:
        open_image(top, "overlay")
    assert str(error.value) == (
        f"{top}: the overlay is damaged: it has clusters, but does not know of which base"
    )


def test_an_overlay_that_cannot_be_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fdatasync(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with closing(RawDisk(path, read_only=True)) as base, pytest.raises(ImageError) as error:
        OverlayDisk.create(base, tmp_path / "top")
    assert str(error.value) == f"{tmp_path}/top: cannot make the overlay: cannot flush: Input/output error"
    monkeypatch.undo()
    monkeypatch.setattr("emuvisor.devices.storage.overlay.identity_of", lambda _base: 1 // 0)
    with closing(RawDisk(path, read_only=True)) as base, pytest.raises(ZeroDivisionError):
        OverlayDisk.create(base, tmp_path / "top")
    assert not (tmp_path / "top").exists()


def test_the_base_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        read_base_file(tmp_path / "none")
    assert str(error.value) == f"{tmp_path}/none: cannot open the overlay: No such file or directory"


# ---- headers ----


def named(name: bytes, kind: bytes = b"raw", length: int | None = None) -> bytes:
    """A header that names its base so, with right checksums."""
    header = bytearray(Layout(CLUSTER_SIZE, 4096, bytes(32), "x", "raw").encode())
    rest = kind.ljust(16, b"\0") + (len(name) if length is None else length).to_bytes(2, "little") + name
    header[512:4092] = rest.ljust(3580, b"\0")
    header[4092:] = zlib.crc32(header[512:4092]).to_bytes(4, "little")
    return bytes(header)


@pytest.mark.parametrize(
    "header",
    [named(b""), named(b"a\0b"), named(b"a", b"vmdk"), named(b"a", b"\xff"), named(b"a", length=9999)],
)
def test_names_that_no_base_has(header: bytes) -> None:
    with pytest.raises(ImageError) as error:
        Layout.decode(header, "top")
    assert str(error.value) == "top: the overlay is damaged: it names no base that there can be"


def test_a_damaged_name() -> None:
    header = bytearray(named(b"disk.img"))
    header[530] ^= 1
    with pytest.raises(ImageError) as error:
        Layout.decode(bytes(header), "top")
    assert str(error.value) == "top: the overlay is damaged: the checksum of its base's name is wrong"
    with pytest.raises(ImageError, match="cut short inside its header"):
        Layout.decode(bytes(header[:70]), "top")
    with pytest.raises(ImageError, match="checksum of its base's name"):
        Layout.decode(bytes(header[:4000]), "top")


def test_a_name_that_is_too_long(path: Path, tmp_path: Path) -> None:
    file = BaseFile(Path("/" + "x" * 4000), "raw")
    with closing(RawDisk(path, read_only=True)) as base:
        with pytest.raises(ImageError, match="the name of an overlay's base has 3562 bytes at the most"):
            OverlayDisk.create(base, tmp_path / "top", file=file)
        assert not (tmp_path / "top").exists()
        OverlayDisk.create(RawDisk(path, read_only=True), tmp_path / "old").close()
        with pytest.raises(ImageError, match="bytes at the most"):
            OverlayDisk(base, tmp_path / "old", file=file)
    open_disk(DiskConfig(path, overlay=tmp_path / "old")).close()


@given(data=st.binary(max_size=5000), at=st.integers(0, 4095))
@settings(suppress_health_check=list(HealthCheck), max_examples=60)
def test_headers_of_anything(data: bytes, at: int) -> None:
    good = named(b"disk.img")
    for header in (data, (good[:at] + data)[:4096], good[:at] + data[:3] + good[at + 3 :]):
        with suppress(ImageError):
            assert Layout.decode(header, "top").base_size >= 0


def test_what_an_overlay_is(path: Path, tmp_path: Path) -> None:
    layers(path, "one", "two")
    info = image_info(tmp_path / "two", "overlay")
    assert (info.backing_file, info.backing_format, info.virtual_size) == ("one", "overlay", len(START))
    assert info.backing is not None
    assert info.backing.backing is not None
    assert info.backing.backing.path == path
    path.unlink()
    lower = image_info(tmp_path / "one", "overlay")
    assert lower.backing_error == f"{path}: cannot open the disk image: No such file or directory"


# ---- moments written to files ----


def test_a_disk_of_its_own_is_saved_whole(path: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    with closing(LayeredDisk(RawDisk(path))) as disk, closing(disk.freeze()) as frozen:
        disk.write(0, A)
        files = frozen.save(tmp_path / "saved", lambda *step: heard.append(step))
    assert files == DiskFiles(tmp_path / "saved", "raw", [])
    assert (tmp_path / "saved").read_bytes() == START
    assert heard[-1] == (SECTORS, SECTORS)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_is_above_a_read_only_image_is_saved(path: Path, tmp_path: Path, form: str) -> None:
    content = START
    if form == "qcow2":
        path = tmp_path / "disk.qcow2"
        create(path, SECTORS * 512)
        content = bytes(SECTORS * 512)
    disk = LayeredDisk(TemporaryOverlay(open_image(path, read_only=True)))
    disk.write(0, A)
    disk.write(2 * CLUSTER, content[2 * CLUSTER_SIZE : 2 * CLUSTER_SIZE + 512])
    with closing(disk.freeze()) as frozen:
        disk.write(CLUSTER, B)
        disk.write(0, B)
        clone = frozen.open()
        clone.write_zeroes(4 * CLUSTER, CLUSTER, unmap=True)
        files = frozen.save(tmp_path / "saved")
        with closing(clone.freeze()) as deeper:
            cloned = deeper.save(tmp_path / "cloned")
        clone.close()
    disk.close()
    assert files == DiskFiles(tmp_path / "saved", "overlay", [path])
    assert content_of(files.path) == changed(content, 0, A)
    assert content_of(cloned.path) == changed(changed(content, 0, A), 4 * CLUSTER, bytes(CLUSTER_SIZE))
    with closing(OverlayDisk(open_image(path, read_only=True), files.path)) as saved:
        assert saved.clusters_present == 1


def test_what_is_above_a_frozen_layer_is_saved(path: Path, tmp_path: Path) -> None:
    disk = LayeredDisk(RawDisk(path))
    disk.write(0, A)
    lower = disk.freeze(tmp_path / "top")
    disk.write(1, B)
    with closing(disk.freeze()) as frozen:
        disk.write(2, B)
        files = frozen.save(tmp_path / "saved")
    assert files == DiskFiles(tmp_path / "saved", "overlay", [path])
    with closing(disk.freeze(tmp_path / "more")) as frozen:
        again = frozen.save(tmp_path / "again")
    assert again == DiskFiles(tmp_path / "again", "overlay", [tmp_path / "top", path])
    disk.close()
    lower.close()
    assert content_of(tmp_path / "saved") == changed(START, 0, A + B)
    assert content_of(tmp_path / "again") == changed(START, 0, A + B + B)


def test_saving_that_fails_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = LayeredDisk(TemporaryOverlay(RawDisk(path, read_only=True)))
    disk.write(0, A)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with closing(disk.freeze()) as frozen:
        monkeypatch.setattr(os, "pwritev", full)
        with pytest.raises(ImageError) as error:
            frozen.save(tmp_path / "saved")
        monkeypatch.undo()
        assert str(error.value) == f"{tmp_path}/saved: cannot write the image: No space left on device"

        def cancel(_done: int, _all: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            frozen.save(tmp_path / "saved", cancel)
        with pytest.raises(ImageError, match="the file exists already"):
            frozen.save(path)
    disk.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk.img"]


def test_saving_where_no_overlay_can_be_made(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImageError("no such thing")

    disk = LayeredDisk(TemporaryOverlay(RawDisk(path, read_only=True)))
    with closing(disk.freeze()) as frozen:
        monkeypatch.setattr(OverlayDisk, "create", refuse)
        with pytest.raises(ImageError, match="no such thing"):
            frozen.save(tmp_path / "saved")
    disk.close()
    RawDisk(path).close()


def test_saving_above_what_cannot_be_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = LayeredDisk(RawDisk(path))
    lower = disk.freeze(tmp_path / "top")

    def fdatasync(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with closing(disk.freeze()) as frozen, pytest.raises(ImageError) as error:
        frozen.save(tmp_path / "saved")
    assert str(error.value) == f"{path}: cannot be stored: cannot flush: Input/output error"
    monkeypatch.undo()
    with pytest.raises(OSError, match="earlier flush"):
        disk.close()
    lower.close()


def test_info_as_json(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from emuvisor.cli.entry import main

    layers(path, "one")
    assert main(["disk", "info", str(tmp_path / "one"), "--format", "overlay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backing"]["format"] == "raw"
