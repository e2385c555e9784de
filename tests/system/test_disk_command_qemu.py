"""`emuvisor disk` and qemu-img make, read and judge each other's images."""

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emuvisor.cli import main
from emuvisor.devices.storage.formats import ImageFormat, open_image
from emuvisor.units import KIB, MIB

pytestmark = pytest.mark.system

SIZE = 32 * MIB + 3 * 512
"""No multiple of any cluster size."""
COMPRESSIONS = {"zlib": "compression_type=zlib", "zstd": "compression_type=zstd"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test."""
    if shutil.which("qemu-img") is None:
        pytest.skip("no qemu-img on this machine; on Debian: apt-get install qemu-utils")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def disk(*arguments: str) -> None:
    assert main(["disk", *arguments]) == 0


def qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=True).stdout


def same(one: str, other: str) -> None:
    """Both show the same disk to qemu-img."""
    formats = ["qcow2" if name.endswith(".qcow2") else "raw" for name in (one, other)]
    qemu_img("compare", "-f", formats[0], "-F", formats[1], one, other)


def clean(name: str) -> None:
    """Both programs find nothing wrong with the image."""
    report = json.loads(qemu_img("check", "--output=json", "-f", "qcow2", name))
    assert not {"corruptions", "leaks"} & report.keys()
    assert report["check-errors"] == 0
    disk("check", name)


def info(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What we say about an image, after a look whether qemu-img agrees."""
    capsys.readouterr()
    disk("info", name, "--json")
    ours: dict[str, Any] = json.loads(capsys.readouterr().out)
    theirs = json.loads(qemu_img("info", "--output=json", name))
    assert (ours["format"], ours["virtual_size"], ours["allocated"]) == (
        theirs["format"],
        theirs["virtual-size"],
        theirs["actual-size"],
    )
    if ours["format"] == "qcow2":
        data = theirs["format-specific"]["data"]
        version = {2: "0.10", 3: "1.1"}[ours["version"]]
        assert (ours["cluster_size"], version) == (theirs["cluster-size"], data["compat"])
        assert ours["compression"] == data.get("compression-type", "zlib")
        assert ours["backing_file"] == theirs.get("backing-filename")
        assert ours["backing_format"] == theirs.get("backing-filename-format")
    return ours


def write(name: str, seed: int, format: ImageFormat | None = None) -> None:
    """Write random and repeating data at random places, zero and discard others."""
    chance = random.Random(seed)
    image = open_image(name, format)
    for number in range(40):
        count = chance.choice((1, 7, 8, 128, 129, 700))
        lba = chance.randrange(image.sectors - count)
        if number % 4 == 0:
            image.write_zeroes(lba, count, unmap=chance.random() < 0.5)
        elif number % 4 == 1:
            image.write(lba, chance.randbytes(count * 512))
        else:
            image.write(lba, b"text that shrinks" * (count * 512 // 17) + bytes(count * 512 % 17))
    image.write(image.sectors - 1, b"z" * 512)
    image.flush()
    image.close()


@pytest.fixture
def source() -> str:
    disk("create", "source.img", str(SIZE))
    write("source.img", 1)
    return "source.img"


@pytest.mark.parametrize("cluster_size", [512, 4 * KIB, 64 * KIB, 2 * MIB])
def test_ours_read_by_qemu(source: str, cluster_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    disk("convert", source, "copy.qcow2", "--cluster-size", str(cluster_size))
    clean("copy.qcow2")
    same(source, "copy.qcow2")
    assert info("copy.qcow2", capsys)["cluster_size"] == cluster_size
    write("copy.qcow2", 2)
    write(source, 2)
    clean("copy.qcow2")
    same(source, "copy.qcow2")


@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "cluster_size=4096", "refcount_bits=1"])
def test_theirs_read_by_us(source: str, options: str, capsys: pytest.CaptureFixture[str]) -> None:
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "copy.qcow2")
    info("copy.qcow2", capsys)
    disk("convert", "copy.qcow2", "back.img")
    assert Path("back.img").read_bytes() == Path(source).read_bytes()
    assert Path("back.img").stat().st_blocks <= Path(source).stat().st_blocks
    write("copy.qcow2", 3)
    write(source, 3)
    clean("copy.qcow2")
    same(source, "copy.qcow2")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_both_ways(source: str, compression: str, capsys: pytest.CaptureFixture[str]) -> None:
    disk("convert", source, "ours.qcow2", "--compress", compression)
    qemu_img(
        *(
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            "-o",
            COMPRESSIONS[compression],
            source,
            "theirs.qcow2",
        )
    )
    for name in ("ours.qcow2", "theirs.qcow2"):
        clean(name)
        same(source, name)
        assert info(name, capsys)["compression"] == compression
    disk("convert", "theirs.qcow2", "back.img")
    assert Path("back.img").read_bytes() == Path(source).read_bytes()
    sizes = [Path(name).stat().st_size for name in ("ours.qcow2", "theirs.qcow2")]
    assert sizes[0] <= 1.1 * sizes[1]


def test_chains(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Base, middle and top, each layer made by the other program."""
    qemu_img("create", "-f", "qcow2", "-b", source, "-F", "raw", "middle.qcow2")
    write("middle.qcow2", 4)
    disk("create", "top.qcow2", str(2 * SIZE), "--backing", "middle.qcow2")
    write("top.qcow2", 5)
    for name in ("middle.qcow2", "top.qcow2"):
        clean(name)
        info(name, capsys)
    disk("convert", "top.qcow2", "ours.img")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", "top.qcow2", "theirs.img")
    assert Path("ours.img").read_bytes() == Path("theirs.img").read_bytes()


@pytest.mark.parametrize("base", ["base.img", "base.qcow2"])
def test_commit_as_qemu_does(source: str, base: str) -> None:
    """The same two images committed by us and by qemu-img show the same disk."""
    for program in ("ours", "theirs"):
        Path(program).mkdir()
        disk("convert", source, f"{program}/{base}")
        disk("create", f"{program}/top.qcow2", "--backing", base)
        write(f"{program}/top.qcow2", 6)
    disk("commit", "ours/top.qcow2")
    qemu_img("commit", "-f", "qcow2", "theirs/top.qcow2")
    same(f"ours/{base}", f"theirs/{base}")
    same("ours/top.qcow2", f"theirs/{base}")
    clean("ours/top.qcow2")
    if base.endswith("qcow2"):
        clean(f"ours/{base}")


def test_resize_as_qemu_does(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    disk("convert", source, "ours.qcow2")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, "theirs.qcow2")
    for size in (str(SIZE + 5 * MIB), str(SIZE - 5 * MIB), str(SIZE)):
        disk("resize", "ours.qcow2", size, "--shrink")
        qemu_img("resize", "-f", "qcow2", "--shrink", "theirs.qcow2", size)
        clean("ours.qcow2")
        same("ours.qcow2", "theirs.qcow2")
        assert info("ours.qcow2", capsys)["virtual_size"] == int(size)


@pytest.mark.parametrize("preallocation", ["off", "metadata", "falloc", "full"])
def test_preallocated_images(preallocation: str, capsys: pytest.CaptureFixture[str]) -> None:
    disk("create", "disk.qcow2", str(SIZE), "--preallocation", preallocation)
    clean("disk.qcow2")
    taken = info("disk.qcow2", capsys)["allocated"]
    assert (taken > SIZE) == (preallocation in ("falloc", "full"))
    disk("create", "zeros.img", str(SIZE))
    same("disk.qcow2", "zeros.img")
