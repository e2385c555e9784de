"""qemu-img and emuvisor read, write and check each other's qcow2 images."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emuvisor.devices.storage.qcow2.check import check
from emuvisor.devices.storage.qcow2.commit import commit
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.info import info
from emuvisor.devices.storage.qcow2.resize import resize
from emuvisor.units import MIB

QEMU_IMG, QEMU_IO = shutil.which("qemu-img"), shutil.which("qemu-io")
pytestmark = pytest.mark.skipif(
    QEMU_IMG is None or QEMU_IO is None,
    reason="no qemu-img on this machine; on Debian: apt-get install qemu-utils",
)

SIZE = 6 * MIB + 3 * 512
MADE_BY_QEMU = [
    "compat=0.10",
    "compat=1.1",
    "compat=0.10,cluster_size=512",
    "compat=1.1,cluster_size=4096,refcount_bits=1",
    "compat=1.1,cluster_size=1024,refcount_bits=64",
    "compat=1.1,cluster_size=2M",
    "compat=1.1,compression_type=zstd",
    "compat=1.1,lazy_refcounts=on",
    "compat=1.1,preallocation=metadata",
    "compat=1.1,preallocation=falloc,cluster_size=8192",
]
MADE_BY_US: list[dict[str, Any]] = [
    {},
    {"version": 2},
    {"version": 2, "cluster_size": 512},
    {"cluster_size": 512, "refcount_bits": 64},
    {"cluster_size": 512, "refcount_bits": 1},
    {"cluster_size": 4096, "refcount_bits": 2, "compression": "zstd"},
    {"cluster_size": 2 * MIB, "refcount_bits": 32, "lazy_refcounts": True},
    {"preallocation": "metadata"},
    {"preallocation": "falloc", "cluster_size": 1024},
    {"preallocation": "full", "refcount_bits": 8},
]


def qemu_img(*arguments: object) -> str:
    assert QEMU_IMG is not None
    done = subprocess.run([QEMU_IMG, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def qemu_io(path: Path, *commands: str) -> None:
    assert QEMU_IO is not None
    given = [word for command in commands for word in ("-c", command)]
    subprocess.run([QEMU_IO, "-f", "qcow2", *given, str(path)], capture_output=True, check=True)


def content(path: Path) -> bytes:
    """The disk as qemu-img reads it, in an image that qemu-img and we find clean."""
    qemu_img("check", "-f", "qcow2", path)
    report = check(path)
    assert report.clean, report
    raw = path.with_suffix(".converted")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", path, raw)
    return raw.read_bytes()


def change(path: Path, model: bytearray, seed: int, times: int = 60) -> None:
    """Write, zero, discard and compress here and there, in the image and in the model."""
    chance = random.Random(seed)
    sectors = len(model) // 512
    with Qcow2Disk(path) as disk:
        for _ in range(times):
            count = chance.choice([1, 8, 40, 200])
            lba = chance.randrange(sectors - count)
            start, end = lba * 512, (lba + count) * 512
            action = chance.choice(["write", "write", "zero", "discard", "compress", "flush"])
            if action == "write":
                model[start:end] = chance.randbytes(end - start)
                disk.write(lba, bytes(model[start:end]))
            elif action == "zero":
                disk.write_zeroes(lba, count, unmap=chance.random() < 0.5)
                model[start:end] = bytes(end - start)
            elif action == "discard":
                disk.discard(lba, count)
                model[start:end] = disk.read(lba, count)
            elif action == "compress":
                cluster = start // disk.cluster_size
                place = slice(cluster * disk.cluster_size, (cluster + 1) * disk.cluster_size)
                model[place] = (chance.randbytes(32) * (disk.cluster_size // 32))[: len(model[place])]
                disk.write_compressed(cluster, bytes(model[place]))
            else:
                disk.flush()
        assert disk.read(0, sectors) == model


@pytest.mark.parametrize("kind", MADE_BY_US, ids=str)
def test_ours_are_in_order_for_qemu(tmp_path: Path, kind: dict[str, Any]) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, SIZE, **kind)
    assert content(path) == bytes(SIZE)
    model = bytearray(SIZE)
    for seed in range(3):
        change(path, model, seed)
        assert content(path) == model
    qemu_io(path, "write -P 7 1M 100k", "write -z 2M 64k", "discard 3M 64k")
    model[MIB : MIB + 100 * 1024] = b"\7" * 100 * 1024
    model[2 * MIB : 2 * MIB + 65536] = bytes(65536)
    with Qcow2Disk(path) as disk:
        model[3 * MIB : 3 * MIB + 65536] = disk.read(3 * MIB // 512, 128)
        assert disk.read(0, SIZE // 512) == model
    change(path, model, 4)
    assert content(path) == model


@pytest.mark.parametrize("options", MADE_BY_QEMU)
def test_qemus_are_read_and_written(tmp_path: Path, options: str) -> None:
    path = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", options, path, SIZE)
    assert info(path).size == SIZE
    model = bytearray(SIZE)
    change(path, model, 1)
    assert content(path) == model


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_images(tmp_path: Path, compression: str) -> None:
    chance = random.Random(2)
    model = bytearray(b"".join(chance.randbytes(8) * 512 for _ in range(SIZE // 4096)).ljust(SIZE, b"x"))
    raw, path = tmp_path / "disk.img", tmp_path / "disk.qcow2"
    raw.write_bytes(model)
    options = f"compression_type={compression}"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
    assert info(path).compression == compression
    with Qcow2Disk(path, read_only=True) as disk:
        assert disk.read(0, SIZE // 512) == model
    assert check(path).compressed_clusters > 0
    change(path, model, 3)
    assert content(path) == model


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_snapshots_stay_as_they_are(tmp_path: Path, compat: str) -> None:
    path = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"compat={compat},cluster_size=4096", path, SIZE)
    model = bytearray(SIZE)
    kept = []
    for number in range(3):
        change(path, model, number)
        qemu_img("snapshot", "-c", f"s{number}", path)
        kept.append(bytes(model))
    change(path, model, 9)
    assert [(snapshot.name, snapshot.disk_size) for snapshot in info(path).snapshots] == [
        ("s0", SIZE),
        ("s1", SIZE),
        ("s2", SIZE),
    ]
    assert content(path) == model
    for number, expected in enumerate(kept):
        raw = tmp_path / "snapshot.img"
        qemu_img("convert", "-l", f"snapshot.name=s{number}", "-O", "raw", path, raw)
        assert raw.read_bytes() == expected
    qemu_img("snapshot", "-a", "s1", path)
    qemu_img("snapshot", "-d", "s0", path)
    assert content(path) == kept[1]


@pytest.mark.parametrize(
    "make_top",
    [
        lambda top: qemu_img(
            "create", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", "-o", "cluster_size=4096", top
        ),
        lambda top: create(top, cluster_size=4096, backing="middle.qcow2", backing_format="qcow2"),
    ],
    ids=["qemu", "emuvisor"],
)
@pytest.mark.parametrize("base_size", [2 * MIB + 512, 8 * MIB])
def test_chains(tmp_path: Path, make_top: Callable[[Path], None], base_size: int) -> None:
    base, middle, top = tmp_path / "base.img", tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    base.write_bytes(random.Random(5).randbytes(base_size))
    create(middle, SIZE, backing="base.img", backing_format="raw")
    model = bytearray(base.read_bytes()[:SIZE].ljust(SIZE, b"\0"))
    assert content(middle) == model
    change(middle, model, 6)
    make_top(top)
    change(top, model, 7)
    assert content(top) == model
    resize(top, 9 * MIB)
    model += bytes(9 * MIB - SIZE)
    assert content(top) == model
    commit(top)
    assert content(top) == content(middle) == model
    assert check(top).allocated_clusters == 0
    described = json.loads(qemu_img("info", "--output=json", top))
    assert (described["virtual-size"], described["backing-filename"]) == (9 * MIB, "middle.qcow2")


def test_a_dirty_image_gets_its_refcounts(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on", path, SIZE)
    # qemu-io ends as if it were killed, with refcounts that were never written.
    assert QEMU_IO is not None
    subprocess.run(
        [QEMU_IO, "-f", "qcow2", "-c", "write -P 5 0 1M", "-c", "abort", str(path)],
        capture_output=True,
        check=False,
    )
    assert info(path).dirty
    model = bytearray(b"\5" * MIB).ljust(SIZE, b"\0")
    change(path, model, 8)
    assert not info(path).dirty
    assert content(path) == model


def test_what_qemu_left_open_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, SIZE, lazy_refcounts=True)
    assert QEMU_IO is not None
    subprocess.run(
        [QEMU_IO, "-f", "qcow2", "-c", "write -P 5 0 1M", "-c", "abort", str(path)],
        capture_output=True,
        check=False,
    )
    report = check(path)
    assert (report.corruptions, report.leaks) != (0, 0)
    assert check(path, repair=True).clean
    assert content(path) == (b"\5" * MIB).ljust(SIZE, b"\0")


def test_bitmaps_are_kept_until_something_is_written(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, SIZE)
    qemu_img("bitmap", "--add", path, "b0")
    qemu_io(path, "write 0 1M")
    assert info(path).features == ("bitmaps",)
    assert check(path).clean
    qemu_img("check", path)
    model = bytearray(b"\xcd" * MIB).ljust(SIZE, b"\0")
    change(path, model, 1)
    assert info(path).features == ()
    assert check(path).corruptions == 0
    assert check(path, repair=True).clean
    assert content(path) == model
