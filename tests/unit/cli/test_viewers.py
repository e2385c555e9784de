"""Screens in the terminal and by VNC, and the monitor by QMP, from the command line."""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emuvisor.cli import main
from emuvisor.cli.viewers import read_password, vnc_server
from emuvisor.errors import EmuvisorError
from emuvisor.host import Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import MIB

Program = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]
PATIENCE_S = 120


def run(path: Path, *options: str) -> int:
    return main(["run", "--flat", f"{path}@0x8000", "--memory", "16M", *options])


def test_a_password_is_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\nmore\n")
    assert read_password(file) == "secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\nsecret", "{file}: the first line is empty; it should be the password"),
        (None, "{file}: cannot be read: No such file or directory"),
    ],
)
def test_no_password(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(EmuvisorError) as error:
        read_password(file)
    assert str(error.value) == message.format(file=file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--display", "text", "--json"], "--display with --json: one of them has the terminal"),
        (["--vnc-password-file", "f"], "--vnc-password-file without --vnc"),
        (["--board", "isa", "--vnc", ":1"], "guest 'guest': the isa board has no display"),
        (
            ["--vnc", "nowhere"],
            "'nowhere' is not an address for VNC; write :1 (display 1), 127.0.0.1:5901 or unix:/path",
        ),
        (
            ["--qmp", "tcp:0.0.0.0:4444"],
            "'tcp:0.0.0.0:4444': QMP knows no passwords; TCP is for loopback only (127.0.0.1, ::1)",
        ),
    ],
)
def test_conflicts(program: Program, capsys: Capture, options: list[str], message: str) -> None:
    assert run(program("aaa"), *options) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {message}\n"


@pytest.mark.parametrize("option", [["--display", "text"], ["--vnc", ":1"], ["--qmp", "q"]])
def test_one_guest_at_a_time(tmp_path: Path, program: Program, capsys: Capture, option: list[str]) -> None:
    files = []
    for name in ("a", "b"):
        file = tmp_path / f"{name}.toml"
        file.write_text(f'name = "{name}"\n[flat]\npath = "{program("aaa")}"\naddress = 0x8000\n')
        files += ["--config", str(file)]
    assert main(["run", *files, *option]) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {option[0]} is for one guest; there are 2\n"


def test_a_guest_served_by_vnc_says_where(program: Program, tmp_path: Path, capsys: Capture) -> None:
    socket = tmp_path / "vnc"
    assert run(program("aaa"), "--vnc", f"unix:{socket}") == 0
    assert capsys.readouterr().err == f"emuvisor: guest: VNC on unix:{socket}\n"
    assert not socket.exists()


class Script(threading.Thread):
    """Connects to QMP at `path` as soon as somebody listens there, and says `commands`; `answers` has what came."""

    def __init__(self, path: Path, *commands: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._commands = ("qmp_capabilities", *commands)
        self.answers: list[Any] = []
        self.start()

    def run(self) -> None:
        pause = threading.Event()
        end = time.monotonic() + PATIENCE_S
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            while connection.connect_ex(str(self._path)):
                assert time.monotonic() < end
                pause.wait(0.01)
            with connection.makefile("rw") as lines:
                for command in self._commands:
                    lines.write(json.dumps({"execute": command}))
                    lines.flush()
                while line := lines.readline():
                    self.answers.append(json.loads(line))


def test_a_guest_served_by_qmp(program: Program, tmp_path: Path, capsys: Capture) -> None:
    """It spins until a script says that it is enough; that it stands meanwhile is not for want of memory."""
    path = tmp_path / "qmp"
    script = Script(path, "stop", "query-status", "quit")
    assert run(program("spin"), "--qmp", f"unix:{path},server=on,wait=off") == 0
    script.join(PATIENCE_S)
    assert capsys.readouterr().err == f"emuvisor: guest: QMP on unix:{path}\n"
    assert {"return": {"status": "paused", "running": False}} in script.answers
    assert not path.exists()


def test_a_server_with_a_password(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    with Host(64 * MIB) as host:
        guest = host.create(GuestConfig(memory=16 * MIB, flat=FlatConfig(program("hi"), 0x8000)))
        with vnc_server(guest, f"unix:{tmp_path / 'vnc'}", file) as server:
            assert server.address == f"unix:{tmp_path / 'vnc'}"


def test_the_screen_in_the_terminal(program: Program, capsys: Capture) -> None:
    assert run(program("hi-off"), "--display", "text") == 0
    assert capsys.readouterr().err == ""
