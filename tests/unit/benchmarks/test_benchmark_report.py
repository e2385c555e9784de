import io
import json

import pytest
from rich.console import Console

from benchmarks.figures import Goal
from benchmarks.harness import Result, Row
from benchmarks.machine import Machine
from benchmarks.report import as_json, as_markdown, as_table, lines, number

MACHINE = Machine(
    cpu="Fast CPU",
    cores=2,
    memory="8 GiB",
    kernel="Linux 6.1",
    governor="performance",
    python="CPython 3.11.7",
    unicorn="2.1.4",
    qemu="not installed",
    load=0.25,
    time="2025-01-02 03:04 UTC",
    warnings=("the machine was busy",),
)


@pytest.fixture
def result() -> Result:
    values = {"emuvisor": [3.0, 2.0, 2.5], "qemu": [1.0, 2.0, 2.0]}
    return Result(
        name="boot",
        measures="seconds to boot",
        rows=[Row("boot", "s", Goal(1.5, "qemu"), "qemu", values)],
        notes=["The clocks are the host's."],
        notices=["64 guests are skipped:\nno memory"],
        seconds=12.5,
        failed=False,
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00012, "0.000"),
        (0.0384, "0.038"),
        (1.23456, "1.235"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (123456.7, "123457"),
        (-14.27, "-14.27"),
    ],
)
def test_numbers_have_no_digits_that_mean_nothing(value: float, text: str) -> None:
    assert number(value) == text


def test_a_line_for_each_contender(result: Result) -> None:
    assert [line.cells() for line in lines(result)] == [
        (
            "boot",
            "emuvisor",
            "2.500 s",
            "2.000 to 3.000",
            "0.500",
            "3",
            "1.25x",
            "1.25x",
            "at most 1.5x qemu",
            "met",
        ),
        ("boot", "qemu", "2.000 s", "1.000 to 2.000", "0", "3", "", "", "", ""),
    ]


def test_json_has_every_figure(result: Result) -> None:
    data = json.loads(json.dumps(as_json(MACHINE, "python -m benchmarks", [result])))
    assert data["machine"]["cpu"] == "Fast CPU"
    assert data["command"] == "python -m benchmarks"
    (benchmark,) = data["benchmarks"]
    assert benchmark["notices"] == ["64 guests are skipped:\nno memory"]
    assert benchmark["rows"] == [
        {
            "name": "boot",
            "unit": "s",
            "against": "qemu",
            "goal": {
                "limit": 1.5,
                "against": "qemu",
                "contender": "emuvisor",
                "at_least": False,
                "verdict": "met",
            },
            "contenders": {
                "emuvisor": {
                    "values": [3.0, 2.0, 2.5],
                    "count": 3,
                    "median": 2.5,
                    "minimum": 2.0,
                    "maximum": 3.0,
                    "spread": 0.5,
                    "ratio": 1.25,
                    "pairwise_ratio": 1.25,
                },
                "qemu": {
                    "values": [1.0, 2.0, 2.0],
                    "count": 3,
                    "median": 2.0,
                    "minimum": 1.0,
                    "maximum": 2.0,
                    "spread": 0.0,
                    "ratio": None,
                    "pairwise_ratio": None,
                },
            },
        }
    ]


def test_markdown_has_machine_goals_tables_notes_and_what_was_skipped(result: Result) -> None:
    text = as_markdown(MACHINE, "python -m benchmarks boot", [result])
    assert "cannot.\n\n## Machine" in text
    assert text.startswith("# Performance\n\nMade by `python -m benchmarks boot`;")
    assert text[text.index("## Machine") :] == (
        "## Machine\n\n| | |\n|---|---|\n"
        "| cpu | Fast CPU |\n| cores | 2 |\n| memory | 8 GiB |\n| kernel | Linux 6.1 |\n"
        "| governor | performance |\n| python | CPython 3.11.7 |\n| unicorn | 2.1.4 |\n"
        "| qemu | not installed |\n| load | 0.25 at the start |\n| time | 2025-01-02 03:04 UTC |\n"
        "\nWarning: the machine was busy.\n"
        "\n## Goals\n\n| benchmark | what | goal | figure | verdict |\n|---|---|---|---|---|\n"
        "| boot | boot | at most 1.5x qemu | 1.25x | met |\n"
        "\n## boot\n\nSeconds to boot.\n\n"
        "| what | contender | median | min to max | spread | n | ratio | pairwise | goal | verdict |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
        "| boot | emuvisor | 2.500 s | 2.000 to 3.000 | 0.500 | 3 | 1.25x | 1.25x | at most 1.5x qemu | "
        "met |\n"
        "| boot | qemu | 2.000 s | 1.000 to 2.000 | 0 | 3 |  |  |  |  |\n"
        "\nThe clocks are the host's.\n"
        "\nSkipped: 64 guests are skipped: no memory\n"
    )


def test_a_goal_that_could_not_be_measured_says_so(result: Result) -> None:
    del result.rows[0].values["qemu"]
    text = as_markdown(MACHINE, "python -m benchmarks", [result])
    assert "| boot | boot | at most 1.5x qemu |  | not measured |" in text


def test_the_table_names_the_benchmark_once_a_row(result: Result) -> None:
    output = io.StringIO()
    Console(file=output, width=150).print(as_table(result))
    text = output.getvalue()
    assert "boot: seconds to boot" in text
    assert [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")] == ["boot", ""]
