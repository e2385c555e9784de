"""`emuvisor memory`: what it says of a recording."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory_samples import decision, guest, sample
from rich.console import Console

from emuvisor.cli import main, memory
from emuvisor.cli.memory_live import LiveView
from emuvisor.cli.memory_overview import MAX_GONE, Overview
from emuvisor.cli.memory_table import COLUMNS, KINDS, as_text, short_size, view
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.recording import End, Header, Item, Sample, encode
from emuvisor.units import GIB, KIB, MIB, TIB

Capture = pytest.CaptureFixture[str]
Record = Callable[..., Path]

HEADER = Header(time=1.0, period_s=0.25)
SHORT = sample(
    11.0,
    guest(
        "apple", reservation=16 * MIB, limit=48 * MIB, active=20 * MIB, resident=24 * MIB, shared=8 * MIB,
        zero=4 * MIB, ballooned=2 * MIB, compressed=10 * MIB, swapped=6 * MIB, in_flight=512 * KIB,
    ),
    guest("pear", resident=40 * MIB),
    state="low", free=MIB, configured=192 * MIB, overcommit=2.0, starving=1, compression_used=3 * MIB,
    savings={"sharing": 8 * MIB, "zero": 4 * MIB, "balloon": 2 * MIB, "compression": 7 * MIB, "swap": 6 * MIB},
)  # fmt: skip
DECISIONS = (
    decision("apple", "swap", 1536, time=10.25, why="gives 1536 frames", numbers={"price": 0.131, "of": 2.0}),
    decision("apple", "balloon", -300, time=10.5, why="gets 300 frames back"),
    decision("pear", "balloon", 500, time=10.75, why="gives 500 frames"),
)
RUN: tuple[Item, ...] = (
    HEADER,
    sample(10.0, guest("apple"), guest("pear")),
    *DECISIONS,
    SHORT,
    sample(
        12.5,
        guest("pear", resident=30 * MIB),
        state="soft",
        free=4 * MIB,
        overcommit=1.0,
        configured=96 * MIB,
    ),
    End(13.0),
)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """record(item, ..., rest=b""): the path of a recording."""

    def write(*items: Item, rest: bytes = b"") -> Path:
        file = tmp_path / "recording"
        file.write_bytes(b"".join(map(encode, items)) + rest)
        return file

    return write


def test_the_table(record: Record, capsys: Capture) -> None:
    assert main(["memory", str(record(HEADER, SHORT))]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "guest  size  reserved  limit  active  resident  shared  zero  balloon  compressed  swapped  in flight\n"
        "apple   64M       16M    48M     20M       24M      8M    4M       2M         10M       6M       512K\n"
        "pear    64M         -      -       ?       40M       -     -        -           -        -          -\n"
        "host: 96M, 1M free (1.0%), state low; 2 guests of 192M: 2.00 x the host, 1 without a frame\n"
        "saved: sharing 8M, zero pages 4M, balloons 2M, compression 7M, swap 6M; compressed pages take 3M\n"
        "1 sample in 0.0 s: the guests were at most 2.00 x the host, 1M was free at least\n"
    )


def test_guests_that_are_gone_and_sums(record: Record, capsys: Capture) -> None:
    assert main(["memory", str(record(*RUN))]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "pear      64M         -      -       ?       30M       -     -        -           -        -          -",
        "(apple)   64M       16M    48M     20M       24M      8M    4M       2M         10M       6M       512K",
        "host: 96M, 4M free (4.2%), state soft; 1 guest of 96M: 1.00 x the host",
        "saved: nothing",
        "in parentheses: guests that are gone, and what they had at last",
        "swap        1,536 frames (6M) gained in 1 decision",
        "balloon     500 frames (2M) gained, 300 given back in 2 decisions",
        "3 samples in 2.5 s: the guests were at most 2.00 x the host, 1M was free at least",
    ]


def test_a_host_with_nothing_left_and_nobody_on(record: Record, capsys: Capture) -> None:
    assert main(["memory", str(record(HEADER, sample(1.0, guest("a"), free=0)))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "host: 96M, nothing free (0.0%), state high; no guest is on"
    assert lines[-1].endswith("nothing was free at least")


def test_one_guest_of_several(record: Record, capsys: Capture) -> None:
    assert main(["memory", str(record(*RUN)), "--guest", "apple", "--log"]) == 0
    assert [line.split()[1:3] for line in capsys.readouterr().out.splitlines()] == [
        ["swap", "apple"],
        ["balloon", "apple"],
    ]
    assert main(["memory", str(record(*RUN)), "--guest", "apple", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["guests"], [guest["name"] for guest in document["gone"]]) == ([], ["apple"])


def test_a_guest_that_never_was(record: Record, capsys: Capture) -> None:
    file = record(*RUN)
    assert main(["memory", str(file), "--guest", "fig"]) == 2
    message = f"emuvisor: error: {file}: there is no guest 'fig'; there are: apple, pear\n"
    assert capsys.readouterr() == ("", message)


def test_the_log(record: Record, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.time, "localtime", memory.time.gmtime)
    assert main(["memory", str(record(*RUN)), "--log"]) == 0
    assert capsys.readouterr().out == (
        "00:00:10.250  swap        apple  +1536  gives 1536 frames  [price 0.131, of 2]\n"
        "00:00:10.500  balloon     apple  -300  gets 300 frames back\n"
        "00:00:10.750  balloon     pear  +500  gives 500 frames\n"
    )


def test_a_log_of_another_age(record: Record, capsys: Capture) -> None:
    assert main(["memory", str(record(HEADER, SHORT, decision(time=1e18))), "--log"]) == 0
    assert capsys.readouterr().out.endswith("a  +100  gives frames\n")


def test_json(record: Record, capsys: Capture) -> None:
    assert main(["memory", str(record(*RUN)), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    last = RUN[-2]
    assert isinstance(last, Sample)
    assert document == {
        "time": 12.5,
        "host": last.host.as_dict(),
        "guests": [last.guests[0].as_dict()],
        "gone": [SHORT.guests[0].as_dict()],
        "seconds": 2.5,
        "samples": 3,
        "lowest_free": MIB,
        "highest_overcommit": 2.0,
        "ended": True,
        "rungs": {
            "swap": {"decisions": 1, "gained": 1536, "given": 0},
            "balloon": {"decisions": 2, "gained": 500, "given": 300},
        },
    }


def test_json_with_the_log(record: Record, capsys: Capture) -> None:
    odd = decision(numbers={"price": float("inf")})
    assert main(["memory", str(record(HEADER, SHORT, *DECISIONS, odd)), "--json", "--log"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["decisions"][:3] == [decision.as_dict() for decision in DECISIONS]
    assert document["decisions"][3]["numbers"] == {"price": None}


def test_a_last_line_that_is_cut(record: Record, capsys: Capture) -> None:
    file = record(*RUN[:-1], rest=b'{"kind": "dec')
    assert main(["memory", str(file)]) == 0
    assert capsys.readouterr().err == f"emuvisor: {file}: line 8 is cut; it is left out\n"


@pytest.mark.parametrize(
    ("items", "rest", "message"),
    [
        ((), b"", "has no samples"),
        ((HEADER,), b"", "has no samples"),
        ((HEADER, SHORT), b"what?\n", "line 3: is not JSON"),
    ],
)
def test_a_recording_that_says_nothing(
    items: tuple[Item, ...], rest: bytes, message: str, record: Record, capsys: Capture
) -> None:
    file = record(*items, rest=rest)
    assert main(["memory", str(file)]) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: {file}: {message}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json"], "--follow with --json: that is made when all is there"),
        (["--chart", "a.svg"], "--follow with --chart: that is made when all is there"),
    ],
)
def test_what_is_made_at_the_end_only(
    options: list[str], message: str, record: Record, capsys: Capture
) -> None:
    assert main(["memory", str(record(*RUN)), "--follow", *options]) == 2
    assert capsys.readouterr() == ("", f"emuvisor: error: {message}\n")


# ---- following ----


class Clock:
    """Time that passes by sleeping; at the seconds of `happens` something does."""

    def __init__(self, happens: dict[int, Callable[[], Any]]) -> None:
        self.now = 0.0
        self._happens = happens
        self.localtime = memory.time.gmtime
        self.strftime = memory.time.strftime

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds == memory.POLL_S
        self.now += 1.0
        self._happens.get(int(self.now), lambda: None)()


def test_a_recording_is_followed_to_its_end(
    record: Record, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = record(HEADER)

    def append(*items: Item) -> Callable[[], Any]:
        def write() -> None:
            with file.open("ab") as more:
                more.write(b"".join(map(encode, items)))

        return write

    happens = {2: append(*RUN[1:4]), 11: append(*RUN[4:7]), 20: append(RUN[7])}
    monkeypatch.setattr(memory, "time", Clock(happens))
    assert main(["memory", str(file), "--follow"]) == 0
    followed = capsys.readouterr()
    assert main(["memory", str(file)]) == 0
    assert capsys.readouterr() == followed


def test_the_log_is_followed(record: Record, capsys: Capture) -> None:
    file = str(record(*RUN))
    assert main(["memory", file, "--follow", "--log"]) == 0
    followed = capsys.readouterr()
    assert main(["memory", file, "--log"]) == 0
    assert capsys.readouterr() == followed


def test_a_recording_whose_run_is_gone(
    record: Record, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = record(HEADER, SHORT)
    clock = Clock({})
    monkeypatch.setattr(memory, "time", clock)
    assert main(["memory", str(file), "--follow"]) == 0
    assert capsys.readouterr().err == f"emuvisor: {file}: nothing was added for 10 s\n"
    assert clock.now == 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_on_a_terminal(options: list[str], record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "100", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["memory", str(record(*RUN)), *options]) == 0
    assert screen.getvalue().endswith("1M was free at least\n")


# ---- what is shown ----


def shown(overview: Overview, width: int = 100, **how: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=40)
    console.print(view(overview, width, **how))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def overview(*items: Item) -> Overview:
    overview = Overview()
    for item in items:
        overview.add(item)
    return overview


def test_the_view_while_it_is_live() -> None:
    assert shown(overview(*RUN[:6]), live=True) == [
        "host: 96M, 1M free (1.0%), state low; 2 guests of 192M: 2.00 x the host, 1 without a frame",
        "saved: sharing 8M, zero pages 4M, balloons 2M, compression 7M, swap 6M; compressed pages take 3M",
        "",
        "guest size reserved limit active resident shared zero balloon compressed swapped in flight",
        "apple  64M      16M   48M    20M      24M     8M   4M      2M        10M      6M      512K",
        "pear   64M        -     -      ?      40M      -    -       -          -       -         -",
        "",
        "apple  ██████████████████████▓▓▓▓▓▓▓▓░░░░○○▒▒▒▒▒▒▒▒▒▞▞▞▞▞▞·········",
        "pear   ██████████████████████████████████████······················",
        "       █ resident  ▓ shared  ░ zero  ○ ballooned  ▒ compressed  ▞ swapped  · untouched",
        "",
        "swap        apple  +1536  gives 1536 frames",
        "balloon     apple  -300  gets 300 frames back",
        "balloon     pear  +500  gives 500 frames",
    ]


def test_the_view_afterwards() -> None:
    lines = shown(overview(*RUN))
    assert lines[3:6] == [
        "guest size reserved limit active resident shared zero balloon compressed swapped in flight",
        "pear   64M        -     -      ?      30M      -    -       -          -       -         -",
        "apple  64M      16M   48M    20M      24M     8M   4M      2M        10M      6M      512K",
    ]
    assert lines[-3:] == [
        "swap        1,536 frames (6M) gained in 1 decision",
        "balloon     500 frames (2M) gained, 300 given back in 2 decisions",
        "3 samples in 2.5 s: the guests were at most 2.00 x the host, 1M was free at least",
    ]


def test_the_fullest_moment() -> None:
    lines = shown(overview(*RUN), fullest=True)
    assert lines[0].startswith("host: 96M, 1M free")
    assert lines[4].startswith("apple")
    assert lines[5].startswith("pear")
    text = as_text(overview(*RUN), fullest=True)
    assert "(apple)" not in text
    assert "host: 96M, 1M free" in text


def test_a_hundred_columns_are_enough() -> None:
    full = dict.fromkeys((kind.field for kind in KINDS), 1023 * MIB) | {"configured": 1023 * GIB}
    lines = shown(
        overview(sample(1.0, guest("longer-name", active=MIB, limit=1023 * MIB, **full))), live=True
    )
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)


def test_long_reasons_are_cut_and_long_names_too() -> None:
    lines = shown(overview(sample(1.0, guest("n" * 64)), decision("a", why="because " * 50)), live=True)
    assert lines[-1].endswith("…")
    assert max(map(len, lines)) <= 100


def test_before_the_first_sample() -> None:
    assert shown(Overview(), live=True) == ["no samples yet"]
    assert as_text(Overview()) == "no samples yet"


def test_guests_that_are_gone_are_not_kept_for_ever() -> None:
    many = overview(*(sample(float(number), guest(f"guest{number}")) for number in range(MAX_GONE + 10)))
    assert len(many.gone) == MAX_GONE
    assert f"guest{MAX_GONE + 8}" in many.gone


def test_every_column_is_there() -> None:
    assert len(COLUMNS) == 12
    assert [kind.field for kind in KINDS] == [
        "resident", "shared", "zero", "ballooned", "compressed", "swapped"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "-"),
        (100, "100"),
        (4 * KIB, "4K"),
        (1536 * KIB, "1.5M"),
        (150 * MIB + 1, "150M"),
        (-2 * MIB, "-2M"),
        (3 * GIB, "3G"),
        (5 * TIB, "5T"),
    ],
)
def test_short_sizes(size: int, text: str) -> None:
    assert short_size(size) == text


def test_what_is_printed_goes_above_the_live_view() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=40, no_color=True)
    with LiveView(console) as live:
        live.update(overview(HEADER, SHORT))
        live.write(b"\x1b[32mone | \x1b[0mfirst\none | second\n")
    text = screen.getvalue()
    assert text.index("state low") < text.index("first\none | second\n") < text.rindex("state low")


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is drawn in a thread of its own: who prints in the main one finds out."""
    from emuvisor.cli import memory_live
    from emuvisor.cli.screen import Screen

    taken: list[Callable[[Sample | Decision], None]] = []

    class Sampler:
        def __init__(self, _host: Any, take: Callable[[Sample | Decision], None]) -> None:
            taken.append(take)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def update(_self: LiveView, _overview: Overview) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(memory_live, "MemorySampler", Sampler)
    monkeypatch.setattr(LiveView, "update", update)
    console = Console(file=io.StringIO(), width=100)
    host: Any = SimpleNamespace()
    with memory_live.memory_table(host, Screen(None, ["a"]), console):
        taken[0](SHORT)
        taken[0](decision())
    assert isinstance(console.file, io.StringIO)
    assert "state low" in console.file.getvalue()
