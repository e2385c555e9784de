"""A Debian guest's whole life by the command line: each step is a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from guests import BOOTED

from emuvisor.cli.connect import listens
from emuvisor.images.cache import Image

pytestmark = pytest.mark.system

PATIENCE_S = 120
COMMAND = [sys.executable, "-m", "emuvisor"]


class Terminal:
    """`emuvisor ARGS` with a console: what it prints, and what is typed."""

    def __init__(self, *args: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.seen = b""

    def expect(self, text: str, send: str = "") -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if send:
            self.process.stdin.write(send.encode())
            self.process.stdin.flush()
        end = time.monotonic() + PATIENCE_S
        while text.encode() not in self.seen:
            assert time.monotonic() < end, self.seen
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self.seen
            self.seen += data
        self.seen = self.seen.partition(text.encode())[2]

    def end(self) -> int:
        """Ask the command to end, as `kill` does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


def test_from_creation_to_deletion(debian: Image, tmp_path: Path) -> None:
    store = str(tmp_path / "store")

    def run(verb: str, *args: str) -> str:
        done = subprocess.run(
            [*COMMAND, verb, "--store", store, *args],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("create", "web", "--image", "debian", "--memory", "128M")
    console = Terminal("start", "web", "--store", store)
    console.expect(BOOTED)
    console.expect("x=42", "x=42\n")
    assert console.end() == 128 + signal.SIGTERM
    assert json.loads(run("ls", "--json"))[0]["state"] == "saved"

    run("snapshot", "web", "booted", "--comment", "just booted")
    run("clone", "web", "twin")
    for name in ("web", "twin"):  # in other processes they know what they knew, and then differ
        console = Terminal("start", name, "--store", store)
        console.expect("answer=42.", "echo answer=$x.\n")
        console.expect(f"x={name}", f"x={name}\n")
        console.end()
    run("restore", "web", "booted")
    console = Terminal("start", "web", "--store", store)
    console.expect("answer=42.", "echo answer=$x.\n")
    console.expect("web: power-off", "poweroff\n")
    assert console.process.wait(PATIENCE_S) == 0
    console.process.communicate()

    daemon = subprocess.Popen(
        [*COMMAND, "serve", "--store", store, "--pool", "512M"], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE_S
        while not listens(tmp_path / "store/emuvisor.sock"):
            assert time.monotonic() < end
            assert daemon.poll() is None
            time.sleep(0.05)
        run("start", "twin")
        console = Terminal("console", "twin", "--store", store)
        console.expect("answer=twin.", "echo answer=$x.\n")
        console.end()
        run("stop", "twin")
        assert {guest["state"] for guest in json.loads(run("ls", "--json"))} == {"defined"}
        assert "web: deleted" in run("rm", "web", "twin")
        assert json.loads(run("ls", "--json")) == []
    finally:
        daemon.terminate()
        assert daemon.wait(PATIENCE_S) == 0
    info = json.loads(subprocess.check_output([*COMMAND, "store", "info", "--store", store, "--json"]))
    assert (info["guests"], info["snapshots"], info["packs"], info["disk_bytes"]) == (0, 0, 0, 0)
