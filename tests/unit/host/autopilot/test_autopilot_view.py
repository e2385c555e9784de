"""One period of a host, scores, and who is due what."""

from dataclasses import replace
from typing import Any

import pytest
from autopilot_guests import PERCENT, guest, memory, view
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.cpu_rules import entitlements
from emuvisor.host.autopilot.entitlement import Due, divide
from emuvisor.host.autopilot.moves import Knob, Target
from emuvisor.host.autopilot.score import fairness, score, throughput, wants
from emuvisor.host.autopilot.view import GuestCounters, HostCounters, RateCounter, between, value_of
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.units import MIB, NS_PER_S, PAGE_SIZE

RATES = (
    RateCounter(Knob.DISK_LIMIT, 0, "read_bytes", "disk", Rate(MIB), 100, 10 * PERCENT),
    RateCounter(Knob.DISK_LIMIT, 0, "read_iops", "disk", Rate(10), 1, 10 * PERCENT),
    RateCounter(Knob.NIC_LIMIT, 0, "out_bytes", "net", Rate(MIB), 5, 0),
)
BEFORE = GuestCounters("a", 100, 200, 300, 40, CpuClaim(), memory(), RATES)


def after(**fields: Any) -> GuestCounters:
    return replace(BEFORE, **fields)


def test_a_view_is_the_difference_of_two_looks() -> None:
    rates = tuple(
        replace(rate, done=rate.done + 50, waited_ns=rate.waited_ns + more * PERCENT)
        for rate, more in zip(RATES, (20, 20, 5), strict=True)
    )
    now = after(used_ns=1100, ready_ns=1300, throttled_ns=2300, fault_ns=240, rates=rates)
    found = between(HostCounters(5, 2, (BEFORE,)), HostCounters(5 + NS_PER_S // 2, 2, (now,)))
    assert found is not None
    (one,) = found.guests
    assert (found.period_ns, found.pcpus, found.capacity_ns) == (NS_PER_S // 2, 2, NS_PER_S)
    assert (one.used_ns, one.ready_ns, one.throttled_ns, one.fault_ns) == (1000, 1100, 2000, 200)
    assert one.io_ns == 25 * PERCENT  # the disk's two limits have one time
    assert [rate.used for rate in one.rates] == [100, 100, 100]
    assert (one.useful_ns, one.lost_ns) == (800, 1100 + 2000 + 200 + one.io_ns)
    assert found.guest("a") is one
    assert found.guest("b") is None
    assert value_of(one, Target("a", Knob.DISK_LIMIT, 0, "read_iops")) == Rate(10)
    assert value_of(one, Target("a", Knob.DISK_LIMIT, 1, "read_iops")) is None


def test_what_a_look_cannot_say() -> None:
    assert between(HostCounters(5, 1, (BEFORE,)), HostCounters(5, 1, (BEFORE,))) is None
    later = HostCounters(5 + NS_PER_S, 1, (after(used_ns=99), replace(BEFORE, name="b")))
    found = between(HostCounters(5, 1, (BEFORE,)), later)
    assert found is not None
    assert found.guests == ()  # another guest with its name, and a new one
    waits = between(
        HostCounters(0, 1, (BEFORE,)),
        HostCounters(1000, 1, (after(ready_ns=99_999, used_ns=500, fault_ns=9_000, rates=(RATES[2],)),)),
    )
    assert waits is not None
    (one,) = waits.guests
    assert (one.ready_ns, one.fault_ns, one.useful_ns) == (1000, 400, 0)
    new = replace(BEFORE, rates=())
    found = between(HostCounters(0, 1, (new,)), HostCounters(1000, 1, (BEFORE,)))
    assert found is not None
    assert [(rate.used, rate.waited_ns) for rate in found.guests[0].rates] == [(0, 0)] * 3


def test_faults_cost_by_where_pages_were() -> None:
    assert GuestCounters.fault_cost_ns(2 * PAGE_SIZE, 3 * PAGE_SIZE + 1) == 2 * 8_000 + 3 * 12_000


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, 100),
        ({"used": 50}, 100),
        ({"used": 50, "ready": 50}, 50),
        ({"used": 20, "throttled": 60}, 25),
        ({"used": 40, "faults": 10}, 75),
        ({"used": 10, "io": 30}, 25),
        ({"ready": 80}, 0),
        ({"used": 30, "ready": 10, "throttled": 10, "faults": 10, "io": 10}, 100 * 20 / 60),
    ],
)
def test_scores(times: dict[str, Any], expected: float) -> None:
    assert score(guest(**times)) == pytest.approx(expected)


def test_who_wants_nothing_does_not_count() -> None:
    host = view(guest("a", used=0.5), guest("b", used=25, ready=75))
    assert [wants(host, one) for one in host.guests] == [False, True]
    assert fairness(host) == 25
    assert fairness(view(guest("a"))) == 100
    assert fairness(view(guest("a", ready=50), guest("b", used=50))) == 0


def test_throughput_is_of_what_was_possible() -> None:
    assert throughput(view(guest("a"))) == 100
    assert throughput(view(guest("a", used=20, throttled=20))) == 50
    both = guest("a", used=50, ready=50), guest("b", used=50, ready=50)
    assert throughput(view(*both)) == 100  # there is but one pCPU
    assert throughput(view(*both, pcpus=2)) == 50
    assert throughput(view(guest("a", used=100, faults=40))) == 60


def test_entitlements_know_weights_demands_and_reservations() -> None:
    host = view(
        guest("a", used=30, ready=70, weight=300),
        guest("b", used=10, ready=90),
        guest("c", used=10),
        guest("d", used=20, ready=80, reservation=30),
        pcpus=1,
    )
    due = {name: ns / PERCENT for name, ns in entitlements(host).items()}
    assert due == pytest.approx({"a": 45, "b": 15, "c": 10, "d": 30})


parts = st.builds(Due, st.floats(0.1, 100), st.floats(0, 1000), st.sampled_from([0.0, 0.0, 5.0]))


@settings(deadline=None)
@given(st.floats(50, 2000), st.lists(parts, min_size=1, max_size=8))
def test_a_division_is_max_min_fair(total: float, dues: list[Due]) -> None:
    shares = divide(total, dues)
    assert sum(shares) <= max(total, sum(due.floor for due in dues)) + 1e-6
    for share, due in zip(shares, dues, strict=True):
        assert due.floor <= share <= max(due.floor, due.demand)
    hungry = [(share, due) for share, due in zip(shares, dues, strict=True) if share < due.demand - 1e-3]
    if hungry:
        assert sum(shares) == pytest.approx(total, rel=1e-6)
        level = (
            max(share / due.weight for share, due in hungry if share > due.floor)
            if any(share > due.floor for share, due in hungry)
            else 0
        )
        for share, due in hungry:  # nobody who wants more is below the water, or above it but for its floor
            assert share == pytest.approx(max(due.floor, level * due.weight), rel=1e-6)
