"""The C core's pure functions under AddressSanitizer and UndefinedBehaviorSanitizer, on random guests."""

import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[3] / "emuvisor" / "cpu" / "core"
SOURCES = (
    "paging",
    "segments",
    "delivery",
    "events",
    "events_real",
    "events_protected",
    "events_long",
    "task",
    "syscall",
    "ports",
    "fuzz_harness",
)
COMPILER = shutil.which("gcc")
FLAGS = (
    "-std=c11",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wconversion",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no gcc")
    program = tmp_path_factory.mktemp("harness") / "harness"
    sources = [CORE / f"{name}.c" for name in SOURCES]
    subprocess.run([COMPILER, *FLAGS, *sources, "-o", program], check=True)
    return program


@pytest.mark.parametrize("seed", [1, 1 << 33, 0xDEADBEEF])
def test_random_guests_break_nothing(harness, seed):
    done = subprocess.run([harness, str(seed), "100000"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = [int(number) for number in done.stdout.split()]
    assert sum(outcomes) == 100000
    assert min(outcomes) > 500, "successes, faults and host exits all occur"
