import json
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import qemu
from benchmarks.figures import Goal
from benchmarks.guests import EmuvisorProcess
from benchmarks.harness import Context, Result, Row, Settings
from benchmarks.machine import describe
from benchmarks.workloads import ALL
from benchmarks.workloads.commands import commands
from benchmarks.workloads.overcommit import figure
from emuvisor.images.cache import Image
from emuvisor.units import MIB


@pytest.fixture
def image() -> Image:
    return Image("debian", Path("i"), Path("i/vmlinuz"), Path("i/initrd"), "console=ttyS0", {}, 0)


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        command_line.main(["boots"])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.endswith(
        "error: no benchmark 'boots'; there are boot, system, commands, ide, disk, layers, net, vbe, bare, exits, "
        "switch, switch-parts, scale, clone, reset, memory, reserved, overcommit, scheduler, fairness, wakeup, pcpus, "
        "smp, limits, autopilot, snapshot, migration\n"
    )


def test_without_an_image_everything_else_is_skipped_with_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path))
    out = tmp_path / "out.json"
    markdown = tmp_path / "out.md"
    names = ["boot", "commands", "ide", "disk", "net", "scale", "snapshot"]
    assert command_line.main([*names, "--json", str(out), "--markdown", str(markdown)]) == 0
    data = json.loads(out.read_text())
    assert [(b["name"], b["notices"]) for b in data["benchmarks"]] == [
        (name, [f"{name} is skipped: no Debian image; run `emuvisor images pull debian`"]) for name in names
    ]
    words = " ".join(names)
    assert data["command"] == f"python -m benchmarks {words} --json {out} --markdown {markdown}"
    assert not (tmp_path / "out-io.svg").exists()
    assert "## scale" in markdown.read_text()
    assert "notice: boot is skipped: no Debian image" in capsys.readouterr().out


def test_the_chart_is_beside_the_markdown(tmp_path: Path) -> None:
    rows = [Row("read", "MB/s", Goal(0.5, "qemu", at_least=True), "qemu", {"emuvisor": [1.0], "qemu": [2.0]})]
    results = [Result(name, "", rows, [], [], 1.0, False) for name in ("boot", "disk")]
    markdown = tmp_path / "out.md"
    command_line.write_markdown(markdown, describe(), "python -m benchmarks", results)
    assert "![Disks and networks beside QEMU, whose bars are 1x](out-io.svg)" in markdown.read_text()
    picture = (tmp_path / "out-io.svg").read_text()
    assert "disk: longer is better" in picture
    assert "boot" not in picture


def overcommitted() -> list[Result]:
    values = {"enough memory": [2.0], "swap": [1.0]}
    rows = [Row(figure(1.5), "MB/s", None, "enough memory", values)]
    return [Result("overcommit", "what guests read", rows, [], [], 1.0, False)]


def test_the_report_does_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    markdown = tmp_path / "out.md"
    command_line.write_markdown(markdown, describe(), "python -m benchmarks", overcommitted())
    assert "## overcommit" in markdown.read_text()
    assert ".svg" not in markdown.read_text()
    assert capsys.readouterr().err.startswith("there is no picture of overcommit: ")


def test_the_overcommit_curve_is_in_its_section(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    markdown = tmp_path / "out.md"
    command_line.write_markdown(markdown, describe(), "python -m benchmarks", overcommitted())
    section = "## overcommit\n\nWhat guests read.\n\n![What guests read.](out-overcommit.svg)\n"
    assert section in markdown.read_text()
    assert ">swap<" in (tmp_path / "out-overcommit.svg").read_text()


def test_benchmarks_have_different_names() -> None:
    assert len({benchmark.name for benchmark in ALL}) == len(ALL)


def test_qemu_that_is_not_installed_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    context = Context(Settings())
    assert not qemu.available(context)
    assert context.notices == [
        "qemu is skipped: qemu-system-x86_64 is not installed (Debian: qemu-system-x86)"
    ]


def test_both_boot_the_same_files_with_the_same_words(image: Image) -> None:
    settings = Settings(image=image, append="quiet", memory_mib=128)
    assert qemu.Qemu(settings).argv() == [
        *[
            "qemu-system-x86_64",
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-cpu",
            "qemu64",
            "-smp",
            "1",
            "-m",
            "128",
            "-nographic",
        ],
        *["-no-reboot", "-nic", "none", "-kernel", "i/vmlinuz", "-initrd", "i/initrd", "-append"],
        "console=ttyS0 quiet",
    ]
    command, program, configuration = EmuvisorProcess(settings, board="microvm").argv()[1:]
    assert (command, program) == ("-m", "benchmarks.programs.console")
    assert json.loads(configuration) == {
        "board": "microvm",
        "memory": 128 * MIB,
        "clock": "host",
        "kernel": {
            "path": "i/vmlinuz",
            "initrd": "i/initrd",
            "append": "console=ttyS0 quiet",
            "decompressor": "host",
        },
        "disks": [],
    }


def test_words_that_a_machine_needs(image: Image) -> None:
    settings = Settings(image=image, append="quiet")
    argv = qemu.Qemu(settings, "microvm", "tsc_early_khz=1").argv()
    assert argv[:3] == ["qemu-system-x86_64", "-machine", "microvm"]
    assert argv[-2:] == ["-append", "console=ttyS0 tsc_early_khz=1 quiet"]


def test_a_quick_run_does_a_part_of_the_work() -> None:
    assert [(c.name, c.limit) for c in commands(quick=False)] == [
        ("400k system calls (one-byte dd)", 1.5),
        ("300 fork and exec", 1.1),
        ("200k turns of a shell loop", 1.8),
        ("sha256 of 64 MB", 1.8),
    ]
    assert [c.name for c in commands(quick=True)] == [
        "100k system calls (one-byte dd)",
        "75 fork and exec",
        "50k turns of a shell loop",
        "sha256 of 16 MB",
    ]
    assert (
        commands(quick=False)[3].expected
        == "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"
    )
