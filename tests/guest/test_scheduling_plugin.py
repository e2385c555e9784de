"""A policy that another package brings, by its entry point, runs guests."""

import importlib
import sys
from pathlib import Path

import pytest

from emuvisor import firmware
from emuvisor.errors import UsageError
from emuvisor.host import GuestState, Host
from emuvisor.host.scheduler.policies import ENTRY_POINTS
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 180

RAISES = """
from emuvisor.host.scheduler.policy import Policy

class Moody(Policy):
    name = "moody"
    turns = 0

    def ran(self, entity, ran_ns):
        self.turns += 1
        if self.turns == 3:
            raise RuntimeError("not in the mood")

def make(pcpus):
    return Moody()
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip leaves it behind for a distribution with two policies."""
    info = tmp_path / "lottery-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lottery\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\nlottery = scheduling_policy:make\nmoody = moody_policy:make\n"
    )
    (tmp_path / "scheduling_policy.py").write_text((EXAMPLES / "scheduling_policy.py").read_text())
    (tmp_path / "moody_policy.py").write_text(RAISES)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in ("scheduling_policy", "moody_policy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def config(folder: Path, name: str) -> GuestConfig:
    image = folder / f"{name}.bin"
    image.write_bytes(firmware.image(name))
    return GuestConfig(name=name, memory=32 * MIB, flat=FlatConfig(image, firmware.FLAT_ADDRESS))


def test_guests_run_by_a_policy_of_another_package(installed: Path) -> None:
    with Host(memory=128 * MIB, pcpus=2, scheduler="lottery") as host:
        guests = [host.create(config(installed, name)) for name in ("hello", "ring", "memtouch")]
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.wait(PATIENCE_S)
        assert [str(guest.outcome) for guest in guests] == ["power-off"] * 3
        assert all(guest.statistics().slices for guest in guests)
        assert host.processors.scheduler.policy.name == "lottery"


def test_a_policy_that_nobody_brings(installed: Path) -> None:
    with pytest.raises(UsageError) as error:
        Host(memory=64 * MIB, scheduler="raffle")
    assert str(error.value) == (
        "there is no scheduling policy 'raffle'; there are: credit, deadline, lottery, moody, proportional, "
        "round-robin"
    )


def test_a_policy_that_raises_an_exception_stops_the_host_with_its_reason(installed: Path) -> None:
    with Host(memory=64 * MIB, pcpus=1, scheduler="moody") as host:
        guest = host.create(config(installed, "spin"))
        guest.start()
        assert guest.wait(PATIENCE_S)
        assert guest.state is GuestState.PAUSED
        assert host.processors.failure == "scheduling policy 'moody' failed: RuntimeError: not in the mood"
