"""Guests that go back to a checkpoint again and again end each time as they did the first time, bit for bit."""

from pathlib import Path

import pytest
from checkpoint_runs import CASES, repeats

from emuvisor.units import MIB

ROUNDS = 4


@pytest.mark.parametrize(("board", "program", "vcpus"), CASES)
def test_a_guest_repeats(tmp_path: Path, board: str, program: str, vcpus: int) -> None:
    ends = repeats(tmp_path, board, program, vcpus, ROUNDS)
    assert len(ends) == 1 + 2 * ROUNDS
    assert set(ends) == {ends[0]}


def test_with_memory_that_is_short(tmp_path: Path) -> None:
    """What the memory manager shares, compresses and swaps meanwhile makes no difference."""
    ends = repeats(tmp_path, "pc", "compute", 1, ROUNDS, take_away=True, pool=24 * MIB)
    assert set(ends) == {ends[0]}
