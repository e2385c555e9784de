"""`emuvisor run` with real guests: output, exit codes, JSON."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from emuvisor import firmware
from emuvisor.cli import main
from emuvisor.cli.keyboard import Keyboard
from emuvisor.cli.results import Cut
from emuvisor.cli.screen import Screen
from emuvisor.cli.session import Session
from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

HELLO = """\
hello: real mode, 16 bits
hello: protected mode, 32 bits
hello: long mode, 64-bit paging
hello: 1000000007 squared is 1000000014000000049
hello: done, powering off
"""

Program = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


def run(path: Path, *options: str, memory: str = "16M") -> int:
    return main(["run", "--flat", f"{path}@0x8000", "--memory", memory, *options])


def test_a_guest_prints_and_switches_itself_off(program: Program, capsys: Capture) -> None:
    assert run(program("hello")) == 0
    out, err = capsys.readouterr()
    assert (out.replace("\r", ""), err) == (HELLO, "")


def test_output_without_an_end_of_line(program: Program, capsys: Capture) -> None:
    assert run(program("aaa")) == 0
    assert capsys.readouterr().out == "AAA"


def test_until(program: Program, capsys: Capture) -> None:
    assert run(program("spin"), "--until", "line 2,") == 0
    out, err = capsys.readouterr()
    assert out.endswith("spin: line 2,")
    assert err == ""


@pytest.mark.parametrize(
    ("name", "options", "code", "message"),
    [
        ("endless", ["--timeout", "0.05"], 3, "emuvisor: guest: timeout: no end after 0.05 s\n"),
        ("halted", [], 4, "emuvisor: guest: halted: HLT with interrupts disabled\n"),
        ("triple-fault", [], 4, "emuvisor: guest: triple-fault: at RIP 0x5\n"),
        ("debug-exit", [], 5, ""),
        (
            "memtouch",
            ["--pool", "2M", "--compression", "0", "--no-sharing"],
            4,
            "emuvisor: guest: no-memory: all 512 frames of the host (2 MiB) are taken; "
            "--pool gives it more\n",
        ),
    ],
)
def test_exit_codes(
    *, name: str, options: list[str], code: int, message: str, program: Program, capsys: Capture
) -> None:
    assert run(program(name), *options) == code
    assert capsys.readouterr().err == message


def test_json(program: Program, capsys: Capture) -> None:
    assert run(program("aaa"), "--json", "--name", "three") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert document["exit_code"] == 0
    (guest,) = document["guests"]
    assert guest["name"] == "three"
    assert guest["outcome"] == {"ending": "power-off", "code": 0, "message": ""}
    assert guest["console"] == "AAA"
    assert guest["seconds"] > 0
    assert guest["statistics"]["console_bytes"] == 3


def test_json_says_what_an_exit_code_cannot(program: Program, capsys: Capture) -> None:
    assert run(program("debug-exit"), "--json") == 5
    document = json.loads(capsys.readouterr().out)
    assert document["guests"][0]["outcome"] == {"ending": "debug-exit", "code": 5, "message": ""}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pcpus", "0"], "emuvisor: error: a host has 1 to 32 pCPUs, not 0\n"),
        (
            ["--cpu", "z80"],
            "emuvisor: error: no CPU model 'z80'; there are emu64, haswell, broadwell, pentium3\n",
        ),
    ],
)
def test_what_cannot_be_run(options: list[str], message: str, program: Program, capsys: Capture) -> None:
    assert run(program("hello"), *options) == 2
    assert capsys.readouterr() == ("", message)


def test_an_image_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert run(tmp_path / "none.bin") == 2
    path = tmp_path / "none.bin"
    assert capsys.readouterr().err == f"emuvisor: error: {path}: cannot be read: No such file or directory\n"


def config(folder: Path, name: str, program: Path, more: str = "") -> str:
    file = folder / f"{name}.toml"
    file.write_text(
        f'name = "{name}"\nmemory = "16M"\n{more}\n[flat]\npath = "{program}"\naddress = 0x8000\n'
    )
    return str(file)


def test_several_guests_side_by_side(program: Program, tmp_path: Path, capsys: Capture) -> None:
    files = [config(tmp_path, "one", program("hello")), config(tmp_path, "three", program("aaa"))]
    assert main(["run", "--config", files[0], "--config", files[1]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("three | ")] == ["three | AAA"]
    assert [line for line in lines if line.startswith("one")] == [
        f"one   | {line}" for line in HELLO.splitlines()
    ]
    assert len(lines) == 1 + len(HELLO.splitlines())


def test_a_guest_without_a_console(program: Program, tmp_path: Path, capsys: Capture) -> None:
    file = config(tmp_path, "mute", program("aaa"), "serial_ports = 0")
    assert main(["run", "--config", file]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("hello", "endless", "triple-fault", "debug-exit"), 4),
        (("hello", "endless", "debug-exit"), 3),
        (("hello", "debug-exit"), 5),
    ],
)
def test_the_worst_of_several_counts(
    names: tuple[str, ...], code: int, program: Program, tmp_path: Path
) -> None:
    limits = {"endless": "timeout_s = 0.05"}  # the others have as long as they need
    files = [config(tmp_path, name, program(name), limits.get(name, "")) for name in names]
    options = [word for file in files for word in ("--config", file)]
    assert main(["run", *options, "--json"]) == code


def test_memory_of_a_guest_that_is_given_up_lets_the_other_finish(tmp_path: Path, capsys: Capture) -> None:
    # Both want 24 MiB and touch them side by side, so that neither can go on when 36 are taken.
    start, length, stride, passes = 0, 24 * MIB, 16, 1
    block = b"".join(value.to_bytes(8, "little") for value in (start, length, stride, passes))
    (tmp_path / "disk.img").write_bytes(firmware.boot_disk("memtouch", block))
    options = ["--pool", "36M", "--compression", "0", "--no-sharing", "--json", "--host-clock", "virtual"]
    for name in ("one", "two"):
        file = tmp_path / f"{name}.toml"
        file.write_text(f'name = "{name}"\nmemory = "32M"\n[[disks]]\npath = "disk.img"\nreadonly = true\n')
        options += ["--config", str(file)]
    code = main(["run", *options])
    endings = [guest["outcome"]["ending"] for guest in json.loads(capsys.readouterr().out)["guests"]]
    assert (code, sorted(endings)) == (4, ["no-memory", "power-off"])


def test_memory_of_a_guest_that_ended_goes_to_the_next(
    program: Program, tmp_path: Path, capsys: Capture
) -> None:
    files = [config(tmp_path, name, program("memtouch")) for name in ("one", "two")]
    options = ["--pool", "12M", "--compression", "0", "--json"]
    assert main(["run", "--config", files[0], "--config", files[1], *options]) == 0
    endings = [guest["outcome"]["ending"] for guest in json.loads(capsys.readouterr().out)["guests"]]
    assert endings == ["power-off", "power-off"]


def test_a_pipe_is_typed_when_the_guest_listens(program: Program) -> None:
    text = b"0123456789" * 10_000 + b"!"  # more than the guest and the pipe hold at once
    read, write = os.pipe()

    def fill() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(text)

    writer = threading.Thread(target=fill)
    writer.start()
    guest = GuestConfig(memory=16 * MIB, flat=FlatConfig(program("echo"), 0x8000), timeout_s=300)
    with Host(32 * MIB) as host:
        (result,) = Session(host, Screen(None, ["guest"]), Keyboard(read, terminal=False)).run([guest])
    writer.join()
    os.close(read)
    assert (result.ending, result.console) == (Ending.POWER_OFF, text.decode())


def test_a_pipe_that_ends_leaves_the_guest_running(program: Program) -> None:
    read, write = os.pipe()
    os.close(write)
    guest = GuestConfig(memory=16 * MIB, flat=FlatConfig(program("echo"), 0x8000), timeout_s=0.1)
    with Host(32 * MIB) as host:
        (result,) = Session(host, Screen(None, ["guest"]), Keyboard(read, terminal=False)).run([guest])
    os.close(read)
    assert result.ending is Cut.TIMEOUT
