"""Several vCPUs in turns: whose turn it is, how long it lasts, and what time it is for all of them."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuvisor.cpu.exits import ExitReason
from emuvisor.errors import SnapshotError
from emuvisor.machine.vcpus import INTERRUPT_DELAY, PAUSE_SLACK, PAUSE_WINDOW, Vcpus

TURN = 100_000


class FakeVcpu:
    """Runs when it is told to."""

    def __init__(self) -> None:
        self.work = 0
        self.idle_ns = 0
        self.interrupt = False
        self.halted = False
        self.pause_window = -1
        self.shortened: list[int] = []

    @property
    def ready(self) -> bool:
        return self.interrupt or not self.halted

    def raise_nmi(self) -> None:
        self.halted = False

    def shorten(self, work: int) -> None:
        self.shortened.append(work)

    def counters(self) -> dict[str, int]:
        return {"halt": int(self.halted), "pause": self.work}


class Rig:
    def __init__(self, count: int, turn: int = TURN) -> None:
        self.fakes = [FakeVcpu() for _ in range(count)]
        self.waiting: set[int] = set()
        self.switched: list[int] = []
        self.waited = [0] * count
        """For how long each waited for its turns."""
        self.vcpus = Vcpus(
            cast("Any", self.fakes),
            waits_for_sipi=lambda number: number in self.waiting,
            on_switch=self._switch,
            turn=turn,
        )

    def _switch(self, number: int, waited: int) -> None:
        self.switched.append(number)
        self.waited[number] += waited

    def run(self, work: int, reason: ExitReason = ExitReason.BUDGET, halt: bool = False) -> int:
        """The number of the one that ran."""
        vcpu = cast("FakeVcpu", self.vcpus.choose())
        vcpu.work += work
        vcpu.halted = halt
        self.vcpus.ran(ExitReason.HALT if halt else reason)
        return self.fakes.index(vcpu)


def test_a_single_one_always_runs_and_may_wait_as_it_likes() -> None:
    rig = Rig(1)
    assert rig.vcpus.budget(10**9) == 10**9
    assert [rig.run(TURN), rig.run(1, ExitReason.PAUSE), rig.run(0, halt=True), rig.run(0)] == [0] * 4
    assert rig.fakes[0].pause_window == 0
    assert rig.vcpus.switches == 0
    assert rig.vcpus.work == TURN + 1


def test_turns_go_round() -> None:
    rig = Rig(3)
    assert [rig.run(TURN) for _ in range(5)] == [0, 1, 2, 0, 1]
    assert rig.switched == [0, 1, 2, 0, 1]
    assert rig.vcpus.switches == 4
    assert len(rig.vcpus) == 3
    assert list(rig.vcpus) == rig.fakes


def test_a_turn_goes_on_after_a_run_that_ended_for_another_reason() -> None:
    rig = Rig(2)
    assert [rig.run(60_000), rig.run(30_000, ExitReason.STOP)] == [0, 0]
    assert rig.vcpus.budget(50_000) == 10_000
    assert rig.vcpus.budget(5_000) == 5_000
    assert [rig.run(10_000), rig.run(1)] == [0, 1]


def test_halt_ends_a_turn_and_an_interrupt_brings_the_next() -> None:
    rig = Rig(2)
    assert [rig.run(10, halt=True), rig.run(TURN), rig.run(1)] == [0, 1, 1]
    rig.vcpus.interrupt(0, True)
    assert [rig.run(1), rig.run(1)] == [1, 1], "not at once: there may be more to send"
    rig.run(INTERRUPT_DELAY)
    assert rig.run(1) == 0


def test_who_waits_for_a_sipi_has_no_turn() -> None:
    rig = Rig(3)
    rig.waiting = {1, 2}
    assert [rig.run(TURN), rig.run(TURN)] == [0, 0]
    rig.waiting = {1}
    assert [rig.run(TURN), rig.run(TURN), rig.run(TURN)] == [2, 0, 2]


def test_one_that_is_sent_back_to_wait_for_a_sipi_stops_in_its_turn() -> None:
    rig = Rig(2)
    rig.run(TURN)
    assert rig.run(1) == 1
    rig.waiting = {1}
    assert rig.run(1) == 0


def test_when_all_are_halted_the_present_one_says_so() -> None:
    rig = Rig(2)
    rig.run(1, halt=True)
    assert not rig.vcpus.all_halted
    rig.run(1, halt=True)
    assert rig.vcpus.all_halted
    assert rig.vcpus.choose() is rig.fakes[1]
    assert rig.vcpus.budget(TURN) == 1


def test_when_all_are_halted_none_that_was_never_started_is_run() -> None:
    rig = Rig(2)
    rig.run(TURN)
    rig.run(1)
    rig.fakes[0].halted = True
    rig.waiting = {1}
    assert rig.vcpus.choose() is rig.fakes[0]


def test_a_wait_passes_the_turn_on() -> None:
    rig = Rig(2)
    assert [rig.run(PAUSE_WINDOW, ExitReason.PAUSE), rig.run(1)] == [0, 1]
    assert rig.fakes[1].pause_window == PAUSE_WINDOW


def test_waits_grow_while_all_do_nothing_else() -> None:
    rig = Rig(2)
    windows = []
    for _ in range(8):
        window = cast("FakeVcpu", rig.vcpus.choose()).pause_window
        windows.append(window)
        rig.run(window + PAUSE_SLACK - 1, ExitReason.PAUSE)
    assert windows == [PAUSE_WINDOW << n for n in (0, 0, 1, 1, 2, 2, 3, 3)]
    for _ in range(100):
        rig.run(1, ExitReason.PAUSE)
    assert rig.fakes[0].pause_window == PAUSE_WINDOW << 20


@pytest.mark.parametrize(
    ("work", "reason", "halt"),
    [
        (TURN, ExitReason.BUDGET, False),
        (0, ExitReason.BUDGET, True),
        (PAUSE_WINDOW + PAUSE_SLACK, ExitReason.PAUSE, False),
    ],
    ids=["a whole turn", "a halt", "work before the wait"],
)
def test_whoever_does_something_ends_the_growth(work: int, reason: ExitReason, halt: bool) -> None:
    rig = Rig(3)
    for _ in range(3):
        rig.run(1, ExitReason.PAUSE)
    assert cast("FakeVcpu", rig.vcpus.choose()).pause_window == 2 * PAUSE_WINDOW
    rig.fakes[0].pause_window = PAUSE_WINDOW
    rig.run(work, reason, halt)
    assert cast("FakeVcpu", rig.vcpus.choose()).pause_window == PAUSE_WINDOW


def test_who_is_alone_may_wait_until_it_wakes_a_sibling() -> None:
    rig = Rig(2)
    rig.run(1)
    rig.fakes[1].halted = True
    rig.run(TURN)
    rig.vcpus.choose()
    assert rig.fakes[0].pause_window == 0
    rig.vcpus.interrupt(1, True)
    assert rig.fakes[0].pause_window == PAUSE_WINDOW


def test_an_nmi_wakes_a_sibling_too() -> None:
    rig = Rig(2)
    rig.run(TURN)
    rig.run(1, halt=True)
    assert rig.run(10) == 0
    rig.vcpus.nmi(1)
    assert rig.fakes[0].pause_window == PAUSE_WINDOW
    assert rig.fakes[0].shortened == [TURN + 10 + INTERRUPT_DELAY]
    assert [rig.run(INTERRUPT_DELAY), rig.run(1)] == [0, 1]


def test_an_interrupt_for_a_sibling_shortens_the_turn_once() -> None:
    rig = Rig(3)
    rig.run(10)
    rig.vcpus.interrupt(1, True)
    rig.run(5)
    rig.vcpus.interrupt(2, True)
    assert rig.fakes[0].shortened == [10 + INTERRUPT_DELAY]
    assert rig.vcpus.budget(TURN) == INTERRUPT_DELAY - 5
    assert (rig.fakes[1].interrupt, rig.fakes[2].interrupt) == (True, True)


def test_no_turn_is_shortened_for_ones_own_interrupt_or_for_a_pin_that_goes_low() -> None:
    rig = Rig(2)
    rig.vcpus.interrupt(0, True)
    rig.vcpus.interrupt(1, False)
    assert rig.fakes[0].shortened == []
    assert rig.vcpus.budget(TURN) == TURN


def test_reset_begins_with_the_bootstrap_processor() -> None:
    rig = Rig(2)
    rig.run(TURN)
    rig.run(10)
    rig.vcpus.reset()
    assert rig.vcpus.choose() is rig.fakes[0]
    assert rig.vcpus.work == TURN + 10


def test_counters_are_added_up() -> None:
    rig = Rig(2)
    rig.run(7, halt=True)
    rig.run(5, halt=True)
    assert rig.vcpus.counters() == {"halt": 2, "pause": 12}


@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(
            st.integers(1, 3 * TURN),
            st.sampled_from([ExitReason.BUDGET, ExitReason.PAUSE, ExitReason.HALT, ExitReason.STOP]),
            st.integers(0, 5000),
            st.integers(0, 7),
        ),
        max_size=60,
    ),
)
def test_there_is_one_clock_and_everybody_gets_a_turn(
    count: int, runs: list[tuple[int, ExitReason, int, int]]
) -> None:
    rig = Rig(count)
    retired = idle = 0
    for work, reason, pause, woken in runs:
        rig.vcpus.interrupt(woken % count, True)
        waited = [number for number in range(count) if rig.vcpus.can_run(number)]
        vcpu = cast("FakeVcpu", rig.vcpus.choose())
        assert not waited or vcpu.ready
        assert vcpu.work + vcpu.idle_ns == retired + idle
        budget = rig.vcpus.budget(work)
        assert 1 <= budget <= work
        rig.run(budget, reason, halt=reason is ExitReason.HALT)
        vcpu.interrupt = False
        retired += budget
        if rig.vcpus.all_halted:
            rig.vcpus.idle(pause)
            idle += pause
        assert rig.vcpus.work == retired == sum(fake.work for fake in rig.fakes)
        assert vcpu.work + vcpu.idle_ns == retired + idle
    for fake in rig.fakes:
        fake.halted = False
    turns = {rig.run(10 * TURN) for _ in range(count + 1)}
    assert turns == set(range(count))


# ---- waiting for a turn ----


def test_a_single_one_never_waits() -> None:
    rig = Rig(1)
    for _ in range(3):
        rig.run(TURN)
        rig.run(1, halt=True)
        rig.vcpus.interrupt(0, True)
    assert rig.waited == [0]


def test_who_could_run_waits_while_the_others_do() -> None:
    rig = Rig(3)
    for _ in range(3):
        rig.run(TURN)
    assert rig.waited == [0, 0, 0], "they begin with their first turn"
    rig.run(TURN)
    assert rig.waited == [2 * TURN, 0, 0]
    for _ in range(3):
        rig.run(TURN)
    assert rig.waited == [4 * TURN, 2 * TURN, 2 * TURN]


def test_a_turn_in_pieces_is_no_wait_of_its_owner() -> None:
    rig = Rig(2)
    for _ in range(2):
        rig.run(TURN)
    for _ in range(10):
        rig.run(TURN // 10)
    rig.run(TURN)
    assert rig.waited == [TURN, TURN]


def test_who_is_halted_does_not_wait_before_its_interrupt() -> None:
    rig = Rig(2)
    rig.run(10, halt=True)
    rig.run(50_000)
    rig.vcpus.interrupt(0, True)
    rig.run(5_000)
    rig.vcpus.interrupt(0, True)
    rig.run(15_000)
    assert rig.run(1) == 0
    assert rig.waited == [20_000, 0]


def test_an_interrupt_that_goes_away_was_nothing_to_wait_for() -> None:
    rig = Rig(2)
    rig.run(10, halt=True)
    rig.vcpus.interrupt(0, True)
    rig.run(70_000)
    rig.vcpus.interrupt(0, False)
    rig.run(TURN)
    rig.vcpus.interrupt(0, True)
    rig.run(0)
    rig.fakes[1].halted = True
    assert rig.run(1) == 0
    assert rig.waited == [0, 0]


def test_the_level_is_nothing_to_one_that_runs_anyway() -> None:
    rig = Rig(2)
    rig.run(TURN)
    rig.vcpus.interrupt(0, True)
    rig.vcpus.interrupt(0, False)
    rig.run(TURN)
    rig.run(1)
    assert rig.waited == [TURN, 0]


def test_a_wait_ends_with_a_reset() -> None:
    rig = Rig(2)
    rig.run(TURN)
    rig.run(50_000)
    rig.waiting = {1}
    rig.vcpus.reset()
    rig.run(TURN)
    rig.waiting = set()
    rig.vcpus.woken(1)
    assert [rig.run(TURN), rig.run(TURN), rig.run(1)] == [1, 0, 1]
    assert rig.waited == [TURN, TURN]


def test_waits_by_another_clock() -> None:
    times = []
    waited = []
    vcpus = Vcpus(
        cast("Any", [FakeVcpu(), FakeVcpu()]),
        waits_for_sipi=lambda number: False,
        on_switch=lambda number, ns: waited.append((number, ns)),
        now=lambda: times[-1],
        turn=10,
    )
    for time in (50, 100, 130, 137):
        times.append(time)
        cast("FakeVcpu", vcpus.choose()).work += 10
    assert waited == [(0, 0), (1, 0), (0, 30), (1, 7)]


@given(
    count=st.integers(2, 4),
    turns=st.lists(st.tuples(st.integers(1, TURN), st.booleans(), st.sets(st.integers(0, 3))), max_size=40),
)
def test_nobody_waits_and_runs_at_once(count: int, turns: list[tuple[int, bool, set[int]]]) -> None:
    rig = Rig(count)
    for work, halt, woken in turns:
        rig.run(work, halt=halt)
        for number in range(count):
            rig.vcpus.interrupt(number, number in woken)
    for number, fake in enumerate(rig.fakes):
        assert 0 <= rig.waited[number] <= rig.vcpus.work - fake.work


# ---- saved state ----


def test_turns_go_on_where_they_were() -> None:
    rig, twin = Rig(3), Rig(3)
    rig.run(TURN)
    rig.run(40_000)
    state = rig.vcpus.save()
    assert state["waits"] == [40_000, None, None]
    for mine, theirs in zip(twin.fakes, rig.fakes, strict=True):
        mine.work, mine.idle_ns, mine.pause_window = theirs.work, theirs.idle_ns, theirs.pause_window
    twin.vcpus.load(state)
    assert twin.vcpus.save() == state
    assert (twin.vcpus.number, twin.switched[-1], twin.vcpus.work) == (1, 1, rig.vcpus.work)
    before = list(rig.waited)
    for _ in range(7):
        assert rig.run(TURN) == twin.run(TURN)
    assert twin.waited == [now - then for now, then in zip(rig.waited, before, strict=True)]
    assert min(twin.waited) > 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"number": 2}, "saved field 'number' is 2; expected an integer from 0 to 1"),
        ({"switches": -1}, "saved field 'switches' is -1; expected an integer from 0 to 9223372036854775807"),
        ({"waits": [None]}, "saved field 'waits' is [None]; expected 2 times or None"),
        ({"waits": [None, -1]}, "saved field 'waits' is [None, -1]; expected 2 times or None"),
        ({"waits": None}, "saved field 'waits' is None; expected 2 times or None"),
    ],
)
def test_a_state_of_no_turns(changes: dict[str, Any], text: str) -> None:
    vcpus = Rig(2).vcpus
    with pytest.raises(SnapshotError) as caught:
        vcpus.load(vcpus.save() | changes)
    assert str(caught.value) == f"vcpus: {text}"
