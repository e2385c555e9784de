"""What is left to gain where there are no caps, and where there is nothing to gain."""

import pytest
from autopilot_proof import LEAST_GAIN_OPEN, LENGTH_NS, flown

from benchmarks.shifting import OBJECTIVES, PERIOD_NS, Split, fly
from benchmarks.simulated_host import Load, Phase, SimulatedGuest, SimulatedHost
from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.autopilot import Autopilot
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.view import MemoryState
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.units import MIB, NS_PER_S


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_beats_a_work_conserving_split(objective: str) -> None:
    assert flown(objective, range(8), Split.OPEN).mean >= LEAST_GAIN_OPEN[objective]


@pytest.mark.parametrize("objective", ["throughput", "fairness"])
def test_it_beats_static_pinning(objective: str) -> None:
    assert flown(objective, range(8), Split.PINNED).mean >= LEAST_GAIN_OPEN[objective]


@pytest.mark.parametrize("objective", ["throughput", "fairness"])
def test_equal_guests_are_left_alone(objective: str) -> None:
    share = MemoryState(64 * MIB, 0, 16 * MIB, 1000, 0, 0, None)
    guests = [
        SimulatedGuest(name, [Phase(Load.BATCH, 0, LENGTH_NS, 1024)], CpuClaim(), share, Rate(MIB))
        for name in "abcd"
    ]
    host = SimulatedHost(2, guests)
    host.run(NS_PER_S)  # until their memory is there
    pilot = Autopilot(host)
    pilot.engage(objective)
    for period in range(30):
        host.run(NS_PER_S + period * PERIOD_NS)
        pilot.step()
    assert list(pilot.log) == []


def test_the_same_seed_gives_the_same_flight() -> None:
    first, second = (fly(5, "fairness", length_ns=LENGTH_NS) for _ in range(2))
    assert first == second
    none = fly(5, "fairness", Constraints(knobs=frozenset()), length_ns=LENGTH_NS)
    assert none == fly(5, None, length_ns=LENGTH_NS)
