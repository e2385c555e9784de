"""The guests of a host in this process, as the dashboard's source. The host is written by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
from memory_samples import guest as guest_memory
from memory_samples import host as host_memory
from metrics_samples import statistics

from emuvisor.errors import EmuvisorError, StateError
from emuvisor.host import GuestState
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.tui.local import CONSOLE_TAIL, LocalSource


class FakeGuest:
    """Notes what is asked of it."""

    def __init__(self, config: Any) -> None:
        self.name = config.name
        self.config = config
        self.state = GuestState.DEFINED
        self.outcome: str | None = None
        self.machine = SimpleNamespace(consoles=[1])
        self.console = SimpleNamespace(text="x" * CONSOLE_TAIL + "end")
        self.asked: list[object] = []
        self.cpu_claim = CpuClaim(weight=300, cap=25.0)
        self.claim: dict[str, float] = {}

    def start(self) -> None:
        self.state = GuestState.RUNNING

    def stop(self) -> None:
        if self.outcome == "ends now":
            raise StateError("it has ended")
        self.state = GuestState.DEFINED

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def type(self, data: bytes) -> None:
        self.asked.append(data)

    def screen(self) -> Any:
        return SimpleNamespace(png=lambda: b"png")

    def statistics(self) -> Any:
        return statistics(self.name, state=self.state)

    def memory_statistics(self) -> Any:
        return guest_memory(self.name)

    def set_cpu(self, **claim: float) -> None:
        self.claim |= claim


class FakeHost:
    def __init__(self) -> None:
        self.pcpus = 1
        self.warnings: list[Any] = []
        self.guests: dict[str, Any] = {}
        self.memory = SimpleNamespace(statistics=host_memory)

    def create(self, config: Any) -> Any:
        self.guests[config.name] = FakeGuest(config)
        return self.guests[config.name]

    def all_guests(self) -> list[Any]:
        return list(self.guests.values())


def source(*timeouts: float | None) -> tuple[LocalSource, dict[str, Any], list[float]]:
    """A source of guests a, b, c with these timeouts; the guests; and the time."""
    now = [100.0]
    host: Any = FakeHost()
    configs: Any = [SimpleNamespace(name="abc"[i], timeout_s=timeout) for i, timeout in enumerate(timeouts)]
    made = LocalSource(host, configs, clock=lambda: now[0])
    host.warnings[0]("the disk fills up")
    return made, host.guests, now


def test_guests_are_started_and_sampled() -> None:
    local, guests, _ = source(None, None)
    assert local.ended
    local.start()
    assert not local.ended
    sample = local.sample()
    assert [(guest.name, guest.statistics.state, guest.weight, guest.cap) for guest in sample.guests] == [
        ("a", "running", 300, 25.0),
        ("b", "running", 300, 25.0),
    ]
    assert (sample.pcpus, sample.memory) == (1, host_memory())
    guests["a"].outcome = "power-off"
    assert not local.ended
    guests["b"].state = GuestState.CRASHED
    assert local.ended


def test_those_whose_time_is_over_are_stopped() -> None:
    local, guests, now = source(None, 5.0, 5.5)
    now[0] = 200.0
    local.start()
    guests["c"].outcome = "ends now"
    now[0] = 204.9
    local.sample()
    assert {guest.state for guest in guests.values()} == {GuestState.RUNNING}
    now[0] = 206
    local.sample()
    local.sample()
    assert [guest.state for guest in guests.values()] == ["running", "defined", "running"]
    assert local.warnings()[:2] == ["the disk fills up", "b: switched off: no end after 5 s"]
    assert local.warnings() == []


def test_what_people_ask_for() -> None:
    local, guests, _ = source(None)
    local.pause("a")
    local.resume("a")
    local.type("a", b"ls\r")
    assert guests["a"].asked == ["pause", "resume", b"ls\r"]
    assert local.screenshot("a") == b"png"
    assert local.console("a") == "x" * (CONSOLE_TAIL - 3) + "end"


def test_weight_and_cap() -> None:
    local, guests, _ = source(None)
    local.set_weight("a", 500)
    local.set_cap("a", 12.5)
    assert guests["a"].claim == {"weight": 500, "cap": 12.5}


def test_what_is_not_possible_is_said() -> None:
    local, guests, _ = source(None)
    guests["a"].machine.consoles = []
    assert local.console("a") == ""
    texts = []
    for act in (
        lambda: local.type("a", b"x"),
        lambda: local.set_weight("z", 1),
        lambda: local.set_cap("z", 1),
        lambda: local.pause("z"),
        lambda: local.console("z"),
    ):
        with pytest.raises(EmuvisorError) as error:
            act()
        texts.append(str(error.value))
    assert texts == [
        "guest 'a' has no serial port",
        "there is no guest 'z' any more",
        "there is no guest 'z' any more",
        "there is no guest 'z' any more",
        "there is no guest 'z' any more",
    ]
