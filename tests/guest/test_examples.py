"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

from emuvisor.cpu.pcpu import Pcpu
from emuvisor.machine.config_file import load_config
from emuvisor.machine.machine import Machine
from emuvisor.machine.outcome import Ending
from emuvisor.memory import FramePool
from emuvisor.units import MIB

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "firmware_guest.py",
            ["hello: long mode, 64-bit paging", "outcome: power-off", "frames:  9 of 8192"],
        ),
        ("side_by_side.py", ["ring: running -> defined (power-off)", "halt: defined -> gone (deleted)"]),
        (
            "page_walk.py",
            ["000000000000827b by 4-level paging", "=> #PF, error code 0: PML4E is not present"],
        ),
        ("breakpoint.py", ["0x8275: out dx, ax"]),
        (
            "memory_rung.py",
            [
                "the host is SOFT, 8663 frames are missing",
                "sleepers: asleep: gives 8663 frames: it sleeps",
            ],
        ),
        ("autopilot_plan.py", ["objective: 43 web: 29 batch: 83", "web: cap 25.0 -> 50.0"]),
        ("migration_rounds.py", ["guest 'guest' is running: it came from 127.0.0.1"]),
        ("scheduling_policy.py", ["heavy: weight 300, ran 150 ms", "light: weight 100, ran 50 ms"]),
    ],
)
def test_example(name: str, lines: list[str]) -> None:
    output = run_example(name).splitlines()
    assert [line for line in lines if line not in output] == []


def test_every_example_is_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert {name for name in names if f"`{name}`" not in readme} == set()


def test_the_configuration() -> None:
    pool = FramePool(64 * MIB)
    machine = Machine(load_config(EXAMPLES / "halt.toml"), pool)
    machine.boot()
    outcome = machine.run(Pcpu(pool))
    assert outcome is not None
    assert outcome.ending is Ending.UNTIL
    assert machine.console.text.splitlines()[-1] == "halt: second 3"
