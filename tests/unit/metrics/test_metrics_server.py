"""The endpoint, over real sockets on loopback."""

import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from metrics_samples import guest, host

from emuvisor.errors import HostError, UsageError
from emuvisor.metrics import HostSample
from emuvisor.metrics.address import Address, parse_address
from emuvisor.metrics.exposition import exposition
from emuvisor.metrics.server import MAX_CLIENTS, MetricsServer

Serve = Callable[..., MetricsServer]
PATIENCE_S = 60.0


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(sample): a server on some port of loopback that waits for its clients, with a clock that stands still."""
    with ExitStack() as stack:

        def start(
            sample: Callable[[], HostSample] = host, *, patience_s: float = PATIENCE_S
        ) -> MetricsServer:
            return stack.enter_context(MetricsServer(":0", sample, patience_s=patience_s, clock=lambda: 0.0))

        yield start


def connect(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def ask(server: MetricsServer, request: bytes) -> bytes:
    """What is answered until the connection ends."""
    with connect(server) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def test_the_metrics(serve: Serve) -> None:
    sample = host(guest("web"))
    server = serve(lambda: sample)
    assert server.url == f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(server.url, timeout=PATIENCE_S) as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.read().decode() == exposition(sample)


def test_a_page_is_given_out_again_for_a_moment() -> None:
    samples: list[HostSample] = []
    now = [0.0]

    def sample() -> HostSample:
        samples.append(host())
        return samples[-1]

    with MetricsServer(":0", sample, patience_s=PATIENCE_S, clock=lambda: now[0]) as server:
        for now[0] in (0.0, 0.2, 0.3, 0.3):
            assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
    assert len(samples) == 2


def test_a_host_that_cannot_be_sampled(serve: Serve) -> None:
    def sample() -> HostSample:
        raise HostError("the host closes")

    response = ask(serve(sample), b"GET /metrics HTTP/1.1\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 503 Service Unavailable")
    assert response.endswith(b"\r\n\r\nthe host closes\n")


def test_a_request_that_is_too_long(serve: Serve) -> None:
    with connect(serve()) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ".ljust(9000, b"x"))
        assert client.recv(100).startswith(b"HTTP/1.1 431 Request Header Fields Too Large")


@pytest.mark.parametrize("request_", [b"", b"\r\n", b"\xff" * 100, b"GET /metrics HTTP/1.1\r\n"])
def test_requests_that_are_none_or_have_no_end(serve: Serve, request_: bytes) -> None:
    assert ask(serve(), request_)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 200")


def test_slow_clients_do_not_keep_others_waiting(serve: Serve) -> None:
    server = serve()
    with connect(server) as slow:
        slow.sendall(b"GET /met")
        assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
        slow.sendall(b"rics HTTP/1.1\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"


def test_slow_clients_are_dropped(serve: Serve) -> None:
    with connect(serve(patience_s=0.01)) as slow:
        slow.sendall(b"GET /met")
        assert slow.recv(100) == b""


def answers_again(server: MetricsServer) -> bool:
    """Once it has seen that its clients are gone."""
    for _ in range(10_000):
        with suppress(OSError):  # turned away
            if ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 OK"):
                return True
    return False


def test_too_many_clients(serve: Serve) -> None:
    server = serve()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(MAX_CLIENTS + 3)]
        for client in clients[MAX_CLIENTS:]:
            assert client.makefile("rb").read().endswith(b"\r\n\r\n16 others are being answered\n")
        clients[0].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert clients[0].makefile("rb").read().startswith(b"HTTP/1.1 200 OK")
    assert answers_again(server)


def test_clients_that_go_away(serve: Serve) -> None:
    server = serve()
    for _ in range(MAX_CLIENTS + 1):
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # by a reset
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answers_again(server)


def test_closing_drops_clients(serve: Serve) -> None:
    server = serve()
    with connect(server) as client:
        client.sendall(b"GET")
        assert ask(server, b"").startswith(b"HTTP/1.1 400")
        server.close()
        assert client.recv(100) == b""
    server.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9100", Address("127.0.0.1", 9100)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:1", Address("::1", 1)),
        ("localhost:65535", Address("localhost", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == (text if not text.startswith(":") else f"127.0.0.1{text}")


@pytest.mark.parametrize(
    "text", ["", "9100", "localhost", "a:b:1", ":65536", ":-1", "http://a:1", "[::1]", ":"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_address(text)
    assert str(error.value) == (
        f"{text!r} is not an address for metrics; write 127.0.0.1:9100, or :9100 for the same"
    )


def test_addresses_that_cannot_be_had(serve: Serve) -> None:
    port = serve().port
    with pytest.raises(HostError) as error:
        MetricsServer(f":{port}", host)
    assert str(error.value) == f"metrics cannot be served on 127.0.0.1:{port}: Address already in use"
    with pytest.raises(HostError) as error:
        MetricsServer(f"{'a' * 70}.b:1", host)
    assert str(error.value).startswith(f"metrics cannot be served on {'a' * 70}.b:1: ")
