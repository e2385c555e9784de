import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Goal, Summary, Verdict, pairwise_ratio, ratio_of_medians, summarize

figures = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=20)


def test_summary_of_one_figure() -> None:
    assert summarize([2.5]) == Summary(count=1, median=2.5, minimum=2.5, maximum=2.5, spread=0)


def test_an_outlier_counts_in_everything_but_moves_the_median_little() -> None:
    assert summarize([1.0, 2.0, 3.0, 4.0, 100.0]) == Summary(5, 3.0, 1.0, 100.0, 1.0)


def test_the_median_of_an_even_number_lies_between() -> None:
    assert summarize([4.0, 1.0, 3.0, 2.0]) == Summary(4, 2.5, 1.0, 4.0, 1.0)


@given(figures)
def test_the_median_lies_between_the_extremes(values: list[float]) -> None:
    summary = summarize(values)
    assert summary.minimum <= summary.median <= summary.maximum
    assert 0 <= summary.spread <= summary.maximum - summary.minimum


@given(figures, st.floats(min_value=0.01, max_value=100))
def test_both_ratios_of_scaled_figures_are_the_scale(values: list[float], scale: float) -> None:
    scaled = [value * scale for value in values]
    assert ratio_of_medians(scaled, values) == pytest.approx(scale)
    assert pairwise_ratio(scaled, values) == pytest.approx(scale)


def test_a_machine_that_slows_down_moves_only_the_ratio_of_medians() -> None:
    own, base = [1.1, 1.1, 4.4, 4.4], [1.0, 1.0, 4.0, 8.0]
    assert pairwise_ratio(own, base) == pytest.approx(1.1)
    assert ratio_of_medians([1.1, 1.1, 4.4], [1.0, 4.0, 4.0]) == pytest.approx(1.1 / 4)


def test_pairs_end_where_the_shorter_one_does() -> None:
    assert pairwise_ratio([2.0, 4.0, 100.0], [1.0, 2.0]) == 2.0


def test_a_base_of_zero_gives_no_ratio() -> None:
    assert ratio_of_medians([1.0], [0.0]) is None
    assert pairwise_ratio([1.0], [0.0]) is None
    assert pairwise_ratio([], []) is None


@pytest.mark.parametrize(
    ("own", "verdict"), [(1.4, Verdict.MET), (1.5, Verdict.MET), (1.51, Verdict.NOT_MET)]
)
def test_a_relative_goal(own: float, verdict: Verdict) -> None:
    goal = Goal(1.5, against="qemu")
    assert goal.verdict({"emuvisor": [own], "qemu": [1.0]}) is verdict
    assert goal.text("s") == "at most 1.5x qemu"


@pytest.mark.parametrize(
    ("own", "verdict"), [(0.6, Verdict.MET), (0.5, Verdict.MET), (0.49, Verdict.NOT_MET)]
)
def test_a_goal_of_which_more_is_better(own: float, verdict: Verdict) -> None:
    goal = Goal(0.5, against="qemu", at_least=True)
    assert goal.verdict({"emuvisor": [own], "qemu": [1.0]}) is verdict
    assert goal.text("MB/s") == "at least 0.5x qemu"


def test_an_absolute_goal() -> None:
    goal = Goal(30)
    assert goal.verdict({"emuvisor": [10.0, 29.0, 90.0]}) is Verdict.MET
    assert goal.verdict({"emuvisor": [31.0]}) is Verdict.NOT_MET
    assert goal.text("us") == "at most 30 us"


@pytest.mark.parametrize(
    "values", [{}, {"emuvisor": [1.0]}, {"qemu": [1.0]}, {"emuvisor": [], "qemu": [1.0]}]
)
def test_a_goal_without_its_figures_is_not_measured(values: dict[str, list[float]]) -> None:
    assert Goal(1.5, against="qemu").verdict(values) is Verdict.NOT_MEASURED
