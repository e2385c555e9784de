"""Limits: rates as people write them, throttles of several buckets, and backends that are divided by weight."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.devices.fair_share import MAX_SHARES, FairShare, Flow
from emuvisor.devices.limits import IN, OUT, READ, WRITE, DiskLimits, NicLimits, Rate, Throttle
from emuvisor.errors import SnapshotError, UsageError
from emuvisor.units import KIB, MIB, NS_PER_MS, NS_PER_S

# ---- rates ----


def test_rates_as_people_write_them() -> None:
    assert Rate.parse("10M") == Rate(10 * MIB)
    assert Rate.parse("10M:64M") == Rate(10 * MIB, 64 * MIB)
    assert Rate.parse("100:500:1K") == Rate(100, 500, KIB)
    assert (Rate.of("5"), Rate.of(5), Rate.of(Rate(5)), Rate.of(None)) == (Rate(5), Rate(5), Rate(5), None)
    assert (Rate(1000).capacity, Rate(5).capacity, Rate(5, 7).capacity) == (100, 1, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "'0' is not RATE[:BURST[:ONCE]], such as 10M:64M: a rate of 0; 1 to 1125899906842624 is allowed"),
        ("9:0", "'9:0' is not RATE[:BURST[:ONCE]], such as 10M:64M: a burst of 0; 1 to 1125899906842624 is allowed"),
        ("1:1:1:1", "'1:1:1:1' is not RATE[:BURST[:ONCE]], such as 10M:64M"),
        ("fast", "'fast' is not RATE[:BURST[:ONCE]], such as 10M:64M: 'fast' is not a size; write a whole number with "
         "K, M, G or T, such as 256M"),
        ("1:1:2000T", "'1:1:2000T' is not RATE[:BURST[:ONCE]], such as 10M:64M: a single burst of 2199023255552000; "
         "0 to 1125899906842624 is allowed"),
    ],
)  # fmt: skip
def test_what_is_no_rate(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Rate.parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [True, 1.5, (1, 2)])
def test_what_is_no_form_of_a_rate(value: Any) -> None:
    with pytest.raises(UsageError) as error:
        Rate.of(value)
    assert str(error.value) == f'{value!r} is not a rate, such as 1000 or "10M:64M"'


def test_some_limits_are_changed_and_the_others_stay() -> None:
    limits = DiskLimits(read_bytes=Rate(1), total_iops=Rate(2))
    assert limits.changed({"read_bytes": None, "write_iops": "3:4"}) == DiskLimits(
        total_iops=Rate(2), write_iops=Rate(3, 4)
    )
    with pytest.raises(UsageError) as error:
        NicLimits().changed({"read_bytes": 1})
    assert str(error.value) == (
        "there is no limit 'read_bytes'; there are: in_bytes, out_bytes, in_packets, out_packets"
    )


# ---- throttles ----


def test_each_direction_has_its_buckets() -> None:
    throttle = Throttle(DiskLimits(read_bytes=Rate(1000, 100), write_iops=Rate(10, 1)))
    assert (throttle.active, throttle.ordered) == (True, False)
    assert throttle.admit(READ, 100, 0) == 0
    assert throttle.admit(READ, 50, 0) == 50 * NS_PER_MS
    assert throttle.admit(WRITE, 10**9, 0) == 0
    assert throttle.admit(WRITE, 0, 0) == 100 * NS_PER_MS
    assert throttle.admit(READ, 50, 50 * NS_PER_MS) == 50 * NS_PER_MS


def test_the_total_counts_both_and_a_refusal_costs_nothing() -> None:
    throttle = Throttle(DiskLimits(total_iops=Rate(10, 1), write_bytes=Rate(1000, 100)))
    assert throttle.ordered
    assert throttle.admit(WRITE, 100, 0) == 0
    assert throttle.admit(READ, 1, 0) == 100 * NS_PER_MS
    for _ in range(5):  # the total has it, the direction has not
        assert throttle.admit(WRITE, 101, 50 * NS_PER_MS) == 100 * NS_PER_MS
    assert throttle.admit(READ, 1, 100 * NS_PER_MS) == 100 * NS_PER_MS


def test_a_request_larger_than_the_burst_goes_into_debt() -> None:
    throttle = Throttle(NicLimits(out_bytes=Rate(1000, 100)))
    assert throttle.admit(OUT, 1, 0) == 0
    assert throttle.admit(OUT, 1100, 0) == NS_PER_MS
    assert throttle.admit(OUT, 1100, NS_PER_MS) == NS_PER_MS
    assert throttle.admit(OUT, 1, NS_PER_MS) == NS_PER_MS + 1001 * NS_PER_MS
    assert throttle.admit(IN, 10**6, 0) == 0


def test_a_single_burst() -> None:
    throttle = Throttle(DiskLimits(read_bytes=Rate(1000, 100, 900)))
    assert [throttle.admit(READ, 500, 0) for _ in range(2)] == [0, 0]
    assert throttle.admit(READ, 100, 0) == 100 * NS_PER_MS


def test_limits_change_and_tokens_stay() -> None:
    throttle, heard = Throttle(DiskLimits()), []
    throttle.on_change.append(lambda: heard.append(throttle.active))
    assert not throttle.active
    assert throttle.admit(READ, 1 << 40, 0) == 0
    throttle.change(DiskLimits(read_bytes=Rate(1000, 100)), 0)
    throttle.admit(READ, 80, 0)
    throttle.change(DiskLimits(read_bytes=Rate(10, 100), read_iops=Rate(5, 5)), 0)
    assert throttle.admit(READ, 20, 0) == 0  # not a new burst
    assert throttle.admit(READ, 1, 0) == 100 * NS_PER_MS
    throttle.change(DiskLimits(), 0)
    assert throttle.admit(READ, 1 << 40, 0) == 0
    assert heard == [True, True, False]


def test_the_tokens_are_saved() -> None:
    limits = DiskLimits(read_bytes=Rate(1000, 100, 50), write_iops=Rate(1))
    throttle = Throttle(limits)
    throttle.admit(READ, 130, 0)
    state = throttle.save(0)
    assert state == {"read_bytes": 20 * NS_PER_S, "write_iops": NS_PER_S}
    again = Throttle(limits)
    again.load(state, "disk", 7 * NS_PER_S)
    assert again.save(7 * NS_PER_S) == state
    again.admit(READ, 20, 9 * NS_PER_S)
    again.load(state, "disk", 1)
    assert again.save(1) == state, "the clock has gone back"
    assert again.admit(READ, 25, 1) == 1 + 5 * NS_PER_MS
    smaller = Throttle(DiskLimits(read_bytes=Rate(1000, 10), read_iops=Rate(20, 2)))
    smaller.load(state, "disk", 0)
    assert smaller.save(0) == {"read_bytes": 10 * NS_PER_S, "read_iops": 2 * NS_PER_S}
    with pytest.raises(SnapshotError) as error:
        again.load({"read_bytes": "many"}, "disk", 0)
    assert str(error.value) == (
        "disk: saved limit 'read_bytes' is 'many'; expected an integer from -1125899906842624000000000 to "
        "2251799813685248000000000"
    )


class FixedShare:
    def __init__(self, *delays: int) -> None:
        self.delays = list(delays)

    def delay_ns(self, size: int) -> int:
        return self.delays.pop(0)


def test_a_share_is_asked_when_the_disk_itself_has_tokens() -> None:
    throttle = Throttle(DiskLimits(read_iops=Rate(10, 1)))
    heard: list[bool] = []
    throttle.on_change.append(lambda: heard.append(throttle.ordered))
    throttle.share = FixedShare(5, 0)
    assert throttle.admit(READ, 1, 0) == 5
    assert throttle.admit(READ, 1, 5) == 5
    assert throttle.admit(READ, 1, 6) == 100 * NS_PER_MS + 5
    assert throttle.share.delays == []
    throttle.change(DiskLimits(), 6)
    assert throttle.active
    throttle.share = None
    assert not throttle.active
    assert heard == [True, True, False]


RATES = st.builds(Rate, st.integers(100, 10**8), st.one_of(st.none(), st.integers(1, 10**7)), st.just(0))
LIMITS = st.builds(DiskLimits, **{f.name: st.one_of(st.none(), RATES) for f in fields(DiskLimits)})


@given(
    LIMITS,
    st.lists(
        st.tuples(st.integers(0, 10**8), st.sampled_from((READ, WRITE)), st.integers(0, 10**5)),
        min_size=10,
        max_size=60,
    ),
)
def test_no_pattern_gets_more_than_its_limits(
    limits: DiskLimits, pattern: list[tuple[int, int, int]]
) -> None:
    throttle = Throttle(limits)
    now, spent = 0, dict.fromkeys((f.name for f in fields(limits)), 0)
    largest = max(size for _, _, size in pattern)
    for pause, direction, size in pattern:
        now += pause
        while (until := throttle.admit(direction, size, now)) > now:
            now = until
        for name in spent:
            which, _, unit = name.partition("_")
            if which in (("read", "write")[direction], "total"):
                spent[name] += size if unit == "bytes" else 1
        for name, total in spent.items():
            rate = getattr(limits, name)
            if rate is not None:
                most = max(rate.capacity, largest if name.endswith("bytes") else 1)
                assert total * NS_PER_S <= (rate.capacity + most) * NS_PER_S + rate.per_second * now


# ---- shares ----


class Users:
    """Guests that ask a backend again and again, each when it was told to."""

    def __init__(self, rate: Rate | None = None, operations: Rate | None = None) -> None:
        self.now = 0
        self.backend = FairShare(rate, operations, clock=lambda: self.now)
        self.flows: dict[str, Flow] = {}
        self.sizes: dict[str, int] = {}
        self.at: dict[str, int] = {}
        self.got: dict[str, int] = {}
        self.requests: dict[str, int] = {}

    def add(self, name: str, shares: int, size: int, at: int = 0) -> None:
        self.flows[name] = self.backend.join(shares)
        self.sizes[name], self.at[name], self.got[name], self.requests[name] = size, at, 0, 0

    def run(self, until: int) -> None:
        while min(self.at.values()) < until:
            name = min(self.at, key=self.at.__getitem__)
            self.now = self.at[name]
            delay = self.flows[name].delay_ns(self.sizes[name])
            if delay:
                self.at[name] = self.now + delay
            else:
                self.got[name] += self.sizes[name]
                self.requests[name] += 1
        self.now = until


def near(value: float, wanted: float, part: float = 0.02) -> bool:
    return abs(value - wanted) <= wanted * part


def test_a_backend_is_divided_by_weight() -> None:
    users = Users(Rate(7 * MIB, 64 * KIB))
    for name, shares in (("a", 100), ("b", 200), ("c", 400)):
        users.add(name, shares, 4 * KIB)
    users.run(10 * NS_PER_S)
    for name, due in (("a", 1), ("b", 2), ("c", 4)):
        assert near(users.got[name], 10 * due * MIB), users.got


def test_requests_of_different_sizes_count_by_their_size() -> None:
    users = Users(Rate(MIB, 64 * KIB))
    users.add("small", 1, 512)
    users.add("large", 1, 100 * KIB)  # more than the burst
    users.run(20 * NS_PER_S)
    assert near(users.got["small"], 10 * MIB), users.got
    assert near(users.got["large"], 10 * MIB), users.got


def test_operations_are_divided_too() -> None:
    users = Users(Rate(100 * MIB), Rate(1000, 10))
    users.add("small", 1, 512)
    users.add("large", 3, 8 * KIB)
    users.run(4 * NS_PER_S)
    assert near(users.requests["small"], 1000), users.requests
    assert near(users.requests["large"], 3000), users.requests


def test_who_is_away_leaves_its_share_to_the_others_and_saves_nothing_up() -> None:
    users = Users(Rate(MIB, 16 * KIB))
    users.add("here", 1, 4 * KIB)
    users.add("away", 99, 4 * KIB, at=5 * NS_PER_S)
    users.run(5 * NS_PER_S)
    assert near(users.got["here"], 5 * MIB)
    users.run(10 * NS_PER_S)
    assert near(users.got["away"], 5 * MIB * 99 / 100), users.got
    assert near(users.got["here"], 5 * MIB * 101 / 100), users.got


def test_a_paused_guest_holds_nobody_up() -> None:
    users = Users(Rate(MIB, 16 * KIB))
    users.add("paused", 1, 16 * KIB)
    users.add("here", 1, 16 * KIB)
    users.run(NS_PER_S // 4)
    users.at["paused"] = 1 << 62
    before = users.got["here"]
    users.run(NS_PER_S * 5 // 4)
    assert near(users.got["here"] - before, MIB, 0.04)
    users.at["paused"] = users.now  # its request was granted long ago
    before = users.got["paused"]
    users.run(users.now + 1)
    assert users.got["paused"] - before == 16 * KIB


def test_a_request_that_was_given_up_does_not_pay_for_a_larger_one() -> None:
    users = Users(Rate(KIB, 1))
    first, second = users.backend.join(), users.backend.join()
    assert first.delay_ns(KIB) == 0
    assert second.delay_ns(512) == NS_PER_S
    users.now = 10 * NS_PER_S
    assert first.delay_ns(2 * KIB) == 0  # this grants the second one its own, too
    assert second.granted == 512
    assert second.delay_ns(1024) > 0
    users.now = 100 * NS_PER_S
    assert second.delay_ns(1024) == 0


def test_a_request_of_a_terabyte_holds_up_nobody_but_its_guest() -> None:
    """Its size is what the guest says; that it is larger than the disk is found out when it is done."""
    users = Users(Rate(MIB, 64 * KIB), Rate(1000, 10))
    users.add("honest", 1, 16 * KIB)
    users.add("hostile", 1, 1 << 40)
    users.run(20 * NS_PER_S)
    assert users.got["hostile"] == 0
    assert near(users.got["honest"], 10 * MIB, 0.15), users.got
    users.at["hostile"] = 1 << 62  # gone
    before = users.got["honest"]
    users.run(40 * NS_PER_S)
    assert near(users.got["honest"] - before, 20 * MIB, 0.06), "but for the part that was asked for"


def test_a_request_in_parts_is_one_operation() -> None:
    users = Users(Rate(64 * MIB, MIB), Rate(1, 1))
    flow = users.backend.join()
    delays = [flow.delay_ns(3 * MIB)]
    while delays[-1]:
        users.now += delays[-1]
        delays.append(flow.delay_ns(3 * MIB))
    assert len(delays) == 4  # the second and the third part wait, each for the time that a full bucket takes
    assert users.now == 2 * NS_PER_S // 64
    assert flow.delay_ns(0) == NS_PER_S - users.now, "the next one is another"


def test_a_request_in_parts_that_was_given_up() -> None:
    users = Users(Rate(MIB, MIB))
    flow = users.backend.join()
    assert flow.delay_ns(4 * MIB) == 1
    users.now = 1
    assert flow.delay_ns(4 * MIB) > 1
    assert flow.delay_ns(16 * KIB) == 0, "by what was paid already"
    assert flow.waiting is None
    assert flow.delay_ns(16 * KIB) > 0


def test_weights_change_and_users_leave() -> None:
    users = Users(Rate(MIB, 16 * KIB))
    users.add("a", 1, 4 * KIB)
    users.add("b", 1, 4 * KIB)
    users.run(NS_PER_S)
    users.backend.set_shares(users.flows["a"], 3)
    before = dict(users.got)
    users.run(5 * NS_PER_S)
    assert near(users.got["a"] - before["a"], 3 * MIB), users.got
    users.backend.leave(users.flows["a"])  # while its request waits
    del users.at["a"]
    before = dict(users.got)
    users.run(6 * NS_PER_S)
    assert near(users.got["b"] - before["b"], MIB), users.got
    for shares in (0, MAX_SHARES + 1):
        with pytest.raises(UsageError) as error:
            users.backend.join(shares)
        assert str(error.value) == f"{shares} shares of a backend; 1 to 1000000 are allowed"


def test_a_backend_without_limits() -> None:
    backend = FairShare()
    assert not backend.limited
    assert backend.join().delay_ns(1 << 40) == 0
    backend.change(operations=Rate(1, 1))
    assert backend.limited


@given(
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    sizes=st.lists(st.integers(1, 16 * KIB), min_size=5, max_size=5),
)
def test_any_mix_is_divided_to_within_two_requests(weights: list[int], sizes: list[int]) -> None:
    users = Users(Rate(MIB, 16 * KIB))
    for number, weight in enumerate(weights):
        users.add(str(number), weight, max(KIB, sizes[number]))
    users.run(NS_PER_S // 2)
    burst = 16 * KIB
    total = sum(users.got.values())
    assert total <= MIB // 2 + burst + max(sizes)
    # Work conserving: everything was used, but for what those who wait have been granted and not fetched.
    assert total >= MIB // 2 - len(weights) * 16 * KIB
    normalized = [got / weight for got, weight in zip(users.got.values(), weights, strict=True)]
    bound = 2 * max(size / weight for size, weight in zip(users.sizes.values(), weights, strict=True))
    # The first requests found a full bucket, and went as they came.
    assert max(normalized) - min(normalized) <= 2 * bound + 2 * burst
