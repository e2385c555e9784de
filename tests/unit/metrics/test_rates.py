"""From two samples to rates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_samples import DISK, EXITS, NIC, guest, host

from emuvisor.metrics import CpuTimes, GuestRates, rates
from emuvisor.metrics.rates import CpuRates, DiskRates, NetworkRates

NS = 10_000_000
"""A percent of a second."""
NONE = {"p99_ns": 0}


def one(before: dict[str, Any], after: dict[str, Any], seconds: float = 1) -> GuestRates:
    return rates(host(guest(**before)), host(guest(**after), seconds=seconds)).guests[0]


def test_percent_of_a_pcpu() -> None:
    result = one({"cpu_ns": 5 * NS, "waited_ns": 0}, {"cpu_ns": 65 * NS, "waited_ns": 30 * NS}, 2)
    assert result.cpu == CpuRates(used=30, ready=15)


def test_times_that_end_late_are_not_more_than_there_is() -> None:
    assert one({}, {"cpu_ns": 107 * NS, "waited_ns": 300 * NS}).cpu == CpuRates(used=100, ready=100)


def test_throttled_and_stolen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([CpuTimes(0, 0, 0, 0), CpuTimes(0, 0, 20 * NS, 30 * NS)])
    monkeypatch.setattr(CpuTimes, "of", lambda _statistics: next(times))
    assert one({}, {}).cpu == CpuRates(throttled=20, stolen=30)


def test_events_and_bytes_per_second() -> None:
    result = one(
        {
            "retired": 1000,
            "exits": {"halt": 5, "port_read": 1, "syscall": 7},
            "disks": [DISK | {"reads": 1}],
            "nics": [NIC],
        },
        {
            "retired": 2000,
            "exits": {"halt": 15, "port_read": 2, "syscall": 9},
            "disks": [DISK | {"reads": 3, "read_bytes": 4096}, DISK | {"reads": 1, "writes": 4, "written_bytes": 10}],
            "nics": [NIC | {"sent_frames": 2, "sent_bytes": 120, "received_frames": 1, "received_bytes": 60}],
            "slices": 3,
        },
        0.5,
    )  # fmt: skip
    assert result.code == 2000
    assert result.exits == dict.fromkeys(EXITS, 0) | {"halt": 20, "port_read": 2, "syscall": 4}
    assert result.vm_exits == 22
    assert result.disk == DiskRates(reads=6, writes=8, read_bytes=8192, written_bytes=20)
    assert result.network == NetworkRates(
        received_frames=2, sent_frames=4, received_bytes=120, sent_bytes=240
    )


def test_without_a_sample_before_there_are_no_rates() -> None:
    result = rates(None, host(guest(cpu_ns=50 * NS, retired=5)))
    assert result.seconds == 0
    assert (result.guests[0].cpu, result.guests[0].code) == (CpuRates(), 0)
    same = host(guest(cpu_ns=50 * NS))
    assert rates(same, same).guests[0].cpu == CpuRates()


def test_a_guest_that_is_new_began_at_0() -> None:
    assert rates(host(), host(guest(cpu_ns=50 * NS), seconds=1)).guests[0].cpu.used == 50


@pytest.mark.parametrize("counter", ["retired", "slices"])
def test_another_guest_of_the_same_name_began_at_0(counter: str) -> None:
    result = one({counter: 9, "cpu_ns": 40 * NS}, {counter: 3, "cpu_ns": 50 * NS})
    assert result.cpu.used == 50


def test_the_host_sums_its_guests_up() -> None:
    before = host(guest("a"), guest("b"))
    after = host(guest("a", cpu_ns=100 * NS), guest("b", cpu_ns=60 * NS, waited_ns=40 * NS), seconds=1)
    result = rates(before, after)
    assert (result.cpu, result.used, result.time) == (CpuRates(used=160, ready=40), 80, 1767225601)
    assert rates(host(pcpus=1), host(*after.guests, seconds=1, pcpus=1)).used == 100


def test_the_score_is_the_part_of_time_that_was_of_use() -> None:
    def waited(ms: int) -> list[dict[str, Any]]:
        return [DISK | {"latency": {"throttled": {"total_ns": ms * NS}, "read": NONE, "write": NONE}}]

    assert one({}, {}).score == 100
    result = one({"cpu_ns": 9 * NS}, {"cpu_ns": 49 * NS, "waited_ns": 20 * NS, "throttled_ns": 20 * NS})
    assert result.score == pytest.approx(50)
    result = one({"disks": waited(5)}, {"cpu_ns": 40 * NS, "disks": waited(15)})
    assert result.score == pytest.approx(80)
    pages = 20 * NS // 12_000  # of swap, 12 us each
    before = host(guest())
    after = host(guest(cpu_ns=40 * NS, memory={"swapped_in": pages * 4096}), seconds=1)
    assert rates(before, after).guests[0].score == pytest.approx(50, abs=0.1)
    assert rates(None, after).guests[0].score == 100


def test_what_is_no_rate_is_passed_on() -> None:
    result = one({}, {"state": "paused", "reason": "paused", "last_line": "# "})
    assert (result.name, result.state, result.reason, result.last_line) == ("web", "paused", "paused", "# ")
    assert rates(None, host(guest(weight=7, cap=2.5))).guests[0].weight == 7


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(-5, 5))
def test_no_rate_is_negative(first: int, second: int, seconds: float) -> None:
    result = one({"cpu_ns": first, "retired": second}, {"cpu_ns": second, "retired": first}, seconds)
    assert 0 <= result.cpu.used <= 100
    assert result.code >= 0
