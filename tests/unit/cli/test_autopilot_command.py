"""`emuvisor autopilot FILE`."""

import json
import time
from pathlib import Path

import pytest

from emuvisor.cli import main
from emuvisor.host.autopilot.log import Entry, Kind, encode

ENTRIES = (
    Entry(
        1, 3600.5, Kind.CHANGED, "web", "cap", "50 %", "none", "it is throttled", {"due": 80.25, "idle": 5}
    ),
    Entry(2, -5.0, Kind.TAKEN_BACK, "db", "weight", "200", "100", "the objective fell"),
)
CLOCKS = [time.strftime("%H:%M:%S", time.localtime(seconds)) for seconds in (3600, 0)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("".join(encode(entry) + "\n" for entry in ENTRIES))
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["autopilot", *words]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_a_line_for_each_change(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, str(log)) == (
        f"{CLOCKS[0]}  1  changed: web: cap 50 % -> none: it is throttled\n"
        f"{CLOCKS[1]}  2  taken back: db: weight 200 -> 100: the objective fell\n"
    )


def test_numbers(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, str(log), "--numbers", "--guest", "web") == (
        f"{CLOCKS[0]}  1  changed: web: cap 50 % -> none: it is throttled  [due 80.25, idle 5]\n"
    )


def test_json(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = json.loads(shown(capsys, str(log), "--json", "--guest", "db"))
    assert (entry["number"], entry["kind"], entry["after"]) == (2, "taken back", "100")


def test_no_changes(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, str(log), "--guest", "wbe") == "no changes of 'wbe'\n"
    log.write_text("")
    assert shown(capsys, str(log)) == "no changes\n"
    assert shown(capsys, str(log), "--json") == "[]\n"


def test_what_is_no_log(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(encode(ENTRIES[0]).encode() + b"\n\xff\n")
    assert shown(capsys, str(log), code=2) == f"emuvisor: error: {log}: line 2: is not JSON\n"
    log.write_text("[" * 200_000)
    assert shown(capsys, str(log), code=2) == f"emuvisor: error: {log}: line 1: is not JSON\n"
    none = tmp_path / "none"
    message = f"emuvisor: error: {none}: cannot be read: No such file or directory\n"
    assert shown(capsys, str(none), code=2) == message
