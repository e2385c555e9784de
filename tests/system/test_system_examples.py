"""The examples that boot stock software run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

from emuvisor.images.cache import Image

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "line"),
    [("debian.py", "power-off"), ("web_server.py", "# Examples"), ("overcommit.py", "all sums are right")],
)
def test_example(name: str, line: str, debian: Image, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert line in done.stdout.splitlines()
