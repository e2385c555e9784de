"""Workloads whose guests are quick to run, and what the others check."""

import hashlib
from pathlib import Path
from typing import cast

import pytest

from benchmarks.harness import BenchmarkError, Context, Settings
from benchmarks.shell import Shell
from benchmarks.workloads.exits import KINDS, Exits
from benchmarks.workloads.ide import GuestDisk, functions
from benchmarks.workloads.vbe import Vbe
from emuvisor.units import MIB


class FakeShell:
    """A guest whose functions take 1, 2, 3... seconds; `store` writes `stored` to the second MiB of its disk."""

    name = "fake"

    def __init__(self, image: Path, stored: bytes = b"") -> None:
        self.image = image
        self.stored = stored
        self.called: list[tuple[str, str]] = []

    def time(self, function: str, expected: str) -> float:
        self.called.append((function, expected))
        if function == "store":
            with self.image.open("r+b") as file:
                file.seek(MIB)
                file.write(self.stored)
        return float(len(self.called))


def disk(image: Path, stored: bytes = b"") -> tuple[GuestDisk, FakeShell]:
    image.write_bytes(b"x" * (2 * MIB))
    shell = FakeShell(image, stored)
    return GuestDisk(cast(Shell, shell), image, 1), shell


def test_only_reading_is_timed_not_dropping_the_cache(tmp_path: Path) -> None:
    guest, shell = disk(tmp_path / "disk.img")
    assert guest.read() == 2
    assert shell.called == [("drop", ""), ("load", "1+0 records out")]


def test_what_is_written_is_looked_for_in_the_image(tmp_path: Path) -> None:
    guest, shell = disk(tmp_path / "disk.img", bytes(MIB))
    assert guest.write() == 1
    assert shell.called == [("store", "1+0 records out")]
    guest, _ = disk(tmp_path / "disk.img", bytes(MIB - 1))
    with pytest.raises(BenchmarkError) as error:
        guest.write()
    assert str(error.value) == "fake: what it wrote is not in the image"


def test_the_guest_must_use_dma_and_read_what_is_there(tmp_path: Path) -> None:
    guest, shell = disk(tmp_path / "disk.img")
    content = bytes(range(256)) * (5 * MIB // 256)
    guest.check(content)
    assert shell.called == [("mode", "DMA"), ("check", hashlib.sha256(content[: 4 * MIB]).hexdigest())]


def test_reads_and_writes_are_of_different_halves() -> None:
    commands = functions(32)
    assert commands["load"] == "dd if=/dev/sda of=/dev/null bs=1M count=32"
    assert commands["store"] == "dd if=/dev/zero of=/dev/sda bs=1M count=32 seek=32 conv=fsync"


def test_each_kind_of_exit_has_a_figure() -> None:
    with Exits().tasks(Context(Settings(quick=True))) as [task]:
        [contender] = task.contenders
        figures = contender.measure()
    assert list(figures) == list(KINDS.values())
    assert min(figures.values()) > 0


def test_frames_are_counted_with_and_without_somebody_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    context = Context(Settings(quick=True))
    with Vbe().tasks(context) as [drawing, looking]:
        names = [contender.name for contender in drawing.contenders]
        figures = [contender.measure() for contender in drawing.contenders]
        [looker] = looking.contenders
        costs = looker.measure()
    assert names == ["emuvisor", "emuvisor, 30 screens a second"]
    assert [list(figure) for figure in figures] == [["drawing"], ["drawing"]]
    assert min(figure["drawing"] for figure in figures) > 0
    assert list(costs) == ["screen() of 640x480x32", "png() of it"]
    assert context.notices == [
        "qemu is skipped: qemu-system-x86_64 is not installed (Debian: qemu-system-x86)"
    ]
