"""Latency histograms: their relative error, percentiles and summaries."""

from hypothesis import given
from hypothesis import strategies as st

from emuvisor.devices.histogram import BUCKETS, MAX_NS, Histogram, LatencySummary


def test_nothing_was_counted() -> None:
    assert Histogram().summary() == LatencySummary(0, 0, 0, 0, 0, 0, 0)
    assert Histogram().buckets() == []


def test_a_bucket_for_each_small_time_and_eight_for_each_power_of_two() -> None:
    histogram = Histogram()
    for ns in range(64):
        histogram.record(ns)
    small = [(ns, ns, 1) for ns in range(16)]
    wide = [(ns, ns + 1, 2) for ns in range(16, 32, 2)] + [(ns, ns + 3, 4) for ns in range(32, 64, 4)]
    assert histogram.buckets() == small + wide


def test_the_longest_time() -> None:
    histogram = Histogram()
    for ns in (MAX_NS, MAX_NS + 1, 1 << 100):
        histogram.record(ns)
    ((first, last, count),) = histogram.buckets()
    assert (last, count, histogram.summary().max_ns) == (MAX_NS, 3, MAX_NS)
    assert first == 15 << 44
    assert BUCKETS == 368


def test_a_summary() -> None:
    histogram = Histogram()
    for ns in [10] * 89 + [100] * 10 + [5000]:
        histogram.record(ns)
    assert histogram.summary() == LatencySummary(100, 6743, 67, 10, 99, 99, 5000)
    assert histogram.percentile(100) == (4608 + 5119) // 2


@given(st.lists(st.integers(0, MAX_NS), min_size=1, max_size=50), st.floats(0.1, 100))
def test_a_percentile_is_a_sixteenth_off_at_most(times: list[int], percent: float) -> None:
    histogram = Histogram()
    for ns in times:
        histogram.record(ns)
    assert histogram.count == len(times)
    ordered = sorted(times)
    wanted = next(ns for i, ns in enumerate(ordered, 1) if i >= len(times) * percent / 100)
    assert abs(histogram.percentile(percent) - wanted) <= wanted / 16


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=50))
def test_the_total_never_falls(times: list[int]) -> None:
    histogram = Histogram()
    before = 0
    for ns in times:
        histogram.record(ns)
        total = histogram.summary().total_ns
        assert total >= before
        before = total
