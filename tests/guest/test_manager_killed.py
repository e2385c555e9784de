"""SIGKILL of a process with a manager: the next one finds every guest whole, and says which ones were cut off."""

import subprocess
import sys
from pathlib import Path

import pytest

from emuvisor.host import Host
from emuvisor.manager import Manager
from emuvisor.manager.core import CUT_OFF
from emuvisor.store import Store
from emuvisor.units import MIB

WORKER = Path(__file__).parent / "manager_worker.py"
IN_BETWEEN = (("defined", ""), ("defined", "stopped"))
"""A clone that is being made, or deleted."""


@pytest.mark.parametrize("delay_s", [0.0, 0.037, 0.081])
def test_killed(tmp_path, delay_s):
    program = tmp_path / "spin.bin"
    program.write_bytes(b"\xeb\xfe")
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), str(tmp_path / "store"), str(program)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout.readline() == "ready\n"
        assert worker.stdout.readline() == "1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(delay_s)
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    with Manager(Host(64 * MIB), Store(tmp_path / "store")) as manager:
        assert manager.store.check() == []
        states = {guest.name: (guest.state, guest.reason) for guest in manager.guests()}
        assert states.pop("auto") == ("crashed", CUT_OFF)
        sleeper = "sleeps" if "sleeps" in states else "dreams"
        assert states.pop(sleeper) == ("saved", "saved")
        for name, state in states.items():  # `runs` may be in the middle of being saved
            between = () if name == "runs" else IN_BETWEEN
            assert state in (("crashed", CUT_OFF), ("saved", "saved"), *between)
        assert "runs" in states
        assert manager.start_marked() == ["auto"]
        for name in (*states, sleeper):
            manager.start(name)
        assert {guest.state for guest in manager.guests()} == {"running"}
        for name in (*states, sleeper, "auto"):
            manager.remove(name, force=True)
        assert manager.store.info().snapshots == 0
