from typing import Any

import pytest

from emuvisor.bus.clock import Clock, HostClock, Timer, VirtualClock
from emuvisor.errors import SnapshotError


class Log:
    """Timers on one clock that write down when they fire."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.fired: list[tuple[str, int]] = []

    def timer(self, name: str) -> Timer:
        return self.clock.timer(lambda deadline_ns: self.fired.append((name, deadline_ns)), name)


@pytest.fixture
def log() -> Log:
    return Log()


def test_virtual_time_is_retired_work_and_skipped_idle_time() -> None:
    retired = [0]
    clock = VirtualClock(lambda: retired[0])
    assert clock.now_ns() == 0
    retired[0] = 70
    clock.skip(30)
    clock.skip(-1)  # time never goes backwards
    assert clock.now_ns() == 100


def test_host_time_counts_from_its_origin() -> None:
    host = [5_000]
    clock = HostClock(lambda: host[0], origin_ns=200)
    assert clock.now_ns() == 200
    host[0] = 5_700
    assert clock.now_ns() == 900


def test_a_clock_has_to_say_what_time_it_is() -> None:
    with pytest.raises(NotImplementedError):
        Clock().now_ns()


def test_timers_fire_by_deadline_then_by_arming(log: Log) -> None:
    a, b, c, d = (log.timer(name) for name in "abcd")
    c.arm(20)
    a.arm(10)
    d.arm(20)
    b.arm(15)
    assert log.clock.next_deadline_ns() == 10
    log.clock.skip(19)
    assert log.clock.fire_due() == 2
    log.clock.skip(1)
    assert log.clock.fire_due() == 2
    assert log.fired == [("a", 10), ("b", 15), ("c", 20), ("d", 20)]
    assert log.clock.next_deadline_ns() is None
    assert log.clock.fire_due() == 0


def test_arming_again_replaces_the_earlier_deadline(log: Log) -> None:
    timer = log.timer("a")
    timer.arm(10)
    timer.arm(30)
    timer.arm(20)
    assert log.clock.next_deadline_ns() == 20
    log.clock.skip(100)
    assert log.clock.fire_due() == 1
    assert log.fired == [("a", 20)]


def test_arming_twice_for_the_same_time_fires_once(log: Log) -> None:
    timer = log.timer("a")
    timer.arm(10)
    timer.arm(10)
    log.clock.skip(10)
    assert log.clock.fire_due() == 1
    timer.arm(10)
    assert log.clock.fire_due() == 1


def test_a_cancelled_timer_does_not_fire(log: Log) -> None:
    timer = log.timer("a")
    timer.arm(10)
    timer.cancel()
    assert timer.deadline_ns is None
    assert log.clock.next_deadline_ns() is None
    log.clock.skip(10)
    assert log.clock.fire_due() == 0


def test_a_callback_may_arm_its_timer_again() -> None:
    clock = VirtualClock()
    fired: list[int] = []

    def tick(deadline_ns: int) -> None:
        fired.append(deadline_ns)
        timer.arm(deadline_ns + 10)

    timer = clock.timer(tick)
    timer.arm(10)
    for _ in range(3):
        clock.skip(10)
        assert clock.fire_due() == 1
    assert fired == [10, 20, 30]


def test_a_timer_that_arms_itself_in_the_past_fires_once_a_call() -> None:
    clock = VirtualClock()
    fired: list[int] = []

    def late(deadline_ns: int) -> None:
        fired.append(deadline_ns)
        timer.arm(deadline_ns)

    timer = clock.timer(late)
    timer.arm(5)
    clock.skip(1_000)
    assert [clock.fire_due(), clock.fire_due()] == [1, 1]
    assert fired == [5, 5]


def test_time_is_read_once_a_call() -> None:
    reads = [0]

    def retired_ns() -> int:
        reads[0] += 1
        return reads[0] * 10

    clock = VirtualClock(retired_ns)
    for deadline in (5, 15):
        clock.timer(lambda _: None).arm(deadline)
    assert clock.fire_due() == 1
    assert reads[0] == 1


def test_a_callback_may_cancel_or_move_a_timer_that_is_due(log: Log) -> None:
    second, third = log.timer("second"), log.timer("third")

    def first(deadline_ns: int) -> None:
        second.cancel()
        third.arm(50)

    log.clock.timer(first).arm(1)
    second.arm(2)
    third.arm(3)
    log.clock.skip(10)
    assert log.clock.fire_due() == 1
    assert log.fired == []
    assert log.clock.next_deadline_ns() == 50


def test_re_arming_without_end_keeps_the_queue_short(log: Log) -> None:
    others = [log.timer(str(i)) for i in range(3)]
    for i, other in enumerate(others):
        other.arm(10**9 + i)
    timer = log.timer("a")
    for i in range(10_000):
        timer.arm(10**9 - i)
        assert len(log.clock._queue) <= 64
    log.clock.skip(2 * 10**9)
    assert log.clock.fire_due() == 4
    assert [name for name, _ in log.fired] == ["a", "0", "1", "2"]


def test_many_live_timers_all_fire(log: Log) -> None:
    for i in range(500):
        log.timer(str(i)).arm(i)
    log.clock.skip(1_000)
    assert log.clock.fire_due() == 500
    assert [deadline for _, deadline in log.fired] == list(range(500))


def test_who_runs_the_guest_hears_of_each_new_deadline(log: Log) -> None:
    heard: list[int] = []
    log.clock.on_schedule = heard.append
    timer = log.timer("a")
    timer.arm(30)
    timer.cancel()
    timer.arm(20)
    assert heard == [30, 20]


def test_two_runs_with_the_same_inputs_fire_alike() -> None:
    def run() -> list[tuple[str, int]]:
        log = Log()
        timers = [log.timer(str(i)) for i in range(7)]
        for step in range(200):
            timers[step * 5 % 7].arm(step * 13 % 97 + step)
            log.clock.skip(step % 4)
            log.clock.fire_due()
        return log.fired

    assert run() == run()
    assert len(run()) > 50


def test_a_callback_that_fails_costs_the_others_nothing(log: Log) -> None:
    def fail(_deadline_ns: int) -> None:
        raise RuntimeError("no frames")

    before, failing, behind = log.timer("before"), log.clock.timer(fail), log.timer("behind")
    for timer in (before, failing, behind):
        timer.arm(5)
    log.clock.skip(5)
    with pytest.raises(RuntimeError, match="no frames"):
        log.clock.fire_due()
    assert log.fired == [("before", 5)]
    assert log.clock.fire_due() == 1
    assert log.fired == [("before", 5), ("behind", 5)]


# ---- saved state ----


def test_timers_that_are_due_together_fire_in_the_same_order_again(log: Log) -> None:
    a, b, c, _ = (log.timer(name) for name in "abcd")
    log.clock.skip(5)
    c.arm(20)
    a.arm(20)
    b.arm(7)
    state = log.clock.save()
    assert state == {"device": "clock", "version": 1, "now_ns": 5, "timers": [[1, 7], [2, 20], [0, 20]]}
    again = Log()
    a, b, c, d = (again.timer(name) for name in "abcd")
    for timer in (b, d):
        timer.arm(6)  # what was armed before is forgotten
    again.clock.skip(1000)
    again.clock.load(state)
    assert (again.clock.now_ns(), again.clock.next_deadline_ns()) == (5, None)
    for timer in (a, b, c):
        timer.arm(20)  # as chips do when they are loaded
    d.arm(30)
    again.clock.load_timers(state)
    assert again.clock.save() == {**state, "timers": [*state["timers"], [3, 30]]}
    again.clock.skip(100)
    again.clock.fire_due()
    assert again.fired == [("b", 7), ("c", 20), ("a", 20), ("d", 30)]


def test_retired_work_is_part_of_a_loaded_time() -> None:
    clock = VirtualClock(lambda: 70)
    clock.load({"device": "clock", "version": 1, "now_ns": 100, "timers": []})
    assert (clock.now_ns(), clock.skipped_ns) == (100, 30)


def test_host_time_goes_on_from_the_saved_time() -> None:
    host = [5_000]
    clock = HostClock(lambda: host[0])
    clock.load({"device": "clock", "version": 1, "now_ns": 900, "timers": []})
    host[0] = 5_050
    assert clock.now_ns() == 950


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "pit"}, "the saved state is of device 'pit', not 'clock'"),
        ({"version": 2}, "clock: saved state has version 2; this emuvisor reads 1 to 1"),
        (
            {"now_ns": -1},
            "clock: saved field 'now_ns' is -1; expected an integer from 0 to 9223372036854775807",
        ),
        (
            {"now_ns": None},
            "clock: saved field 'now_ns' is None; expected an integer from 0 to 9223372036854775807",
        ),
        ({"timers": None}, "clock: saved field 'timers' is None; expected a list of at most 1 timers"),
        (
            {"timers": [[0, 1], [0, 2]]},
            "clock: saved field 'timers' is [[0, 1], [0, 2]]; expected a list of at most 1 timers",
        ),
        *(
            (
                {"timers": [item]},
                f"clock: saved field 'timers' has {item}; expected the number of one of 1 timers, and when it is due",
            )
            for item in ([1, 5], [-1, 5], [0, -1], [0, 1 << 63], [0], [True, 5], 7)
        ),
    ],
)
def test_a_saved_clock_is_checked_first(log: Log, change: dict[str, Any], message: str) -> None:
    log.timer("a").arm(9)
    before = log.clock.save()
    with pytest.raises(SnapshotError) as error:
        log.clock.load({**before, **change})
    assert str(error.value) == message
    assert log.clock.save() == before


def test_a_clock_has_to_say_how_it_is_set() -> None:
    with pytest.raises(NotImplementedError):
        Clock().set_ns(1)
