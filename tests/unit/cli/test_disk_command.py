"""`emuvisor disk`."""

import errno
import json
import os
import re
import sys
from pathlib import Path

import pytest

from emuvisor.cli import main, transfer
from emuvisor.cli.disk import parse_resize
from emuvisor.devices.storage import convert
from emuvisor.devices.storage.formats import ImageFormat, open_image
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.qcow2 import check
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.units import GIB, KIB, MIB

Capture = pytest.CaptureFixture[str]
SECTOR = 512
DATA = b"data" * (MIB // 4)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def disk(*arguments: str | Path) -> int:
    return main(["disk", *map(str, arguments)])


def refused(capsys: Capture, *arguments: str | Path) -> str:
    """What the command complains about."""
    capsys.readouterr()
    try:
        code = disk(*arguments)
    except SystemExit as end:  # argparse's own
        code = int(end.code or 0)
    output = capsys.readouterr()
    assert (code, output.out) == (2, "")
    return output.err.splitlines()[-1].partition("error: ")[2]


def raw(name: str = "disk.img", size: int = 8 * MIB, at: int = MIB) -> Path:
    """A sparse raw image with a MiB of data."""
    path = Path(name)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(DATA)
    return path


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def content(path: Path | str, format: ImageFormat | None = None) -> bytes:
    image = open_image(path, format, read_only=True)
    try:
        return image.read(0, image.sectors)
    finally:
        image.close()


def info(path: Path | str, capsys: Capture, *options: str) -> dict[str, object]:
    capsys.readouterr()
    assert disk("info", path, "--json", *options) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


class TestCreate:
    def test_raw(self, capsys: Capture) -> None:
        assert disk("create", "disk.img", "1G") == 0
        assert capsys.readouterr().out == "disk.img: raw, 1 GiB\n"
        status = Path("disk.img").stat()
        assert (status.st_size, status.st_blocks) == (GIB, 0)

    @pytest.mark.parametrize("preallocation", ["falloc", "full"])
    def test_raw_with_its_space(self, preallocation: str) -> None:
        assert disk("create", "disk.img", "1M", "--preallocation", preallocation) == 0
        assert Path("disk.img").stat().st_blocks * 512 >= MIB

    def test_qcow2(self, capsys: Capture) -> None:
        assert disk("create", "disk.qcow2", "10G", "--cluster-size", "128K") == 0
        assert capsys.readouterr().out == "disk.qcow2: qcow2, 10 GiB\n"
        assert disk("create", "other", "1M", "--format", "qcow2") == 0
        found = info("disk.qcow2", capsys)
        assert (found["format"], found["virtual_size"], found["cluster_size"]) == (
            "qcow2",
            10 * GIB,
            128 * KIB,
        )
        assert info("other", capsys, "--format", "qcow2")["virtual_size"] == MIB

    def test_over_a_backing_file(self, folder: Path, capsys: Capture) -> None:
        """Its name counts from the image's folder, not from where the command runs."""
        (folder / "images").mkdir()
        raw("images/base.img")
        assert disk("create", "images/top.qcow2", "--backing", "base.img") == 0
        assert capsys.readouterr().out == "images/top.qcow2: qcow2, 8 MiB over base.img\n"
        found = info("images/top.qcow2", capsys)
        assert (found["backing_file"], found["backing_format"]) == ("base.img", "raw")
        assert content("images/top.qcow2") == content("images/base.img")
        assert disk("create", "images/large.qcow2", "1G", "--backing", "base.img") == 0
        assert info("images/large.qcow2", capsys)["virtual_size"] == GIB

    def test_an_existing_file_is_kept(self, capsys: Capture) -> None:
        for name in ("disk.img", "disk.qcow2"):
            Path(name).write_bytes(b"precious")
            assert "File exists" in refused(capsys, "create", name, "1M")
            assert Path(name).read_bytes() == b"precious"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("disk.img",), "disk.img: the image needs a size, or a backing file to take it from"),
            (
                ("disk.img", "1000"),
                "disk.img: a disk image cannot have 1000 bytes; "
                "a positive multiple of the 512-byte sector is allowed",
            ),
            (
                ("disk.qcow2", "1000"),
                "disk.qcow2: a disk image cannot have 1000 bytes; "
                "a positive multiple of the 512-byte sector is allowed",
            ),
            (
                ("disk.img", "--backing", "base.img"),
                "disk.img: a raw image has no backing file; a qcow2 image has",
            ),
            (
                ("disk.img", "1M", "--cluster-size", "64K"),
                "disk.img: a raw image has no cluster size; a qcow2 image has",
            ),
            (
                ("disk.img", "1M", "--preallocation", "metadata"),
                "disk.img: a raw image has no metadata to preallocate; a qcow2 image has",
            ),
            (
                ("disk.qcow2", "--backing", "base.img"),
                "base.img: cannot open the disk image: No such file or directory",
            ),
            (("disk.img", "1M", "--backing-format", "raw"), "--backing-format needs --backing"),
            (
                ("disk.img", "much"),
                "argument SIZE: 'much' is not a size; write a whole number with K, M, G or T, such as 256M",
            ),
            (
                ("nowhere/disk.img", "1M"),
                "nowhere/disk.img: cannot make the disk image: No such file or directory",
            ),
        ],
    )
    def test_refused(self, arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
        assert refused(capsys, "create", *arguments) == message
        assert files() == []

    @pytest.mark.parametrize("name", ["disk.img", "disk.qcow2"])
    def test_too_large(self, name: str, capsys: Capture) -> None:
        assert refused(capsys, "create", name, "9000000T") == (
            f"{name}: a disk image cannot have 9895604649984000000 bytes; 9223372036854775296 are the most"
        )
        assert refused(capsys, "create", name, "8000000T").startswith(f"{name}: ")
        assert files() == []


class TestInfo:
    def test_raw(self, capsys: Capture) -> None:
        path = raw()
        assert disk("info", path) == 0
        assert capsys.readouterr().out == (
            "image:        disk.img\n"
            "format:       raw\n"
            "disk size:    8 MiB (8388608 bytes)\n"
            "on the host:  1 MiB of a file of 8 MiB\n"
            "in use:       no\n"
        )
        assert info(path, capsys) == {
            "path": "disk.img",
            "format": "raw",
            "virtual_size": 8 * MIB,
            "file_size": 8 * MIB,
            "allocated": MIB,
            "in_use": "no",
            "cluster_size": None,
            "version": None,
            "compression": None,
            "backing_file": None,
            "backing_format": None,
            "backing_error": None,
            "backing": None,
        }

    def test_a_chain(self, capsys: Capture) -> None:
        raw("base.img")
        disk("create", "middle.qcow2", "--backing", "base.img")
        disk("create", "top.qcow2", "--backing", "middle.qcow2")
        capsys.readouterr()
        assert disk("info", "top.qcow2") == 0
        text = re.sub("(on the host: ).*", r"\1", capsys.readouterr().out)
        assert text == (
            "image:        top.qcow2\n"
            "format:       qcow2, version 3\n"
            "disk size:    8 MiB (8388608 bytes)\n"
            "on the host: \n"
            "in use:       no\n"
            "cluster size: 64 KiB\n"
            "compression:  zlib\n"
            "backing file: middle.qcow2 (qcow2)\n"
            "\n"
            "backing file\n"
            "image:        middle.qcow2\n"
            "format:       qcow2, version 3\n"
            "disk size:    8 MiB (8388608 bytes)\n"
            "on the host: \n"
            "in use:       no\n"
            "cluster size: 64 KiB\n"
            "compression:  zlib\n"
            "backing file: base.img (raw)\n"
            "\n"
            "backing file\n"
            "image:        base.img\n"
            "format:       raw\n"
            "disk size:    8 MiB (8388608 bytes)\n"
            "on the host: \n"
            "in use:       no\n"
        )

    def test_users(self, capsys: Capture) -> None:
        path = raw()
        for read_only, use, text in ((True, "reading", "by readers"), (False, "writing", "by a writer")):
            guest = RawDisk(path, read_only)
            assert info(path, capsys)["in_use"] == use
            assert disk("info", path) == 0
            assert f"in use:       {text}\n" in capsys.readouterr().out
            guest.close()

    def test_a_missing_backing_file_is_told(self, capsys: Capture) -> None:
        raw("base.img")
        disk("create", "top.qcow2", "--backing", "base.img")
        Path("base.img").unlink()
        message = "base.img: cannot open the disk image: No such file or directory"
        assert info("top.qcow2", capsys)["backing_error"] == message
        assert disk("info", "top.qcow2") == 0
        assert f"warning:      {message}\n" in capsys.readouterr().out

    def test_a_chain_without_end_is_told(self, capsys: Capture) -> None:
        raw("base.img")
        disk("create", "middle.qcow2", "--backing", "base.img")
        disk("create", "top.qcow2", "--backing", "middle.qcow2")
        Path("top.qcow2").rename("middle.qcow2")
        assert info("middle.qcow2", capsys)["backing_error"] == (
            "middle.qcow2: the disk image is its own backing file"
        )

    def test_an_overlay(self, capsys: Capture) -> None:
        OverlayDisk.create(RawDisk(raw(), True), "changes").close()
        found = info("changes", capsys, "--format", "overlay")
        assert (found["format"], found["virtual_size"], found["cluster_size"]) == (
            "overlay",
            8 * MIB,
            64 * KIB,
        )
        assert refused(capsys, "info", "changes") == (
            "changes: the file begins as an emuvisor overlay does, but its name says raw; say which format it is"
        )

    def test_what_is_no_image(self, capsys: Capture) -> None:
        assert refused(capsys, "info", "none.img") == (
            "none.img: cannot open the disk image: No such file or directory"
        )
        raw("disk.qcow2")
        assert refused(capsys, "info", "disk.qcow2") == "disk.qcow2: not a qcow2 image"
        assert (
            refused(capsys, "info", "disk.qcow2", "--format", "overlay") == "disk.qcow2: not an overlay file"
        )
        Path("folder").mkdir()
        assert refused(capsys, "info", "folder") == "folder: cannot read the disk image: Is a directory"


class TestConvert:
    @pytest.mark.parametrize("options", [(), ("--compress", "zlib"), ("--compress", "zstd")])
    def test_there_and_back(self, options: tuple[str, ...], capsys: Capture) -> None:
        source = raw()
        assert disk("convert", source, "copy.qcow2", *options) == 0
        out = capsys.readouterr().out
        assert re.fullmatch(r"copy\.qcow2: qcow2, 8 MiB, takes .* [KM]iB\n", out)
        assert disk("convert", "copy.qcow2", "back.img") == 0
        assert capsys.readouterr().out == "back.img: raw, 8 MiB, takes 1 MiB\n"
        assert Path("back.img").read_bytes() == source.read_bytes()
        assert files() == ["back.img", "copy.qcow2", "disk.img"]
        small = Path("copy.qcow2").stat().st_size < MIB
        assert small == bool(options)
        assert disk("check", "copy.qcow2") == 0

    def test_a_chain_becomes_one_image(self) -> None:
        raw("base.img")
        disk("create", "top.qcow2", "--backing", "base.img")
        top = open_image("top.qcow2")
        top.write(0, b"top!" * 1024)
        top.close()
        assert disk("convert", "top.qcow2", "flat.img") == 0
        assert content("flat.img") == b"top!" * 1024 + content("base.img")[4096:]

    def test_an_overlay_over_anything(self) -> None:
        disk("convert", raw(), "base.qcow2")
        with OverlayDisk.create(open_image("base.qcow2", read_only=True), "changes") as overlay:
            overlay.write(0, b"over" * 1024)
        assert disk("convert", "base.qcow2", "flat.img", "--overlay", "changes") == 0
        assert content("flat.img") == b"over" * 1024 + content("base.qcow2")[4096:]

    def test_formats_can_be_said(self, capsys: Capture) -> None:
        source = raw("disk.qcow2")
        assert disk("convert", source, "copy", "--from-format", "raw", "--format", "qcow2") == 0
        assert content("copy", "qcow2") == source.read_bytes()

    def test_preallocation(self, capsys: Capture) -> None:
        assert disk("convert", raw(), "full.img", "--preallocation", "falloc") == 0
        assert Path("full.img").stat().st_blocks * 512 >= 8 * MIB
        assert content("full.img") == content("disk.img")

    def test_an_existing_target(self, capsys: Capture) -> None:
        source = raw()
        Path("old.img").write_bytes(b"precious" * 64)
        assert refused(capsys, "convert", source, "old.img") == "old.img: the file exists already"
        assert Path("old.img").read_bytes() == b"precious" * 64
        assert disk("convert", source, "old.img", "--force") == 0
        assert content("old.img") == content(source)

    def test_a_target_in_use(self, capsys: Capture) -> None:
        source, target = raw(), raw("old.img", at=0)
        guest = RawDisk(target)
        assert refused(capsys, "convert", source, target, "--force") == (
            "old.img: the disk image is in use by another guest or program"
        )
        guest.close()
        assert content(target)[:4] == b"data"

    def test_a_source_in_use(self, capsys: Capture) -> None:
        guest = RawDisk(raw())
        assert refused(capsys, "convert", "disk.img", "copy.img") == (
            "disk.img: the disk image is being written by another guest or program"
        )
        guest.close()
        assert files() == ["disk.img"]

    def test_onto_itself(self, capsys: Capture) -> None:
        source = raw()
        os.link(source, "link.img")
        assert refused(capsys, "convert", source, "link.img", "--force") == (
            "link.img: an image cannot be copied over itself"
        )
        assert content(source)[MIB : MIB + 4] == b"data"

    def test_compressed_raw(self, capsys: Capture) -> None:
        assert refused(capsys, "convert", raw(), "copy.img", "--compress", "zlib") == (
            "copy.img: a raw image cannot be compressed; --format qcow2 can"
        )

    def test_another_base_of_the_overlay(self, capsys: Capture) -> None:
        OverlayDisk.create(RawDisk(raw(), True), "changes").close()
        raw("other.img", at=0)
        assert refused(capsys, "convert", "other.img", "copy.img", "--overlay", "changes") == (
            "changes: the overlay is of another base, or other.img was changed after it was made"
        )
        RawDisk("other.img").close()  # nothing holds it

    def test_a_full_host(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(convert, "copy_disk", full)
        assert refused(capsys, "convert", raw(), "copy.img") == (
            "copy.img: cannot write the image: No space left on device"
        )
        assert files() == ["disk.img"]


class TestResize:
    @pytest.mark.parametrize("name", ["disk.img", "disk.qcow2"])
    def test_larger_and_smaller(self, name: str, capsys: Capture) -> None:
        disk("create", name, "8M")
        image = open_image(name)
        image.write(0, DATA)
        image.close()
        capsys.readouterr()
        for size, options, said, found in (
            ("16M", (), "16 MiB", 16),
            ("+8M", (), "24 MiB", 24),
            ("-4M", ("--shrink",), "20 MiB", 20),
            ("2M", ("--shrink",), "2 MiB", 2),
        ):
            assert disk("resize", name, size, *options) == 0
            assert capsys.readouterr().out == f"{name}: {said}\n"
            assert content(name) == DATA + bytes((found - 1) * MIB)

    def test_shrinking_must_be_meant(self, capsys: Capture) -> None:
        path = raw()
        assert refused(capsys, "resize", path, "1M") == (
            "disk.img: 1048576 bytes are fewer than the image has (8388608); "
            "its end would be lost, and shrinking was not allowed"
        )
        disk("create", "disk.qcow2", "8M")
        assert refused(capsys, "resize", "disk.qcow2", "-7M") == (
            "disk.qcow2: 1048576 bytes are fewer than the image has (8388608); "
            "its end would be lost, and shrinking was not allowed"
        )
        assert len(content(path)) == len(content("disk.qcow2")) == 8 * MIB

    def test_refused(self, capsys: Capture) -> None:
        path = raw()
        for size, bytes_ in (("1000", 1000), ("-8M", 0), ("-9M", -MIB)):
            assert refused(capsys, "resize", path, size, "--shrink") == (
                f"disk.img: a disk image cannot have {bytes_} bytes; "
                "a positive multiple of the 512-byte sector is allowed"
            )
        guest = RawDisk(path, True)
        assert refused(capsys, "resize", path, "9M") == (
            "disk.img: the disk image is in use by another guest or program"
        )
        guest.close()
        disk("create", "hidden", "1M", "--format", "qcow2")
        assert "begins as a qcow2 image" in refused(capsys, "resize", "hidden", "9M")
        assert len(content(path)) == 8 * MIB

    def test_too_large_for_the_host(self, capsys: Capture) -> None:
        path = raw()
        assert refused(capsys, "resize", path, "8388607T").startswith("disk.img: cannot resize the image: ")
        assert refused(capsys, "resize", path, "8388608T") == (
            "disk.img: a disk image cannot have 9223372036854775808 bytes; 9223372036854775296 are the most"
        )
        assert len(content(path)) == 8 * MIB

    def test_words(self, capsys: Capture) -> None:
        assert parse_resize("+1G") == ("+", GIB)
        assert parse_resize("512") == ("", 512)
        assert refused(capsys, "resize", "disk.img", "") == "argument SIZE|+SIZE|-SIZE: a size is needed"


class TestCheck:
    def test_nothing_wrong(self, capsys: Capture) -> None:
        raw()
        disk("create", "disk.qcow2", "8M")
        OverlayDisk.create(RawDisk("disk.img", True), "changes").close()
        capsys.readouterr()
        for arguments in (("disk.img",), ("disk.qcow2",), ("changes", "--format", "overlay")):
            assert disk("check", *arguments) == 0
            assert capsys.readouterr().out == f"{arguments[0]}: no errors found\n"
            assert disk("check", *arguments, "--json") == 0
            report = json.loads(capsys.readouterr().out)
            assert (report["path"], report["corruptions"], report["leaks"]) == (arguments[0], 0, 0)

    def test_what_was_found(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        def report(corruptions: int, leaks: int, repaired: bool) -> check.CheckReport:
            return check.CheckReport(
                path="disk.qcow2",
                corruptions=corruptions,
                leaks=leaks,
                messages=("cluster 5 is used 2 times; its refcount is 1",) if corruptions else (),
                allocated_clusters=1,
                compressed_clusters=0,
                total_clusters=8,
                repaired=repaired,
            )

        for found, code, said in (
            (
                (1, 2, False),
                2,
                "cluster 5 is used 2 times; its refcount is 1\n"
                "disk.qcow2: 1 corruption and 2 leaked clusters found\n",
            ),
            ((0, 1, False), 3, "disk.qcow2: 1 leaked cluster found\n"),
            ((0, 0, True), 0, "disk.qcow2: no errors found after the repair\n"),
        ):
            monkeypatch.setattr(check, "check", lambda _path, repair, found=found: report(*found))
            assert disk("check", "disk.qcow2", *["--repair"] * found[2]) == code
            assert capsys.readouterr().out == said
            assert disk("check", "disk.qcow2", "--json") == code
            assert json.loads(capsys.readouterr().out)["leaks"] == found[1]

    def test_a_leak_is_repaired(self, capsys: Capture) -> None:
        disk("create", "disk.qcow2", "8M")
        with Path("disk.qcow2").open("r+b") as file:
            header = file.read(64)
            table = int.from_bytes(header[48:56], "big")
            file.seek(table)
            block = int.from_bytes(file.read(8), "big")
            end = file.seek(0, os.SEEK_END)
            file.truncate(end + 64 * KIB)
            file.seek(block + 2 * (end // (64 * KIB)))
            file.write(b"\0\1")
        assert disk("check", "disk.qcow2") == 3
        assert disk("check", "disk.qcow2", "--repair") == 0
        assert disk("check", "disk.qcow2") == 0

    def test_what_cannot_be_checked(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        def unreadable(_fd: int, length: int, _offset: int) -> bytes:
            if length > 1:
                raise OSError(errno.EIO, "Input/output error")
            return b"x"

        Path("disk.img").write_bytes(b"short")
        assert refused(capsys, "check", "disk.img") == (
            "disk.img: the disk image has 5 bytes, not a multiple of the 512-byte sector"
        )
        OverlayDisk.create(RawDisk(raw("base.img"), True), "changes").close()
        with monkeypatch.context() as patched:
            patched.setattr(os, "pread", unreadable)
            assert refused(capsys, "check", "changes", "--format", "overlay") == (
                "changes: cannot read the overlay: Input/output error"
            )
        os.truncate("changes", 8192)
        assert refused(capsys, "check", "changes", "--format", "overlay") == (
            "changes: the overlay has 8192 bytes instead of 8454144; it was cut short or extended"
        )


class TestCommit:
    def test_into_the_backing_file(self, capsys: Capture) -> None:
        raw("base.img")
        disk("create", "top.qcow2", "--backing", "base.img")
        top = open_image("top.qcow2")
        top.write(0, b"top!" * 1024)
        top.close()
        expected = content("top.qcow2")
        capsys.readouterr()
        assert disk("commit", "top.qcow2") == 0
        assert capsys.readouterr().out == "top.qcow2: committed into its backing file\n"
        assert content("base.img") == content("top.qcow2") == expected

    def test_an_overlay_into_its_base(self, capsys: Capture) -> None:
        disk("convert", raw(), "base.qcow2")
        with OverlayDisk.create(open_image("base.qcow2", read_only=True), "changes") as overlay:
            overlay.write(0, b"over" * 1024)
            expected = overlay.read(0, overlay.sectors)
        capsys.readouterr()
        assert disk("commit", "changes", "--base", "base.qcow2") == 0
        assert capsys.readouterr().out == "changes: 64 KiB committed into base.qcow2\n"
        assert content("base.qcow2") == expected
        assert disk("check", "base.qcow2") == 0

    def test_refused(self, capsys: Capture) -> None:
        raw()
        assert refused(capsys, "commit", "disk.img") == (
            "disk.img: a raw image has no backing file; an overlay needs --base"
        )
        assert refused(capsys, "commit", "disk.img", "--base-format", "raw") == "--base-format needs --base"
        assert refused(capsys, "commit", "disk.img", "--base", "disk.img") == (
            "disk.img: the overlay is in use by another guest or program"
        )


class Terminal:
    """A standard error that is a terminal."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def test_a_bar_for_people(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with transfer.transfer_bar("[disk].img") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal(sys.stderr))
    with transfer.transfer_bar("[disk].img") as progress:
        progress(512 * KIB, MIB)
        progress(MIB, MIB)
    output = capsys.readouterr()
    assert output.out == ""
    assert "[disk].img" in output.err


def test_help(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        disk("check", "--help")
    assert "exit code is 0" in " ".join(capsys.readouterr().out.split())
