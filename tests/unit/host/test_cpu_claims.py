"""Claims to pCPUs: from a configuration, and changed through a guest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.errors import AdmissionError, ConfigError, UsageError
from emuvisor.host import Guest, Host
from emuvisor.host.claims import cpu_claim_of
from emuvisor.host.host import MAX_PCPUS
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.machine.config import LAST_PCPU, FlatConfig, GuestConfig
from emuvisor.machine.config_file import from_mapping
from emuvisor.units import MIB

FLAT = {"flat": {"path": "halt.bin", "address": 0x8000}}
WHOLE = st.integers() | st.integers(0, 20_000) | st.sampled_from([10**400, 1 << 40, (1 << 40) + 1])
PERCENT = st.floats() | st.floats(0, 100) | st.integers(-1, 101) | st.sampled_from([0.01, 0.00999])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "weight": WHOLE,
        "cap": PERCENT,
        "reservation": PERCENT,
        "period_us": WHOLE,
        "limit": WHOLE,
        "latency_us": WHOLE,
    },
)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(memory=64 * MIB, pcpus=2) as host:
        yield host


@pytest.fixture
def guest(host: Host, tmp_path: Path) -> Guest:
    return make(host, tmp_path, "a")


def make(host: Host, folder: Path, name: str, **values: Any) -> Guest:
    (folder / "halt.bin").write_bytes(b"\xf4")
    flat = FlatConfig(folder / "halt.bin", 0x8000)
    return host.create(GuestConfig(name=name, memory=4 * MIB, flat=flat, **values))


def test_the_claim_comes_from_the_configuration() -> None:
    config = from_mapping(
        {
            **FLAT,
            "cpu_weight": 10_000,
            "cpu_cap": 50.5,
            "cpu_reservation": 20,
            "cpu_limit": "1M",
            "cpu_affinity": [1, 0, 1],
            "cpu_period_us": 1_000_000,
            "cpu_latency_us": 100_000,
        },
        "test",
    )
    assert cpu_claim_of(config) == CpuClaim(
        weight=10_000,
        cap=50.5,
        reservation=20,
        limit=MIB,
        affinity=frozenset({0, 1}),
        period_us=1_000_000,
        latency_us=100_000,
    )
    assert cpu_claim_of(from_mapping(FLAT, "test")) == CpuClaim()


@given(VALUES)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_configurations_have_exactly_the_possible_claims(values: dict[str, Any]) -> None:
    """What a file may say is what the scheduler takes; both refuse the rest."""
    try:
        config = from_mapping(FLAT | {f"cpu_{key}": value for key, value in values.items()}, "test")
    except ConfigError:
        with pytest.raises(UsageError):
            CpuClaim(**values)
    else:
        assert cpu_claim_of(config) == CpuClaim(**values)


def test_every_pcpu_that_a_host_may_have_can_be_named() -> None:
    assert LAST_PCPU == MAX_PCPUS - 1


def test_a_claim_is_changed_while_the_guest_is_there(guest: Guest) -> None:
    guest.set_cpu(
        weight=7, cap=40, reservation=10, limit=5 * MIB, affinity=[1], period_us=5000, latency_us=200
    )
    everything = CpuClaim(
        weight=7,
        cap=40,
        reservation=10,
        period_us=5000,
        limit=5 * MIB,
        affinity=frozenset({1}),
        latency_us=200,
    )
    assert guest.cpu_claim == everything
    guest.set_cpu()
    assert guest.cpu_claim == everything
    guest.set_cpu(cap=100, limit=0, affinity=())
    assert guest.cpu_claim == CpuClaim(weight=7, reservation=10, period_us=5000, latency_us=200)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0}, "weight 0 is impossible; it is 1 to 10,000"),
        ({"cap": -1}, "a cap of -1 % of a pCPU is impossible; it is 0.01 to 100"),
        ({"reservation": 101}, "a reservation of 101 % of a pCPU is impossible; it is 0 to 100"),
        ({"reservation": 30, "cap": 20}, "a reservation of 30 % is more than the cap of 20 %"),
        ({"limit": -1}, "a limit of -1 bytes of code a second is impossible; it is 1 to 1099511627776"),
        ({"affinity": [2]}, "guest 'a': an affinity to pCPU 2 is impossible; the host has pCPUs 0 to 1"),
        ({"affinity": "a"}, "an affinity to pCPU 'a' is impossible; it is a number"),
        ({"period_us": 999}, "period_us 999 is impossible; it is 1,000 to 1,000,000"),
        ({"latency_us": 1}, "latency_us 1 is impossible; it is 100 to 100,000"),
    ],
)
def test_impossible_claims_change_nothing(guest: Guest, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        guest.set_cpu(**values)
    assert str(error.value) == message
    assert guest.cpu_claim == CpuClaim()


def test_a_reservation_that_the_host_cannot_promise(host: Host, guest: Guest, tmp_path: Path) -> None:
    make(host, tmp_path, "b", cpu_reservation=60)
    guest.set_cpu(reservation=60)
    with pytest.raises(AdmissionError) as error:
        make(host, tmp_path, "c", cpu_reservation=45)
    assert str(error.value) == (
        "guest 'c': a reservation of 45 % of a pCPU cannot be promised: beside 2 guests with reservations "
        "40 % of pCPU 0, 40 % of pCPU 1 are left"
    )
    assert "c" not in host.guests
    with pytest.raises(AdmissionError):
        make(host, tmp_path, "d").set_cpu(reservation=70)
    assert host.guests["d"].cpu_claim == CpuClaim()


def test_an_unknown_policy() -> None:
    with pytest.raises(UsageError) as error:
        Host(memory=MIB, scheduler="fair")
    assert str(error.value) == (
        "there is no scheduling policy 'fair'; there are: credit, deadline, proportional, round-robin"
    )
