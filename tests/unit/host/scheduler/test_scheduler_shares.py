"""What guests get, by the simulator, against what they are due, by the solver."""

from functools import partial
from random import Random

import pytest
from fair_shares import fair_shares
from hypothesis import given, settings
from hypothesis import strategies as st
from reservation_runs import ROUNDING_NS, beyond_a_period_ns
from simulator import MS, US, Busy, Halted, S, Simulator, Sleeper, Thief

from emuvisor.errors import AdmissionError
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.policies import POLICIES, make_policy


def simulate(
    claims: dict[str, CpuClaim], pcpus: int, policy: str = "proportional", warm_up_ns: int = 0
) -> dict[str, float]:
    """Parts of a pCPU that busy guests get in a second."""
    simulator = Simulator(pcpus, make_policy(policy, pcpus))
    for name, claim in claims.items():
        simulator.add(name, Busy(), claim)
    simulator.run(warm_up_ns)
    before = {name: simulator.so_far(name) for name in claims}
    simulator.run(warm_up_ns + S)
    return {name: (simulator.so_far(name) - before[name]) / S for name in claims}


def assert_due(claims: dict[str, CpuClaim], pcpus: int, warm_up_ns: int = 0) -> None:
    due = fair_shares(claims, pcpus)
    got = simulate(claims, pcpus, warm_up_ns=warm_up_ns)
    wrong = {
        name: (due[name], got[name])
        for name, claim in claims.items()
        if abs(due[name] - got[name]) > max(0.01, claim.latency_us / 1_000_000)
    }
    assert not wrong


def test_the_solver() -> None:
    free = CpuClaim()
    assert fair_shares({"a": free, "b": free, "c": free}, 2) == pytest.approx(dict.fromkeys("abc", 2 / 3))
    bound = CpuClaim(affinity=frozenset({0}))
    assert fair_shares({"a": bound, "b": bound, "c": free}, 2) == pytest.approx({"a": 0.5, "b": 0.5, "c": 1})
    assert fair_shares({"a": CpuClaim(cap=10), "b": free, "c": CpuClaim(weight=300)}, 1) == pytest.approx(
        {"a": 0.1, "b": 0.225, "c": 0.675}
    )
    assert fair_shares({"a": CpuClaim(weight=1, reservation=40), "b": free, "c": free}, 1) == pytest.approx(
        {"a": 0.4, "b": 0.3, "c": 0.3}
    )


@pytest.mark.parametrize("pcpus", [1, 2, 3])
def test_weights_1_2_4(pcpus: int) -> None:
    claims = {f"{w}-{n}": CpuClaim(weight=100 * w) for w in (1, 2, 4) for n in range(pcpus)}
    assert_due(claims, pcpus)


@pytest.mark.parametrize("pcpus", [1, 2])
def test_caps_of_10_25_and_50_percent(pcpus: int) -> None:
    claims = {f"{cap} %": CpuClaim(cap=cap, weight=1000) for cap in (10, 25, 50)}
    got = simulate(claims, pcpus)  # however idle the host is
    assert got == pytest.approx({"10 %": 0.1, "25 %": 0.25, "50 %": 0.5}, abs=0.01)
    assert all(got[f"{cap} %"] <= cap / 100 for cap in (10, 25, 50))
    assert_due(claims | {"free": CpuClaim()}, 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_caps_and_reservations_hold_under_every_policy(policy: str) -> None:
    claims = {f"busy{n}": CpuClaim() for n in range(8)}
    claims |= {"capped": CpuClaim(cap=5, weight=10_000), "reserved": CpuClaim(reservation=40, weight=1)}
    got = simulate(claims, 1, policy)
    assert got["capped"] <= 0.051
    assert got["reserved"] == pytest.approx(0.4, abs=0.01)


def random_claims(seed: int) -> tuple[dict[str, CpuClaim], int]:
    random = Random(seed)
    pcpus, guests = random.choice([1, 2, 3, 4]), random.choice([3, 5, 8, 12, 20, 50])
    capped = seed % 2 == 0
    claims = {}
    for number in range(guests):
        cap = random.choice([10, 25, 50]) if capped and random.random() < 0.3 else None
        reservation = random.choice([0, 0, 0, 5, 10, 20]) * min(1, 10 / guests)
        affinity = frozenset(random.sample(range(pcpus), random.randint(1, pcpus)))
        claims[f"g{number}"] = CpuClaim(
            weight=random.choice([50, 100, 200, 400]),
            cap=cap,
            reservation=min(reservation, cap or 100),
            affinity=affinity if random.random() < 0.3 else None,
            latency_us=random.choice([1_000, 5_000, 10_000]),
        )
    return claims, pcpus


@pytest.mark.parametrize("seed", range(12))
def test_random_mixes(seed: int) -> None:
    claims, pcpus = random_claims(seed)
    assert_due(claims, pcpus, warm_up_ns=S)


def test_thousands() -> None:
    random = Random(1)
    claims = {f"g{n}": CpuClaim(weight=random.choice([100, 200, 400])) for n in range(2000)}
    assert_due(claims, 4)


def test_one_that_is_worth_more_than_a_pcpu_has_one() -> None:
    assert_due({"heavy": CpuClaim(weight=10_000), "a": CpuClaim(weight=100), "b": CpuClaim(weight=200)}, 2)


def test_who_is_bound_to_a_crowded_pcpu_does_not_make_up_for_it_later() -> None:
    simulator = Simulator(2, make_policy("proportional", 2))
    bound = CpuClaim(affinity=frozenset({0}))
    simulator.add("a", Busy(), bound)
    simulator.add("b", Busy(), bound)
    simulator.add("c", Busy())
    simulator.run(10 * S)
    assert simulator.so_far("c") == pytest.approx(10 * S, abs=10 * MS)
    for name in "defg":
        simulator.add(name, Busy())
    simulator.run(12 * S)
    before = {name: simulator.so_far(name) for name in "abcdefg"}
    simulator.run(13 * S)
    got = {name: (simulator.so_far(name) - before[name]) / S for name in "abcdefg"}
    assert got == pytest.approx(dict.fromkeys("abcdefg", 2 / 7), abs=0.01)


def test_who_was_alone_on_its_pcpu_does_not_hold_others_up() -> None:
    simulator = Simulator(2, make_policy("proportional", 2))
    simulator.add("a", Busy())
    simulator.add("light", Busy(), CpuClaim(weight=1))
    simulator.run(10 * S)  # the light one's virtual time is a thousand seconds
    simulator.halt("light")
    simulator.add("b", Busy())
    simulator.add("c", Busy())
    simulator.run(11 * S)
    assert simulator.so_far("b") / S == pytest.approx(2 / 3, abs=0.06)
    assert simulator.so_far("c") / S == pytest.approx(2 / 3, abs=0.06)


def test_claims_change_while_guests_run() -> None:
    simulator = Simulator(1, make_policy("proportional", 1))
    simulator.add("a", Busy())
    simulator.add("b", Busy())
    simulator.run(S)
    simulator.change("a", CpuClaim(weight=300))
    before = simulator.so_far("a")
    simulator.run(2 * S)
    assert simulator.so_far("a") - before == pytest.approx(0.75 * S, abs=10 * MS)
    simulator.change("a", CpuClaim(cap=10))
    before = simulator.so_far("a")
    simulator.run(3 * S)
    assert simulator.so_far("a") - before == pytest.approx(0.1 * S, abs=10 * MS)


@pytest.mark.parametrize("policy", POLICIES)
def test_who_sleeps_before_each_tick_steals_nothing(policy: str) -> None:
    simulator = Simulator(1, make_policy(policy, 1))
    simulator.add("thief", Thief())
    for number in range(4):
        simulator.add(f"honest{number}", Busy())
    simulator.run(5 * S)
    assert simulator.ticks["thief"] == 0, "an accounting by samples never sees it"
    assert simulator.so_far("thief") <= 5 * S * 0.21
    assert min(simulator.so_far(f"honest{n}") for n in range(4)) >= 5 * S * 0.18


@pytest.mark.parametrize("pcpus", [1, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_who_sleeps_often_steals_nothing(policy: str, pcpus: int) -> None:
    """Out of step with the others' turns. If credit handed out the time of pCPUs that they may not use, too, neither
    would ever be without credits, and who sleeps always in BOOST."""
    simulator = Simulator(pcpus, make_policy(policy, pcpus))
    here = CpuClaim(affinity=frozenset({0}))
    simulator.add("thief", Thief(7 * MS), here)
    simulator.add("honest", Busy(), here)
    simulator.run(5 * S)
    assert 0.25 * 5 * S <= simulator.so_far("thief") <= 0.505 * 5 * S


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_schedule(policy: str) -> None:
    def schedule(pcpus: int) -> list[object]:
        seen: list[object] = []
        simulator = Simulator(
            pcpus, make_policy(policy, pcpus), lambda now, _, done: seen.extend((now, each) for each in done)
        )
        random = Random(3)
        for number in range(10):
            pause, burst = random.randint(1, 20) * MS, random.randint(1, 8) * MS
            sleeper = Sleeper(partial(random.randint, 1, pause), partial(random.randint, 1, burst))
            simulator.add(f"g{number}", sleeper, CpuClaim(cap=random.choice([None, 20])))
        simulator.run(S)
        return seen

    for pcpus in (1, 4):
        first = schedule(pcpus)
        assert len(first) > 200
        assert first == schedule(pcpus)


def test_wake_up_latency_beside_busy_guests() -> None:
    simulator = Simulator(2, make_policy("proportional", 2))
    for number in range(20):
        simulator.add(f"busy{number}", Busy())
    random = Random(2)
    sleeper = Sleeper(lambda: random.randint(1 * MS, 20 * MS), lambda: 100 * US)
    simulator.add("quick", sleeper, CpuClaim(latency_us=500))
    simulator.run(5 * S)
    latencies = sorted(simulator.latencies_ns["quick"])
    assert len(latencies) > 300
    assert latencies[len(latencies) * 99 // 100] <= 100 * US


def bound_ns(name: str, claims: dict[str, CpuClaim], pcpus: int) -> float:
    """docs/scheduling.md, 'How long a guest waits'."""
    usual, own = 5 * MS, claims[name]
    total = 0.0
    for guest, claim in claims.items():
        if guest != name:
            turn = claim.latency_us * US
            total += claim.weight / own.weight * (2 * own.latency_us * US + usual) + 2 * turn + usual
    return total / pcpus


@pytest.mark.parametrize("seed", range(6))
def test_nobody_waits_longer_than_the_bound(seed: int) -> None:
    random = Random(seed)
    pcpus = random.choice([1, 2, 4])
    simulator = Simulator(pcpus, make_policy("proportional", pcpus))
    claims = {}
    for number in range(20):
        claims[f"g{number}"] = CpuClaim(
            weight=random.choice([50, 100, 400]), latency_us=random.choice([500, 5_000, 20_000])
        )
        behaviour = Busy() if number % 2 else Sleeper(lambda: random.randint(1, 9 * MS), lambda: 2 * MS)
        simulator.add(f"g{number}", behaviour, claims[f"g{number}"])
    simulator.run(2 * S)
    for name in claims:
        assert 0 < simulator.longest_wait_ns[name] <= bound_ns(name, claims, pcpus)


def lasting_bound_ns(name: str, claims: dict[str, CpuClaim], pcpus: int) -> float:
    """docs/scheduling.md, 'How long a guest waits', with affinities, caps and reservations."""
    own = claims[name]
    if own.reservation:
        return max(own.period_us * US, 20 * MS / own.reservation)
    allowed = own.affinity or frozenset(range(pcpus))
    free = len(allowed) - min(len(allowed) - 0.01, sum(claim.reservation for claim in claims.values()) / 100)
    lag = 50 * MS
    total = 0.0
    for guest, claim in claims.items():
        if guest != name:
            turn = claim.latency_us * US
            total += (
                claim.weight / own.weight * (4 * own.latency_us * US + 5 * MS + lag) + 4 * turn + 5 * MS + lag
            )
    return total / free


@pytest.mark.parametrize("seed", range(10))
def test_nobody_waits_longer_than_the_bound_for_claims_of_all_kinds(seed: int) -> None:
    claims, pcpus = random_claims(seed)
    random = Random(seed)
    simulator = Simulator(pcpus, make_policy("proportional", pcpus))
    for number, (name, claim) in enumerate(claims.items()):
        sleeper = Sleeper(lambda: random.randint(1, 9 * MS), lambda: 2 * MS)
        simulator.add(name, sleeper if number % 3 == 0 else Busy(), claim)
    simulator.run(S)
    for name in claims:
        assert simulator.longest_wait_ns[name] <= lasting_bound_ns(name, claims, pcpus)


INTERRUPTED = [("round-robin", 3570605963, 3), ("credit", 3535316235, 1)]
"""Guests there are interrupted again and again with less than a slice left of a budget that they waited for."""


@pytest.mark.parametrize(("policy", "seed", "others"), INTERRUPTED)
def test_interruptions_do_not_put_reserved_time_off(policy: str, seed: int, others: int) -> None:
    assert beyond_a_period_ns(policy, seed, others) < 0


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 32), others=st.integers(0, 4))
def test_reserved_time_is_never_behind_by_more_than_a_period(policy: str, seed: int, others: int) -> None:
    assert beyond_a_period_ns(policy, seed, others) < ROUNDING_NS


def test_a_thousand_sleeping_guests_cost_nothing() -> None:
    def events(sleeping: int) -> int:
        simulator = Simulator(1, make_policy("proportional", 1))
        simulator.add("busy", Busy())
        for number in range(sleeping):
            simulator.add(f"halted{number}", Halted())
        simulator.run(S)
        return simulator.events - sleeping

    assert events(1000) == events(0)


def test_refused_reservations_do_not_hurt_the_others() -> None:
    simulator = Simulator(1, make_policy("proportional", 1))
    simulator.add("a", Busy(), CpuClaim(reservation=70))
    simulator.add("b", Busy())
    with pytest.raises(AdmissionError):
        simulator.change("b", CpuClaim(reservation=40))
    simulator.run(S)
    assert simulator.so_far("a") == pytest.approx(0.7 * S, abs=10 * MS)
    assert simulator.so_far("b") == pytest.approx(0.3 * S, abs=10 * MS)
