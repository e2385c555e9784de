"""Recorded schedules and their charts."""

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import MS, Busy, Simulator, Sleeper

from emuvisor.errors import UsageError
from emuvisor.host.scheduler.claim import CpuClaim
from emuvisor.host.scheduler.core import Scheduler
from emuvisor.host.scheduler.gantt import draw_svg, draw_text
from emuvisor.host.scheduler.instructions import Added, Event, Instruction, Left, Removed, Timer, Woke
from emuvisor.host.scheduler.policies import make_policy
from emuvisor.host.scheduler.policies.round_robin import RoundRobin
from emuvisor.host.scheduler.recording import (
    MAX_BYTES,
    MAX_NS,
    Recorder,
    Stretch,
    cut,
    read_recording,
    write_recording,
)


def recorded() -> list[Stretch]:
    recorder: Recorder | None = None

    def record(now_ns: int, event: Event, instructions: list[Instruction]) -> None:
        if recorder is not None:
            recorder.record(now_ns, event, instructions)

    simulator = Simulator(1, make_policy("proportional", 1), record)
    recorder = Recorder(simulator.scheduler)
    simulator.add("busy", Busy())
    simulator.add("quick", Sleeper(lambda: 7 * MS, lambda: 1 * MS), CpuClaim(latency_us=500))
    simulator.add("capped", Busy(), CpuClaim(cap=20))
    simulator.run(30 * MS)
    return list(recorder.stretches)


def test_who_ran_and_why_it_was_switched_out() -> None:
    stretches = recorded()
    assert {stretch.why for stretch in stretches} == {
        "it slept",
        "quick is ahead of it",
        "capped is ahead of it",
        "its cap or limit was used up",
    }
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(stretches))
    assert stretches[0] == Stretch(0, "busy", 0, 7 * MS, "quick is ahead of it", 0, 0)
    assert any(stretch.guest == "capped" and stretch.throttled_ns >= 10 * MS for stretch in stretches)


def record_all(scheduler: Scheduler, *events: tuple[int, Event], limit: int = 100) -> Recorder:
    """The recording of these events."""
    recorder = Recorder(scheduler, limit)
    for now_ns, event in events:
        recorder.record(now_ns, event, scheduler.handle(now_ns, event))
    return recorder


def test_what_ran_before_is_not_recorded() -> None:
    scheduler = Scheduler(1, RoundRobin())
    for name in "ab":
        scheduler.handle(0, Added(name, CpuClaim()))
        scheduler.handle(0, Woke(name))
    recorder = record_all(
        scheduler, (5 * MS, Left(0, "a", 5 * MS, 0, True)), (9 * MS, Left(0, "b", 4 * MS, 0, False))
    )
    assert list(recorder.stretches) == [Stretch(0, "b", 5 * MS, 9 * MS, "it slept", 5 * MS, 0)]


def test_a_guest_that_goes_on_has_one_stretch() -> None:
    recorder = record_all(
        Scheduler(1, RoundRobin()),
        (0, Added("a", CpuClaim())),
        (0, Woke("a")),
        (2 * MS, Left(0, "a", 2 * MS, 0, True)),
        (7 * MS, Left(0, "a", 5 * MS, 0, True)),
        (8 * MS, Timer()),
    )
    assert list(recorder.stretches) == []
    recorder.finish()
    recorder.finish()
    assert list(recorder.stretches) == [Stretch(0, "a", 0, 8 * MS, "the recording ended", 0, 0)]


def test_one_that_has_run_enough_work_sooner_than_thought() -> None:
    """It keeps the rest of its turn, and another one is ahead."""
    recorder = record_all(
        Scheduler(1, make_policy("proportional", 1)),
        (0, Added("a", CpuClaim())),
        (0, Added("b", CpuClaim(weight=200))),
        (0, Woke("a")),
        (0, Woke("b")),
        (3 * MS, Left(0, "a", 3 * MS, 0, True)),
        (4 * MS, Left(0, "b", 1 * MS, 0, True)),
        (9 * MS, Left(0, "b", 5 * MS, 0, True)),
    )
    assert list(recorder.stretches) == [
        Stretch(0, "a", 0, 3 * MS, "b is ahead of it", 0, 0),
        Stretch(0, "b", 3 * MS, 9 * MS, "its slice was over", 3 * MS, 0),
    ]


def test_one_that_leaves_for_no_other() -> None:
    """It may run on another pCPU that is free as well."""
    scheduler = Scheduler(2, RoundRobin())
    recorder = record_all(
        scheduler,
        (0, Added("bound", CpuClaim(affinity=frozenset({0})))),
        (0, Added("free", CpuClaim())),
        (0, Woke("free")),
        (0, Woke("bound")),
    )
    pcpu = next(pcpu for pcpu, entity in enumerate(scheduler.running) if entity is scheduler.entities["free"])
    left = Left(pcpu, "free", 1 * MS, 0, True)
    recorder.record(MS, left, [])
    assert [stretch.why for stretch in recorder.stretches] == ["it left by itself"]


def test_the_oldest_stretches_are_forgotten() -> None:
    events: list[tuple[int, Event]] = [(0, Added("a", CpuClaim())), (0, Woke("a"))]
    for second in range(5):
        events += [(second * MS + 9, Left(0, "a", 9, 0, False)), (second * MS + MS, Woke("a"))]
    recorder = record_all(Scheduler(1, RoundRobin()), *events, limit=2)
    assert [stretch.start_ns for stretch in recorder.stretches] == [3 * MS, 4 * MS]
    assert recorder.count == 5


def test_one_that_was_called_back_before_it_began_had_the_pcpu() -> None:
    recorder = record_all(
        Scheduler(1, RoundRobin()),
        (0, Added("a", CpuClaim())),
        (0, Woke("a")),
        (6 * MS, Left(0, "a", 0, 0, False)),
    )
    assert list(recorder.stretches) == [Stretch(0, "a", 0, 6 * MS, "it slept", 0, 0)]


def test_a_part_of_a_recording() -> None:
    stretches = [
        Stretch(0, "a", 10, 20, "its slice was over", 4, 3),  # throttled 3 to 6, waited 6 to 10
        Stretch(0, "b", 20, 30, "it slept", 15, 0),
        Stretch(0, "a", 50, 60, "it slept", 10, 10),
    ]
    assert cut(stretches, 0, 100) == stretches
    assert cut(stretches, 8, 25) == [
        Stretch(0, "a", 10, 20, "its slice was over", 2, 0),
        Stretch(0, "b", 20, 25, "the recording ended", 12, 0),
    ]
    assert cut(stretches, 4, 10) == [
        Stretch(0, "a", 10, 10, "the recording ended", 4, 2),
        Stretch(0, "b", 10, 10, "the recording ended", 5, 0),
    ]
    assert cut(stretches, 15, 35) == [
        Stretch(0, "a", 15, 20, "its slice was over", 0, 0),
        Stretch(0, "b", 20, 30, "it slept", 5, 0),
        Stretch(0, "a", 35, 35, "the recording ended", 0, 5),
    ]
    assert cut(stretches, 70, 80) == []


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
        Left(0, "b", MS, 0, False),
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
        '{"pcpu": 0, "guest": "busy", "start_ns": 0, "end_ns": 7000000, "why": "quick is ahead of it", '
        '"waited_ns": 0, "throttled_ns": 0}'
    )
    assert read_recording(path) == stretches
    with pytest.raises(UsageError, match=f"^cannot write {tmp_path}: Is a directory$"):
        write_recording(tmp_path, stretches)
    with pytest.raises(UsageError, match=r"^cannot read .*: No such file or directory$"):
        read_recording(tmp_path / "none")
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match=r"^cannot read .*: it is larger than 64 MiB$"):
        read_recording(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"^cannot read .*: it is no text$"):
        read_recording(path)


def line(**changes: object) -> str:
    """A stretch that is wrong in one field."""
    good = {"pcpu": 0, "guest": "a", "start_ns": 0, "end_ns": 1, "why": "", "waited_ns": 0, "throttled_ns": 0}
    return json.dumps(good | changes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"pcpu": 1}', "missing fields, or others"),
        (line(pcpu=-1), "pcpu is -1"),
        (line(pcpu=1024), "pcpu is 1024"),
        (line(start_ns=True), "start_ns is True"),
        (line(end_ns=1 << 63), "end_ns is 9223372036854775808"),
        (line(end_ns=10**4000), "end_ns is 100000000000000000...0000000000000000000"),
        (line(waited_ns=1.5), "waited_ns is 1.5"),
        (line(guest=7), "guest is 7"),
        (line(guest=""), "guest is ''"),
        (line(guest="a\x1b[2J"), r"guest is 'a\x1b[2J'"),
        (line(why="\ud800"), r"why is '\ud800'"),
        ("[]", "missing fields, or others"),
        (line(start_ns=2), "it ends before it starts"),
    ],
)
def test_lines_that_are_none(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(UsageError) as error:
        read_recording(path)
    assert str(error.value) == f"{path}, line 1: no stretch of a schedule: {why}"


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 100_000])
def test_lines_that_python_does_not_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_recording(path)
    assert str(error.value).startswith(f"{path}, line 1: no stretch of a schedule: ")


STRETCHES = [
    Stretch(0, "a", 0, 4 * MS, "its slice was over", 0, 0),
    Stretch(0, "b", 4 * MS, 6 * MS, "it slept", 2 * MS, 2 * MS),
    Stretch(1, "<c>", 2 * MS, 10 * MS, "its slice was over", 1 * MS, 3 * MS),
]


LEGEND = "#: ran  .: ran a little  -: waited for a pCPU  x: throttled\n"


def test_the_chart_of_a_terminal() -> None:
    assert draw_text(STRETCHES, width=18).plain == (
        "        |0 ms\n"
        "pCPU 0  BBBBCC    \n"
        "pCPU 1    AAAAAAAA\n"
        "A <c>   x-########\n"
        "B a     ####      \n"
        "C b     xx--##    \n" + LEGEND
    )
    with pytest.raises(UsageError, match=r"^an empty schedule cannot be drawn$"):
        draw_text([])


def test_guests_that_have_no_row() -> None:
    assert draw_text(STRETCHES, width=18, guests=1).plain == (
        "        |0 ms\n"
        "pCPU 0  ******    \n"
        "pCPU 1    AAAAAAAA\n"
        "A <c>   x-########\n"
        "and 2 more guests\n" + LEGEND
    )


def test_a_part_of_it_with_an_axis_that_counts_from_elsewhere() -> None:
    chart = draw_text(STRETCHES, width=48, span=(4 * MS, 14 * MS), zero_ns=2 * MS)
    assert chart.plain.splitlines()[:4] == [
        "        |2 ms       |5 ms               |10 ms",
        "pCPU 0  CCCCCCCC                                ",
        "pCPU 1  AAAAAAAAAAAAAAAAAAAAAAAA                ",
        "A <c>   ########################                ",
    ]


def test_cells_that_are_mostly_idle() -> None:
    short = [Stretch(0, "a", at * MS, at * MS + MS // 4, "it slept", MS // 4, 0) for at in range(10)]
    assert draw_text(short, width=18, span=(0, 10 * MS)).plain.splitlines()[1:3] == [
        "pCPU 0  aaaaaaaaaa",
        "A a     ..........",
    ]


@pytest.mark.parametrize(
    ("length", "axis"),
    [
        (7, "|0 ns                       |5 ns"),
        (1_000, "|0 us               |0.5 us"),
        (3 * 10**9, "|0 s                      |2 s"),
        (10**14, "|0 s                |50000 s"),
    ],
)
def test_the_axis(length: int, axis: str) -> None:
    chart = draw_text([Stretch(0, "a", 0, length, "", 0, 0)], width=48)
    assert chart.plain.splitlines()[0] == " " * 8 + axis


def texts(svg: str, tag: str) -> list[str | None]:
    root = ElementTree.fromstring(svg)
    return [element.text for element in root.iter(f"{{http://www.w3.org/2000/svg}}{tag}")]


def test_the_chart_as_svg() -> None:
    svg = draw_svg(STRETCHES, "A & B")
    assert texts(svg, "text") == [
        "A & B",
        *(f"{number} ms" for number in range(11)),
        *("pCPU 0", "pCPU 1", "<c>", "a", "b"),
        "grey: waited for a pCPU; pink: throttled by its cap or limit; 3 guests",
    ]
    assert texts(svg, "title") == [
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


def test_a_part_of_it_as_svg() -> None:
    svg = draw_svg(STRETCHES[:2], span=(5 * MS, 15 * MS), zero_ns=0)
    assert texts(svg, "text")[:3] == ["Schedule", "5 ms", "6 ms"]
    close = draw_svg(STRETCHES[:2], span=(58 * MS // 10, 15 * MS), zero_ns=0)
    assert texts(close, "text")[:3] == ["Schedule", "5.8 ms", "7 ms"]
    assert texts(svg, "title") == ["b on pCPU 0 for 2 ms; it slept"] * 2


def test_more_stretches_than_pixels() -> None:
    many = [
        Stretch(0, "ab"[at % 2], at * MS, at * MS + MS * 9 // (10 + at % 2 * 10), "", 0, 0)
        for at in range(10_000)
    ]
    many.append(Stretch(0, "c", 19_999 * MS, 20_000 * MS, "", 0, 0))
    titles = texts(draw_svg(many), "title")
    few = "; there are too many to be shown one by one"
    assert titles[:2] == [f"mostly a{few}", f"mostly c{few}"]
    assert titles[2:] == [f"mostly ran{few}"] * 2 + ["c on pCPU 0 for 1 ms; "]


def test_more_guests_than_rows() -> None:
    svg = draw_svg([Stretch(0, f"g{n}", n * MS, n * MS + MS, "", 0, 0) for n in range(201)])
    labels = texts(svg, "text")
    assert labels[-1] == (
        "grey: waited for a pCPU; pink: throttled by its cap or limit; 201 guests, of which 200 are shown"
    )
    assert sum(str(label).startswith("g") for label in labels) == 201


NUMBERS = st.integers(0, 50) | st.integers(0, MAX_NS - 1)
ANY = st.builds(
    lambda pcpu, guest, first, second, why, waited, throttled: Stretch(
        pcpu, guest, min(first, second), max(first, second), why, waited, throttled
    ),
    st.integers(0, 3),
    st.sampled_from(["a", "<&>", "é" * 30, "waited", "ran"]),
    NUMBERS,
    NUMBERS,
    st.sampled_from(["", "it slept", "<&>"]),
    NUMBERS,
    NUMBERS,
)


@given(st.lists(ANY, min_size=1, max_size=6), st.integers(1, 200), NUMBERS, NUMBERS)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_whatever_a_recording_says_can_be_drawn(
    stretches: list[Stretch], width: int, first_ns: int, second_ns: int
) -> None:
    """Recordings come from files: stretches overlap, waits are longer than all time."""
    span = min(first_ns, second_ns), max(first_ns, second_ns) + 1
    for part, when in ((stretches, None), (cut(stretches, *span), span)):
        if not part:
            continue
        lines = draw_text(part, width, span=when).plain.splitlines()
        assert len({len(line) for line in lines[1:-1]}) == 1
        assert len(lines[1]) == len(lines[-2]) >= len(lines[0])
        ElementTree.fromstring(draw_svg(part, span=when, zero_ns=0))
