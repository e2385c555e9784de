"""What each guest is due: an independent solver to compare schedules with."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from emuvisor.host.scheduler.claim import CpuClaim


def fair_shares(claims: Mapping[str, CpuClaim], pcpus: int) -> dict[str, float]:
    """Parts of a pCPU for guests that always want to run: weighted max-min fair.

    At the water level L a guest has w L, at least its reservation and at most its cap and one pCPU. The level rises
    until the guests that may only run on some set of pCPUs fill it (Hall's condition: then they can be laid out on it);
    they are done, and it rises for the others.
    """
    names = list(claims)
    weight = np.array([float(claims[name].weight) for name in names])
    least = np.array([claims[name].reservation / 100 for name in names])
    most = np.array([(claims[name].cap or 100.0) / 100 for name in names])
    bound = {}
    for size in range(1, pcpus + 1):
        for subset in combinations(range(pcpus), size):
            inside = np.array([(claims[n].affinity or frozenset(range(pcpus))) <= set(subset) for n in names])
            if inside.any():
                bound[subset] = inside
    share = np.zeros(len(names))
    rising = np.ones(len(names), dtype=bool)

    def at(level: float) -> np.ndarray:
        return np.where(rising, np.minimum(most, np.maximum(least, weight * level)), share)

    while rising.any():
        lowest, full = 1.0, rising.copy()  # at weight 1 and level 1 everybody has its most
        for subset, inside in bound.items():
            if not (inside & rising).any() or at(lowest)[inside].sum() <= len(subset):
                continue
            low, high = 0.0, lowest
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (low, middle) if at(middle)[inside].sum() > len(subset) else (middle, high)
            lowest, full = low, inside & rising
        share = at(lowest)
        if lowest == 1.0:
            break
        rising = rising & ~full
        share = np.where(rising, 0.0, share)
    return dict(zip(names, share.tolist(), strict=True))
