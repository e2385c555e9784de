"""The daemon's Unix socket."""

import os
import socket
import stat
from pathlib import Path

import pytest

from emuvisor.daemon.unixsocket import UnixSocket, default_socket
from emuvisor.errors import HostError, StateError, UsageError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "daemon.sock"
    before = os.umask(0)
    try:
        made = UnixSocket(path)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    connect(path)
    made.close()
    assert list(path.parent.iterdir()) == []


def test_one_that_is_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    UnixSocket(path).listener.close()  # as when a process is killed
    assert path.exists()
    made = UnixSocket(path)
    connect(path)
    made.close()


def test_a_live_one_is_refused_naming_its_process(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    first = UnixSocket(path)
    with pytest.raises(StateError) as error:
        UnixSocket(path)
    assert str(error.value) == f"process {os.getpid()} listens on {path} already"
    connect(path)
    first.close()


def test_closing_leaves_the_socket_of_another_alone(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    first = UnixSocket(path)
    path.unlink()
    second = UnixSocket(path)
    first.close()
    connect(path)
    second.close()
    second.close()  # which does no harm


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(UsageError) as error:
        UnixSocket(path)
    assert str(error.value) == f"{path} is not a socket; it stays as it is"
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 108)
    with pytest.raises(UsageError) as error:
        UnixSocket(path)
    assert str(error.value) == f"{path}: a socket's path has 107 bytes at most"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "run" / "daemon.sock"
    with pytest.raises(HostError) as error:
        UnixSocket(path)
    assert str(error.value) == f"cannot listen on {path}: Not a directory"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_socket() == Path("/run/user/7/emuvisor/emuvisor.sock")
    assert default_socket(Path("/srv/guests")) == Path("/srv/guests/emuvisor.sock")
