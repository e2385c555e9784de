"""The guests of the memory benchmarks, and the curve."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import curve, page_walk
from benchmarks.guests import machine
from benchmarks.harness import BenchmarkError, Context, Result, Row, Settings
from benchmarks.page_walk import DATA_ADDRESS, IN_ORDER, SCATTERED, PageWalker, walker_machine
from benchmarks.working_set import OWN_PAGES, Crowd, Meter, compile_guest, guest_config
from benchmarks.workloads.memory import Memory
from benchmarks.workloads.overcommit import Crowds, figure, lines
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.host import GuestState
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import MIB, PAGE_SIZE

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="not installed: cc (Debian: gcc)")
PAGES = 512
PATIENCE_S = 60.0


# ---- the walk ----


@pytest.mark.parametrize("write", [False, True])
def test_the_walk_is_what_its_docstring_says(tmp_path: Path, write: bool) -> None:
    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("not installed: as, objcopy (Debian: binutils)")
    assert page_walk.__doc__ is not None
    source = page_walk.__doc__.split("\n\n")[1]
    if write:
        source = source.replace("mov eax, [rsi + DATA]", "inc dword ptr [rsi + DATA]")
    definitions = f".set DATA, {DATA_ADDRESS}\n.set STEP, 1237\n.set PAGES, 4096\n"
    (tmp_path / "walk.s").write_text(f".intel_syntax noprefix\n.code64\n{definitions}{source}\n")
    subprocess.run(["as", "walk.s", "-o", "walk.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "walk.o", "walk.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "walk.bin").read_bytes() == page_walk.code(4096, 1237, write)


def test_each_page_is_met_once(tmp_path: Path) -> None:
    pool = FramePool(16 * MIB)
    with walker_machine(tmp_path, 64, pool) as guest:
        walker = PageWalker(guest, 64, pool)
        assert walker.walk(IN_ORDER, write=True) > 0
        assert walker.walk(SCATTERED, write=True) > 0
        walker.walk(SCATTERED)
        words = [guest.memory.read(DATA_ADDRESS + page * PAGE_SIZE, 4) for page in range(64)]
        assert words == [b"\2\0\0\0"] * 64


def test_a_walk_that_finds_no_memory_is_no_figure(tmp_path: Path) -> None:
    pool = FramePool(256 * 1024)
    with walker_machine(tmp_path, 64, pool) as guest, pytest.raises(BenchmarkError) as error:
        PageWalker(guest, 64, pool).walk(IN_ORDER, write=True)
    assert str(error.value).startswith("the walk over 64 pages ended with Exit(reason=<ExitReason.MEMORY")


# ---- the guest with a working set ----


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return compile_guest(tmp_path)


def run(guest: Machine, pcpu: Pcpu, until: Callable[[], bool]) -> None:
    for _ in range(2000):
        if until():
            return
        guest.run_slice(pcpu, 1_000_000)
    raise AssertionError("the guest did not get there")


@needs_compiler
def test_the_guest_fills_its_memory_visits_it_and_gives_some(image: bytes, tmp_path: Path) -> None:
    pool = FramePool(16 * MIB)
    with machine(guest_config(image, tmp_path, PAGES, number=3), pool) as guest:
        pcpu, meter = Pcpu(pool), Meter.of(guest)
        assert guest.virtio is not None
        balloon = guest.virtio.balloon
        assert balloon is not None
        run(guest, pcpu, lambda: meter.filled)
        assert PAGES < pool.used < PAGES + OWN_PAGES
        balloon.target_pages = 100
        run(guest, pcpu, lambda: balloon.ballooned_pages == 100)
        balloon.target_pages = PAGES
        run(guest, pcpu, lambda: balloon.ballooned_pages > PAGES * 0.4)
        balloon.target_pages = 0
        run(guest, pcpu, lambda: balloon.actual_pages == 0)
        visits = meter.visits
        run(guest, pcpu, lambda: meter.visits > visits + 4 * PAGES * 32)
        assert meter.wrong == 0
        assert meter.read(0, 4) == 0


@needs_compiler
def test_the_guest_notices_that_a_page_is_not_what_it_was(image: bytes, tmp_path: Path) -> None:
    pool = FramePool(16 * MIB)
    with machine(guest_config(image, tmp_path, PAGES), pool) as guest:
        pcpu, meter = Pcpu(pool), Meter.of(guest)
        run(guest, pcpu, lambda: meter.filled)
        data = guest.memory.size - PAGES * PAGE_SIZE
        guest.memory.write(data + 10 * PAGE_SIZE + 8, b"another's")
        run(guest, pcpu, lambda: meter.wrong > 0)


@needs_compiler
def test_a_crowd_that_fits_and_one_that_does_not(
    image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for memory, fits, stall_s in ((16 * MIB, True, PATIENCE_S), (2 * MIB, False, 0.2)):
        monkeypatch.setattr("benchmarks.working_set.STALL_S", stall_s)
        policy = MemoryPolicy(compression_limit=0, balloon_virtual_clock=False, period_s=0.01)
        with Crowd(image, tmp_path, memory, policy) as crowd:
            for _ in range(2):
                crowd.add(PAGES)
            assert crowd.fill() is fits
            if not fits:  # on a busy machine they stall before one of them is paused
                with crowd.host.lock:
                    assert crowd.host.changed.wait_for(
                        lambda: any(m.guest.state is GuestState.PAUSED for m in crowd.members),
                        PATIENCE_S,
                    )
            visits = crowd.visits(0.05)
            assert (visits is not None) is fits
            crowd.pause()


@needs_compiler
def test_wrong_pages_are_no_figure(image: bytes, tmp_path: Path) -> None:
    with Crowd(image, tmp_path, 16 * MIB, MemoryPolicy()) as crowd:
        crowd.add(PAGES)
        crowd.members[0].meter.wrong = 2
        with pytest.raises(BenchmarkError) as error:
            crowd.visits(0)
        assert str(error.value) == "guest0 read 2 pages that were not what it wrote"


def test_what_the_compiler_says_about_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho no such option >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("benchmarks.working_set.COMPILER", str(fake))
    with pytest.raises(BenchmarkError) as error:
        compile_guest(tmp_path)
    assert str(error.value) == "workingset.c cannot be compiled: no such option"


# ---- figures ----


def test_scans_and_faults_have_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.workloads.memory.QUICK_SCAN_SIZE", 4 * MIB)
    monkeypatch.setattr("benchmarks.workloads.memory.QUICK_WALK_PAGES", 256)
    monkeypatch.setattr("benchmarks.guest_programs.COMPILER", "no-such-compiler")
    context = Context(Settings(quick=True))
    with Memory().tasks(context) as tasks:
        scanning, faults = (task.contenders[0].measure() for task in tasks)
    assert len(scanning) == 4
    assert len(faults) == 11
    assert all(value >= 0 for value in [*scanning.values(), *faults.values()])
    assert any("no C compiler (no-such-compiler" in notice for notice in context.notices)


def result(**values: list[float]) -> Result:
    rows = [Row(figure(ratio), "MB/s", None, "enough memory", dict(values)) for ratio in (1.0, 1.5)]
    rows[1].values.pop("swap", None)
    return Result("overcommit", "guests", rows, [], [], 1.0, False)


def test_lines_of_the_curve() -> None:
    found = lines(result(**{"enough memory": [200.0, 100, 300], "swap": [100.0], "sharing": [50.0]}))
    assert found["swap"] == [(1.0, 0.5), (1.5, None)]
    assert found["sharing"] == [(1.0, 0.25), (1.5, 0.25)]
    assert found["balloon"] == [(1.0, None), (1.5, None)]


def test_the_table_of_the_curve(tmp_path: Path) -> None:
    measured = Crowds(b"", tmp_path)
    measured.points["enough memory", 1.0] += [200.0, 100.0, 400.0]
    measured.points["swap", 1.0] += [100.0, None]
    measured.points["balloon", 1.0] += [None]
    assert measured.table([1.0]).splitlines() == [
        "| | 1x |",
        "|---|---:|",
        "| sharing |  |",
        "| balloon | does not fit |",
        "| compression |  |",
        "| swap | 50% (1 of 2 times not) |",
        "| all rungs |  |",
    ]


def test_the_picture_of_the_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.svg"
    both: dict[str, curve.Points] = {
        "sharing": [(1.0, 1.0), (1.25, 0.9)],
        "balloon": [(1.0, 1.0), (1.25, None)],
    }
    picture = curve.Curve(lambda _result: both, "ratio", "part", "x")
    curve.draw(picture, result(), path)
    texts = {element.text for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")}
    assert {"sharing", "balloon", "ratio", "part", "1x", "1.25x"} <= texts
    first = path.read_bytes()
    curve.draw(picture, result(), path)
    assert path.read_bytes() == first
