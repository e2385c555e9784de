"""No guest, whatever it consists of, kills or hangs the host or disturbs its neighbour.

Each batch of seeds runs in a process of its own (see hostile_guests.py). To look for more, give that program other
seeds: `python tests/guest/hostile_guests.py soup64 1000 5000`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("hostile_guests.py")
REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        ("kernel", 200),
        ("boot_sector", 20),
        ("bios", 15),
        ("noise32", 60),
        ("noise64", 60),
        ("soup16", 25),
        ("soup32", 60),
        ("soup64", 60),
    ],
)
def test_hostile_guests(kind: str, seeds: int) -> None:
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, str(PROGRAM), kind, "0", str(seeds)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0, (
        f"{lines[-1] if lines else kind} ended the process with {result.returncode}\n"
        f"{result.stdout[-1500:]}\n{result.stderr[-1500:]}"
    )
    assert len(lines) == seeds
