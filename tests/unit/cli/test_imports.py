"""The door is cheap: what is heavy is imported when it is used."""

import http.server
import json
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

import emuvisor
from emuvisor import errors, manager, store

HEAVY = ("unicorn", "numpy", "rich", "capstone", "lz4", "zstandard", "textual")
HELP_LIMIT_S = 0.2


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    folder = Path(emuvisor.__file__).parent.parent
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "what",
    ["import emuvisor", "import emuvisor.cli", "from emuvisor.cli.entry import build_parser; build_parser()"],
)
def test_nothing_heavy_is_imported(what: str) -> None:
    result = run("-c", f"import sys; {what}; print([m for m in {HEAVY} if m in sys.modules])")
    assert (result.stdout, result.stderr) == ("[]\n", "")


class Guests(http.server.BaseHTTPRequestHandler):
    """A daemon with one guest."""

    guest: ClassVar = {
        **{"name": "web", "state": "running", "reason": "", "board": "pc", "memory": 1 << 20, "vcpus": 1},
        **{"clock": "host", "autostart": False, "snapshots": 0, "since": 0},
    }

    def do_GET(self) -> None:
        body = json.dumps([self.guest]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("option", ["", ", '--json'"])
def test_a_daemons_guests_are_listed_without_an_engine(tmp_path: Path, option: str) -> None:
    path = tmp_path / "socket"
    with socketserver.UnixStreamServer(str(path), Guests) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        result = run(
            "-c",
            f"import sys; from emuvisor.cli.entry import main; main(['ls', '--socket', {str(path)!r}{option}]); "
            "print([m for m in ('unicorn', 'numpy', 'emuvisor.host') if m in sys.modules])",
        )
        server.shutdown()
        thread.join()
    *lines, heavy = result.stdout.splitlines()
    assert any("web" in line for line in lines), result.stderr
    assert heavy == "[]"


@pytest.mark.parametrize("package", [manager, store])
def test_packages_load_their_names_late(package: ModuleType) -> None:
    assert [getattr(package, name).__name__ for name in package.__all__] == package.__all__
    with pytest.raises(AttributeError) as error:
        _ = package.Nothing
    assert str(error.value) == f"module '{package.__name__}' has no attribute 'Nothing'"


def test_help_is_quick() -> None:
    measure = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'emuvisor', '--help'], "
        "stdout=subprocess.DEVNULL, check=True); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime)"
    )
    # Processor time, the best of some: what else the machine does must not matter.
    assert any(float(run("-c", measure).stdout) < HELP_LIMIT_S for _ in range(20))


@pytest.mark.parametrize("name", emuvisor.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(emuvisor, name).__name__ == name


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(emuvisor.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError) as error:
        _ = emuvisor.Hots
    assert str(error.value) == "module 'emuvisor' has no attribute 'Hots'"


def test_public_names_are_listed() -> None:
    assert set(emuvisor.__all__) <= set(dir(emuvisor))
