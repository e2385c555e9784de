"""What the autopilot is to reach on a shifting mix of guests. The same seeds give the same figures on any machine."""

from benchmarks.shifting import Gain, Split, fly, gain
from emuvisor.units import NS_PER_S

SEEDS = range(30)
LENGTH_NS = 4 * NS_PER_S
LEAST_GAIN = {"throughput": 0.70, "fairness": 0.75, "latency:web": 0.30}
"""Of the mean over seeds."""
LEAST_GAIN_OPEN = {"throughput": 0.10, "fairness": 0.20, "latency:web": 0.10}
"""Over a static split without caps, which the scheduler already uses to the full, and over one with pinning."""
WORST = -0.02
"""No seed loses more."""


def beats_the_static_split(objective: str) -> None:
    found = flown(objective, SEEDS, Split.CAPPED)
    assert found.mean >= LEAST_GAIN[objective], found
    assert found.worst >= WORST, found


def flown(objective: str, seeds: range, split: Split) -> Gain:
    """The gain over the static split; every promise was kept in every period of every seed."""
    static = [fly(seed, None, split=split, length_ns=LENGTH_NS) for seed in seeds]
    flights = [fly(seed, objective, split=split, length_ns=LENGTH_NS) for seed in seeds]
    for outcome in (*static, *flights):
        assert outcome.broken == ()
    return gain(flights, static, objective)
