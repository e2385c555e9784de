"""`emuvisor top`: its options, and what it prints without a terminal."""

import errno
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emuvisor.cli import main, top
from emuvisor.tui.dashboard import Dashboard

Program = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input and output are a terminal."""
    monkeypatch.setattr(top, "sys", SimpleNamespace(stdin=Terminal(), stdout=Terminal()))


def guest(path: Path, *options: str) -> list[str]:
    return ["top", "--flat", f"{path}@0x8000", "--memory", "16M", *options]


def test_lines_until_all_guests_have_ended(program: Program, capsys: Capture) -> None:
    assert main(guest(program("hello"), "--json", "--name", "web")) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    (last,) = lines[-1]["guests"]
    assert (last["name"], last["state"], last["reason"]) == ("web", "defined", "power-off")
    assert last["last_line"] == "hello: done, powering off"
    assert (lines[0]["seconds"], err) == (0, "")


def test_a_timeout_switches_guests_off(program: Program, capsys: Capture) -> None:
    assert main(guest(program("endless"), "--json", "--timeout", "0.05", "--nic", "lan")) == 0
    assert capsys.readouterr().err == "emuvisor: guest: switched off: no end after 0.05 s\n"


def test_statistics_and_memory_go_to_files_as_well(program: Program, tmp_path: Path, capsys: Capture) -> None:
    files = [tmp_path / "statistics", tmp_path / "memory"]
    options = ["--json", "--statistics", str(files[0]), "--memory-record", str(files[1])]
    assert main(guest(program("hello"), *options)) == 0
    assert all(file.stat().st_size for file in files)


def test_without_a_terminal_there_is_no_dashboard(capsys: Capture) -> None:
    assert main(["top"]) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: the dashboard needs a terminal; --json prints the numbers\n"
    )


@pytest.mark.usefixtures("terminal")
def test_without_textual_there_is_no_dashboard(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    assert main(["top"]) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: the dashboard needs textual: pip install 'emuvisor[top]'\n"
    )


def test_options_of_a_guest_that_boots_nothing(capsys: Capture) -> None:
    assert main(["top", "--json", "--memory", "1G"]) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: nothing to boot: give --image, --kernel, --flat, --firmware, --disk or --config\n"
    )


@pytest.mark.usefixtures("terminal")
def test_the_dashboard_of_our_own_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[Any] = []

    def run(self: Dashboard) -> None:
        samples.append(self.overview._source.sample())
        (warning,) = self.overview._source.warnings()
        assert warning.startswith("metrics at http://127.0.0.1:")

    monkeypatch.setattr(Dashboard, "run", run)
    assert main(["top", "--pcpus", "2", "--metrics", ":0"]) == 0
    (sample,) = samples
    assert [(guest.name, guest.statistics.state) for guest in sample.guests] == [
        (name, "running") for name in ("spin", "memtouch", "vmexit", "halt")
    ]
    assert sample.pcpus == 2


Fail = Callable[[OSError], int]


@pytest.fixture
def fail(program: Program, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """fail(error): the exit code when standard output raises `error`."""

    def run(error: OSError) -> int:
        def write(_text: str) -> int:
            raise error

        monkeypatch.setattr("os.dup2", lambda *_: None)
        stdout = SimpleNamespace(write=write, flush=lambda: None, fileno=lambda: 1)
        monkeypatch.setattr(sys, "stdout", stdout)
        return main(guest(program("endless"), "--json", "--timeout", "60"))

    return run


def test_the_reader_goes_away(fail: Fail, capsys: Capture) -> None:
    assert fail(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 141
    assert capsys.readouterr().err == ""


def test_standard_output_is_full(fail: Fail, capsys: Capture) -> None:
    assert fail(OSError(errno.ENOSPC, "No space left on device")) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: standard output cannot be written to: No space left on device\n"
    )
