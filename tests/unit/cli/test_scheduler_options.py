"""How pCPUs are divided: the options, and what is recorded."""

import re
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emuvisor.cli import main
from emuvisor.cli.scheduler_options import parse_affinity, parse_time, recorded_schedule
from emuvisor.errors import UsageError
from emuvisor.host.scheduler import policies, recording
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.instructions import Added, Event, Left, Woke
from emuvisor.host.scheduler.policies.round_robin import RoundRobin
from emuvisor.host.scheduler.recording import Stretch, read_recording

Program = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]

KNOWN = "credit, deadline, proportional, round-robin"


@pytest.mark.parametrize(
    ("text", "pcpus"),
    [("0", (0,)), ("0,2-3", (0, 2, 3)), ("3,1-3,1", (3, 1, 2)), ("1024", (1024,)), ("5-5", (5,))],
)
def test_affinities(text: str, pcpus: tuple[int, ...]) -> None:
    assert parse_affinity(text) == pcpus


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "a", "-1", "1-", "1-2-3", "1 2", "0-99999999999", "²", "1.5"]
)
def test_what_is_no_affinity(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as error:
        parse_affinity(text)
    assert str(error.value) == f"{text!r} is not a list of pCPUs, such as 0,2-3"


@pytest.mark.parametrize(("text", "part"), [("3-1", "3-1"), ("0,1025", "1025"), ("0-9999", "0-9999")])
def test_affinities_to_nothing(text: str, part: str) -> None:
    with pytest.raises(ArgumentTypeError) as error:
        parse_affinity(text)
    assert str(error.value) == f"{text!r}: there are no pCPUs {part}"


def test_latencies() -> None:
    assert (parse_time("500us"), parse_time("2ms")) == (500, 2000)
    for text in ("", "ms", "2", "2s", "1.5ms", "-1us", "2 ms", "1" * 10 + "us"):
        with pytest.raises(ArgumentTypeError) as error:
            parse_time(text)
        assert str(error.value) == f"{text!r} is not a time, such as 500us or 2ms"


def run(path: Path, *options: str, command: str = "run") -> list[str]:
    return [command, "--flat", f"{path}@0x8000", "--memory", "16M", *options]


@pytest.mark.parametrize("command", ["run", "top"])
def test_a_run_under_another_policy_is_recorded(
    program: Program, tmp_path: Path, capsys: Capture, command: str
) -> None:
    file = tmp_path / "schedule"
    options = ["--scheduler", "credit", "--schedule-record", str(file), "--name", "web", "--json"]
    assert main(run(program("hello"), *options, command=command)) == 0
    assert capsys.readouterr().err == ""
    stretches = read_recording(file)
    assert {stretch.guest for stretch in stretches} == {"web"}
    assert main(["schedule", str(file)]) == 0


@pytest.mark.parametrize(
    "command", [["run"], ["top", "--json"], ["demo"], ["demo", "--cpu"], ["demo", "--memory"]]
)
def test_an_unknown_policy(program: Program, capsys: Capture, command: list[str]) -> None:
    guest = [] if "demo" in command else run(program("hello"))[1:]
    assert main([*command, *guest, "--scheduler", "fair"]) == 2
    assert capsys.readouterr().err == (
        f"emuvisor: error: there is no scheduling policy 'fair'; there are: {KNOWN}\n"
    )


def test_a_policy_of_an_entry_point(
    program: Program, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def make(pcpus: int) -> RoundRobin:
        made.append(pcpus)
        return RoundRobin()

    monkeypatch.setattr(policies, "lottery", make, raising=False)
    point = EntryPoint("lottery", "emuvisor.host.scheduler.policies:lottery", policies.ENTRY_POINTS)
    monkeypatch.setattr(policies, "entry_points", lambda group: [point] if group == point.group else [])
    assert main(run(program("hello"), "--scheduler", "lottery", "--pcpus", "2")) == 0
    assert made == [2]
    assert main(run(program("hello"), "--scheduler", "fair")) == 2
    assert capsys.readouterr().err == (
        "emuvisor: error: there is no scheduling policy 'fair'; there are: credit, deadline, lottery, "
        "proportional, round-robin\n"
    )


def test_a_file_that_cannot_be_written_stops_it_before_anything_runs(
    program: Program, tmp_path: Path, capsys: Capture
) -> None:
    assert main(run(program("endless"), "--schedule-record", str(tmp_path))) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: cannot write {tmp_path}: Is a directory\n")


def test_claims_that_a_host_cannot_keep(program: Program, capsys: Capture) -> None:
    for options, message in (
        (
            ["--cpu-affinity", "1"],
            "guest 'guest': an affinity to pCPU 1 is impossible; the host has pCPU 0 alone",
        ),
        (["--cpu-affinity", "0-32"], "cpu_affinity: 32 is outside 0 to 31"),
        (["--cpu-weight", "0"], "cpu_weight: 0 is outside 1 to 10000"),
        (["--cpu-cap", "nan"], "cpu_cap: nan is outside 0.01 to 100"),
        (["--cpu-reservation", "101"], "cpu_reservation: 101.0 is outside 0 to 100"),
        (["--cpu-limit", "0"], "cpu_limit: 0 is outside 1 to 1099511627776"),
        (["--cpu-period", "999us"], "cpu_period_us: 999 is outside 1000 to 1000000"),
        (["--cpu-latency", "1us"], "cpu_latency_us: 1 is outside 100 to 100000"),
    ):
        assert main(run(program("hello"), *options)) == 2
        assert capsys.readouterr() == ("", f"emuvisor: error: {message}\n")


class FakeHost:
    """A host whose scheduler is told by hand."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scheduler = Scheduler(1, RoundRobin())
        self.processors: Any = SimpleNamespace(scheduler=self.scheduler, listeners=[])

    def tell(self, now_ns: int, event: Event) -> None:
        answer = self.scheduler.handle(now_ns, event)
        for listener in self.processors.listeners:
            listener(now_ns, event, answer)


def test_what_is_kept_of_a_long_run(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording.Recorder.__init__, "__defaults__", (3,))
    host: Any = FakeHost()
    file = tmp_path / "schedule"
    with recorded_schedule(host, file):
        assert file.read_text() == ""
        host.tell(0, Added("a", CpuClaim()))
        for second in range(1000):
            host.tell(2 * second, Woke("a"))
            host.tell(2 * second + 1, Left(0, "a", 1, 1, wants=False))
        host.tell(5000, Woke("a"))
    host.tell(6000, Left(0, "a", 1, 1, wants=False))
    assert host.processors.listeners == []
    assert read_recording(file) == [
        Stretch(0, "a", 1996, 1997, "it slept", 0, 0),
        Stretch(0, "a", 1998, 1999, "it slept", 0, 0),
        Stretch(0, "a", 5000, 5000, "the recording ended", 0, 0),
    ]
    assert capsys.readouterr().err == f"emuvisor: {file}: has the last 3 of 1,001 stretches\n"


def test_nothing_is_recorded_where_nobody_asks() -> None:
    host: Any = FakeHost()
    with recorded_schedule(host, None):
        assert host.processors.listeners == []


def test_it_is_written_when_the_run_breaks(tmp_path: Path) -> None:
    host: Any = FakeHost()
    file = tmp_path / "schedule"

    def broken() -> None:
        with recorded_schedule(host, file):
            host.tell(0, Added("a", CpuClaim()))
            host.tell(3, Woke("a"))
            host.tell(7, Left(0, "a", 4, 4, wants=False))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert read_recording(file) == [Stretch(0, "a", 3, 7, "it slept", 0, 0)]


def test_a_file_in_no_folder(tmp_path: Path) -> None:
    host: Any = FakeHost()
    message = re.escape(f"cannot write {tmp_path}/none/x: No such file or directory")
    with (
        pytest.raises(UsageError, match=f"^{message}$"),
        recorded_schedule(host, tmp_path / "none" / "x"),
    ):
        pytest.fail("it began")


def test_on_the_virtual_clock_every_run_has_the_same_schedule(
    program: Program, tmp_path: Path, capsys: Capture
) -> None:
    path = program("hello")
    configs: list[str] = []
    for number in range(6):
        file = tmp_path / f"g{number}.toml"
        file.write_text(f'name = "g{number}"\nmemory = "4M"\n[flat]\npath = "{path}"\naddress = 0x8000\n')
        configs += ["--config", str(file)]
    schedules = []
    for pcpus in ("1", "2", "2"):
        record = tmp_path / f"schedule-{len(schedules)}"
        options = ["--host-clock", "virtual", "--pcpus", pcpus, "--schedule-record", str(record)]
        assert main(["run", *configs, *options]) == 0
        schedules.append(read_recording(record))
    assert capsys.readouterr().err == ""
    assert schedules[0] == schedules[1] == schedules[2]
    assert {stretch.guest for stretch in schedules[0]} == {f"g{number}" for number in range(6)}
    assert any(stretch.waited_ns for stretch in schedules[0])  # six guests on the four pCPUs of such a host


def test_one_guest_on_the_virtual_clock(program: Program, capsys: Capture) -> None:
    assert main(run(program("hello"), "--host-clock", "virtual", "--nic", "lab")) == 0
    clock = 'guest \'guest\' has clock = "host"; on a host with the virtual clock it must be "virtual"'
    network = "guest 'guest': network 'user' leads out of the host; one with the virtual clock has none such"
    for options, message in ((["--clock", "host"], clock), (["--nic", "user"], network)):
        capsys.readouterr()
        assert main(run(program("hello"), "--host-clock", "virtual", *options)) == 2
        assert capsys.readouterr() == ("", f"emuvisor: error: {message}\n")
