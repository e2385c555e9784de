"""The proof for the objective "fairness": benchmarks/shifting.py, 30 seeds, without a clock."""

from autopilot_proof import beats_the_static_split


def test_it_beats_the_static_equal_split() -> None:
    beats_the_static_split("fairness")
