"""When copying in rounds has an end."""

import pytest

from emuvisor.errors import UsageError
from emuvisor.migration.convergence import MAX_THROTTLE, Decision, decide, expected_downtime_ns
from emuvisor.migration.options import Options, Round
from emuvisor.units import NS_PER_MS, NS_PER_S, PAGE_SIZE

SECOND = NS_PER_S


def a_round(pages: int, left: int, ns: int = SECOND) -> Round:
    return Round(pages, pages, pages * PAGE_SIZE, ns, left)


def test_nothing_is_known_before_the_first_round() -> None:
    assert decide([], 0, Options()) == Decision(False, 0)
    assert decide([], 0, Options(max_rounds=1)) == Decision(False, 0)


def test_it_changes_over_when_what_is_left_fits() -> None:
    options = Options(downtime_ms=300)
    done = [a_round(1000, 270)]  # 270 ms and 20
    assert expected_downtime_ns(done, options) == 290 * NS_PER_MS
    assert decide([a_round(500, 270)], 0, options) == Decision(False, 0)  # half as fast
    assert decide([a_round(1000, 290)], 0, options) == Decision(False, 0)


def test_one_more_round_when_it_leaves_less_than_half() -> None:
    options = Options(downtime_ms=300)
    assert not decide([a_round(1000, 270)], 0, options).stop
    assert decide([a_round(1000, 270), a_round(270, 200, SECOND // 4)], 0, options).stop
    assert decide([a_round(1000, 60)], 0, options).stop
    assert decide([a_round(1000, 0)], 0, options).stop


def test_a_limit_of_the_bandwidth_is_believed() -> None:
    done = [a_round(1000, 100)]
    slow = Options(bandwidth=100 * PAGE_SIZE)
    assert expected_downtime_ns(done, slow) == SECOND + 20 * NS_PER_MS
    assert expected_downtime_ns([Round(10, 0, 10, SECOND, 5)], Options()) < 21 * NS_PER_MS


def test_disks_and_what_the_target_does_take_time_too() -> None:
    done = [Round(1000, 1000, 1000 * PAGE_SIZE, SECOND, 100, disk_left=100 * PAGE_SIZE)]
    assert expected_downtime_ns(done, Options()) == 220 * NS_PER_MS
    assert expected_downtime_ns(done, Options(), 70 * NS_PER_MS) == 290 * NS_PER_MS
    done = [*done, done[0]]
    assert decide([a_round(100, 90), done[0]], 0, Options(max_rounds=2), 0).stop
    few = [Round(100, 100, 1000 * PAGE_SIZE, SECOND, 60, disk_left=100 * PAGE_SIZE)]
    assert decide(few, 0, Options(), 70 * NS_PER_MS).stop
    assert not decide(few, 0, Options(), 190 * NS_PER_MS).stop
    assert decide(
        [a_round(1000, 120, SECOND), a_round(120, 120, SECOND * 120 // 1000)], 0, Options(), 10 * SECOND
    ) == Decision(True, 0)  # no throttle makes it quicker
    assert not decide(
        [a_round(1000, 140), a_round(140, 140, SECOND * 140 // 1000)], 0, Options(), 10 * SECOND
    ).stop
    assert decide([a_round(1000, 0)], 0, Options(), SECOND).stop  # another round would change nothing


def test_throttling() -> None:
    options = Options(downtime_ms=30)
    losing = [a_round(1000, 900), a_round(900, 900)]
    assert decide(losing[:1], 0, options) == Decision(False, 0)
    throttle, steps = 0, []
    for _ in range(11):
        throttle = decide(losing, throttle, options).throttle
        steps.append(throttle)
    assert steps == [20, 30, 40, 50, 60, 70, 80, 90, MAX_THROTTLE, MAX_THROTTLE, MAX_THROTTLE]
    assert decide(losing, 0, Options(downtime_ms=30, throttle=False)) == Decision(False, 0)
    assert decide([a_round(1000, 900), a_round(900, 300)], 20, options) == Decision(False, 20)


def test_it_ends_after_so_many_rounds() -> None:
    losing = [a_round(1000, 1000)] * 3
    assert decide(losing, 0, Options(downtime_ms=30, max_rounds=3)).stop


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mode": "fast"}, "migration: mode 'fast' is none of pre-copy, post-copy, hybrid"),
        ({"downtime_ms": 0}, "migration: downtime_ms is 0; 1 to 60000 are allowed"),
        ({"bandwidth": "1M"}, "migration: bandwidth is '1M'; 65536 to 1125899906842624 are allowed"),
        ({"max_rounds": True}, "migration: max_rounds is True; 1 to 1000 are allowed"),
        (
            {"speed": 3},
            "migration: there is no option 'speed'; there are: mode, downtime_ms, bandwidth, compression, throttle, "
            "max_rounds, disks",
        ),
    ],
)
def test_impossible_options(values: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options.of(values)
    assert str(caught.value) == text
