"""What the rules propose, guest by guest."""

from autopilot_guests import disk, guest, memory, view

from emuvisor.devices.limits import Rate
from emuvisor.host.autopilot.constraints import Constraints
from emuvisor.host.autopilot.cpu_rules import cpu_proposals
from emuvisor.host.autopilot.moves import Knob, Target, Value
from emuvisor.host.autopilot.objective import Objective
from emuvisor.host.autopilot.pool_rules import pool_proposals
from emuvisor.host.autopilot.trial import Need, Proposal
from emuvisor.host.autopilot.view import HostView
from emuvisor.units import KIB, MIB

NONE: dict[Target, Value] = {}


def cpu(
    host: HostView, objective: str = "throughput", constraints: str = "", starts: dict[Target, Value] = NONE
) -> list[Proposal]:
    limits = Constraints.parse(constraints)
    return list(cpu_proposals(host, host.guests, Objective.parse(objective), limits, starts))


def pool(
    host: HostView, objective: str = "throughput", constraints: str = "", starts: dict[Target, Value] = NONE
) -> list[Proposal]:
    limits = Constraints.parse(constraints)
    return list(pool_proposals(host, host.guests, Objective.parse(objective), limits, starts))


def turns(proposals: list[Proposal]) -> list[tuple[str, Knob, Value, Value]]:
    return [
        (m.target.guest, m.target.knob, m.before, m.after) for proposal in proposals for m in proposal.moves
    ]


# ---- caps ----


def test_a_cap_is_raised_while_pcpus_are_idle() -> None:
    (proposal,) = cpu(view(guest("a", used=25, throttled=75, cap=25.0), guest("b", used=5), pcpus=2))
    assert turns([proposal]) == [("a", Knob.CAP, 25.0, None)]  # it is due a whole one
    assert proposal.need == Need("a", "cap")
    assert proposal.moves[0].why == (
        "its cap of 25 % throttles it 75 % of the time, while 85 % of all pCPUs are idle and it is due 100 % of one"
    )
    assert proposal.moves[0].numbers == {"throttled": 75, "idle": 85, "due": 100, "used": 25}


def test_a_cap_goes_no_further_than_it_may() -> None:
    host = view(guest("a", used=25, throttled=75, cap=25.0))
    assert turns(cpu(host, constraints="a.cap=:40")) == [("a", Knob.CAP, 25.0, 40)]
    assert turns(cpu(host, constraints="factor=2")) == [("a", Knob.CAP, 25.0, 50)]
    assert cpu(host, constraints="factor=2", starts={Target("a", Knob.CAP): 12.5}) == []


def test_a_cap_that_is_not_in_the_way() -> None:
    assert cpu(view(guest("a", used=25, throttled=4, cap=25.0))) == []
    full = guest("a", used=25, throttled=25, cap=25.0), guest("b", used=75, ready=25, weight=300)
    assert cpu(view(*full)) == []  # it has what it is due
    assert turns(cpu(view(*full), "latency:a"))[0] == ("a", Knob.CAP, 25.0, 50)


def test_a_cap_is_raised_for_who_is_due_more() -> None:
    host = view(guest("a", used=25, throttled=75, cap=25.0), guest("b", used=75, ready=25))
    assert turns(cpu(host)) == [("a", Knob.CAP, 25.0, 50)]


# ---- turns ----


def test_shorter_turns_for_who_waits_and_uses_little() -> None:
    host = view(guest("a", used=10, ready=20), guest("b", used=85, ready=15))
    proposal, weight = cpu(host, "fairness")
    assert turns([proposal, weight]) == [("a", Knob.LATENCY, 5000, 2500), ("a", Knob.WEIGHT, 100, 150)]
    assert proposal.moves[0].why == (
        "it waits 20 % of the time for its turn, and uses 10 %, less than it is due: shorter turns come sooner"
    )
    assert cpu(host, "throughput") == []
    assert turns(cpu(host, "fairness", "a.latency=5000:")) == [("a", Knob.WEIGHT, 100, 150)]


def test_the_favoured_guest_waits_less() -> None:
    host = view(guest("a", used=10, ready=4), guest("b", used=85, ready=15))
    assert turns(cpu(host, "latency:a")) == [
        ("a", Knob.LATENCY, 5000, 2500),
        ("a", Knob.WEIGHT, 100, 150),
    ]


# ---- weights ----


def test_more_weight_for_the_one_that_fares_worst() -> None:
    host = view(guest("a", used=70, ready=30, weight=400), guest("b", used=20, ready=80))
    assert turns(cpu(host, "fairness")) == [("b", Knob.WEIGHT, 100, 150)]
    assert turns(cpu(host, "fairness", "b.weight=:120")) == [("b", Knob.WEIGHT, 100, 120)]
    assert cpu(host, "fairness", "b.weight=:100") == []


def test_no_more_weight_where_it_would_not_help() -> None:
    equal = view(guest("a", used=50, ready=50), guest("b", used=50, ready=50))
    assert cpu(equal, "fairness") == []
    thrashes = view(guest("a", used=50, ready=20), guest("b", used=50, ready=20, faults=38))
    assert cpu(thrashes, "fairness") == []
    idle = view(guest("a", used=40, ready=4), guest("b", used=2, ready=4))
    assert Knob.WEIGHT not in {turn[1] for turn in turns(cpu(idle, "fairness"))}
    assert cpu(view(guest("a", used=40), guest("b", used=50, ready=20)), "latency:a") == []
    others = cpu(view(guest("b", used=50, ready=20)), "latency:a")
    assert Knob.WEIGHT not in {turn[1] for turn in turns(others)}


def test_less_weight_for_who_only_brings_pages_back() -> None:
    host = view(guest("a", used=50, ready=50, faults=30), guest("b", used=50, ready=50))
    (proposal,) = cpu(host)
    assert turns([proposal]) == [("a", Knob.WEIGHT, 100, 50)]
    assert proposal.need.guest == "b"
    assert proposal.moves[0].why == (
        "60 % of its time on a pCPU goes into bringing its pages back, and others that would use it wait for "
        "50 % of one"
    )
    assert cpu(host, constraints="a.weight=100:") == []
    alone = view(guest("a", used=90, ready=5, faults=60), guest("b", used=5, ready=6))
    assert cpu(alone) == []  # nobody would use it


# ---- placement ----


def test_a_pinned_guest_may_go_where_there_is_time() -> None:
    side_by_side = [guest(name, used=50, ready=50, affinity=frozenset({0})) for name in "ab"]
    (first, second) = cpu(view(*side_by_side, guest("c", used=30, affinity=frozenset({1})), pcpus=2))
    assert turns([first, second]) == [
        ("a", Knob.AFFINITY, frozenset({0}), None),
        ("b", Knob.AFFINITY, frozenset({0}), None),
    ]
    assert first.moves[0].why == ("it waits 50 % of the time where it is pinned, and pCPU 1 is busy for 30 %")
    three = cpu(view(*side_by_side, guest("c", used=30, affinity=frozenset({1})), pcpus=3))
    assert three[0].moves[0].after == {0, 2}
    assert cpu(view(*side_by_side, guest("c", used=90, affinity=frozenset({1})), pcpus=2)) == []


# ---- memory, disks, cards ----


def test_memory_is_lent() -> None:
    busy = guest("a", used=50, faults=25, mem=memory(limit=16 * MIB, resident=16 * MIB, out=8 * MIB))
    idle = guest("b", mem=memory(limit=16 * MIB, resident=12 * MIB, active=2 * MIB))
    (proposal,) = pool(view(busy, idle))
    # It wants 24M, and the other one keeps a quarter of its own; the 4M that are left are halved.
    assert turns([proposal]) == [
        ("b", Knob.MEMORY_LIMIT, 16 * MIB, 6 * MIB),
        ("a", Knob.MEMORY_LIMIT, 16 * MIB, 26 * MIB),
    ]
    assert (proposal.need, proposal.tried) == (Need("a", "memory"), True)
    assert proposal.moves[-1].why == "it loses 25 % of the time for want of memory; b can spare some"


def test_what_was_reserved_is_not_lent() -> None:
    busy = guest("a", used=50, faults=25, mem=memory(limit=16 * MIB, resident=16 * MIB, out=48 * MIB))
    idle = guest("b", mem=memory(limit=16 * MIB, resident=0, reservation=12 * MIB))
    assert turns(pool(view(busy, idle)))[0] == ("b", Knob.MEMORY_LIMIT, 16 * MIB, 12 * MIB)
    kept = guest("b", mem=memory(limit=16 * MIB, resident=0, reservation=16 * MIB))
    assert pool(view(busy, kept)) == []


def test_a_guest_without_a_limit_gets_more_shares() -> None:
    host = view(guest("a", used=50, faults=25), guest("b", used=50, faults=1))
    (proposal,) = pool(host)
    assert turns([proposal]) == [("a", Knob.MEMORY_SHARES, 1000, 1500)]
    assert proposal.moves[0].why == "it loses 25 % of the time for pages that were taken from it"
    assert pool(host, constraints="factor=1") == []


def test_disk_limits_are_lent() -> None:
    limit = 1000 * KIB
    busy = guest("a", used=10, io=90, rates=(disk(limit, used=limit, waited=90),))
    idle = guest("b", rates=(disk(limit, used=100 * KIB),))
    other = guest("c", rates=(disk(limit, pool="another"),))
    (proposal,) = pool(view(busy, idle, other))
    lender, borrower = proposal.moves
    assert (lender.target, borrower.target) == tuple(
        Target(name, Knob.DISK_LIMIT, 0, "total_bytes") for name in "ba"
    )
    assert (lender.after, borrower.after) == (Rate(250 * KIB), Rate(1750 * KIB))
    assert lender.why == (
        "a loses 90 % of the time for want of disk total_bytes, and this guest uses 125 KiB/s at most"
    )


def test_a_guest_that_does_not_use_its_limit_up_lacks_nothing() -> None:
    busy = guest("a", used=10, io=90, rates=(disk(1000, used=500, waited=90),))
    assert pool(view(busy, guest("b", rates=(disk(1000),)))) == []


def test_who_wants_its_own_back_gets_it() -> None:
    lent = {Target(name, Knob.DISK_LIMIT, 0, "total_bytes"): Rate(1000) for name in "ab"}
    back = guest("a", used=10, io=90, rates=(disk(250, used=250, waited=90),))
    borrower = guest("b", used=10, io=40, rates=(disk(1750, used=1750, waited=40),))
    (proposal,) = pool(view(back, borrower), starts=lent)
    assert [move.after for move in proposal.moves] == [Rate(1000), Rate(1000)]
    assert not proposal.tried


def test_the_favoured_guest_gets_more_than_its_part() -> None:
    guests = [guest(name, used=10, io=90, rates=(disk(1000, used=1000, waited=90),)) for name in "ab"]
    assert pool(view(*guests)) == []
    (proposal,) = pool(view(*guests), "latency:a")
    assert [(m.target.guest, m.after) for m in proposal.moves] == [("b", Rate(250)), ("a", Rate(1750))]


def test_bursts_stay() -> None:
    busy = guest("a", used=10, io=90, rates=(disk(1000, used=1000, waited=90),))
    idle = guest("b", rates=(disk(1000),))
    host = view(busy, idle)
    rate = idle.rates[0]
    object.__setattr__(rate, "limit", Rate(1000, burst=7))
    assert [move.after for move in pool(host)[0].moves] == [Rate(250, burst=7), Rate(1750)]


def test_no_more_guests_give_than_changes_are_left() -> None:
    busy = guest("a", used=10, io=90, rates=(disk(1000, used=1000, waited=90),))
    idle = [guest(name, rates=(disk(100),)) for name in "bcdef"]
    (proposal,) = pool(view(busy, *idle), constraints="changes=3")
    assert [move.target.guest for move in proposal.moves] == ["b", "c", "a"]
    assert proposal.moves[-1].after == Rate(1150)
    assert pool(view(busy, *idle), constraints="changes=1") == []
