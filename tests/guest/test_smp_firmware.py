"""A firmware guest hammers the same memory with several vCPUs and checks itself; `smp_runs.py` does it more often."""

import pytest
from smp_runs import Run, expected, mix, run

from emuvisor.machine.choices import BoardName


@pytest.mark.parametrize("board", ["pc", "microvm"])
@pytest.mark.parametrize("vcpus", [1, 2, 4, 8])
def test_all_processors_see_the_same_memory(vcpus: int, board: BoardName) -> None:
    this = Run(vcpus, board)
    result = run(this)
    assert (result.outcome, result.output) == ("power-off", expected(this))
    assert (result.switches > 0) == (vcpus > 1)


@pytest.mark.parametrize("turn", [1, 10, 97, 1000, 20_000, 10**9])
def test_turns_of_any_length(turn: int) -> None:
    this = Run(3, turn=turn, rounds=80)
    result = run(this)
    assert (result.outcome, result.output) == ("power-off", expected(this))


def test_runs_from_everywhere() -> None:
    for this in mix(40):
        result = run(this)
        assert (result.outcome, result.output) == ("power-off", expected(this)), this


@pytest.mark.parametrize("board", ["pc", "microvm"])
def test_slices_and_pcpus_change_nothing(board: BoardName) -> None:
    found = {
        (result.output, result.digest, result.switches)
        for slice_work in (3_000, 77_777, 50_000_000)
        for pcpus in (1, 3)
        for result in [run(Run(4, board, slice_work=slice_work), pcpus)]
    }
    assert len(found) == 1
