"""What those may name who come over TCP."""

from pathlib import Path
from typing import Any

import pytest

from emuvisor.daemon.access import Access
from emuvisor.daemon.faults import Forbidden
from emuvisor.devices.storage.imagefiles import create_image
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.overlay_format import BaseFile
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError, UsageError
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.units import MIB

NOWHERE = "is in no folder that may be used over TCP ('emuvisor serve --images')"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a raw disk, qcow2 images on that and on a file elsewhere, and links out of it."""
    folder = tmp_path / "images"
    folder.mkdir()
    secret = tmp_path / "secret.img"
    for path in (secret, folder / "base.img"):
        path.write_bytes(bytes(MIB))
    for name, backing in (("good", "base.img"), ("bad", str(secret))):
        create_image(folder / f"{name}.qcow2", None, backing=backing, backing_format="raw")
    create_image(folder / "deep.qcow2", None, backing="bad.qcow2", backing_format="qcow2")
    (folder / "torn.qcow2").write_bytes(b"QFI\xfb")
    (folder / "link.img").symlink_to(secret)
    (folder / "loop.img").symlink_to(folder / "loop.img")
    return folder


def config(folder: Path, **keys: Any) -> GuestConfig:
    boots = {} if {"kernel", "flat", "firmware"} & keys.keys() else {"firmware": "rom.bin"}
    return from_mapping({"name": "web", **boots, **keys}, "the definition", folder)


@pytest.mark.parametrize(
    "keys",
    [
        {"kernel": {"path": "vmlinuz", "initrd": "initrd.img"}},
        {"flat": {"path": "deeper/boot.bin", "address": 0}},
        {"firmware": "seabios"},
        {"firmware_variables": "vars.fd", "option_roms": ["a.rom", "b.rom"]},
        {"disks": [{"path": "base.img"}, {"path": "good.qcow2", "overlay": "new.overlay"}]},
        {"disks": [{"path": "base.img", "overlay": "temporary"}, {"path": "cd.iso", "kind": "cdrom"}]},
        {"disks": [{"path": "good.qcow2", "kind": "cdrom"}]},
        {"shares": [{"path": "deeper", "tag": "t"}]},
    ],
)
def test_what_is_below_the_folders(images: Path, keys: dict[str, Any]) -> None:
    Access("token", (images,)).check(config(images, **keys))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"kernel": {"path": "/etc/shadow"}}, f"kernel.path: /etc/shadow {NOWHERE}"),
        ({"kernel": {"path": "k", "initrd": "../secret.img"}}, f"kernel.initrd: {{images}}/../secret.img {NOWHERE}"),
        ({"flat": {"path": "/dev/mem", "address": 0}}, f"flat.path: /dev/mem {NOWHERE}"),
        ({"firmware": "/x/rom.bin"}, f"firmware: /x/rom.bin {NOWHERE}"),
        ({"firmware_variables": "/x/vars"}, f"firmware_variables: /x/vars {NOWHERE}"),
        ({"firmware_variables": "good.qcow2"},
         "firmware_variables: {images}/good.qcow2 has the name of a disk image"),
        ({"option_roms": ["/x/a.rom"]}, f"option_roms: /x/a.rom {NOWHERE}"),
        ({"shares": [{"path": "/etc", "tag": "t"}]}, f"shares.path: /etc {NOWHERE}"),
        ({"shares": [{"path": ".", "tag": "t", "readonly": False}]},
         "shares: 't' can be writable over the Unix socket only"),
        ({"devices": ["os:system"]}, "devices: 'os:system' can be given over the Unix socket only"),
        ({"disks": [{"path": "/etc/shadow"}]}, f"disks.path: /etc/shadow {NOWHERE}"),
        ({"disks": [{"path": "../images2/x"}]}, f"disks.path: {{images}}/../images2/x {NOWHERE}"),
        ({"disks": [{"path": "link.img"}]}, f"disks.path: {{images}}/link.img {NOWHERE}"),
        ({"disks": [{"path": "base.img", "overlay": "/x/o"}]}, f"disks.overlay: /x/o {NOWHERE}"),
        ({"disks": [{"path": "bad.qcow2"}]},
         f"disks.path: {{images}}/bad.qcow2: backing file: {{secret}} {NOWHERE}"),
        ({"disks": [{"path": "deep.qcow2"}]},
         f"disks.path: {{images}}/deep.qcow2: backing file: {{secret}} {NOWHERE}"),
        ({"disks": [{"path": "base.img", "format": "qcow2"}]},
         "disks.path: {images}/base.img is raw by its name; it can be used as qcow2 over the Unix socket only"),
        ({"disks": [{"path": "good.qcow2", "format": "raw"}]},
         "disks.path: {images}/good.qcow2 is qcow2 by its name; it can be used as raw over the Unix socket only"),
        ({"disks": [{"path": "good.qcow2", "kind": "floppy"}]},
         "disks.path: {images}/good.qcow2 is qcow2 by its name; it can be used as raw over the Unix socket only"),
    ],
)  # fmt: skip
def test_what_is_not(images: Path, keys: dict[str, Any], text: str) -> None:
    asked = config(images, **keys)
    with pytest.raises(Forbidden) as error:
        Access("token", (images,)).check(asked)
    assert str(error.value) == text.format(images=images, secret=images.parent / "secret.img")
    Access().check(asked)  # over the Unix socket


def test_an_image_whose_backing_file_nobody_knows(images: Path) -> None:
    with pytest.raises(ImageError):
        Access("token", (images,)).check(config(images, disks=[{"path": "torn.qcow2"}]))
    (images.parent / "secret.img").unlink()
    with pytest.raises(ImageError):
        Access("token", (images,)).check(config(images, disks=[{"path": "bad.qcow2"}]))


def test_an_imported_overlay_on_what_is_elsewhere(images: Path) -> None:
    secret = images.parent / "secret.img"
    file = BaseFile(secret, "raw")
    OverlayDisk.create(RawDisk(secret, read_only=True), images / "upload", file=file).close()
    asked = config(images, disks=[{"path": "upload", "format": "overlay"}])
    with pytest.raises(Forbidden) as error:
        Access("token", (images,)).check(asked, disks=images)
    assert str(error.value) == f"disks.path: {images}/upload: backing file: {secret} {NOWHERE}"


def test_a_loop_of_links_can_be_named_but_never_be_opened(images: Path) -> None:
    Access("token", (images,)).check(config(images, disks=[{"path": "loop.img"}]))


def test_without_folders_nothing_can_be_named(images: Path) -> None:
    with pytest.raises(Forbidden):
        Access("token", ()).check(config(images, disks=[{"path": "base.img"}]))


def test_what_a_guest_had_before_it_may_keep(images: Path) -> None:
    keys: dict[str, Any] = {
        "devices": ["mine:Chip"],
        "shares": [{"path": "/srv", "tag": "t", "readonly": False}],
        "disks": [{"path": "/mine/disk.img"}],
    }
    before = config(images, **keys)
    access = Access("token", (images,))
    access.check(config(images, **keys, memory="64M"), before)
    for disk in ({"path": "/mine/other.img"}, {"path": "/mine/disk.img", "format": "qcow2"}):
        with pytest.raises(Forbidden):
            access.check(config(images, **{**keys, "disks": [disk]}), before)


def test_the_disks_of_an_imported_guest_are_in_the_store(images: Path) -> None:
    access = Access("token", (images.parent / "none",))
    disks = images.parent / "images"
    asked = config(images, firmware="seabios", disks=[{"path": str(disks / "good.qcow2"), "format": "qcow2"}])
    access.check(asked, disks=disks)
    with pytest.raises(Forbidden):
        access.check(config(images, disks=[{"path": str(disks / "bad.qcow2")}]), disks=disks)


def test_what_is_covered(images: Path) -> None:
    assert Access().covers(Path("/anywhere"))
    access = Access("token", (images,))
    assert access.covers(images / "exports")
    assert not access.covers(images.parent / "exports")


def test_new_files_for_disks(images: Path) -> None:
    remote, local = Access("token", (images,)), Access()
    assert remote.new_disk("new.qcow2", None) == images / "new.qcow2"
    assert remote.new_disk(f"{images}/new.img", "raw") == images / "new.img"
    assert local.new_disk("/anywhere/new.img", "qcow2") == Path("/anywhere/new.img")


@pytest.mark.parametrize(
    ("path", "form", "text"),
    [
        ("/etc/new.img", None, f"path: /etc/new.img {NOWHERE}"),
        ("../new.img", None, f"path: {{images}}/../new.img {NOWHERE}"),
        ("new.img", "qcow2", "disks.path: {images}/new.img is raw by its name; it can be used as qcow2 over the Unix "
         "socket only"),
        ("new.img", "overlay", "disks.path: {images}/new.img is raw by its name; it can be used as overlay over the "
         "Unix socket only"),
    ],
)  # fmt: skip
def test_new_files_that_are_not_for_the_network(images: Path, path: str, form: Any, text: str) -> None:
    with pytest.raises(Forbidden) as error:
        Access("token", (images,)).new_disk(path, form)
    assert str(error.value) == text.format(images=images)


@pytest.mark.parametrize("text", ["new.img", "/a\0b"])
def test_new_files_are_absolute_paths(text: str) -> None:
    with pytest.raises(UsageError) as error:
        Access().new_disk(text, None)
    assert str(error.value) == f"path: {text!r} is not an absolute path"
