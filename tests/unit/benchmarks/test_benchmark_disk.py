"""What the disk benchmark types and expects; the guest is a fake."""

from pathlib import Path
from typing import cast

import pytest

from benchmarks import qemu
from benchmarks.harness import Context, Settings
from benchmarks.shell import Cost, Shell
from benchmarks.workloads import disk
from benchmarks.workloads.disk import SPAN, Disk, Job, functions, jobs, measured, xorshift
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.images.cache import Image
from emuvisor.units import MIB

READ = Job("raw", "read", 4, 100)
WRITE = Job("qcow2", "write", 4, 100)
RANDOM = Job("qcow2", "read", 32, 3)
NUMBERS = [8748534153485358512, 3040900993826735515, 3453997556048239312]
"""What `next` in aio.c gives first."""


class FakeShell:
    name = "fake"

    def __init__(self) -> None:
        self.called: list[tuple[str, str]] = []

    def cost(self, function: str, expected: str) -> Cost:
        self.called.append((function, expected))
        return Cost(0.5, 0.25)

    def time(self, function: str, expected: str) -> float:
        self.called.append((function, expected))
        return 1.0


def test_reads_and_writes_are_of_different_parts_of_the_disk() -> None:
    assert READ.command == f"aio /dev/vda read sequential {MIB} 4 100 0 {SPAN}"
    assert WRITE.command == f"aio /dev/vdb write sequential {MIB} 4 100 {SPAN} {SPAN}"
    assert RANDOM.command == f"aio /dev/vdb read random 4096 32 3 0 {SPAN}"


def test_names_say_what_is_done() -> None:
    assert [job.figure for job in (READ, WRITE, RANDOM)] == [
        "raw, sequential read",
        "qcow2, sequential write",
        "qcow2, random read, depth 32",
    ]
    work = jobs(quick=True)
    assert len({job.function for job in work}) == len({job.figure for job in work}) == len(work) == 12
    assert set(functions(work)) > {job.function for job in work}


def test_the_generator_is_that_of_the_guests_program() -> None:
    assert list(xorshift(3)) == NUMBERS


def test_what_was_read_is_known_by_its_sum() -> None:
    content = bytearray(SPAN)
    for number in range(SPAN // MIB):
        content[number * MIB] = number + 1
    rounds = sum(range(1, 65)) + sum(range(1, 37))
    assert READ.printed(bytes(content)) == f"100 blocks, {rounds}"
    blocks = SPAN // 4096
    for number in NUMBERS:
        content[number % blocks * 4096 : number % blocks * 4096 + 8] = b"\xff" * 8
    assert RANDOM.printed(bytes(content)) == f"3 blocks, {2**64 - 3}"
    assert WRITE.printed(bytes(content)) == "100 blocks, 0"


def test_sequential_work_is_in_bytes_and_random_work_in_requests() -> None:
    fake = FakeShell()
    shell = cast(Shell, fake)
    assert measured(shell, READ, "sum") == {
        "raw, sequential read": pytest.approx(209.7152),
        "raw, sequential read: CPU time of a request": pytest.approx(2500),
    }
    assert measured(shell, RANDOM, "sum")["qcow2, random read, depth 32"] == 6
    assert fake.called == [("raw_read_4", "sum"), ("qcow2_read_32", "sum")]


def test_what_was_written_in_sequence_is_read_again() -> None:
    fake = FakeShell()
    measured(cast(Shell, fake), WRITE, "sum")
    assert fake.called == [("qcow2_write_4", "sum"), ("check_qcow2", f"64 blocks, {sum(range(36, 100))}")]


def test_both_contenders_get_disks_of_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SPAN", MIB)
    monkeypatch.setattr(qemu, "available", lambda context: True)
    settings = Settings(image=Image("debian", tmp_path, tmp_path / "k", tmp_path / "i", "", {}, 0))
    content = bytes(range(256)) * (MIB // 256)
    emuvisor, other = disk._guests(Context(settings), settings, tmp_path, content)
    assert str(tmp_path / "emuvisor.qcow2") in emuvisor.argv()[-1]
    assert other.argv()[-4:] == [
        *("-drive", f"file={tmp_path}/qemu.raw,format=raw,if=virtio,cache=writeback"),
        *("-drive", f"file={tmp_path}/qemu.qcow2,format=qcow2,if=virtio,cache=writeback"),
    ]
    assert (tmp_path / "emuvisor.raw").read_bytes() == (tmp_path / "qemu.raw").read_bytes() == content * 2
    image = Qcow2Disk(tmp_path / "qemu.qcow2", read_only=True)
    assert image.read(0, 2 * MIB // 512) == content * 2
    image.close()


def test_without_a_compiler_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    context = Context(Settings(image=Image("debian", tmp_path, tmp_path / "k", tmp_path / "i", "", {}, 0)))
    with Disk().tasks(context) as tasks:
        assert list(tasks) == []
    assert context.notices == ["disk is skipped: no C compiler (cc; Debian: gcc, libc6-dev)"]
