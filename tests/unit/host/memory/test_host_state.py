import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.host.memory.host_state import HostState, next_state, recovery_level, threshold

HIGH, SOFT, HARD, LOW = HostState


@pytest.mark.parametrize(
    ("before", "available", "after"),
    [
        (HIGH, 400, HIGH),
        (HIGH, 399, SOFT),
        (HIGH, 199, HARD),
        (HIGH, 99, LOW),
        (HIGH, -5, LOW),
        (SOFT, 674, SOFT),
        (SOFT, 675, HIGH),
        (SOFT, 200, SOFT),
        (HARD, 449, HARD),
        (HARD, 450, SOFT),
        (HARD, 700, HIGH),
        (LOW, 224, LOW),
        (LOW, 225, HARD),
        (LOW, 450, SOFT),
    ],
)
def test_a_host_of_10000_frames(before: HostState, available: int, after: HostState) -> None:
    assert next_state(before, available, 10_000) is after


def test_levels_of_a_small_host() -> None:
    assert [threshold(state, 10) for state in HostState] == [1, 1, 1, 1]
    assert next_state(HIGH, 0, 10) is LOW
    assert next_state(LOW, 1, 10) is HIGH
    assert recovery_level(HIGH, 1000) == 67


@given(st.sampled_from(HostState), st.integers(-100, 20_000), st.integers(1, 10_000))
def test_a_second_look_at_the_same_changes_nothing(before: HostState, available: int, frames: int) -> None:
    state = next_state(before, available, frames)
    assert next_state(state, available, frames) is state


@given(st.lists(st.integers(420, 660), min_size=2))
def test_small_changes_do_not_flap(walk: list[int]) -> None:
    """Between the levels at which SOFT is entered and left, nothing happens, whatever it was."""
    for first in (HIGH, SOFT):
        state = first
        for available in walk:
            state = next_state(state, available, 10_000)
            assert state is first
