"""The door is cheap: what is heavy is imported when it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import emuvisor
from emuvisor import errors

HEAVY = ("unicorn", "numpy", "rich", "capstone", "lz4", "zstandard", "textual")
HELP_LIMIT_S = 0.2


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    folder = Path(emuvisor.__file__).parent.parent
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "what",
    ["import emuvisor", "import emuvisor.cli", "from emuvisor.cli.entry import build_parser; build_parser()"],
)
def test_nothing_heavy_is_imported(what: str) -> None:
    result = run("-c", f"import sys; {what}; print([m for m in {HEAVY} if m in sys.modules])")
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_help_is_quick() -> None:
    measure = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'emuvisor', '--help'], "
        "stdout=subprocess.DEVNULL, check=True); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime)"
    )
    # Processor time, the best of a few: what else the machine does must not matter.
    assert min(float(run("-c", measure).stdout) for _ in range(3)) < HELP_LIMIT_S


@pytest.mark.parametrize("name", emuvisor.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(emuvisor, name).__name__ == name


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(emuvisor.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError) as error:
        _ = emuvisor.Hots
    assert str(error.value) == "module 'emuvisor' has no attribute 'Hots'"


def test_public_names_are_listed() -> None:
    assert set(emuvisor.__all__) <= set(dir(emuvisor))
