"""Objectives and constraints as people write them; knobs' values as people read them."""

import pytest
from autopilot_guests import fake_guest, guest, view

from emuvisor.devices.limits import Rate
from emuvisor.errors import UsageError
from emuvisor.host.autopilot.constraints import Bounds, Constraints
from emuvisor.host.autopilot.moves import Knob, Move, Target, Value, as_text, set_value
from emuvisor.host.autopilot.objective import Goal, Objective
from emuvisor.units import MIB


@pytest.mark.parametrize("text", ["throughput", "fairness", "latency:web"])
def test_objectives(text: str) -> None:
    assert str(Objective.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed", "'speed' is no objective; there are throughput, fairness and latency:NAME"),
        ("latency", "latency of which guest? Write latency:NAME"),
        ("fairness:web", "fairness is of all guests, not of 'web' alone"),
    ],
)
def test_what_is_no_objective(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Objective.parse(text)
    assert str(error.value) == message


def test_the_value_of_an_objective() -> None:
    host = view(guest("a", used=50, ready=50), guest("b", used=50))
    assert Objective(Goal.THROUGHPUT).value(host) == 100
    assert Objective(Goal.FAIRNESS).value(host) == pytest.approx(200 / 3)
    assert Objective(Goal.LATENCY, "a").value(host) == 50
    assert Objective(Goal.LATENCY, "c").value(host) == 100
    assert Objective(Goal.LATENCY, "a").favours("a")
    assert not Objective(Goal.LATENCY, "a").favours("b")


def test_constraints() -> None:
    text = (
        "keep=db,keep=mail,knobs=weight+memory-limit,changes=2,factor=4,virtual-clock=yes,"
        "web.weight=50:400,a.b.cap=:80"
    )
    assert Constraints.parse(text) == Constraints(
        keep=frozenset({"db", "mail"}),
        knobs=frozenset({Knob.WEIGHT, Knob.MEMORY_LIMIT}),
        changes=2,
        factor=4,
        virtual_clock=True,
        bounds={("web", Knob.WEIGHT): Bounds(50, 400), ("a.b", Knob.CAP): Bounds(None, 80)},
    )
    assert Constraints.parse("") == Constraints()


FORM = (
    "there are keep=NAME, knobs=KNOB+KNOB, changes=N, factor=X, virtual-clock=yes, NAME.KNOB=[LEAST]:[MOST]"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("color=red", f"'color=red' is no constraint: there is no 'color'; {FORM}"),
        ("changes=two", f"'changes=two' is no constraint; {FORM}"),
        ("knobs=taste", f"'knobs=taste' is no constraint; {FORM}"),
        ("a.cap=80", f"'a.cap=80' is no constraint: '80' is not [LEAST]:[MOST], such as 50:400; {FORM}"),
        ("a.cap=9:8", f"'a.cap=9:8' is no constraint: '9:8': the least is more than the most; {FORM}"),
        (
            "changes=0",
            f"'changes=0' is no constraint: 0 changes in a period are impossible; it is 1 to 1000; {FORM}",
        ),
        (
            "factor=nan",
            f"'factor=nan' is no constraint: a factor of nan is impossible; it is 1 to 1000; {FORM}",
        ),
    ],
)
def test_what_is_no_constraint(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Constraints.parse(text)
    assert str(error.value) == message


def test_how_far_a_knob_may_go() -> None:
    constraints = Constraints.parse("factor=4,web.weight=50:300")
    assert constraints.span("web", Knob.WEIGHT, 100) == (50, 300)
    assert constraints.span("db", Knob.WEIGHT, 100) == (25, 400)
    assert constraints.span("db", Knob.CAP, 50) == (12.5, 100)
    assert constraints.span("db", Knob.LATENCY, 1000) == (500, 4000)
    assert constraints.span("db", Knob.DISK_LIMIT, 8) == (2, 32)


@pytest.mark.parametrize(
    ("knob", "value", "text"),
    [
        (Knob.WEIGHT, 200, "200"),
        (Knob.CAP, 12.5, "12.5 %"),
        (Knob.CAP, None, "none"),
        (Knob.LATENCY, 500, "500 us"),
        (Knob.AFFINITY, frozenset({2, 1}), "pCPU 1+2"),
        (Knob.AFFINITY, None, "all pCPUs"),
        (Knob.MEMORY_LIMIT, 3 * MIB, "3 MiB"),
        (Knob.MEMORY_LIMIT, None, "none"),
        (Knob.MEMORY_SHARES, 1500, "1500"),
    ],
)
def test_values_are_read_and_set(knob: Knob, value: Value, text: str) -> None:
    target = Target("a", knob)
    assert as_text(target, value) == text
    fake = fake_guest("a", affinity=frozenset({0}))
    set_value(fake, target, value, 64 * MIB)
    after = fake.counters
    found = {
        Knob.WEIGHT: after.cpu.weight,
        Knob.CAP: after.cpu.cap,
        Knob.LATENCY: after.cpu.latency_us,
        Knob.AFFINITY: after.cpu.affinity,
        Knob.MEMORY_LIMIT: after.memory.limit,
        Knob.MEMORY_SHARES: after.memory.shares,
    }[knob]
    assert found == (64 * MIB if (knob, value) == (Knob.MEMORY_LIMIT, None) else value)


def test_rates_are_read() -> None:
    assert as_text(Target("a", Knob.DISK_LIMIT, 0, "read_bytes"), Rate(3 * MIB, 5)) == "3 MiB/s"
    assert as_text(Target("a", Knob.NIC_LIMIT, 0, "in_packets"), Rate(500)) == "500/s"
    assert str(Target("a", Knob.NIC_LIMIT, 2, "in_packets")) == "nic-limit 2 in_packets"
    assert str(Target("a", Knob.CAP)) == "cap"


def test_a_value_of_another_kind_is_a_bug() -> None:
    with pytest.raises(TypeError, match="weight cannot be None"):
        set_value(fake_guest("a"), Target("a", Knob.WEIGHT), None, MIB)


def test_the_inverse_of_a_move() -> None:
    move = Move(Target("a", Knob.WEIGHT), 100, 200, "why", {"n": 1.0})
    assert move.inverse("back") == Move(Target("a", Knob.WEIGHT), 200, 100, "back")
