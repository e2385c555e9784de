"""Requests that are too large, too slow, too many, or none."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuvisor.daemon.client import Client
from emuvisor.daemon.service import Service
from emuvisor.daemon.sockets import serve_on
from emuvisor.errors import HostError, UsageError
from emuvisor.units import MIB

Definition = Callable[..., dict[str, Any]]
Serve = Callable[..., Path]


@pytest.fixture
def serve(make_service: Callable[..., Service], tmp_path: Path) -> Iterator[Serve]:
    """serve(**limits): the path of a daemon's socket."""
    with ExitStack() as stack:

        def start(**limits: Any) -> Path:
            service = make_service(**limits)
            stack.enter_context(serve_on(service, tmp_path / "daemon.sock"))
            stack.callback(service.end_streams)
            return tmp_path / "daemon.sock"

        yield start


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(str(path))
    return client


def ask(path: Path, request: bytes) -> tuple[int, Any]:
    """The status of the answer, and its body."""
    with connect(path) as client:
        with suppress(BrokenPipeError):  # it has heard enough
            client.sendall(request)
        answer = client.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def said_to(client: socket.socket, sent: bytes) -> bytes:
    """What comes until the daemon hangs up, which it may do before all is sent, or received by it."""
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(sent)
        return client.recv(100)
    return b""


def post(body: bytes, *headers: str) -> bytes:
    lines = ("POST /v1/guests HTTP/1.1", "Host: d", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_body_that_says_that_it_is_large(serve: Serve) -> None:
    status, body = ask(serve(body=4096), post(b"", "Content-Length: 4097"))
    text = "the request's body has more than 4096 bytes"
    assert (status, json.loads(body)) == (413, {"error": text, "kind": "UsageError"})


def test_a_body_that_is_large_and_does_not_say_so(serve: Serve) -> None:
    parts = (b"400\r\n" + bytes(1024) + b"\r\n") * 5
    status, body = ask(serve(body=4096), post(parts + b"0\r\n\r\n", "Transfer-Encoding: chunked"))
    assert (status, json.loads(body)["error"]) == (413, "the request's body has more than 4096 bytes")


def test_a_body_of_just_the_size(serve: Serve) -> None:
    body = json.dumps({"definition": {"name": "x" * 100}}).encode()
    status, _ = ask(serve(body=len(body)), post(body, f"Content-Length: {len(body)}"))
    assert status == 422


def test_a_body_that_does_not_come(serve: Serve) -> None:
    status, body = ask(serve(body_s=0.01), post(b"{", "Content-Length: 100"))
    assert (status, json.loads(body)["error"]) == (408, "the request's body was not there in 0.01 seconds")


def test_a_client_that_leaves_in_the_middle_of_a_body(serve: Serve) -> None:
    path = serve()
    with connect(path) as client:
        client.sendall(post(b"{", "Content-Length: 100"))
    assert ask(path, b"GET /v1/guests HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")[0] == 200


def test_a_header_that_is_large(serve: Serve) -> None:
    status, _ = ask(serve(header=4096), b"GET /v1/guests HTTP/1.1\r\nX: " + b"x" * 5000)
    assert status == 400


@pytest.mark.parametrize("sent", [b"", b"GET /v1/gue"])
def test_a_header_that_does_not_come(serve: Serve, sent: bytes) -> None:
    with connect(serve(header_s=0.01)) as client:
        assert said_to(client, sent) == b""


def test_a_second_header_that_does_not_come(make_service: Callable[..., Service], tmp_path: Path) -> None:
    service, path = make_service(), tmp_path / "daemon.sock"
    with serve_on(service, path), connect(path) as client:
        client.sendall(b"GET /v1/nothing HTTP/1.1\r\nHost: d\r\n\r\n")
        first = HTTPResponse(client)
        first.begin()
        assert (first.status, first.read() != b"") == (404, True)
        service.limits = replace(service.limits, header_s=0.01)
        assert said_to(client, b"GET /v1/gue") == b""


def test_too_many_streams_and_consoles(serve: Serve, definition: Definition) -> None:
    client = Client(serve(streams=1, consoles=1))
    client.create(definition("web"))
    client.start("web")
    follow = client.follow(after=0)
    next(follow)
    with pytest.raises(HostError) as error:
        next(client.follow(after=0))
    assert str(error.value) == "there are 1 streams of events already, which is the limit"
    with client.console("web"):
        with pytest.raises(HostError) as error:
            client.console("web")
        assert str(error.value) == "there are 1 consoles already, which is the limit"
    assert client.guests()[0].state == "running"


def test_too_many_requests(serve: Serve) -> None:
    status, body = ask(serve(requests=0), b"GET /v1/guests HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    text = "0 requests are being answered; try again"
    assert (status, json.loads(body)) == (503, {"error": text, "kind": "HostError"})


def test_too_many_connections(serve: Serve) -> None:
    path = serve(connections=2)
    with connect(path), connect(path):
        status, _ = ask(path, b"GET /v1/guests HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        assert status == 503


def put(body: bytes, *headers: str) -> bytes:
    lines = ("PUT /v1/exports/file HTTP/1.1", "Host: d", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_uploads(serve: Serve, tmp_path: Path) -> None:
    path = serve(body=10, upload=100, idle_s=0.5)
    folder = tmp_path / "exports"
    assert ask(path, put(b"x" * 101, "Content-Length: 101"))[0] == 413
    assert list(folder.iterdir()) == []
    status, body = ask(path, put(b"x", "Content-Length: 100"))
    assert (status, json.loads(body)["error"]) == (408, "nothing came for 0.5 seconds")
    with connect(path) as client:
        client.sendall(put(b"x", "Content-Length: 100"))
    status, body = ask(path, put(b"x" * 100, "Content-Length: 100"))
    assert (status, json.loads(body)) == (201, {"name": "file", "bytes": 100})
    assert [file.name for file in folder.iterdir()] == ["file"]
    status, body = ask(path, put(b"x", "Content-Length: 1"))
    assert (status, json.loads(body)["error"]) == (409, "there is an exported file 'file' already")
    answer = ask(path, b"GET /v1/exports/file HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    assert answer == (200, b"x" * 100)
    client_ = Client(path)
    assert client_._call("GET", "exports") == [{"name": "file", "bytes": 100}]
    assert client_._call("DELETE", "exports", "file")["bytes"] == 100


def test_one_that_does_not_read(serve: Serve, tmp_path: Path) -> None:
    path = serve(idle_s=0.1)
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "file").write_bytes(bytes(8 * MIB))
    with connect(path) as client:
        client.sendall(b"GET /v1/exports/file HTTP/1.1\r\nHost: d\r\n\r\n")
        assert ask(path, b"GET /v1/guests HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")[0] == 200
        assert client.recv(15) == b"HTTP/1.1 200 OK"


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.binary(max_size=300)
    | st.builds(
        lambda line, headers, body: b"%s\r\n%s\r\n\r\n%s" % (line, b"\r\n".join(headers), body),
        st.sampled_from([b"GET / HTTP/1.1", b"POST /v1/guests HTTP/1.1", b"PUT /v1/exports/\xff HTTP/1.0", b"\0"]),
        st.lists(
            st.sampled_from(
                [b"Host: d", b"Content-Length: -1", b"Content-Length: 5", b"Transfer-Encoding: chunked",
                 b"Connection: upgrade", b"Upgrade: websocket", b"Expect: 100-continue", b"Last-Event-ID: \xff"]
            ),
            max_size=5,
        ),
        st.binary(max_size=50),
    )
)  # fmt: skip
def test_what_is_no_request(hostile: tuple[Path, Client], sent: bytes) -> None:
    path, client = hostile
    with connect(path) as peer:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)
        answer = peer.makefile("rb").read()
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 1", b"HTTP/1.1 2"))
    assert b"Traceback" not in answer
    assert client.guests() == []


@pytest.fixture
def hostile(serve: Serve) -> tuple[Path, Client]:
    path = serve(body_s=0.05, idle_s=0.05)
    return path, Client(path)


def test_a_console_by_text_and_with_garbage(serve: Serve, definition: Definition) -> None:
    client = Client(serve())
    client.create(definition("web"))
    client.start("web")
    with client.console("web") as console:
        console._connection.send("ä")  # a text message
        echo = b""
        while len(echo) < 2:
            echo += console.read(30)
        assert echo == "ä".encode()
    with pytest.raises(UsageError, match=r"^there is no guest 'none' in store"):
        client.console("none")
