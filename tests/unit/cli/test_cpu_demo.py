"""`emuvisor demo --cpu`, for a shorter time than people look on."""

import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emuvisor.cli import cpu_demo, main
from emuvisor.cli.cpu_demo import DEMO, Sharer, due, run_cpu_demo
from emuvisor.cli.workloads import Workload
from emuvisor.host import Guest, GuestState, Host
from emuvisor.host.scheduler.recording import read_recording
from emuvisor.units import MIB

Capture = pytest.CaptureFixture[str]
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the demo sleeps somebody has a turn, and everybody has had one, however busy the machine is."""
    hosts: list[Host] = []

    def make(*args: Any, **options: Any) -> Host:
        hosts.append(Host(*args, **options))
        return hosts[-1]

    def sleep(seconds: float) -> None:
        guests = hosts[-1].guests.values()
        turns, end = sum(guest.slices for guest in guests), time.monotonic() + PATIENCE_S
        time.sleep(seconds)
        while running := [guest for guest in guests if guest.state is GuestState.RUNNING]:
            if all(guest.slices for guest in running) and sum(guest.slices for guest in guests) > turns:
                return
            assert time.monotonic() < end
            time.sleep(0.001)

    monkeypatch.setattr(cpu_demo, "Host", make)
    monkeypatch.setattr(cpu_demo, "time", SimpleNamespace(sleep=sleep, monotonic_ns=time.monotonic_ns))
    monkeypatch.setattr(cpu_demo, "BOOT_S", 0.05)
    monkeypatch.setattr(cpu_demo, "REFRESH_S", 0.05)
    monkeypatch.setattr(
        cpu_demo.run_cpu_demo, "__kwdefaults__", run_cpu_demo.__kwdefaults__ | {"seconds": 0.2}
    )


def test_what_each_is_due() -> None:
    shares = dict(zip((sharer.name for sharer in DEMO), due(DEMO, 1), strict=True))
    assert shares == pytest.approx(
        {"heavy": 0.75 * 4 / 7, "medium": 0.75 * 2 / 7, "light": 0.75 / 7, "capped": 0.1, "reserved": 0.15}
    )
    two = due(DEMO, 2)
    assert (two[0], sum(two)) == (pytest.approx(1), pytest.approx(2))
    assert due([Sharer("a"), Sharer("b", cap=30)], 2) == [1, 0.3]


def test_the_table(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "schedule"
    assert main(["demo", "--cpu", "--scheduler", "credit", "--schedule-record", str(file)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0].split() == ["guest", "claim", "due", "got", "waited", "throttled", "slices"]
    assert [" ".join(line.split()[:-4]) for line in lines[1:-1]] == [
        "heavy weight 400 42.9%",
        "medium weight 200 21.4%",
        "light weight 100 10.7%",
        "capped weight 400, cap 10 % 10.0%",
        "reserved weight 10, reservation 15 % 15.0%",
    ]
    assert lines[-1].startswith(
        "5 guests that never sleep, one pCPU, 0.2 s, divided by credit; due is by weight, "
    )
    assert lines[-1].endswith(" of it; the rest is switching, and what else this machine does.")
    assert {stretch.guest for stretch in read_recording(file)} == {sharer.name for sharer in DEMO}


def test_json(capsys: Capture) -> None:
    assert main(["demo", "--cpu", "--json", "--pcpus", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["pcpus"], document["scheduler"]) == (2, "proportional")
    assert [guest["name"] for guest in document["guests"]] == [sharer.name for sharer in DEMO]
    assert sum(guest["got"] for guest in document["guests"]) > 0
    assert list(document["guests"][0]) == ["name", "claim", "due", "got", "waited", "throttled", "slices"]


def test_the_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    assert run_cpu_demo([Sharer("a")])
    assert "parts of a pCPU so far" in screen.getvalue()


def test_a_guest_that_ends_makes_it_fail(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    watch = cpu_demo._watch

    def watch_the_end(sharers: Sequence[Sharer], guests: Sequence[Guest], *args: Any, **options: Any) -> Any:
        assert guests[0].wait(PATIENCE_S)
        return watch(sharers, guests, *args, **options)

    monkeypatch.setattr(cpu_demo, "_watch", watch_the_end)
    monkeypatch.setattr(cpu_demo, "ENDLESS", Workload("spin", "computes", (1, 1), memory=8 * MIB))
    assert not run_cpu_demo([Sharer("a")], seconds=0.1)
    assert capsys.readouterr().err == "emuvisor: these did not run on: a\n"


def test_two_demos_at_once(capsys: Capture) -> None:
    assert main(["demo", "--cpu", "--memory"]) == 2
    assert capsys.readouterr() == ("", "emuvisor: error: --memory with --cpu: these are two demos\n")
