"""Recorded schedules and their charts."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from simulator import MS, Busy, Simulator, Sleeper

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.gantt import draw_svg, draw_text
from emuvisor.host.scheduler.instructions import Added, Event, Left, Removed, Woke
from emuvisor.host.scheduler.policies import make_policy
from emuvisor.host.scheduler.policies.round_robin import RoundRobin
from emuvisor.host.scheduler.recording import Recorder, Stretch, read_recording, write_recording


def recorded() -> list[Stretch]:
    recorder: Recorder | None = None

    def record(now_ns: int, event: object, instructions: object) -> None:
        if recorder is not None:
            recorder.record(now_ns, event, instructions)  # type: ignore[arg-type]

    simulator = Simulator(1, make_policy("proportional", 1), record)
    recorder = Recorder(simulator.scheduler)
    simulator.add("busy", Busy())
    simulator.add("quick", Sleeper(lambda: 7 * MS, lambda: 1 * MS), CpuClaim(latency_us=500))
    simulator.add("capped", Busy(), CpuClaim(cap=20))
    simulator.run(30 * MS)
    return list(recorder.stretches)


def test_who_ran_and_why_it_was_switched_out() -> None:
    stretches = recorded()
    assert {stretch.why for stretch in stretches} >= {
        "its slice was over",
        "it slept",
        "quick is ahead of it",
        "its cap or limit was used up",
    }
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(stretches))
    assert stretches[0] == Stretch(0, "busy", 0, 5 * MS, "its slice was over", 0, 0)
    assert any(stretch.guest == "capped" and stretch.throttled_ns >= 10 * MS for stretch in stretches)


def test_what_ran_before_is_not_recorded() -> None:
    scheduler = Scheduler(1, RoundRobin())
    scheduler.handle(0, Added("a", CpuClaim()))
    scheduler.handle(0, Woke("a"))
    recorder = Recorder(scheduler)
    for end in (2 * MS, 4 * MS):
        left = Left(0, "a", 2 * MS, 0, True)
        recorder.record(end, left, scheduler.handle(end, left))
    assert list(recorder.stretches) == [Stretch(0, "a", 2 * MS, 4 * MS, "it left by itself", 0, 0)]


def test_another_guest_of_the_same_name() -> None:
    scheduler = Scheduler(1, RoundRobin())
    recorder = Recorder(scheduler)
    events: list[Event] = [
        Added("a", CpuClaim()),
        Added("b", CpuClaim()),
        Woke("a"),
        Woke("b"),
        Left(0, "a", MS, 0, False),
    ]
    events += [
        Left(0, "b", MS, 0, False),
        Removed("b"),
        Added("b", CpuClaim()),
        Woke("b"),
        Left(0, "b", MS, 0, True),
    ]
    for number, event in enumerate(events):
        recorder.record(number * MS, event, scheduler.handle(number * MS, event))
    assert [(stretch.guest, stretch.waited_ns) for stretch in recorder.stretches] == [
        ("a", 0),
        ("b", MS),
        ("b", 0),
    ]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "schedule.jsonl"
    stretches = recorded()
    write_recording(path, stretches)
    assert path.read_text().splitlines()[0] == (
        '{"pcpu": 0, "guest": "busy", "start_ns": 0, "end_ns": 5000000, "why": "its slice was over", '
        '"waited_ns": 0, "throttled_ns": 0}'
    )
    assert read_recording(path) == stretches
    with pytest.raises(UsageError, match=f"^cannot write {tmp_path}: Is a directory$"):
        write_recording(tmp_path, stretches)
    with pytest.raises(UsageError, match=r"^cannot read .*: No such file or directory$"):
        read_recording(tmp_path / "none")
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"^cannot read .*: it is no text$"):
        read_recording(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"pcpu": 1}', "missing fields, or others"),
        (
            '{"pcpu": -1, "guest": "a", "start_ns": 0, "end_ns": 1, "why": "", "waited_ns": 0, "throttled_ns": 0}',
            "pcpu is -1",
        ),
        (
            '{"pcpu": 0, "guest": 7, "start_ns": 0, "end_ns": 1, "why": "", "waited_ns": 0, "throttled_ns": 0}',
            "guest is 7",
        ),
        ("[]", "missing fields, or others"),
        (
            '{"pcpu": 0, "guest": "a", "start_ns": 2, "end_ns": 1, "why": "", "waited_ns": 0, "throttled_ns": 0}',
            "it ends before it starts",
        ),
    ],
)
def test_lines_that_are_none(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UsageError) as error:
        read_recording(path)
    assert str(error.value) == f"{path}, line 1: no stretch of a schedule: {why}"


STRETCHES = [
    Stretch(0, "a", 0, 4 * MS, "its slice was over", 0, 0),
    Stretch(0, "b", 4 * MS, 6 * MS, "it slept", 2 * MS, 2 * MS),
    Stretch(1, "<c>", 2 * MS, 10 * MS, "its slice was over", 1 * MS, 3 * MS),
]


def test_the_chart_of_a_terminal() -> None:
    assert draw_text(STRETCHES, width=18).plain == (
        "        0 ms10.000 ms\n"
        "pCPU 0  ██████    \n"
        "pCPU 1    ████████\n"
        "<c>     x-########\n"
        "a       ####      \n"
        "b       xx--##    \n"
    )
    assert draw_text(STRETCHES, width=18, guests=1).plain.endswith("<c>     x-########\nand 2 more guests\n")
    with pytest.raises(UsageError, match=r"^an empty schedule cannot be drawn$"):
        draw_text([])


def test_the_chart_as_svg() -> None:
    svg = draw_svg(STRETCHES, "A & B")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert [text.text for text in root.iter(f"{space}text")] == [
        "A & B, 10 ms",
        "pCPU 0",
        "pCPU 1",
        "<c>",
        "a",
        "b",
        "grey: waited for a pCPU; pink: throttled by its cap or limit; 3 guests",
    ]
    assert [title.text for title in root.iter(f"{space}title")] == [
        "a on pCPU 0 for 4 ms; its slice was over",
        "b on pCPU 0 for 2 ms; it slept",
        "<c> on pCPU 1 for 8 ms; its slice was over",
        "throttled for 3 ms",
        "waited 1 ms",
        "<c> on pCPU 1 for 8 ms; its slice was over",
        "a on pCPU 0 for 4 ms; its slice was over",
        "throttled for 2 ms",
        "waited 2 ms",
        "b on pCPU 0 for 2 ms; it slept",
    ]
    with pytest.raises(UsageError, match=r"^a chart of 20,004 bars is impossible; it has at most 20,000$"):
        draw_svg([STRETCHES[0]] * 10_002)
