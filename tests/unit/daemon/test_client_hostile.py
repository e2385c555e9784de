"""The client against what is no daemon, or one that has lost its mind."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from emuvisor.daemon import transport
from emuvisor.daemon.client import Client
from emuvisor.errors import HostError, StateError, UsageError

Play = Callable[..., Client]
NOT_UNDERSTOOD = r"^the daemon's answer is not to be understood: "


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """play(*answers): a client of something that gives each connection one of the answers."""
    with ExitStack() as stack:

        def start(*answers: bytes) -> Client:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(str(tmp_path / "s"))
            listener.listen(8)

            def serve() -> None:
                for answer in answers:
                    with listener.accept()[0] as peer:
                        peer.recv(65536)
                        peer.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            return Client(tmp_path / "s")

        yield start


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b"17", b'{"error": 1}'])
def test_answers_and_errors_that_are_none(play: Play, body: bytes) -> None:
    client = play(answer(body), answer(body, "400 Bad Request"))
    for _ in range(2):
        with pytest.raises(HostError, match=NOT_UNDERSTOOD):
            client.guests()


@pytest.mark.parametrize("sent", [b"", b"hello\r\n\r\n"])
def test_what_does_not_speak_http(play: Play, sent: bytes) -> None:
    client = play(sent)
    with pytest.raises(HostError, match=rf"^the daemon at {client._address.text}: "):
        client.guests()


def test_an_answer_that_is_cut_off(play: Play) -> None:
    with pytest.raises(HostError) as error:
        play(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{").guests()
    assert str(error.value) == "the daemon's answer ended 98 bytes early"


def test_an_answer_without_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER", 10)
    with pytest.raises(HostError) as error:
        play(answer(b"x" * 11)).guests()
    assert str(error.value) == "the daemon's answer has more than 10 bytes"


def test_a_console_that_is_none(play: Play) -> None:
    client = play(
        answer(b"{"), b"hello\r\n\r\n", answer(b'{"error": "off", "kind": "StateError"}', "409 Conflict")
    )
    with pytest.raises(HostError, match=NOT_UNDERSTOOD):
        client.console("web")
    with pytest.raises(HostError, match=r"^the daemon at .*: "):
        client.console("web")
    with pytest.raises(StateError, match=r"^off$"):
        client.console("web")


def test_an_operation_that_fails_later(play: Play) -> None:
    running = answer(b'{"id": "1", "state": "running"}', "202 Accepted")
    failed = answer(b'{"id": "1", "state": "failed", "error": "no", "error_kind": "StateError"}')
    with pytest.raises(StateError, match=r"^no$"):
        play(running, failed).save("web")


def test_events_that_are_none(play: Play) -> None:
    body = b"id: x\n\ndata: {}\n\nid: 7\ndata: {]\n\n"
    with pytest.raises(HostError, match=NOT_UNDERSTOOD):
        next(play(answer(body)).follow())


def test_a_log_without_its_position(play: Play) -> None:
    assert play(answer(b"text", "200 OK", "Emuvisor-Log-Position: x")).log_after("web", 3).position == 3


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "emuvisor.daemon.remote_console", None)
    with pytest.raises(UsageError) as error:
        Client(tmp_path / "s").console("web")
    assert str(error.value) == "consoles of a daemon need emuvisor[daemon]: pip install websockets"


def test_dates_and_paths_are_plain() -> None:
    body: dict[str, Any] = {"epoch_s": datetime(2025, 1, 1, tzinfo=UTC), "path": Path("/x")}
    assert transport.plain_json(body) == b'{"epoch_s": 1735689600, "path": "/x"}'
