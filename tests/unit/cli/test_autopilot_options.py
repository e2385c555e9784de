"""--autopilot and what belongs to it. The host is written by hand."""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emuvisor.cli.autopilot_options import add_autopilot_options, autopilot
from emuvisor.errors import HostError, UsageError
from emuvisor.host.autopilot import Constraints, Goal, Objective
from emuvisor.host.autopilot.log import AutopilotLog, Entry, Kind, decode
from emuvisor.machine.config import FlatConfig, GuestConfig

ENTRY = Entry(1, 2.0, Kind.RECOMMENDED, "web", "cap", "50 %", "none", "it is throttled")
GUESTS = tuple(GuestConfig(name=name, flat=FlatConfig(Path("x"), 0x8000)) for name in ("web", "db"))


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_autopilot_options(parser)
    return parser.parse_args(words)


class FakePilot:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.log = AutopilotLog(self.told.append)

    def start(self, *arguments: object, **options: object) -> None:
        self.told.append((*arguments, options))

    def stop(self) -> None:
        self.told.append("stop")


@pytest.fixture
def host() -> Any:
    return SimpleNamespace(autopilot=FakePilot())


def test_it_is_off(host: Any) -> None:
    with autopilot(options(), host, GUESTS):
        pass
    assert host.autopilot.told == []


def test_it_flies_and_lands(host: Any) -> None:
    with autopilot(options("--autopilot", "fairness"), host, GUESTS):
        assert host.autopilot.told == [(Objective(Goal.FAIRNESS), Constraints(), {"dry_run": False})]
    assert host.autopilot.told[1:] == ["stop"]


def test_a_log_is_written(host: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    words = ("--autopilot-dry-run", "--autopilot-log", str(path), "--autopilot-constraints", "keep=db")
    with autopilot(options("--autopilot", "latency:web", *words), host, GUESTS):
        orders = Objective(Goal.LATENCY, "web"), Constraints(keep=frozenset({"db"}))
        assert host.autopilot.told == [(*orders, {"dry_run": True})]
        host.autopilot.log.add(ENTRY)
        assert [decode(line) for line in path.read_text().splitlines()] == [ENTRY]


def test_a_log_that_cannot_be_written(host: Any, tmp_path: Path) -> None:
    words = ("--autopilot", "fairness", "--autopilot-log", f"{tmp_path}/none/log")
    with pytest.raises(HostError) as error, autopilot(options(*words), host, GUESTS):
        pass
    assert str(error.value) == f"{tmp_path}/none/log: cannot be written: No such file or directory"


@pytest.mark.parametrize(
    "words", [("--autopilot-dry-run",), ("--autopilot-log", "x"), ("--autopilot-constraints", "keep=a")]
)
def test_options_that_need_an_objective(host: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as error, autopilot(options(*words), host, GUESTS):
        pass
    assert str(error.value) == f"{words[0]} without --autopilot"


@pytest.mark.parametrize(
    "words",
    [
        ("latency:wbe",),
        ("fairness", "--autopilot-constraints", "keep=web,keep=wbe"),
        ("fairness", "--autopilot-constraints", "wbe.weight=50:400"),
    ],
)
def test_guests_that_there_are_not(host: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as error, autopilot(options("--autopilot", *words), host, GUESTS):
        pass
    assert str(error.value) == "--autopilot: there is no guest 'wbe'; there are: web, db"
    assert host.autopilot.told == []
