"""`emuvisor serve` with an autopilot, whose guests come and go."""

import os
import signal
import threading
from pathlib import Path

import pytest

from emuvisor.cli import main


def autopilots() -> int:
    return sum(thread.name == "autopilot" for thread in threading.enumerate())


def test_it_flies_while_the_daemon_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flying: list[int] = []

    def ready(text: str) -> None:
        if text == "READY=1":
            flying.append(autopilots())
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("emuvisor.daemon.systemd.notify", ready)
    log = tmp_path / "flight.jsonl"
    orders = ["--autopilot", "latency:web", "--autopilot-constraints", "keep=db", "--autopilot-log", str(log)]
    assert main(["serve", "--pool", "64M", "--store", str(tmp_path / "store"), *orders]) == 0
    assert flying == [1]
    assert autopilots() == 0
    assert log.read_text() == ""


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        (["--autopilot-dry-run"], "--autopilot-dry-run without --autopilot"),
        (
            ["--autopilot", "speed"],
            "'speed' is no objective; there are throughput, fairness and latency:NAME",
        ),
    ],
)
def test_orders_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], orders: list[str], message: str
) -> None:
    assert main(["serve", "--pool", "64M", "--store", str(tmp_path / "store"), *orders]) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {message}\n"
