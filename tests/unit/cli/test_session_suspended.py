"""A session with guests that cannot go on: a device suspends them, or there is no memory."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emuvisor.cli import session as module
from emuvisor.cli.results import Cut
from emuvisor.cli.screen import Screen
from emuvisor.cli.session import Session
from emuvisor.host import GuestState, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending, Outcome
from emuvisor.units import MIB

Capture = pytest.CaptureFixture[str]


class FakeGuest:
    """Each time that it goes on it is suspended for the next of `reasons`, for want of memory where that is None; in
    the end it switches itself off."""

    def __init__(self, host: Host, config: GuestConfig, reasons: Iterable[str | None]) -> None:
        self.name = config.name
        self.config = config
        self.machine = SimpleNamespace(consoles=[])
        self.state = GuestState.DEFINED
        self.outcome: Outcome | None = None
        self.suspended = False
        self.reason = ""
        self.resumed = 0
        self.limit: int | None = None
        self._host = host
        self._reasons = iter(reasons)

    def start(self) -> None:
        try:
            reason = next(self._reasons)
        except StopIteration:
            self.outcome = Outcome(Ending.POWER_OFF)
            self._enter(GuestState.DEFINED)
            return
        self.suspended = reason is not None
        self.reason = reason or "no memory"
        self._enter(GuestState.PAUSED)

    def resume(self) -> None:
        assert self.state is GuestState.PAUSED
        self.resumed += 1
        self.suspended = False
        self.start()

    def pause(self) -> None:
        """It is."""

    def _enter(self, state: GuestState) -> None:
        self.state = state
        event: Any = None
        for listener in self._host.listeners:
            listener(event)

    def statistics(self) -> None:
        """Nobody looks at them."""

    def memory_statistics(self) -> Any:
        """All of its limit, if it has one."""
        return SimpleNamespace(limit=self.limit, resident=self.limit)

    def delete(self) -> None:
        self.state = GuestState.GONE


Run = Callable[..., tuple[list[Any], list[FakeGuest]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(reasons, ...): the results of guests that are suspended for these reasons, and the guests. No time passes
    before they try again."""
    monkeypatch.setattr(module, "SUSPENDED_S", 0.0)
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)

    def run(
        *guests: Iterable[str | None],
        limit: int | None = None,
        gained: dict[str, int] | None = None,
        made: list[FakeGuest] | None = None,
    ) -> tuple[list[Any], list[FakeGuest]]:
        made = [] if made is None else made
        with Host(MIB) as host:
            host.memory.log.gained.update(gained or {})

            def create(config: GuestConfig) -> Any:
                made.append(FakeGuest(host, config, guests[len(made)]))
                made[-1].limit = limit
                return made[-1]

            monkeypatch.setattr(host, "create", create)
            flat = FlatConfig(Path("unread"), 0)
            configs = [GuestConfig(name=f"guest{number}", flat=flat) for number in range(len(guests))]
            screen = Screen(None, [config.name for config in configs])
            return Session(host, screen).run(configs), made

    return run


def test_each_reason_is_told_once(run: Run, capsys: Capture) -> None:
    (result,), (guest,) = run(["disk a is full", "disk a is full", "disk a is full", "disk b is full"])
    assert result.ending is Ending.POWER_OFF
    assert guest.resumed == 4
    assert capsys.readouterr().err == (
        "emuvisor: guest0: paused: disk a is full\nemuvisor: guest0: paused: disk b is full\n"
    )


def test_a_guest_that_goes_on_is_not_one_without_memory(run: Run, capsys: Capture) -> None:
    """Several guests: while one rests, the others that want memory wait for what it may give back."""
    results, guests = run(["disk a is full"] * 2, [None])
    assert [result.ending for result in results] == [Ending.POWER_OFF, Ending.POWER_OFF]
    assert [guest.resumed for guest in guests] == [2, 1]
    assert capsys.readouterr().err == "emuvisor: guest0: paused: disk a is full\n"


def test_a_guest_without_memory_ends_when_nobody_is_left(run: Run) -> None:
    (first, second), _ = run(["disk a is full"], [None] * 9)
    assert first.ending is Ending.POWER_OFF
    assert second.ending is Cut.NO_MEMORY


def test_it_is_told_which_limit_it_has_reached(run: Run) -> None:
    (result,), _ = run([None], limit=MIB)
    assert (result.ending, result.message) == (
        Cut.NO_MEMORY,
        "it holds its limit of 1 MiB; --limit gives it more",
    )


def test_what_the_memory_manager_tried_is_told(run: Run) -> None:
    (result,), _ = run([None], gained={"swap": 12, "sharing": 3, "pause": 0})
    assert result.message == (
        "all 256 frames of the host (1 MiB) are taken (frames gained: 12 by swap, 3 by sharing); "
        "--pool gives it more"
    )


def test_the_memory_manager_has_time_to_find_some(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the only guest is given up, it is let go on by somebody else."""
    monkeypatch.setattr(module, "PATIENCE_S", 1000.0)
    waits: list[float] = []
    guests: list[FakeGuest] = []

    def select(_read: object, _write: object, _other: object, timeout: float) -> Any:
        waits.append(timeout)
        if len(waits) == 3:
            guests[0].resume()
        return (), (), ()

    monkeypatch.setattr(module, "select", SimpleNamespace(select=select))
    (result,), _ = run([None], made=guests)
    assert result.ending is Ending.POWER_OFF
    assert waits[0] is None or waits[0] > 900
    assert 900 < waits[1] <= 1000


def test_it_rests_before_it_tries_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at, not the number of events."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 0.25
        return now[0]

    monkeypatch.setattr(module, "SUSPENDED_S", 2.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic, sleep=lambda _seconds: None))
    monkeypatch.setattr(module, "select", SimpleNamespace(select=lambda *_: ((), (), ())))
    (result,), (guest,) = run(["disk a is full"])
    assert result.ending is Ending.POWER_OFF
    assert guest.resumed == 1
    assert now[0] > 2.0
