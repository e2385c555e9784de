"""Layers of disks in a store stay as long as a snapshot, another layer, a guest's definition or a running guest needs
them."""

from contextlib import closing
from pathlib import Path

import pytest

from emuvisor.cli.entry import main
from emuvisor.devices.storage.formats import DiskFormat, open_image
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay import TemporaryOverlay
from emuvisor.devices.storage.rawdisk import create_raw
from emuvisor.host.snapshots.disks import remove_unused_disks
from emuvisor.store.store import Store
from emuvisor.units import MIB, format_size

LOWER, UPPER = "snapshot-lower", "snapshot-upper"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With two layers of a disk, of which nobody knows."""
    below = tmp_path / "base.img"
    create_raw(below, MIB)
    form: DiskFormat = "raw"
    store = Store(tmp_path / "store")
    for name in (LOWER, UPPER):
        with closing(LayeredDisk(TemporaryOverlay(open_image(below, form, read_only=True)))) as disk:
            disk.write(0, name.encode().ljust(512))
            with closing(disk.freeze()) as frozen:
                files = frozen.save(store.disk_path(name))
        below, form = files.path, files.format
    return store


def define(store: Store, name: str) -> None:
    text = f'[[disks]]\npath = "{store.disk_path(name)}"\nformat = "overlay"\nqueues = 2\n'
    store.define("guest", text, replace=True)


def test_what_nobody_needs_goes(store: Store) -> None:
    assert remove_unused_disks(store) > 0
    assert store.disks() == []


def test_what_others_stand_on_stays(store: Store) -> None:
    define(store, UPPER)
    assert remove_unused_disks(store) == 0
    define(store, LOWER)
    assert remove_unused_disks(store) > 0
    assert store.disks() == [LOWER]
    store.delete_guest("guest")
    assert remove_unused_disks(store) > 0
    assert store.disks() == []


def test_a_definition_that_cannot_be_read(store: Store) -> None:
    define(store, UPPER)
    (store.guest_folder("guest") / "guest.toml").write_text("disks = [")
    assert remove_unused_disks(store) == 0


def test_gc_frees_layers(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with store:
        define(store, LOWER)
    taken = format_size(store.disk_path(UPPER).stat().st_blocks * 512)
    assert main(["store", "gc", "--store", str(store.folder)]) == 0
    out = capsys.readouterr().out
    assert out == f"{store.folder}: {taken} freed; 0 packs deleted, 0 written again\n"
    with Store(store.folder, read_only=True) as again:
        assert again.disks() == [LOWER]
