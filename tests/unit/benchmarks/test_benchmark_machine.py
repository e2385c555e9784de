from pathlib import Path

import pytest

from benchmarks.machine import describe, warnings


@pytest.fixture
def fake_proc(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz: boosted\nmodel name\t: other\n"
    )
    (tmp_path / "meminfo").write_text("MemTotal:       8388608 kB\nMemFree: 1 kB\n")
    governor = tmp_path / "cpu0" / "cpufreq" / "scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    return tmp_path


def test_reads_the_machine(fake_proc: Path) -> None:
    machine = describe(fake_proc, fake_proc)
    assert (machine.cpu, machine.memory, machine.governor) == (
        "Fast CPU @ 3 GHz: boosted",
        "8 GiB",
        "powersave",
    )
    assert machine.cores >= 1
    assert (
        "the CPU frequency governor is 'powersave'; figures vary less with 'performance'" in machine.warnings
    )


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    machine = describe(tmp_path, tmp_path)
    assert machine.memory == "unknown"
    assert machine.governor == "not shown (a virtual machine?)"


def test_a_quiet_machine_has_no_warnings() -> None:
    assert warnings(0.5, 2, "performance") == ()
    assert warnings(0.0, 1, "") == ()


def test_a_busy_machine_is_pointed_out() -> None:
    assert warnings(0.75, 2, "") == ("the machine was busy when the run began: load average 0.75 on 2 cores",)


def test_lines_are_for_people(fake_proc: Path) -> None:
    lines = dict(describe(fake_proc, fake_proc).lines())
    assert lines["memory"] == "8 GiB"
    assert lines["load"].endswith(" at the start")
    assert "warnings" not in lines
