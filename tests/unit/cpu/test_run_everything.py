"""Everything that moves guests' pages at once, with real vCPUs, stores and scans: no stale page, no stranger's byte."""

from collections import Counter

import memory_model


def test_everything_at_once(tmp_path):
    counts = Counter()
    for seed in range(4):
        print("seed", seed)
        counts.update(memory_model.run(tmp_path, seed, 700))
    assert all(counts.values()), counts
