"""Token buckets: their rate and burst, whatever is asked of them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from emuvisor.bus.bucket import TokenBucket
from emuvisor.units import NS_PER_S


def test_it_begins_empty_and_fills_up_to_its_burst() -> None:
    bucket = TokenBucket(2, 100, 1000)
    assert [bucket.level(now) for now in (900, 1000, 1010, 1050, 9999)] == [0, 0, 20, 100, 100]


def test_it_says_when_there_will_be_enough() -> None:
    bucket = TokenBucket(3, 100, 0)
    assert bucket.when(0, 0) == 0
    assert bucket.when(9, 0) == 3
    assert bucket.when(10, 0) == 4
    assert bucket.when(1000, 0) == bucket.when(100, 0) == 34
    assert bucket.level(34) == 100
    assert bucket.when(100, 34) == 34


def test_it_can_be_overdrawn_and_be_forgiven() -> None:
    bucket = TokenBucket(1, 10, 0)
    bucket.take(30, 5)
    assert bucket.level(5) == -25
    assert bucket.when(1, 5) == 31
    bucket.forgive()
    assert bucket.level(5) == 0
    bucket.take(1, 100)
    bucket.forgive()
    assert bucket.level(100) == 9


def test_what_is_above_the_burst_is_there_once() -> None:
    bucket = TokenBucket(1, 10, 0, 25)
    assert bucket.level(1000) == 25
    bucket.take(12, 1000)
    assert bucket.level(2000) == 13
    bucket.take(13, 2000)
    assert bucket.level(9000) == 10


def test_another_rate_and_burst() -> None:
    bucket = TokenBucket(1, 100, 0)
    bucket.change(10, 50, 20)
    assert bucket.level(20) == 20
    assert bucket.level(22) == 40
    bucket.change(10, 30, 22)
    assert bucket.level(22) == 30
    bucket.take(50, 22)
    bucket.change(1, 100, 22)
    assert bucket.level(22) == -20


PATTERN = st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**6)), min_size=1, max_size=60)


@given(rate=st.integers(1, 10**9), burst=st.integers(1, 10**8), pattern=PATTERN)
def test_in_every_span_of_time_at_most_burst_and_rate_pass(
    rate: int, burst: int, pattern: list[tuple[int, int]]
) -> None:
    """Whoever asks when, and for how much: nothing passes too early, and what is asked for at once passes in time."""
    bucket = TokenBucket(rate, burst * NS_PER_S, 0, burst * NS_PER_S)
    now, passed = 0, []
    for pause, size in pattern:
        now += pause
        at = bucket.when(size * NS_PER_S, now)
        if at > now:
            assert bucket.when(size * NS_PER_S, at - 1) == at
        assert bucket.when(size * NS_PER_S, at) == at
        bucket.take(size * NS_PER_S, at)
        now = at
        passed.append((at, size))
    for first in range(len(passed)):
        total = 0
        for at, size in passed[first:]:
            # A request may exceed a full bucket; what it owes is paid before the next.
            assert (total + min(size, burst)) * NS_PER_S <= burst * NS_PER_S + rate * (at - passed[first][0])
            total += size


@given(
    rate=st.integers(10**3, 10**9),
    burst_ms=st.integers(1, 1000),
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
)
def test_who_always_asks_gets_the_rate_exactly(rate: int, burst_ms: int, sizes: list[int]) -> None:
    burst = max(1, rate * burst_ms // 1000)
    bucket = TokenBucket(rate, burst * NS_PER_S, 0, burst * NS_PER_S)
    now = total = 0
    for size in sizes * 8:
        now = bucket.when(size * NS_PER_S, now)
        bucket.take(size * NS_PER_S, now)
        total += size
    end = bucket.when(0, now)
    # All but the burst came at the rate; rounding costs less than a nanosecond for each request.
    due = math.ceil(max(0, total - burst) * NS_PER_S / rate)
    assert due <= end + 1
    assert end <= due + 1 + len(sizes) * 8


def test_real_numbers_never_make_it_wait_for_ever() -> None:
    bucket = TokenBucket(0.1, 3.3, 0)
    now = 0
    for _ in range(1000):
        at = bucket.when(0.7, now)
        for _ in range(3):
            at = bucket.when(0.7, at)
        assert bucket.when(0.7, at) == at
        bucket.take(0.7, at)
        now = at
    assert abs(now - 7000) <= 1000
