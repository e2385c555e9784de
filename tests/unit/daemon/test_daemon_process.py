"""The daemon as a process: signals, kills, and several commands at once."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import emuvisor
from emuvisor.daemon.client import Client

Definition = Callable[..., dict[str, Any]]
ROOT = Path(emuvisor.__file__).parent.parent


class Daemon:
    """`emuvisor serve` with a store in `folder`; made when it is ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.settimeout(60)
            systemd.bind(str(folder / "notify"))
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "emuvisor",
                    "serve",
                    "--store",
                    str(folder / "store"),
                    "--pool",
                    "64M",
                ],
                cwd=ROOT,
                env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
                stderr=subprocess.PIPE,
                text=True,
            )
            ready = systemd.recv(100)
        (folder / "notify").unlink()
        assert ready == b"READY=1"
        self.client = Client(folder / "store" / "emuvisor.sock")

    def end(self, number: signal.Signals) -> str:
        """Send it a signal; returns what it said."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1]
        assert isinstance(said, str)
        return said


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "emuvisor", *arguments, "--socket", str(folder / "store" / "emuvisor.sock")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[], Daemon]]:
    """daemon(): starts one, after another that has ended."""
    with ExitStack() as stack:

        def start() -> Daemon:
            made = Daemon(tmp_path)
            stack.callback(made.process.communicate)
            stack.callback(made.process.kill)
            return made

        yield start


def test_guests_go_on_after_a_graceful_stop_and_not_after_a_kill(
    daemon: Callable[[], Daemon], definition: Definition, tmp_path: Path
) -> None:
    first = daemon()
    first.client.create(definition("web", autostart=True))
    first.client.create(definition("off"))
    first.client.start("web")
    with first.client.console("web") as console:
        console.write(b"before")
        assert console.read(30)[:1] == b"b"
    said = first.end(signal.SIGTERM)
    assert first.process.returncode == 0
    assert "web: saved (saved when the host ended)" in said
    assert not (tmp_path / "store" / "emuvisor.sock").exists()

    second = daemon()
    assert [(guest.name, guest.state) for guest in second.client.guests()] == [
        ("off", "defined"),
        ("web", "running"),
    ]
    with second.client.console("web") as console:
        seen = b""
        while len(seen) < 6:
            seen += console.read(30)
        console.write(b" after")
        while len(seen) < 12:
            seen += console.read(30)
    assert seen == b"before after"
    second.client.snapshot("web", "here")
    second.end(signal.SIGKILL)
    assert (tmp_path / "store" / "emuvisor.sock").exists()

    third = daemon()  # in the place of the socket that was left
    found = {guest.name: guest for guest in third.client.guests()}
    assert (found["web"].state, found["web"].snapshots, found["off"].state) == ("running", 1, "defined")
    assert "the host process ended" in [
        event.details.get("reason") for event in third.client.events(guest="web")
    ]
    third.client.restore("web", "here")
    assert third.client.info("web")["state"] == "running"

    commands = [command(tmp_path, verb, *rest) for verb, *rest in (("ls", "--json"), ("stop", "web"))]
    answers = [one.communicate(timeout=60) for one in commands]
    assert [one.returncode for one in commands] == [0, 0]
    assert [guest["name"] for guest in json.loads(answers[0][0])] == ["off", "web"]

    third.end(signal.SIGINT)
    assert third.process.returncode == 0
