"""The plan: hysteresis, trials, bans, the way back; and what holds whatever guests do."""

from collections.abc import Iterator
from dataclasses import replace

from autopilot_guests import disk, guest, memory, view
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.moves import Knob, Move, Target, Value
from emuvisor.host.autopilot.objective import Objective
from emuvisor.host.autopilot.plan import BAN, PATIENCE, REST, Flight, Plan, plan
from emuvisor.host.autopilot.trial import Need
from emuvisor.host.autopilot.view import GuestView, HostView
from emuvisor.units import MIB, PAGE_SIZE

THROUGHPUT = Objective.parse("throughput")
CAPPED = view(guest("a", used=25, throttled=75, cap=25.0, reservation=0), guest("b", used=5))
HALF = Constraints.parse("a.cap=:50")
CAP = Target("a", Knob.CAP)


def raised(host: HostView, cap: float | None) -> HostView:
    """The same, with another cap of a."""
    a, *others = host.guests
    return replace(host, guests=(replace(a, cpu=replace(a.cpu, cap=cap)), *others))


def after_the_change() -> Flight:
    """When a's cap has just been raised."""
    flight = plan(CAPPED, Flight(), THROUGHPUT, HALF).flight
    planned = plan(CAPPED, flight, THROUGHPUT, HALF)
    assert [(m.target, m.after) for p in planned.proposals for m in p.moves] == [(CAP, 50)]
    return planned.flight


def test_a_need_must_last() -> None:
    first = plan(CAPPED, Flight(), THROUGHPUT, Constraints())
    assert first.proposals == ()
    content = plan(view(guest("a", used=25, cap=25.0)), first.flight, THROUGHPUT, Constraints())
    again = plan(CAPPED, content.flight, THROUGHPUT, Constraints())
    assert again.proposals == ()
    assert len(plan(CAPPED, again.flight, THROUGHPUT, Constraints()).proposals) == 1


def judged(host: HostView, flight: Flight) -> Plan:
    """What comes of it when `host` is what the periods after look like."""
    for _ in range(PATIENCE - 1):
        planned = plan(host, flight, THROUGHPUT, HALF)
        assert (planned.taken_back, planned.proposals) == ((), ())
        flight = planned.flight
    return plan(host, flight, THROUGHPUT, HALF)


def test_what_raises_the_objective_stays() -> None:
    better = view(guest("a", used=50, throttled=50, cap=50.0), guest("b", used=5))
    planned = judged(better, after_the_change())
    assert (planned.taken_back, planned.flight.trials) == ((), ())
    assert (planned.flight.starts, planned.flight.left) == ({CAP: 25.0}, {CAP: 50})


def test_what_lowers_the_objective_is_taken_back_and_not_tried_for_a_while() -> None:
    worse = view(guest("a", used=10, throttled=90, cap=50.0), guest("b", used=5))
    planned = judged(worse, after_the_change())
    (verdict,) = planned.taken_back
    assert verdict.why == "the objective fell from 30 to 15"
    assert verdict.moves == [Move(CAP, 50, 25.0, verdict.why)]
    assert planned.proposals == ()
    flight = planned.flight
    assert (flight.starts, flight.left) == ({}, {})
    for _ in range(BAN - 1):
        planned = plan(CAPPED, flight, THROUGHPUT, HALF)
        assert planned.proposals == ()
        flight = planned.flight
    assert len(plan(CAPPED, flight, THROUGHPUT, HALF).proposals) == 1


def test_what_is_of_no_use_is_taken_back() -> None:
    same = raised(CAPPED, 50.0)
    (verdict,) = judged(same, after_the_change()).taken_back
    assert verdict.why == "the score of a went from 25 to 25"


def test_a_shift_of_the_load_is_not_the_changes_fault() -> None:
    busy = view(
        guest("a", used=40, throttled=60, cap=50.0),
        guest("b", used=30, ready=70),
        guest("c", used=30, ready=70),
    )
    assert judged(busy, after_the_change()).taken_back == ()
    idle = view(guest("a", cap=50.0), guest("b", used=5))
    assert judged(idle, after_the_change()).taken_back == ()


def test_what_somebody_else_has_turned_since_is_not_taken_back() -> None:
    theirs = view(guest("a", used=10, throttled=90, cap=30.0), guest("b", used=5))
    planned = judged(theirs, after_the_change())
    assert planned.taken_back == ()
    assert planned.flight.starts == {CAP: 30.0}  # from where it is now


def test_what_could_not_be_done_is_forgotten() -> None:
    flight = plan(CAPPED, Flight(), THROUGHPUT, HALF).flight
    planned = plan(CAPPED, flight, THROUGHPUT, HALF)
    flight = planned.flight.without(planned.proposals[0])
    assert (flight.starts, flight.left) == ({}, {})
    assert flight.banned == {Need("a", "cap"): 2 + BAN}
    assert judged(CAPPED, flight).taken_back == ()


def test_a_guest_that_rests_gets_its_claim_back() -> None:
    flight = Flight(starts={CAP: 25.0}, left={CAP: None})
    resting = view(guest("a"), guest("b", used=50))
    for _ in range(REST - 1):
        planned = plan(resting, flight, THROUGHPUT, Constraints())
        assert planned.proposals == ()
        flight = planned.flight
    planned = plan(resting, flight, THROUGHPUT, Constraints())
    why = f"the guest has wanted nothing for {REST} periods"
    assert planned.proposals[0].moves == (Move(CAP, None, 25.0, why),)
    assert (planned.flight.starts, planned.flight.trials) == ({}, ())


def test_who_must_be_left_alone() -> None:
    for constraints in ("keep=a", "knobs=weight+latency"):
        flight = Flight()
        for _ in range(5):
            planned = plan(CAPPED, flight, THROUGHPUT, Constraints.parse(constraints))
            assert planned.proposals == ()
            flight = planned.flight
    virtual = replace(CAPPED, guests=tuple(replace(g, deterministic=True) for g in CAPPED.guests))
    flight = plan(virtual, Flight(), THROUGHPUT, Constraints()).flight
    assert plan(virtual, flight, THROUGHPUT, Constraints()).proposals == ()
    flight = plan(virtual, Flight(), THROUGHPUT, Constraints(virtual_clock=True)).flight
    assert len(plan(virtual, flight, THROUGHPUT, Constraints(virtual_clock=True)).proposals) == 1


def test_for_latency_only_the_favoured_guest_gains() -> None:
    objective = Objective.parse("latency:b")
    flight = plan(CAPPED, Flight(), objective, Constraints()).flight
    assert plan(CAPPED, flight, objective, Constraints()).proposals == ()


def test_the_most_urgent_comes_first() -> None:
    host = view(
        guest("a", used=10, throttled=20, cap=10.0), guest("b", used=10, throttled=70, cap=10.0), pcpus=2
    )
    flight = plan(host, Flight(), THROUGHPUT, Constraints(changes=1)).flight
    (proposal,) = plan(host, flight, THROUGHPUT, Constraints(changes=1)).proposals
    assert proposal.need.guest == "b"


# ---- whatever guests do ----

NAMES = "abcd"
POOL = 64 * MIB
times = st.integers(0, 100)


@st.composite
def days(draw: st.DrawFn) -> list[list[tuple[int, int, int, int, int]]]:
    """For each period and guest: used, ready, throttled, faults, I/O."""
    row = st.tuples(times, times, times, times, times)
    return draw(st.lists(st.lists(row, min_size=4, max_size=4), min_size=6, max_size=16))


def start() -> dict[Target, Value]:
    knobs: dict[Target, Value] = {}
    for name in NAMES:
        knobs[Target(name, Knob.WEIGHT)] = 100
        knobs[Target(name, Knob.CAP)] = 50.0
        knobs[Target(name, Knob.LATENCY)] = 5000
        knobs[Target(name, Knob.MEMORY_LIMIT)] = POOL // 4
        knobs[Target(name, Knob.DISK_LIMIT, 0, "total_bytes")] = Rate(1000)
    return knobs


def looks(knobs: dict[Target, Value], day: list[tuple[int, int, int, int, int]]) -> HostView:
    def guests() -> Iterator[GuestView]:
        for name, (used, ready, throttled, faults, io) in zip(NAMES, day, strict=True):
            limit, rate = (
                knobs[Target(name, Knob.MEMORY_LIMIT)],
                knobs[Target(name, Knob.DISK_LIMIT, 0, "total_bytes")],
            )
            assert isinstance(limit, int)
            assert isinstance(rate, Rate)
            state = memory(
                limit=limit,
                reservation=8 * MIB if name == "a" else 0,
                resident=limit * used // 100 // PAGE_SIZE * PAGE_SIZE,
                out=ready * MIB,
            )
            yield guest(
                name,
                used=used,
                ready=ready,
                throttled=throttled,
                faults=min(used, faults),
                io=io,
                rates=(disk(rate.per_second, used=rate.per_second * io / 100, waited=io),),
                mem=state,
                weight=knobs[Target(name, Knob.WEIGHT)],
                cap=knobs[Target(name, Knob.CAP)],
                latency_us=knobs[Target(name, Knob.LATENCY)],
                reservation=40.0 if name == "a" else 0.0,
            )

    return view(*guests(), pcpus=2)


@settings(max_examples=40, deadline=None)
@given(days(), st.sampled_from(["throughput", "fairness", "latency:a"]), st.integers(1, 6))
def test_constraints_hold(day: list[list[tuple[int, int, int, int, int]]], text: str, changes: int) -> None:
    constraints = Constraints.parse(f"keep=d,changes={changes},factor=4,b.cap=:80")
    first, knobs, flight = start(), start(), Flight()
    for row in day:
        planned = plan(looks(knobs, row), flight, Objective.parse(text), constraints)
        flight = planned.flight
        moves = [m for v in planned.taken_back for m in v.moves]
        moves += [m for p in planned.proposals for m in p.moves]
        assert len({m.target for m in moves}) <= changes
        for move in moves:
            assert knobs[move.target] == move.before
            knobs[move.target] = move.after
        assert all(knobs[target] == value for target, value in flight.left.items())
        for target, value in knobs.items():
            if target.guest == "d":
                assert value == first[target]
        for name in NAMES:
            weight, cap = knobs[Target(name, Knob.WEIGHT)], knobs[Target(name, Knob.CAP)]
            assert isinstance(weight, int)
            assert 25 <= weight <= 400
            assert cap is None or (isinstance(cap, float | int) and cap >= (40 if name == "a" else 12.5))
        cap = knobs[Target("b", Knob.CAP)]
        assert isinstance(cap, float | int)
        assert cap <= 80
        limits = [knobs[Target(name, Knob.MEMORY_LIMIT)] for name in NAMES]
        assert all(isinstance(limit, int) and limit >= 4 * MIB for limit in limits)
        assert isinstance(limits[0], int)
        assert limits[0] >= 8 * MIB
        assert sum(limit for limit in limits if isinstance(limit, int)) <= POOL
        rates = [knobs[Target(name, Knob.DISK_LIMIT, 0, "total_bytes")] for name in NAMES]
        assert sum(rate.per_second for rate in rates if isinstance(rate, Rate)) <= 4000
