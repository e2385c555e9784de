"""`emuvisor schedule`: what it says of a recording."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emuvisor.cli import main
from emuvisor.host.scheduler.recording import Stretch, write_recording

Capture = pytest.CaptureFixture[str]

MS = 1_000_000
ZERO = 7_000_000_000 * MS
"""A host's clock counts from anywhere."""


def stretch(
    guest: str, pcpu: int, when: tuple[float, float], why: str, *, waited: float = 0, throttled: float = 0
) -> Stretch:
    """Times in milliseconds since the recording began."""
    first, last, wait, throttle = (round(value * MS) for value in (*when, waited, throttled))
    return Stretch(pcpu, guest, ZERO + first, ZERO + last, why, wait, throttle)


RECORDING = (
    stretch("web", 0, (0, 10), "db is ahead of it"),
    stretch("db", 0, (10, 15), "its slice was over", waited=10),
    stretch("web", 2, (12, 32), "its slice was over", waited=2),
    stretch("db", 1, (20, 30), "its cap or limit was used up", throttled=5),
    stretch("db", 0, (35, 39), "it slept", waited=1, throttled=4),
    stretch("log", 0, (39, 40), "the recording ended", waited=12),
)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., str]:
    """record(stretch, ...): the path of a recording."""

    def write(*stretches: Stretch) -> str:
        file = tmp_path / "schedule.jsonl"
        write_recording(file, stretches)
        return str(file)

    return write


Record = Callable[..., str]


def test_chart_and_table(record: Record, capsys: Capture) -> None:
    assert main(["schedule", record(*RECORDING), "--width", "48"]) == 0
    assert capsys.readouterr() == (
        "        |0 ms               |20 ms\n"
        "pCPU 0  AAAAAAAAAABBBBB                    BBBBC\n"
        "pCPU 1                      BBBBBBBBBB          \n"
        "pCPU 2              AAAAAAAAAAAAAAAAAAAA        \n"
        "A web   ##########--####################        \n"
        "B db    ----------#####xxxxx##########xxxx-#### \n"
        "C log                              ------------#\n"
        "#: ran  .: ran a little  -: waited for a pCPU  x: throttled\n"
        "\n"
        "guest  ran ms  share  waited ms  longest  throttled ms  slices  on   slice over  preempted  slept  throttled\n"
        "web      30.0  75.0%        2.0      2.0             -       2  0,2           1          1      -          -\n"
        "db       19.0  47.5%       11.0     10.0           9.0       3  0-1           1          -      1          1\n"
        "log       1.0   2.5%       12.0     12.0             -       1  0             -          -      -          -\n"
        "40.0 ms; busy: pCPU 0 50.0%, pCPU 1 25.0%, pCPU 2 50.0%\n",
        "",
    )


def test_a_part_of_the_time_and_of_the_guests(record: Record, capsys: Capture) -> None:
    options = ["--from", "0.005", "--to", "0.025", "--guest", "db", "--guest", "log", "--width", "48"]
    assert main(["schedule", record(*RECORDING), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "        |5 ms     |10 ms              |20 ms"
    assert lines[3] == "A db    " + "----------##########xxxxxxxxxx##########"
    assert [line.split()[:3] for line in lines[-3:-1]] == [["guest", "ran", "ms"], ["db", "10.0", "50.0%"]]
    assert lines[-1] == "20.0 ms; busy: pCPU 0 25.0%, pCPU 1 25.0%"


def test_the_end_of_a_time_is_that_of_the_recording(record: Record, capsys: Capture) -> None:
    assert main(["schedule", record(*RECORDING), "--from", "0.03", "--to", "1e9"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("10.0 ms; busy")


def test_a_guest_that_only_waits_in_that_time(record: Record, capsys: Capture) -> None:
    assert main(["schedule", record(*RECORDING), "--from", "0.03", "--to", "0.036"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-4:-1]] == [
        ["web", "2.0", "33.3%", "-", "-", "-", "1", "2", "1", "-", "-", "-"],
        ["db", "1.0", "16.7%", "1.0", "1.0", "4.0", "1", "0", "-", "-", "-", "-"],
        ["log", "-", "0.0%", "6.0", "6.0", "-", "0", "-", "-", "-", "-", "-"],
    ]


def test_json(record: Record, capsys: Capture) -> None:
    assert main(["schedule", record(*RECORDING[:4]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "span_ns": 32 * MS,
        "pcpus": [
            {"pcpu": 0, "busy_ns": 15 * MS, "share": 0.46875},
            {"pcpu": 1, "busy_ns": 10 * MS, "share": 0.3125},
            {"pcpu": 2, "busy_ns": 20 * MS, "share": 0.625},
        ],
        "guests": [
            {
                "name": "web",
                "ran_ns": 30 * MS,
                "share": 0.9375,
                "waited_ns": 2 * MS,
                "longest_wait_ns": 2 * MS,
                "throttled_ns": 0,
                "slices": 2,
                "pcpus": [0, 2],
                "why": {"db is ahead of it": 1, "its slice was over": 1},
            },
            {
                "name": "db",
                "ran_ns": 15 * MS,
                "share": 0.46875,
                "waited_ns": 10 * MS,
                "longest_wait_ns": 10 * MS,
                "throttled_ns": 5 * MS,
                "slices": 2,
                "pcpus": [0, 1],
                "why": {"its slice was over": 1, "its cap or limit was used up": 1},
            },
        ],
    }


def test_svg(record: Record, tmp_path: Path, capsys: Capture) -> None:
    chart = tmp_path / "chart.svg"
    assert main(["schedule", record(*RECORDING), "--svg", str(chart), "--from", "0.01"]) == 0
    assert capsys.readouterr() == ("", "")
    svg = chart.read_text()
    assert ">schedule.jsonl</text>" in svg
    assert ">10 ms</text>" in svg
    assert "web on pCPU 2 for 20 ms; its slice was over" in svg


def test_a_terminal_has_colours(record: Record, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["schedule", record(*RECORDING)]) == 0
    text = screen.getvalue()
    assert "\x1b[" in text
    assert "\x1b[7;38;5;67mAAAAAAAAAAAAA\x1b[0m" in text
    assert "40.0 ms; busy" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--guest", "fig"], "{file}: there is no guest 'fig'; there are: db, log, web"),
        (["--width", "39"], "--width 39: it is 40 to 1000"),
        (["--from", "2", "--to", "1"], "--from 2 --to 1: that is no time at all"),
        (["--from", "1", "--to", "1"], "--from 1 --to 1: that is no time at all"),
        (["--from", "0.04"], "--from 0.04: the recording ends after 0.040 s"),
        (["--guest", "log", "--to", "0.01"], "{file}: nobody ran or waited in that time"),
        (["--svg", "/none/x.svg"], "/none/x.svg: cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_shown(record: Record, capsys: Capture, options: list[str], message: str) -> None:
    file = record(*RECORDING)
    assert main(["schedule", file, *options]) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: {message.format(file=file)}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "-1"], "--from: '-1' is not a number of seconds"),
        (["--to", "nan"], "--to: 'nan' is not a number of seconds"),
        (["--to", "soon"], "--to: 'soon' is not a number of seconds"),
        (["--svg", "x.png"], "--svg: 'x.png' does not end in .svg"),
    ],
)
def test_options_that_are_none(capsys: Capture, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as error:
        main(["schedule", "file", *options])
    assert error.value.code == 2
    assert capsys.readouterr().err.endswith(f"emuvisor schedule: error: argument {message}\n")


def test_recordings_that_are_none(record: Record, tmp_path: Path, capsys: Capture) -> None:
    empty = record()
    assert main(["schedule", empty]) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: {empty}: nobody ran\n")
    broken = tmp_path / "broken"
    broken.write_text("{}\n")
    assert main(["schedule", str(broken)]) == 2
    assert capsys.readouterr().err == (
        f"emuvisor: error: {broken}, line 1: no stretch of a schedule: missing fields, or others\n"
    )
