"""`emuvisor demo`, with less work than people see."""

import io
import json
import re

import pytest
from rich.console import Console

from emuvisor.cli import demo, main, shows, workloads
from emuvisor.cli.shows import LiveShow, sparkline
from emuvisor.cli.workloads import Workload, run_workloads
from emuvisor.units import MIB

Capture = pytest.CaptureFixture[str]
SMALL = (
    Workload("spin", "computes", (100_000, 3)),
    Workload("memtouch", "fills memory", (0, MIB, 4096, 1)),
    Workload("vmexit", "exits", (10,)),
    Workload("halt", "sleeps", (1,)),
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(workloads, "TIMEOUT_S", 600)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "DEMO", SMALL)


@pytest.mark.usefixtures("_small")
def test_plain_text(capsys: Capture) -> None:
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [re.sub(r"^ *[0-9.]+ s  ", "", line) for line in out.splitlines()]
    assert lines[:4] == [
        "spin       boots; it computes",
        "memtouch   boots; it fills memory",
        "vmexit     boots; it exits",
        "halt       boots; it sleeps",
    ]
    assert "spin     | spin: done" in lines
    assert "memtouch | memtouch: PASS" in lines
    assert lines.index("halt     | halt: done") < lines.index("halt       defined: power-off")
    assert lines[-6].split()[:3] == ["guest", "ended", "by"]
    assert [line.split()[:2] for line in lines[-5:-1]] == [
        [workload.program, "power-off"] for workload in SMALL
    ]
    assert re.fullmatch(
        r"4 guests, one pCPU, [0-9.]+ s: [0-9,]+ switches between guests, [0-9,]+ frames \([0-9.]+ MiB\)\.",
        lines[-1],
    )


@pytest.mark.usefixtures("_small")
def test_json(capsys: Capture) -> None:
    assert main(["demo", "--json", "--pcpus", "2"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert (document["all_well"], document["pcpus"]) == (True, 2)
    assert [guest["name"] for guest in document["guests"]] == [workload.program for workload in SMALL]
    assert {guest["ending"] for guest in document["guests"]} == {"power-off"}
    assert document["switches"] == sum(guest["statistics"]["exits"]["switch"] for guest in document["guests"])


def test_a_guest_that_fails_makes_it_fail(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    bad = Workload("memtouch", "asks for too little", (0, 0, 1))
    monkeypatch.setattr(workloads, "DEMO", (Workload("vmexit", "exits", (1,)), bad))
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "emuvisor: these did not end well: memtouch\n"


def test_a_guest_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "TIMEOUT_S", 0.2)
    summary = run_workloads((Workload("spin", "computes", (1_000_000, 0)),))
    assert not summary.all_well
    assert summary.guests[0].ending == ""


def test_the_live_table() -> None:
    screen = io.StringIO()
    show = LiveShow(Console(file=screen, force_terminal=True, width=140, height=30, no_color=True))
    assert run_workloads(SMALL, show=show).all_well
    text = screen.getvalue()
    assert "emuvisor: 4 guests on 1 pCPU" in text
    for word in ("share of CPU", "frames", "exits", "guest time", "last console line", "sleeps", "done"):
        assert word in text


def test_the_demo_itself_has_four_different_guests() -> None:
    assert len({workload.program for workload in workloads.DEMO}) == 4
    assert demo.DESCRIPTION.startswith("Boots four different guests")


@pytest.mark.parametrize(("shares", "bars"), [([], ""), ([0, 0.5, 1], "▁▅█"), ([-1, 2], "▁█")])
def test_sparkline(shares: list[float], bars: str) -> None:
    assert sparkline(shares) == bars
    assert set(bars) <= set(shows.SPARKS)
