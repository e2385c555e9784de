"""Who runs a guest while it moves, whatever is lost and whoever dies: never both sides, and never none of two that
live."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuvisor.migration.switchover import Act, Answer, SourceState, SourceSwitch, TargetState, TargetSwitch

EVENTS = ("offer", "to target", "to source", "cut", "connect", "ask", "cancel")


class World:
    """Both sides, a line, and what is on it."""

    def __init__(self) -> None:
        self.source, self.target = SourceSwitch(), TargetSwitch()
        self.line = True
        self.to_target: deque[str] = deque()
        self.to_source: deque[str] = deque()
        self.source_lives = self.target_lives = True
        self.connects = self.asks = False
        self.has_run_there = False
        self.heard_of_it = False

    # ---- what the sides want ----

    def by_source(self, acts: list[Act]) -> None:
        for act in acts:
            if act is Act.CONNECT:
                self.connects = True
            elif act is Act.GIVE_UP:
                self.heard_of_it = True
            elif act is not Act.RESUME and self.line:
                self.to_target.append(act.removeprefix("send "))

    def by_target(self, acts: list[Act]) -> None:
        for act in acts:
            if act is Act.ASK:
                self.asks = True
            elif act is Act.RUN:
                self.has_run_there = True
            elif act is not Act.DISCARD and self.line:
                self.to_source.append(act.removeprefix("send "))
        self.check()

    @property
    def runs_here(self) -> bool:
        return self.source_lives and self.source.state in (SourceState.COPYING, SourceState.STAYED)

    @property
    def runs_there(self) -> bool:
        return self.target_lives and self.target.state is TargetState.RUNNING

    def check(self) -> None:
        assert not (self.runs_here and self.runs_there)

    # ---- what happens ----

    def happen(self, event: str) -> None:
        getattr(self, event.replace(" ", "_"))()
        self.check()

    def offer(self) -> None:
        if self.source_lives and self.line and self.source.state is SourceState.COPYING:
            self.source.offer()
            self.to_target.append("machine")

    def to_target_(self) -> None:
        if not self.to_target or not self.target_lives:
            return
        hear = {
            "machine": self.target.loaded,
            "commit": self.target.committed,
            "abort": self.target.aborted,
            "bye": list,
        }
        self.by_target(hear[self.to_target.popleft()]())

    def to_source_(self) -> None:
        if not self.to_source or not self.source_lives:
            return
        hear = {
            "ready": self.source.ready,
            "running": self.source.running,
            "discarded": self.source.discarded,
        }
        self.by_source(hear[self.to_source.popleft()]())

    def cut(self) -> None:
        """What is on its way is lost."""
        if not self.line:
            return
        self.line = False
        self.to_target.clear()
        self.to_source.clear()
        if self.source_lives:
            self.by_source(self.source.line_lost())
        if self.target_lives:
            self.by_target(self.target.line_lost())

    def connect(self) -> None:
        if not (self.connects and self.source_lives) or self.line or self.source.is_over:
            return
        if not self.target_lives:
            self.by_source(self.source.target_gone())
            return
        self.line, self.connects = True, False
        self.by_target(self.target.connected())

    def ask(self) -> None:
        if not (self.asks and self.target_lives):
            return
        self.asks = False
        if self.source_lives:
            self.by_target(self.target.answered(self.source.asked()))
        else:
            self.by_target(self.target.source_gone())

    def cancel(self) -> None:
        if self.source_lives:
            self.by_source(self.source.cancel())

    def kill_source(self) -> None:
        """What it has sent still arrives."""
        self.source_lives = False
        while self.target_lives and self.to_target:
            self.to_target_()
        self.cut()

    def kill_target(self) -> None:
        self.target_lives = False
        while self.source_lives and self.to_source:
            self.to_source_()
        self.cut()

    def come_to_rest(self) -> None:
        for _ in range(20):
            for event in ("to_target_", "to_source_", "connect", "ask"):
                self.happen(event)


NAMES = {"to target": "to_target_", "to source": "to_source_"}


def faults(*names: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([NAMES.get(name, name) for name in names]), max_size=25)


@settings(max_examples=150, deadline=None)
@given(faults(*EVENTS))
def test_while_both_live_exactly_one_runs_it_in_the_end(events: list[str]) -> None:
    world = World()
    for event in events:
        world.happen(event)
    world.come_to_rest()
    assert world.runs_here != world.runs_there
    assert world.source.is_over or world.source.state is SourceState.COPYING


@settings(max_examples=150, deadline=None)
@given(faults(*EVENTS), st.sampled_from(["kill source", "kill target"]), faults(*EVENTS))
def test_when_one_dies_the_other_has_it_unless_it_died_with_it(
    before: list[str], death: str, after: list[str]
) -> None:
    world = World()
    for event in before:
        world.happen(event)
    ran_here, ran_there = world.runs_here, world.runs_there
    world.happen(death)
    for event in after:
        world.happen(event)
    world.come_to_rest()
    if death == "kill target":
        # It is gone with the target only if it ran there.
        assert world.runs_here or world.has_run_there
        assert not world.runs_here or not (ran_there and world.heard_of_it)
    else:
        # It is gone with the source only if it ran there, or the target had not got all of it.
        assert world.runs_there or ran_here or world.target.state is TargetState.DISCARDED


SOURCE = ("copying", "offered", "aborting", "committed", "moved", "stayed")
"""Columns of the table in docs/migration.md."""
RESUME, GIVE_UP, BYE = "resume here", "give up", "send bye"
SOURCE_TABLE = {
    "ready": ([], ["send commit"], ["send abort"], ["send commit"], [], []),
    "running": ([], [BYE, GIVE_UP], [BYE, GIVE_UP], [BYE, GIVE_UP], [BYE], []),
    "discarded": ([RESUME], [RESUME], [RESUME], [RESUME], [], []),
    "line_lost": ([RESUME], ["connect again"], ["connect again"], ["connect again"], [], []),
    "target_gone": ([RESUME], [RESUME], [RESUME], [RESUME], [], []),
    "cancel": (["send abort", RESUME], ["send abort"], [], [], [], []),
}
ASKED = ("undecided", "undecided", "aborted", "committed", "committed", "aborted")


@pytest.mark.parametrize("state", SOURCE)
@pytest.mark.parametrize("event", SOURCE_TABLE)
def test_every_state_and_event_of_the_source(event: str, state: str) -> None:
    switch = SourceSwitch()
    switch.state = SourceState(state)
    assert getattr(switch, event)() == SOURCE_TABLE[event][SOURCE.index(state)]


@pytest.mark.parametrize("state", SOURCE)
def test_what_the_source_answers(state: str) -> None:
    switch = SourceSwitch()
    switch.state = SourceState(state)
    assert switch.asked() == ASKED[SOURCE.index(state)]


TARGET = ("receiving", "holding", "running", "discarded")
READY, RUNNING, DISCARDED = "send ready", "send running", "send discarded"
TARGET_TABLE = {
    "failed": (["discard", DISCARDED], [], [], []),
    "committed": ([], [RUNNING, "run"], [RUNNING], [DISCARDED]),
    "aborted": (["discard", DISCARDED], ["discard", DISCARDED], [RUNNING], [DISCARDED]),
    "line_lost": (["discard"], ["ask the source"], [], []),
    "connected": ([], [READY], [RUNNING], [DISCARDED]),
    "source_gone": ([], ["run"], [], []),
}
ANSWERS = {"undecided": ["ask the source"], "committed": ["run"], "aborted": ["discard"]}


@pytest.mark.parametrize("state", TARGET)
@pytest.mark.parametrize("event", TARGET_TABLE)
def test_every_state_and_event_of_the_target(event: str, state: str) -> None:
    switch = TargetSwitch()
    switch.state = TargetState(state)
    assert getattr(switch, event)() == TARGET_TABLE[event][TARGET.index(state)]


@pytest.mark.parametrize("state", TARGET)
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_the_target_does_with_an_answer(answer: str, state: str) -> None:
    switch = TargetSwitch()
    switch.state = TargetState(state)
    assert switch.answered(Answer(answer)) == (ANSWERS[answer] if state == "holding" else [])


@pytest.mark.parametrize("state", SOURCE)
@pytest.mark.parametrize("here", [True, False])
def test_an_operator_ends_only_a_doubt_of_the_source(state: str, here: bool) -> None:
    switch = SourceSwitch()
    switch.state = SourceState(state)
    wanted = [RESUME if here else GIVE_UP] if state in ("offered", "aborting", "committed") else []
    assert switch.operator(here) == wanted


@pytest.mark.parametrize("state", TARGET)
@pytest.mark.parametrize("run", [True, False])
def test_an_operator_ends_only_a_doubt_of_the_target(state: str, run: bool) -> None:
    switch = TargetSwitch()
    switch.state = TargetState(state)
    assert switch.operator(run) == ((["run"] if run else ["discard"]) if state == "holding" else [])
