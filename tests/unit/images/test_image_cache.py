import hashlib
import json

import pytest

from emuvisor.errors import HostError, ImageError
from emuvisor.images.cache import Recipe, cache_folder, find, install, list_images, usable


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(kernel: bytes = b"kernel") -> Recipe:
    return Recipe(
        files={"vmlinuz": kernel, "initrd": b"initrd"},
        kernel="vmlinuz",
        initrd="initrd",
        append="quiet",
        packages={"linux": "6.1"},
    )


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EMUVISOR_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(cache_folder()) == "/xdg/emuvisor"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert str(cache_folder()) == "/home/me/.cache/emuvisor"


def test_install_and_find(cache):
    assert find("debian") is None
    assert list_images() == []
    image = install("debian", recipe())
    assert image == find("debian")
    assert image.path == cache / "images" / "debian"
    assert (image.kernel.read_bytes(), image.append, image.size) == (b"kernel", "quiet", 12)
    assert image.initrd is not None
    assert image.packages == {"linux": "6.1"}
    assert [i.name for i in list_images()] == ["debian"]
    manifest = json.loads((image.path / "manifest.json").read_text())
    assert manifest["files"]["vmlinuz"] == {"size": 6, "sha256": hashlib.sha256(b"kernel").hexdigest()}


def test_new_version_replaces_the_old_one_and_no_other_image(cache):
    install("debian-memtest", recipe())
    install("debian", recipe())
    install("debian", recipe(b"newer"))
    assert find("debian").kernel.read_bytes() == b"newer"
    names = sorted(p.name for p in (cache / "images").iterdir())
    assert len(names) == 4
    assert [i.name for i in list_images()] == ["debian", "debian-memtest"]


def test_installing_again_repairs(cache):
    image = install("debian", recipe())
    image.kernel.unlink()
    with pytest.raises(ImageError) as error:
        find("debian")
    assert str(error.value) == f"{image.kernel}: missing; pull the image again"
    assert install("debian", recipe()).kernel.read_bytes() == b"kernel"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "damaged: TypeError('list indices must be integers or slices, not str')"),
        ('{"version": 4}', "damaged: KeyError('files')"),
        ('{"version": 3}', "version 3 is not 4"),
    ],
)
def test_damaged_manifest(text, message):
    manifest = install("debian", recipe()).path / "manifest.json"
    manifest.write_text(text)
    with pytest.raises(ImageError) as error:
        find("debian")
    assert str(error.value) == f"{manifest}: {message}; pull the image again"


def test_changed_file_is_noticed():
    image = install("debian", recipe())
    image.kernel.write_bytes(b"k")
    with pytest.raises(ImageError) as error:
        find("debian")
    assert str(error.value) == f"{image.kernel}: 1 bytes long instead of 6; pull the image again"


def test_unwritable_cache(cache):
    cache.write_text("a file")
    with pytest.raises(HostError) as error:
        install("debian", recipe())
    assert str(error.value) == f"cannot write the image cache {cache}: Not a directory"


def test_an_image_of_another_version_has_to_be_pulled(cache):
    image = install("debian", recipe())
    assert usable("debian") == image
    (image.path / "manifest.json").write_text('{"version": 2}')
    assert usable("debian") is None
    assert usable("other") is None
