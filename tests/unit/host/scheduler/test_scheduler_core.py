"""The scheduler's answers to single events."""

from typing import Any

import pytest

from emuvisor.errors import AdmissionError, UsageError
from emuvisor.host.scheduler.admission import admit
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.entity import SPARE, Entity
from emuvisor.host.scheduler.instructions import (
    Added,
    Changed,
    Event,
    Left,
    Preempt,
    Removed,
    Run,
    Slept,
    Timer,
    Woke,
)
from emuvisor.host.scheduler.policies import POLICIES, make_policy
from emuvisor.host.scheduler.policies.round_robin import RoundRobin
from emuvisor.host.scheduler.policy import Policy

MS = 1_000_000


def scheduler_with(
    *names: str, policy: str = "proportional", pcpus: int = 1, claim: CpuClaim | None = None
) -> Scheduler:
    scheduler = Scheduler(pcpus, make_policy(policy, pcpus))
    for name in names:
        scheduler.handle(0, Added(name, claim or CpuClaim()))
    return scheduler


def test_one_after_the_other() -> None:
    scheduler = scheduler_with("a", "b")
    assert scheduler.timer_ns is None
    assert scheduler.handle(0, Woke("a")) == [Run(0, "a", 5 * MS)]
    assert scheduler.handle(0, Woke("a")) == []
    assert scheduler.handle(1 * MS, Slept("a")) == [], "its pCPU will say so"
    assert scheduler.handle(2 * MS, Woke("b")) == []
    assert scheduler.handle(5 * MS, Left(0, "a", 5 * MS, 10 * MS, True)) == [Run(0, "b", 5 * MS)]
    assert scheduler.handle(6 * MS, Left(0, "b", 1 * MS, 0, False)) == [Run(0, "a", 5 * MS)]
    a, b = scheduler.entities["a"], scheduler.entities["b"]
    assert (a.ran_ns, a.waited_ns, b.ran_ns, b.waited_ns) == (5 * MS, 1 * MS, 1 * MS, 3 * MS)
    assert scheduler.handle(7 * MS, Left(0, "a", 1 * MS, 0, False)) == []


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Added("a", CpuClaim()), "the scheduler knows a guest 'a' already"),
        (Woke("x"), "the scheduler knows no guest 'x'"),
        (Removed("a"), "guest 'a' is on pCPU 0; it must leave it first"),
        (Left(0, "b", 1, 1, True), "pCPU 0 does not run guest 'b'"),
        (Left(9, "a", 1, 1, True), "pCPU 9 does not run guest 'a'"),
        (
            Changed("a", CpuClaim(affinity=frozenset({0, 3}))),
            "guest 'a': an affinity to pCPU 3 is impossible; the host has pCPU 0 alone",
        ),
    ],
)
def test_events_that_cannot_be(event: Event, message: str) -> None:
    scheduler = scheduler_with("a", "b")
    scheduler.handle(0, Woke("a"))
    with pytest.raises(UsageError) as error:
        scheduler.handle(1, event)
    assert str(error.value) == message


def test_who_is_interrupted_keeps_its_place_and_the_rest_of_its_turn() -> None:
    scheduler = scheduler_with("a", "b", "c", policy="round-robin")
    scheduler.handle(0, Added("r", CpuClaim(reservation=50)))
    scheduler.handle(0, Woke("a"))
    scheduler.handle(1, Woke("b"))
    scheduler.handle(2, Woke("c"))
    why = "r has time reserved"
    assert scheduler.handle(12 * MS, Woke("r")) == [Preempt(0, "a", why)]  # its bucket is full again
    assert scheduler.handle(13 * MS, Slept("b")) == []
    assert scheduler.handle(13 * MS, Woke("b")) == []
    assert scheduler.handle(13 * MS, Left(0, "a", 2 * MS, 0, True)) == [Run(0, "r", 5 * MS)]
    assert scheduler.handle(14 * MS, Left(0, "r", 1 * MS, 0, False)) == [Run(0, "a", 3 * MS)]
    assert scheduler.handle(17 * MS, Left(0, "a", 3 * MS, 0, True)) == [Run(0, "c", 5 * MS)]


def test_a_cap_throttles_until_half_of_a_period_is_there() -> None:
    scheduler = scheduler_with("a", claim=CpuClaim(cap=50))
    assert scheduler.handle(0, Woke("a")) == []
    assert scheduler.timer_ns == 10 * MS
    assert scheduler.handle(10 * MS, Timer()) == [Run(0, "a", 5 * MS)]
    assert scheduler.handle(15 * MS, Left(0, "a", 5 * MS, 0, True)) == [Run(0, "a", 5 * MS)]
    assert scheduler.handle(20 * MS, Left(0, "a", 5 * MS, 0, True)) == []
    assert scheduler.timer_ns == 30 * MS
    assert scheduler.handle(30 * MS, Slept("a")) == []
    assert (scheduler.timer_ns, scheduler.entities["a"].throttled_ns) == (None, 20 * MS)


def test_a_limit_goes_by_the_work_that_was_done() -> None:
    scheduler = scheduler_with("a", claim=CpuClaim(limit=1_000_000_000))
    scheduler.handle(0, Woke("a"))
    assert scheduler.handle(10 * MS, Timer()) == [Run(0, "a", 5 * MS)]
    assert scheduler.handle(15 * MS, Left(0, "a", 5 * MS, 40 * MS, True)) == []
    assert scheduler.timer_ns == 50 * MS  # 10 - 40 + 5 million bytes; 10 million are half of a period's
    for _ in range(1100):
        scheduler.entities["a"].charge(1 * MS, 0, 50 * MS)
    assert scheduler.entities["a"].pace == 0.001, "a guest that does no work at all divides nothing by zero"


def test_short_slices_tell_the_pace_together() -> None:
    scheduler = scheduler_with("a")
    entity = scheduler.entities["a"]
    for _ in range(9):
        entity.charge(11_000, 99_000, 1 * MS)
    assert entity.pace == 1.0
    entity.charge(11_000, 99_000, 1 * MS)
    assert entity.pace == (1.0 + 9.0) / 2
    entity.charge(100_000, 0, 1 * MS)
    assert entity.pace == 2.5, "the next sample is another one"


def test_another_affinity_moves_a_guest() -> None:
    scheduler = scheduler_with("a", "b", pcpus=2)
    assert scheduler.handle(0, Woke("a")) == [Run(0, "a", 5 * MS)]
    to_1 = CpuClaim(affinity=frozenset({1}))
    assert scheduler.handle(1, Changed("a", to_1)) == [Preempt(0, "a", "it has another claim")]
    assert scheduler.handle(1, Changed("a", to_1)) == [], "it was told"
    assert scheduler.handle(2, Left(0, "a", 2, 0, True)) == [Run(1, "a", 5 * MS - 2)]
    assert scheduler.handle(3, Woke("b")) == [Run(0, "b", 5 * MS)]
    scheduler.handle(4, Added("c", to_1))
    assert scheduler.handle(4, Woke("c")) == []
    assert scheduler.handle(5, Left(0, "b", 2, 0, False)) == []
    assert scheduler.handle(6, Changed("c", CpuClaim())) == [Run(0, "c", 5 * MS)]


def test_who_may_run_elsewhere_makes_room() -> None:
    scheduler = scheduler_with("free", pcpus=2)
    bound = CpuClaim(affinity=frozenset({0}))
    scheduler.handle(0, Added("bound", bound))
    assert scheduler.handle(0, Woke("free")) == [Run(0, "free", 5 * MS)]
    assert scheduler.handle(0, Woke("bound")) == []
    assert scheduler.handle(5 * MS, Left(0, "free", 5 * MS, 0, True)) == [
        Run(0, "bound", 5 * MS),
        Run(1, "free", 5 * MS),
    ]


def test_reservations_by_earliest_deadline() -> None:
    scheduler = Scheduler(1, RoundRobin())
    scheduler.handle(0, Added("slow", CpuClaim(reservation=40, period_us=40_000)))
    scheduler.handle(0, Added("fast", CpuClaim(reservation=40, period_us=4_000)))
    assert scheduler.handle(40 * MS, Woke("slow")) == [Run(0, "slow", 8 * MS)]
    assert scheduler.handle(41 * MS, Woke("fast")) == [Preempt(0, "slow", "fast has time reserved")]
    assert scheduler.handle(41 * MS, Left(0, "slow", 1 * MS, 0, True)) == [Run(0, "fast", 800_000)]
    assert scheduler.entities["fast"].deadline_ns == 43 * MS, "half of its period"
    scheduler.handle(41 * MS + 800_000, Left(0, "fast", 800_000, 0, True))
    assert scheduler.entities["fast"].deadline_ns == 45 * MS, (
        "it had saved a period's, and gets no more at once"
    )
    assert scheduler.entities["fast"].place == "running"
    slow = scheduler.entities["slow"]
    assert (slow.place, slow.budget_ns, slow.deadline_ns) == ("waiting", 7 * MS, 60 * MS)


def test_a_budget_that_was_slept_through_is_lost() -> None:
    scheduler = Scheduler(1, RoundRobin())
    scheduler.handle(0, Added("a", CpuClaim(reservation=50, period_us=20_000)))
    assert scheduler.handle(20 * MS, Woke("a")) == [Run(0, "a", 5 * MS)]
    assert scheduler.handle(21 * MS, Left(0, "a", 1 * MS, 0, False)) == []
    assert scheduler.handle(26 * MS, Woke("a")) == [Run(0, "a", 2 * MS)], (
        "half of the time to its deadline at 30 ms"
    )


def test_with_half_of_its_cap_used_up_a_guest_has_what_is_left_over() -> None:
    scheduler = scheduler_with("capped", claim=CpuClaim(cap=50))
    scheduler.handle(0, Added("other", CpuClaim(latency_us=1_000)))
    scheduler.handle(0, Added("late", CpuClaim(weight=1)))
    capped = scheduler.entities["capped"]
    assert scheduler.handle(12 * MS, Woke("capped")) == [Run(0, "capped", 5 * MS)]
    assert scheduler.handle(13 * MS, Woke("other")) == [Preempt(0, "capped", "other is ahead of it")]
    assert scheduler.handle(17 * MS, Left(0, "capped", 5 * MS, 0, True)) == [Run(0, "other", 1 * MS)]
    assert (capped.rank, scheduler.timer_ns) == (SPARE, 20 * MS)
    assert scheduler.handle(17_500_000, Left(0, "other", 500_000, 0, False)) == [Run(0, "capped", 5 * MS)]
    assert scheduler.handle(17_600_000, Woke("late")) == [
        Preempt(0, "capped", "capped had what was left over")
    ]
    assert (capped.throttled_ns, capped.waited_ns) == (500_000, 0)


@pytest.mark.parametrize("key", ["nan", "inf", "-inf"])
def test_a_policy_whose_keys_are_no_numbers(key: str) -> None:
    class Wrong(Policy):
        def key(self, entity: Entity) -> float:
            return float(key)

    scheduler = Scheduler(1, Wrong())
    scheduler.handle(0, Added("a", CpuClaim()))
    with pytest.raises(ValueError, match=f"^the key of guest 'a' is {key}$"):
        scheduler.handle(0, Woke("a"))


def test_who_asks_for_too_much_is_named() -> None:
    scheduler = Scheduler(2, RoundRobin())
    scheduler.handle(0, Added("a", CpuClaim(reservation=50)))
    scheduler.handle(0, Added("b", CpuClaim(reservation=60)))
    with pytest.raises(AdmissionError) as error:
        scheduler.handle(0, Added("c", CpuClaim(reservation=60)))
    assert str(error.value) == (
        "guest 'c': a reservation of 60 % of a pCPU cannot be promised: beside 2 guests with reservations "
        "50 % of pCPU 0, 40 % of pCPU 1 are left"
    )
    scheduler.handle(0, Added("d", CpuClaim(reservation=45)))
    with pytest.raises(
        AdmissionError, match=r"^guest 'a': a reservation of 70 % of a pCPU cannot be promised: "
    ):
        scheduler.handle(0, Changed("a", CpuClaim(reservation=70)))
    assert scheduler.entities["a"].claim.reservation == 50


def test_the_largest_reservations_find_their_homes_first() -> None:
    claims = {
        name: CpuClaim(reservation=percent) for name, percent in [("a", 30), ("b", 70), ("c", 50), ("d", 50)]
    }
    assert admit(claims, 2) == {"b": 0, "c": 1, "d": 1, "a": 0}
    assert admit(claims, 2, {"a": 1, "b": 1, "c": 0, "d": 0}) == {"a": 1, "b": 1, "c": 0, "d": 0}
    bound = CpuClaim(reservation=40, affinity=frozenset({0}))
    assert admit({"x": CpuClaim(reservation=70), "bound": bound, "none": CpuClaim()}, 2) == {
        "bound": 0,
        "x": 1,
    }
    both = CpuClaim(reservation=60, affinity=frozenset({0, 1}))
    assert admit({"one": CpuClaim(reservation=50, affinity=frozenset({1})), "both": both}, 2) == {
        "one": 1,
        "both": 0,
    }


def test_reservations_that_cannot_be_kept() -> None:
    claims = {name: CpuClaim(reservation=60) for name in "abc"}
    with pytest.raises(AdmissionError) as error:
        admit(claims, 2)
    assert str(error.value) == (
        "guest 'c': a reservation of 60 % of a pCPU cannot be promised: beside 2 guests with reservations "
        "40 % of pCPU 0, 40 % of pCPU 1 are left"
    )
    with pytest.raises(AdmissionError) as error:
        admit(
            {n: CpuClaim(reservation=100 / 3 + 1, affinity=frozenset({1})) for n in "ab"}
            | {"c": CpuClaim(reservation=50, affinity=frozenset({1}))},
            3,
        )
    assert str(error.value) == (
        "guest 'b': a reservation of 34.3333 % of a pCPU cannot be promised: beside 2 guests with reservations "
        "15.6667 % of pCPU 1 is left"
    )
    with pytest.raises(
        UsageError, match=r"^guest 'a': an affinity to pCPU 2 is impossible; the host has pCPUs 0 to 1$"
    ):
        admit({"a": CpuClaim(affinity=frozenset({2}))}, 2)


def test_a_new_reservation_may_move_others() -> None:
    scheduler = Scheduler(2, make_policy("proportional", 2))
    for name, percent in [("a", 40), ("b", 40), ("c", 40), ("d", 60)]:
        if name != "d":
            scheduler.handle(0, Added(name, CpuClaim(reservation=percent)))
            scheduler.handle(0, Woke(name))
    homes = [scheduler.entities[name].home for name in "abc"]
    assert homes == [0, 0, 1]
    assert [scheduler.entities[name].place for name in "abc"] == ["running", "running", "waiting"]
    scheduler.handle(1, Added("d", CpuClaim(reservation=60)))
    assert [scheduler.entities[name].home for name in "abcd"] == [0, 0, 1, 1], "there is room for it"
    scheduler.handle(2, Changed("d", CpuClaim(reservation=55)))
    scheduler.handle(2, Changed("a", CpuClaim(reservation=20)))
    scheduler.handle(2, Removed("d"))
    scheduler.handle(3, Added("e", CpuClaim(reservation=100, affinity=frozenset({1}))))
    assert [scheduler.entities[name].home for name in "abce"] == [0, 0, 0, 1]
    assert scheduler.entities["c"].place == "waiting"


def test_void_timers_do_not_pile_up() -> None:
    scheduler = scheduler_with("a", claim=CpuClaim(limit=1))
    for _ in range(1000):
        scheduler.handle(0, Woke("a"))
        scheduler.handle(0, Slept("a"))
    assert len(scheduler._timers) <= 100


def test_void_entries_do_not_pile_up() -> None:
    scheduler = scheduler_with("a", "b", "c")
    for now_ns in range(1000):
        for name in "abc":
            scheduler.handle(now_ns, Woke(name))
        scheduler.handle(now_ns, Slept("c"))
    assert len(next(iter(scheduler._affinities.values())).queues[0].heap) <= 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": 0}, "weight 0 is impossible; it is 1 to 10,000"),
        ({"cap": 101}, "a cap of 101 % of a pCPU is impossible; it is 0.01 to 100"),
        ({"reservation": -1}, "a reservation of -1 % of a pCPU is impossible; it is 0 to 100"),
        ({"reservation": 20, "cap": 10}, "a reservation of 20 % is more than the cap of 10 %"),
        ({"weight": 1.5}, "weight 1.5 is impossible; it is 1 to 10,000"),
        ({"affinity": frozenset({"a"})}, "an affinity to pCPU 'a' is impossible; it is a number"),
        ({"period_us": 5}, "period_us 5 is impossible; it is 1,000 to 1,000,000"),
        ({"latency_us": 5}, "latency_us 5 is impossible; it is 100 to 100,000"),
        ({"limit": 0}, "a limit of 0 bytes of code a second is impossible; it is 1 to 1099511627776"),
        ({"affinity": frozenset()}, "an affinity to no pCPU is impossible"),
    ],
)
def test_impossible_claims(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        CpuClaim(**fields)
    assert str(error.value) == message


class Entry:
    """An entry point."""

    def __init__(self, name: str, made: object) -> None:
        self.name, self._made = name, made

    def load(self) -> object:
        if isinstance(self._made, Exception):
            raise self._made
        return lambda pcpus: self._made


def test_policies_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Policy()
    hasty, restless = Policy(), Policy()
    hasty.turn_ns, restless.period_ns = 5, 0
    entries = [Entry("mine", mine), Entry("broken", ImportError("no module")), Entry("wrong", 5)]
    entries += [Entry("hasty", hasty), Entry("restless", restless)]
    monkeypatch.setattr("emuvisor.host.scheduler.policies.entry_points", lambda group: entries)
    assert make_policy("mine", 2) is mine
    for name, message in [
        ("broken", "scheduling policy 'broken': ImportError: no module"),
        ("wrong", "scheduling policy 'wrong' is a int, not a Policy"),
        ("hasty", "scheduling policy 'hasty': turn_ns 5 is impossible; it is 100,000 or more"),
        ("restless", "scheduling policy 'restless': period_ns 0 is impossible; it is 1,000,000 or more"),
        (
            "fifo",
            "there is no scheduling policy 'fifo'; there are: broken, credit, deadline, hasty, mine, proportional, "
            "restless, round-robin, wrong",
        ),
    ]:
        with pytest.raises(UsageError) as error:
            make_policy(name, 1)
        assert str(error.value) == message
    assert {make_policy(name, 1).name for name in POLICIES} == set(POLICIES)


def test_a_policy_preempts_by_its_key() -> None:
    class Later(Policy):
        def key(self, entity: Entity) -> float:
            return -entity.queued_ns

    scheduler = Scheduler(1, Later())
    for name in "ab":
        scheduler.handle(0, Added(name, CpuClaim()))
    scheduler.handle(0, Woke("a"))
    assert scheduler.handle(1, Woke("b")) == [Preempt(0, "a", "b is ahead of it")]


def test_first_come_first_served() -> None:
    scheduler = Scheduler(2, Policy())
    for name in "ab":
        scheduler.handle(0, Added(name, CpuClaim(affinity=frozenset({0}))))
    scheduler.handle(0, Added("c", CpuClaim()))
    scheduler.handle(0, Added("other", CpuClaim(affinity=frozenset({1}))))
    scheduler.handle(0, Woke("other"))
    for name in "abc":
        scheduler.handle(0, Woke(name))
    assert scheduler.handle(5 * MS, Left(0, "a", 5 * MS, 0, True)) == [Run(0, "b", 5 * MS)]
    assert scheduler.handle(10 * MS, Left(0, "b", 5 * MS, 0, True)) == [Run(0, "c", 5 * MS)]


def test_the_order_is_asked_anew_after_an_accounting() -> None:
    class Aging(Policy):
        period_ns = 10 * MS
        reverse = 1

        def key(self, entity: Entity) -> float:
            return self.reverse * entity.queued_ns

    policy = Aging()
    scheduler = Scheduler(1, policy)
    for now_ns, name in enumerate("abc"):
        scheduler.handle(0, Added(name, CpuClaim()))
        scheduler.handle(now_ns, Woke(name))
    policy.reverse = -1
    assert scheduler.timer_ns == 10 * MS
    assert scheduler.handle(10 * MS, Timer()) == []
    assert scheduler.handle(10 * MS, Left(0, "a", 10 * MS, 0, False)) == [Run(0, "c", 5 * MS)]


def test_credits_that_pay_a_debt_bring_a_guest_forward() -> None:
    scheduler = scheduler_with("a", "b", "c", policy="credit")
    assert scheduler.handle(0, Woke("a")) == [Run(0, "a", 10 * MS)]
    scheduler.handle(1, Woke("b"))
    assert scheduler.handle(10 * MS, Left(0, "a", 10 * MS, 0, True)) == [Run(0, "b", 10 * MS)]
    scheduler.handle(11 * MS, Woke("c"))
    scheduler.handle(30 * MS, Timer())
    a = scheduler.entities["a"]
    assert (a.virtual, a.key) == (0, 2 * 10**18 + 10 * MS), "OVER: it has paid and has nothing"
    scheduler.handle(60 * MS, Timer())
    assert (a.virtual, a.key) == (10 * MS, 10**18 + 10 * MS), "UNDER"
