"""Which daemon a command talks to."""

import argparse
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from emuvisor.cli.connect import add_store_option, daemon_client
from emuvisor.errors import HostError, UsageError


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_store_option(parser)
    return parser.parse_args(arguments)


def test_one_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("emuvisor.daemon.client.Client", lambda *given: made.append(given))
    token, ca = tmp_path / "token", tmp_path / "cert.pem"
    token.write_text("0123456789abcdef\n")
    daemon_client(
        parsed("--daemon", "https://there:8443", "--daemon-token", str(token), "--daemon-ca", str(ca))
    )
    assert made == [("https://there:8443", "0123456789abcdef", ca)]


def test_none_listens_beside_the_store(tmp_path: Path) -> None:
    assert daemon_client(parsed("--store", str(tmp_path))) is None


def test_a_socket_of_somebody_else_is_none_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "emuvisor.sock"))
        listening.listen()
        assert daemon_client(parsed("--store", str(tmp_path))) is not None
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr(Path, "lstat", lambda _: os.stat_result((0, 0, 0, 0, 777, 0, 0, 0, 0, 0)))
        assert daemon_client(parsed("--store", str(tmp_path))) is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--daemon", "http://there"], "--daemon: 'http://there' is not https://HOST:PORT"),
        (["--daemon", "https://there:1"], "--daemon needs --daemon-token"),
        (["--daemon-token", "t"], "--daemon-token without --daemon"),
        (["--daemon-ca", "c"], "--daemon-ca without --daemon"),
    ],
)
def test_what_cannot_be(arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError) as error:
        daemon_client(parsed(*arguments))
    assert str(error.value) == text


def test_a_token_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    with pytest.raises(HostError) as error:
        daemon_client(parsed("--daemon", "https://there:1", "--daemon-token", str(missing)))
    assert str(error.value) == f"{missing}: cannot be read: No such file or directory"
