"""Random mixes on a pCPU that is all reserved, and many of them:
python tests/unit/host/scheduler/reservation_runs.py [MIXES [FIRST_SEED]]
"""

import sys
from functools import partial
from random import Random

from simulator import MS, US, Busy, Simulator, Sleeper

from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.entity import MIN_SLICE_NS
from emuvisor.host.scheduler.policies import POLICIES, make_policy

STEP_US = 200
LENGTH_US = 200_000
ROUNDING_NS = 20 * US
"""Each budget is given, and due, a nanosecond early or late: 10 ns for each that fits into that time."""


def fill_with_reservations(simulator: Simulator, random: Random) -> dict[str, CpuClaim]:
    """All of the only pCPU is reserved, for guests that are busy and for others that save up and want it all at once.
    Returns the busy ones."""
    busy: dict[str, CpuClaim] = {}
    left = 100
    while left:
        share = min(left, random.choice([left, random.randint(1, 60), random.randint(1, 20)]))
        left -= share
        period_us = random.choice([1_000, 5_000, 20_000, 100_000])
        claim = CpuClaim(
            reservation=share,
            period_us=period_us,
            weight=random.choice([1, 100, 10_000]),
            latency_us=random.choice([100, 5_000, 100_000]),
        )
        name = f"r{left}"
        if random.random() < 0.5:
            busy[name] = claim
            simulator.add(name, Busy(), claim)
        else:
            sleep_us = random.choice([1, period_us // 2, period_us, 3 * period_us])
            run_us = period_us * share / 100 * random.choice([0.3, 0.6, 1, 2])
            sleeper = Sleeper(
                partial(random.randint, sleep_us * US, 2 * sleep_us * US), partial(int, run_us * US)
            )
            simulator.add(name, sleeper, claim)
    return busy


def beyond_a_period_ns(policy: str, seed: int, others: int) -> float:
    """By how much a busy guest was behind its reservation by more than a period's at worst, in 0.2 s, beside `others`
    without one; less than 0 if it never was."""
    random = Random(seed)
    simulator = Simulator(1, make_policy(policy, 1))
    busy = fill_with_reservations(simulator, random)
    for number in range(others):
        simulator.add(f"other{number}", Busy(), CpuClaim(weight=random.choice([1, 10_000])))
    ahead = dict.fromkeys(busy, 0.0)
    worst = -100.0 * MS
    for now_us in range(0, LENGTH_US, STEP_US):
        simulator.run(now_us * US)
        for name, claim in busy.items():
            part = claim.reservation / 100
            now_ahead = simulator.so_far(name) - part * now_us * US
            ahead[name] = max(ahead[name], now_ahead)
            of_a_period = max(part * claim.period_us * US, 2 * MIN_SLICE_NS)
            worst = max(worst, ahead[name] - now_ahead - of_a_period)
    return worst


def main(mixes: int = 10_000, first_seed: int = 0) -> None:
    for policy in POLICIES:
        found = [
            (beyond_a_period_ns(policy, seed, seed % 5), seed)
            for seed in range(first_seed, first_seed + mixes // len(POLICIES))
        ]
        worst, seed = max(found)
        late = sum(beyond > ROUNDING_NS for beyond, _ in found)
        print(
            f"{policy}: {late} of {len(found):,} mixes too late; a period {worst / US:+.1f} us at worst (seed {seed})"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
