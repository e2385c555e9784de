"""`emuvisor serve` in this process: its options, what it says, and its end."""

import argparse
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import emuvisor
from emuvisor.cli import main, serve_log
from emuvisor.cli import serve as command
from emuvisor.cli.serve_log import ServeLog
from emuvisor.daemon.client import Client
from emuvisor.daemon.unixsocket import UnixSocket

FLAT = {"board": "isa", "memory": "1M", "clock": "host"}


def serve(arguments: list[str], act: Callable[[], None]) -> int:
    """Run the command, and `act` in a thread when it is ready; a signal ends it then."""
    failures: list[BaseException] = []

    def helper() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def ready(text: str) -> None:
        if text == "READY=1":
            threading.Thread(target=helper).start()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emuvisor.daemon.systemd.notify", ready)
        code = main(["serve", "--pool", "64M", *arguments])
    for failure in failures:
        raise failure
    return code


def test_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "idle.bin").write_bytes(bytes.fromhex("fbf4ebfd"))
    store = tmp_path / "store"
    sockets = tmp_path / "qmp"

    def act() -> None:
        with Client(store / "emuvisor.sock") as client:
            client.create(
                {"name": "web", "flat": {"path": "idle.bin", "address": 0x8000}, **FLAT}, folder=tmp_path
            )
            client.start("web")
            while not (sockets / "web.qmp").exists():
                client.guests()

    handlers = [signal.getsignal(number) for number in command.SIGNALS]
    arguments = ["--store", str(store), "--qmp", str(sockets), "--memory-record", str(tmp_path / "memory")]
    assert serve(arguments, act) == 0
    said = capsys.readouterr().err
    assert f"0 guests of {store} at unix:{store}/emuvisor.sock\n" in said
    assert "web: running (started)\n" in said
    assert "web: saved (saved when the host ended)\n" in said
    assert [signal.getsignal(number) for number in command.SIGNALS] == handlers


def test_on_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token, cert, key = (tmp_path / name for name in ("token", "cert.pem", "key.pem"))
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "1", "-subj", "/CN=d", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    network = [
        "--tcp",
        "127.0.0.1:0",
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(key),
        "--token-file",
        str(token),
    ]
    arguments = [
        "--store",
        str(tmp_path / "s"),
        "--socket",
        str(tmp_path / "d.sock"),
        "--max-guest-memory",
        "1M",
    ]

    def act() -> None:
        with Client(tmp_path / "d.sock") as client:
            assert client.host()["limits"]["memory"] == 1 << 20

    assert main(["serve", *arguments, *network, "--images", str(tmp_path)]) == 2
    assert "is in a folder of images" in capsys.readouterr().err
    assert serve([*arguments, *network], act) == 0
    assert "https://127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--tcp", ":1"], "--tcp :1 needs --tls-cert, --tls-key, --token-file: it is for those with TLS and a token"),
        (["--tcp", ":1", "--tls-cert", "c", "--token-file", "t"],
         "--tcp :1 needs --tls-key: it is for those with TLS and a token"),
        (["--token-file", "t", "--images", "i"], "--token-file, --images without --tcp"),
    ],
)  # fmt: skip
def test_the_network_needs_tls_and_a_token(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {text}\n"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr(
        emuvisor, "daemon", emuvisor.daemon
    )  # which is to be the one of `sys.modules` afterwards
    for name in [name for name in sys.modules if name.startswith("emuvisor.daemon")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["serve"]) == 2
    text = "emuvisor: error: the daemon needs fastapi: pip install 'emuvisor[daemon]'\n"
    assert capsys.readouterr().err == text


def test_another_daemon_has_the_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.sock"
    live = UnixSocket(path)
    arguments = ["--store", str(tmp_path / "store"), "--socket", str(path), "--pool", "64M"]
    assert main(["serve", *arguments]) == 2
    text = f"emuvisor: error: process {os.getpid()} listens on {path} already\n"
    assert capsys.readouterr().err.endswith(text)
    live.close()


def test_the_second_signal_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with command._signals() as ended:
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended.wait(30)
        assert codes == []
        os.kill(os.getpid(), signal.SIGINT)
    assert codes == [130]


def test_the_pool_is_half_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 8192}.__getitem__)
    assert command._default_pool() == 1000 * 4096


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(
        serve_log, "Console", lambda **_: Console(file=out, force_terminal=True, width=100, color_system=None)
    )
    return out


def test_the_status_line(terminal: io.StringIO) -> None:
    class Pool:
        used, limit = 256, 1024

    class Host:
        pool = Pool()

    class Guests:
        host = Host()

        def guests(self) -> list[Any]:
            return [argparse.Namespace(state=state) for state in ("running", "defined")]

    with ServeLog() as log:
        assert log.has_status
        log.show(Guests(), ["unix:/x"])  # type: ignore[arg-type]
        log.warn("the disk [is] full")
        log.ending("saved")
    said = terminal.getvalue()
    assert "2 guests, 1 running; 1 MiB of 4 MiB used; unix:/x; Ctrl-C ends" in said
    assert "warning: the disk [is] full" in said


def test_without_a_terminal_there_is_no_status_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ServeLog() as log:
        log.show(None, ["unix:/x"])  # type: ignore[arg-type]
        assert not log.has_status
    assert capsys.readouterr().err == ""


def test_a_log_that_nobody_reads_any_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: list[logging.LogRecord] = []
    with ServeLog() as log:
        monkeypatch.setattr(log._console, "print", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        monkeypatch.setattr(log._handler, "handleError", failures.append)
        log.say("hello")
    assert [record.getMessage() for record in failures] == ["hello"]
