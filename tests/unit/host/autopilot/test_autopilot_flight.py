"""Autopilot: on and off, dry runs, what is refused, and the way back. Time passes by hand."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from autopilot_guests import FakeControls, FakeGuest, fake_guest

from emuvisor.devices.limits import Rate
from emuvisor.errors import HostError, StateError, UsageError
from emuvisor.host.autopilot.autopilot import Autopilot
from emuvisor.host.autopilot.log import Entry, Kind
from emuvisor.host.autopilot.moves import Knob, Move, Target
from emuvisor.host.autopilot.view import RateCounter

Period = Callable[..., None]


@pytest.fixture
def a() -> FakeGuest:
    return fake_guest("a", cap=25.0)


@pytest.fixture
def controls(a: FakeGuest) -> FakeControls:
    return FakeControls(a, fake_guest("b", cap=50.0))


@pytest.fixture
def pilot(controls: FakeControls) -> Autopilot:
    pilot = Autopilot(controls)
    pilot.engage("throughput", "a.cap=:50")
    pilot.step()
    return pilot


@pytest.fixture
def period(controls: FakeControls, pilot: Autopilot) -> Period:
    """period(b=..., **times): a second passes, in which a did that."""

    def pass_(**times: float) -> None:
        controls.seconds += 1
        controls.guests["a"].goes_on(**(times or {"used": 25, "throttled": 75}))
        pilot.step()

    return pass_


def kinds(pilot: Autopilot) -> list[tuple[Kind, str, str, str]]:
    return [(entry.kind, entry.knob, entry.before, entry.after) for entry in pilot.log]


RAISED = (Kind.CHANGED, "cap", "25 %", "50 %")


def raise_cap(period: Period) -> None:
    period()
    period()


def test_it_is_off_until_it_is_started(controls: FakeControls) -> None:
    pilot = Autopilot(controls)
    assert not pilot.is_on
    pilot.step()
    pilot.stop()
    assert (list(pilot.log), dict(pilot.scores()), pilot.value()) == ([], {}, None)


def test_a_change_is_carried_out_and_logged(pilot: Autopilot, period: Period, a: FakeGuest) -> None:
    raise_cap(period)
    assert a.counters.cpu.cap == 50
    assert kinds(pilot) == [RAISED]
    (entry,) = pilot.log
    assert str(entry) == (
        "1  changed: a: cap 25 % -> 50 %: its cap of 25 % throttles it 75 % of the time, while 75 % of all pCPUs are "
        "idle and it is due 100 % of one"
    )
    assert entry.numbers == {"throttled": 75, "idle": 75, "due": 100, "used": 25}
    assert pilot.scores() == {"a": 25, "b": 100}
    assert pilot.value() == 25
    assert (len(pilot.log), pilot.log.added) == (1, 1)


def test_what_was_not_worth_it_is_taken_back(pilot: Autopilot, period: Period, a: FakeGuest) -> None:
    raise_cap(period)
    for _ in range(3):
        period(used=10, throttled=90)
    assert a.counters.cpu.cap == 25
    assert kinds(pilot) == [RAISED, (Kind.TAKEN_BACK, "cap", "50 %", "25 %")]
    with pytest.raises(UsageError) as error:
        pilot.revert(1)
    assert str(error.value) == "the autopilot has no change 1 in force"


def test_a_dry_run_only_recommends(
    controls: FakeControls, pilot: Autopilot, period: Period, a: FakeGuest
) -> None:
    pilot.engage("throughput", "a.cap=:50", dry_run=True)
    pilot.step()
    for _ in range(4):
        period()
    assert a.counters.cpu.cap == 25
    assert kinds(pilot) == [(Kind.RECOMMENDED, "cap", "25 %", "50 %")]
    assert [(move.target, move.after) for move in pilot.recommendations] == [(Target("a", Knob.CAP), 50)]
    period(used=20)
    assert pilot.recommendations == ()


def test_a_change_is_reverted(pilot: Autopilot, period: Period, a: FakeGuest) -> None:
    raise_cap(period)
    pilot.revert(1)
    assert a.counters.cpu.cap == 25
    assert kinds(pilot) == [RAISED, (Kind.REVERTED, "cap", "50 %", "25 %")]
    for _ in range(5):
        period()
    assert len(pilot.log) == 2  # it is not tried again for a while


def test_a_revert_undoes_what_came_after(controls: FakeControls, pilot: Autopilot, a: FakeGuest) -> None:
    pilot.engage("throughput")
    for move in (
        Move(Target("a", Knob.WEIGHT), 100, 150, "first"),
        Move(Target("a", Knob.WEIGHT), 150, 225, "then"),
    ):
        carry_out(pilot, move)
    assert a.counters.cpu.weight == 225
    pilot.revert(1)
    assert a.counters.cpu.weight == 100
    with pytest.raises(UsageError, match="no change 2 in force"):
        pilot.revert(2)


def carry_out(pilot: Autopilot, *moves: Move) -> None:
    from emuvisor.host.autopilot.trial import Need, Proposal

    pilot._carry_out(Proposal(Need("a", "test"), moves, 0))


def test_what_somebody_else_has_changed_stays(pilot: Autopilot, period: Period, a: FakeGuest) -> None:
    raise_cap(period)
    a.set_cpu(cap=33)
    with pytest.raises(UsageError) as error:
        pilot.revert(1)
    assert str(error.value) == "guest 'a': cap is 33 % now; somebody has changed it"
    pilot.stop(revert=True)
    assert a.counters.cpu.cap == 33
    entry = list(pilot.log)[-1]
    assert (entry.kind, entry.why) == (Kind.REFUSED, "guest 'a': cap is 33 % now; somebody has changed it")


def test_stop_leaves_or_reverts(pilot: Autopilot, period: Period, a: FakeGuest) -> None:
    raise_cap(period)
    pilot.stop()
    assert a.counters.cpu.cap == 50
    period()
    assert len(pilot.log) == 1
    pilot.stop(revert=True)
    assert a.counters.cpu.cap == 25
    assert kinds(pilot)[1:] == [(Kind.REVERTED, "cap", "50 %", "25 %")]


def test_a_change_that_is_refused(pilot: Autopilot, period: Period, a: FakeGuest) -> None:
    a.refuses = "no"
    raise_cap(period)
    assert [(entry.kind, entry.why) for entry in pilot.log] == [(Kind.REFUSED, "no")]
    period()
    assert len(pilot.log) == 1


def test_what_belongs_together_is_done_together_or_not_at_all(
    controls: FakeControls, pilot: Autopilot, a: FakeGuest
) -> None:
    pilot.step()
    gives, gets = Target("a", Knob.MEMORY_SHARES), Target("b", Knob.MEMORY_SHARES)
    controls.guests["b"].refuses = "no"
    carry_out(pilot, Move(gives, 1000, 500, "lends"), Move(gets, 1000, 1500, "borrows"))
    assert a.counters.memory.shares == 1000
    assert [(entry.kind, entry.guest) for entry in pilot.log] == [
        (Kind.CHANGED, "a"),
        (Kind.REFUSED, "b"),
        (Kind.TAKEN_BACK, "a"),
    ]


def test_a_guest_that_is_gone(controls: FakeControls, pilot: Autopilot, period: Period) -> None:
    raise_cap(period)
    del controls.guests["a"]
    carry_out(pilot, Move(Target("a", Knob.WEIGHT), 100, 150, "why"))
    assert list(pilot.log)[-1].why == "guest 'a' is gone"
    with pytest.raises(UsageError, match="guest 'a' does not run"):
        pilot.revert(1)


def test_limits_of_devices_are_set(controls: FakeControls, pilot: Autopilot, a: FakeGuest) -> None:
    for knob in (Knob.DISK_LIMIT, Knob.NIC_LIMIT):
        name = "out_bytes"
        rate = RateCounter(knob, 1, name, "pool", Rate(1000), 0, 0)
        controls.guests["b"] = fake_guest("b", (rate,))
        carry_out(pilot, Move(Target("b", knob, 1, name), Rate(1000), Rate(500), "why"))
        assert controls.guests["b"].counters.rates[0].limit == Rate(500)


def test_misuse_is_warned_of_once(controls: FakeControls, pilot: Autopilot, period: Period) -> None:
    pilot.engage("latency:nobody")
    for _ in range(3):
        period()
    assert controls.warnings == ["the autopilot: no guest 'nobody' runs"]
    pilot.engage("fairness")
    from dataclasses import replace

    for guest in controls.guests.values():
        guest.counters = replace(guest.counters, deterministic=True)
    for _ in range(3):
        period()
    assert controls.warnings[1:] == ["the autopilot: all guests are on the virtual clock, and left alone"]


def test_a_listener_that_fails_hears_no_more(
    controls: FakeControls, pilot: Autopilot, period: Period
) -> None:
    heard: list[Entry] = []

    def fails(entry: Entry) -> None:
        raise OSError("disk full")

    pilot.log.listeners += [fails, heard.append]
    raise_cap(period)
    assert controls.warnings == ["a listener of the autopilot's log is dropped: OSError: disk full"]
    assert [entry.number for entry in heard] == [1]
    assert pilot.log.listeners == [heard.append]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speed",), "'speed' is no objective; there are throughput, fairness and latency:NAME"),
        (
            ("fairness", "changes=0"),
            "'changes=0' is no constraint: 0 changes in a period are impossible; it is 1 to 1000; there are "
            "keep=NAME, knobs=KNOB+KNOB, changes=N, factor=X, virtual-clock=yes, NAME.KNOB=[LEAST]:[MOST]",
        ),
        (("fairness", None, 0.001), "a period of 0.001 s is impossible; it is 0.01 to 3600"),
    ],
)
def test_what_it_cannot_be_started_with(
    controls: FakeControls, arguments: tuple[Any, ...], message: str
) -> None:
    pilot = Autopilot(controls)
    with pytest.raises(UsageError) as error:
        pilot.start(*arguments)
    assert str(error.value) == message
    assert not pilot.is_on


class Waits(FakeControls):
    """Says when it was looked at; fails when told to."""

    def __init__(self) -> None:
        super().__init__(fake_guest("a"))
        self.looked = threading.Semaphore(0)
        self.failure = ""
        self.warned = threading.Event()

    def look(self) -> Any:
        self.looked.release()
        if self.failure:
            raise RuntimeError(self.failure)
        self.seconds += 1
        return super().look()

    def warn(self, text: str) -> None:
        super().warn(text)
        self.warned.set()


def test_a_thread_takes_the_steps() -> None:
    controls = Waits()
    pilot = Autopilot(controls)
    pilot.start("fairness", period_s=0.01)
    assert (pilot.is_on, controls.watchers) == (True, 1)
    with pytest.raises(StateError) as error:
        pilot.start("fairness")
    assert str(error.value) == "the autopilot is on already; it has to be stopped first"
    for _ in range(3):
        assert controls.looked.acquire(timeout=30)
    controls.failure = "no idea"
    assert controls.warned.wait(30)
    for _ in range(3):
        assert controls.looked.acquire(timeout=30)
    pilot.stop()
    pilot.stop()
    assert (pilot.is_on, controls.watchers) == (False, 0)
    assert controls.warnings == ["the autopilot failed: RuntimeError: no idea"]


def test_a_system_without_threads(controls: FakeControls, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    pilot = Autopilot(controls)
    with pytest.raises(HostError) as error:
        pilot.start("fairness")
    assert str(error.value) == "the host gives no thread for the autopilot"
    assert (pilot.is_on, controls.watchers) == (False, 0)
