"""`emuvisor demo --memory`, with less work than people see."""

import io
import json
import re
import sys

import pytest

from emuvisor.cli import main, memory_demo
from emuvisor.cli.memory_demo import Holder
from emuvisor.units import KIB, MIB

Capture = pytest.CaptureFixture[str]
LENGTH = 4 * MIB - 256 * KIB
SMALL = (
    # Parameters: start, length, stride, passes
    Holder("one", "holds memory", "memtouch", (0, LENGTH, 512, 2), memory=5 * MIB),
    Holder("two", "reserves memory", "memtouch", (0, LENGTH, 512, 2), memory=5 * MIB, reservation=MIB),
    # ..., honest, what it keeps
    Holder("three", "has a balloon", "balloon", (0, LENGTH, 512, 3, 0, MIB), memory=5 * MIB),
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_demo, "DEMO", SMALL)
    monkeypatch.setattr(memory_demo, "POOL", 15 * MIB // 2)
    monkeypatch.setattr(memory_demo, "LATENCY_US", 100)
    monkeypatch.setattr(memory_demo, "WAIT_S", 0.01)
    monkeypatch.setattr(memory_demo, "TIMEOUT_S", 600)  # however busy the machine is


def test_plain_text(capsys: Capture) -> None:
    assert main(["demo", "--memory"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [re.sub(r"^ *[0-9.]+ s  ", "", line) for line in out.splitlines()]
    assert lines[:3] == [
        "one      starts: memtouch, holds memory",
        "two      starts: memtouch, reserves memory",
        "three    starts: balloon, has a balloon",
    ]
    assert sorted(lines[3:6]) == [f"{name:8} ends: power-off" for name in ("one", "three", "two")]
    # Of the moment at which the most was saved: a quick guest may have ended before the last one began.
    assert lines[6].split()[:3] == ["guest", "size", "reserved"]
    assert any(line.startswith("host: 7.5M, ") for line in lines[7:11])
    assert "the guests were at most" in lines[-2]
    assert re.fullmatch(r"3 guests in [0-9.]+ s: [0-9,]+ decisions, all sums were right\.", lines[-1])


def test_json(capsys: Capture) -> None:
    assert main(["demo", "--memory", "--json", "--pcpus", "2"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert (document["all_well"], document["pcpus"]) == (True, 2)
    assert document["endings"] == dict.fromkeys(("one", "two", "three"), "power-off")
    names = {guest["name"] for guest in document["memory"]["guests"] + document["memory"]["gone"]}
    assert names == {"one", "two", "three"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "100", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["demo", "--memory"]) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert "starts:" not in text
    assert text.count("in flight") > 1
    assert "█ resident" in text
    assert text.endswith("all sums were right.\n")


def test_a_guest_that_fails_makes_it_fail(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    bad = Holder("bad", "asks for too little", "memtouch", (0, 0, 1), memory=2 * MIB)
    monkeypatch.setattr(memory_demo, "DEMO", (bad,))
    assert main(["demo", "--memory"]) == 1
    out, err = capsys.readouterr()
    assert out.endswith("not all ended well.\n")
    assert err == "emuvisor: these did not end well: bad\n"


def test_a_guest_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    endless = Holder("endless", "goes on", "memtouch", (0, MIB, 64, 1 << 40), memory=4 * MIB)
    monkeypatch.setattr(memory_demo, "DEMO", (endless,))
    monkeypatch.setattr(memory_demo, "TIMEOUT_S", 0.2)
    assert main(["demo", "--memory", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["endings"] == {"endless": ""}


def test_the_demo_itself_is_overcommitted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert sum(holder.memory for holder in memory_demo.DEMO) == 2 * memory_demo.POOL
