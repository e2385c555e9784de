"""`emuvisor images`."""

import json
from pathlib import Path

import pytest

from emuvisor.cli import main
from emuvisor.images import cache
from emuvisor.images.cache import Image, Recipe
from emuvisor.images.progress import Progress
from emuvisor.images.recipes import RECIPES

Capture = pytest.CaptureFixture[str]
RECIPE = Recipe(
    {"vmlinuz": b"k" * 2048}, {"linux": "6.1", "busybox": "1.35"}, kernel="vmlinuz", append="quiet"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path))
    return tmp_path


def test_nothing_yet(capsys: Capture) -> None:
    assert main(["images", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "image            size  made from",
        "debian                 not here yet; emuvisor images pull debian",
    ]
    assert [line.split()[0] for line in lines[1:]] == list(RECIPES)
    assert main(["images", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_an_installed_image(folder: Path, capsys: Capture) -> None:
    cache.install("debian", RECIPE)
    assert main(["images", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "debian           2 KiB  busybox 1.35, linux 6.1"
    assert main(["images", "list", "--json"]) == 0
    path = folder / "images" / "debian"
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "debian",
            "path": str(path),
            "kernel": str(path / "vmlinuz"),
            "initrd": None,
            "append": "quiet",
            "disk": None,
            "firmware": None,
            "packages": {"linux": "6.1", "busybox": "1.35"},
            "size": 2048,
        }
    ]


def test_a_damaged_image(folder: Path, capsys: Capture) -> None:
    cache.install("debian", RECIPE)
    kernel = folder / "images" / "debian" / "vmlinuz"
    kernel.unlink()
    assert main(["images", "list"]) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {kernel}: missing; pull the image again\n"


def test_pull(monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: Capture) -> None:
    def build(name: str, progress: Progress) -> Image:
        progress("downloading", 0, 2)
        progress("installing", 1, 2)
        image = cache.install(name, RECIPE)
        progress("done", 2, 2)
        return image

    monkeypatch.setitem(RECIPES, "debian", build)
    assert main(["images", "pull", "debian"]) == 0
    path = folder / "images" / "debian"
    assert capsys.readouterr() == (
        f"debian: 2 KiB in {path} (busybox 1.35, linux 6.1)\nBoot it with: emuvisor run --image debian\n",
        "[1/2] downloading\n[2/2] installing\n",
    )


def test_pull_all_takes_what_is_missing_or_damaged(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: Capture
) -> None:
    built = []

    def build(name: str, _progress: Progress) -> Image:
        built.append(name)
        return cache.install(name, RECIPE)

    for name in RECIPES:
        monkeypatch.setitem(RECIPES, name, build)
        cache.install(name, RECIPE)
    (folder / "images" / "debian" / "vmlinuz").unlink()
    (folder / "images" / "debian-memtest").unlink()
    assert main(["images", "pull", "--all"]) == 0
    assert built == ["debian", "debian-memtest"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("argv", [[], ["--all", "debian"]])
def test_pull_needs_names_or_all(argv: list[str], capsys: Capture) -> None:
    assert main(["images", "pull", *argv]) == 2
    assert capsys.readouterr().err == "emuvisor: error: name the images to pull, or say --all\n"


def test_pull_firmware(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def build(name: str, progress: Progress) -> Image:
        return cache.install(name, Recipe({"bios.bin": b"b"}, {"seabios": "1"}))

    monkeypatch.setitem(RECIPES, "seabios", build)
    assert main(["images", "pull", "seabios"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "Boot a disk by it with: emuvisor run --firmware seabios --disk FILE"
    )


def test_pull_what_there_is_not(capsys: Capture) -> None:
    assert main(["images", "pull", "plan9"]) == 2
    assert capsys.readouterr().err == (
        f"emuvisor: error: unknown image 'plan9'; known images: {', '.join(RECIPES)}\n"
    )
