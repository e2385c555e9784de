"""Over TCP: TLS and a token, and what clients get that have neither, or do not behave."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from emuvisor.daemon.client import Client
from emuvisor.daemon.server import Tls
from emuvisor.daemon.service import Service
from emuvisor.daemon.sockets import Network, serve_on
from emuvisor.errors import HostError, UsageError

Definition = Callable[..., dict[str, Any]]
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    made = Tls(folder / "daemon.pem", folder / "daemon.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "1", "-subj", "/CN=emuvisor", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(made.key), "-out", str(made.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture
def serve(
    make_service: Callable[..., Service], tls: Tls, tmp_path: Path
) -> Iterator[Callable[..., tuple[str, Service]]]:
    """serve(**limits): an https address, and the service there."""
    with ExitStack() as stack:

        def start(**limits: Any) -> tuple[str, Service]:
            service = make_service(**limits)
            network = Network("127.0.0.1", 0, tls, TOKEN, (tmp_path / "images",))
            where = stack.enter_context(serve_on(service, tmp_path / "daemon.sock", network))
            stack.callback(service.end_streams)
            return where[1], service

        yield start


Serve = Callable[..., tuple[str, Service]]


def connect(address: str, tls: Tls) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=tls.certificate)
    port = int(address.rpartition(":")[2])
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def ask(address: str, tls: Tls, request: bytes) -> bytes:
    """What is answered until the connection ends."""
    with connect(address, tls) as client:
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def with_token(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = (f"{line} HTTP/1.1", "Host: d", f"Authorization: Bearer {TOKEN}", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_life(serve: Serve, tls: Tls, definition: Definition) -> None:
    address, _ = serve()
    client = Client(address, TOKEN, tls.certificate)
    client.create(definition("web"))
    client.start("web")
    with client.console("web") as console:
        console.write(b"x")
        assert console.read(30) == b"x"
    assert next(client.follow(after=0)).kind == "created"


def test_files_come_and_go(serve: Serve, tls: Tls, definition: Definition, tmp_path: Path) -> None:
    address, service = serve()
    client = Client(address, TOKEN, tls.certificate)
    client.create({**definition("web"), "flat": {"path": "echo.bin", "address": 0x8000}})
    file = tmp_path / "web.tar"
    assert client.export("web", file) == file.stat().st_size
    assert client.import_(file, "again").name == "again"
    assert service.exports.all() == []
    with pytest.raises(UsageError) as error:
        client.export("web", file)
    assert str(error.value) == f"{file}: the file exists already"


def test_an_imported_guest_that_names_other_files_is_not_kept(
    serve: Serve, tls: Tls, definition: Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, service = serve()
    client = Client(address, TOKEN, tls.certificate)
    (tmp_path / "archive").write_bytes(b"")

    def import_(path: Path, name: str | None, **_: Any) -> Any:
        return service.manager.create({**definition("evil"), "option_roms": ["/etc/shadow"], "board": "pc"})

    monkeypatch.setattr(service.manager, "import_", import_)
    with pytest.raises(UsageError, match=r"^flat.path|^option_roms: /etc/shadow is in no folder"):
        client.import_(tmp_path / "archive")
    assert service.manager.guests() == []


ANYTHING = (
    *(
        "GET /v1/guests",
        "GET /openapi.json",
        "GET /",
        "GET /docs",
        "GET /v1/events/stream",
        "GET /v1/exports/x",
    ),
    *("POST /v1/guests", "PUT /v1/exports/x", "DELETE /v1/guests/web", "OPTIONS /v1/guests", "TRACE /"),
)


def test_who_has_no_token_gets_nothing(serve: Serve, tls: Tls) -> None:
    address, _ = serve()
    text = '{"error": "the token is missing or wrong: send \'Authorization: Bearer TOKEN\'", "kind": "UsageError"}'
    for line in ANYTHING:
        for header in ("", "Authorization: Bearer wrong\r\n"):
            answer = ask(address, tls, f"{line} HTTP/1.1\r\nHost: d\r\n{header}\r\n".encode())
            head, _, body = answer.decode().partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 401 Unauthorized\r\n")
            assert "www-authenticate: Bearer" in head
            assert body == text
    for token in (None, "wrong", TOKEN[:-1], TOKEN + "0"):
        client = Client(address, token, tls.certificate)
        for call in (
            client.guests,
            lambda client=client: client.console("web"),
            lambda c=client: next(c.follow()),
        ):
            with pytest.raises(
                UsageError, match=r"^the token is missing or wrong: send 'Authorization: Bearer TOKEN'$"
            ):
                call()


def test_without_tls_nobody_is_heard(serve: Serve) -> None:
    address, _ = serve()
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=30) as plain:
        plain.sendall(with_token("GET /v1/guests"))
        assert plain.recv(100) == b""


def test_a_daemon_that_another_one_plays(serve: Serve) -> None:
    address, _ = serve()
    with pytest.raises(HostError) as error:
        Client(address, TOKEN).guests()
    nobody = "nobody vouches for its certificate: self-signed certificate"
    assert str(error.value) == f"the daemon at {address}: {nobody}"


def test_certificates_that_are_none(make_service: Callable[..., Service], tls: Tls, tmp_path: Path) -> None:
    service = make_service()
    none = tmp_path / "none.pem"
    for wrong, reason in ((Tls(none, tls.key), "No such file or directory"), (Tls(tls.key, tls.key), "")):
        with (
            pytest.raises(UsageError) as error,
            serve_on(service, tmp_path / "s", Network("127.0.0.1", 0, wrong, TOKEN)),
        ):
            pass
        assert str(error.value).startswith(
            f"TLS with {wrong.certificate} and {tls.key} is impossible: {reason}"
        )
    assert not (tmp_path / "s").exists()
    with pytest.raises(UsageError, match=rf"^{none}: the certificates cannot be read: "):
        Client("https://127.0.0.1:1", TOKEN, none)


def test_addresses_that_cannot_be_had(make_service: Callable[..., Service], tls: Tls, tmp_path: Path) -> None:
    service = make_service()
    with (
        pytest.raises(HostError) as error,
        serve_on(service, tmp_path / "s", Network("192.0.2.1", 1, tls, TOKEN)),
    ):
        pass
    assert str(error.value) == "cannot listen on 192.0.2.1:1: Cannot assign requested address"
    exports = service.exports.folder
    with (
        pytest.raises(UsageError) as covered,
        serve_on(service, tmp_path / "s", Network("127.0.0.1", 0, tls, TOKEN, (tmp_path,))),
    ):
        pass
    assert str(covered.value) == (
        f"{exports} is in a folder of images; a file that came over the network could be a disk there, with any file "
        "of this host as its backing file"
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: c.migrate("web", "unix:/run/x.sock"),
         "to: 'unix:/run/x.sock' can be given over the Unix socket only; over TCP it is HOST:PORT"),
        (lambda c: c.migrate("web", "/run/x.sock"),
         "to: '/run/x.sock' can be given over the Unix socket only; over TCP it is HOST:PORT"),
        (lambda c: c.migrate("web", "tcp:h:1", certificate="/a", key="/b", ca="/c"),
         "certificate, key, ca: they can be given over the Unix socket only; over TCP use a token"),
        (lambda c: c.receive("tcp:127.0.0.1:0"),
         "a guest of another host can be received over the Unix socket only"),
        (lambda c: c._operate("guests", "web", "export", body={"file": "/tmp/x"}),
         "'/tmp/x': over TCP a file is named without a folder; it is in the folder of exports"),
        (lambda c: c._operate("imports", body={"file": "../../etc/passwd"}),
         "'../../etc/passwd': over TCP a file is named without a folder; it is in the folder of exports"),
        (lambda c: c.create({"name": "x", "flat": {"path": "/etc/shadow", "address": 0}}),
         "flat.path: /etc/shadow is in no folder that may be used over TCP ('emuvisor serve --images')"),
        (lambda c: c.set("web", {"option_roms": ["/etc/shadow"]}),
         "option_roms: /etc/shadow is in no folder that may be used over TCP ('emuvisor serve --images')"),
        (lambda c: c.move_disk("web", 0, "/etc/cron.d/x"),
         "path: /etc/cron.d/x is in no folder that may be used over TCP ('emuvisor serve --images')"),
    ],
)  # fmt: skip
def test_what_is_for_the_unix_socket_alone(
    serve: Serve, tls: Tls, definition: Definition, call: Callable[[Client], object], text: str
) -> None:
    address, _ = serve()
    client = Client(address, TOKEN, tls.certificate)
    client.create({**definition("web"), "board": "pc", "memory": "2M"})
    with pytest.raises(UsageError) as error:
        call(client)
    assert str(error.value) == text


UP = (
    "..",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    ".",
    ".hidden",
    "a/../../b",
    "a\\..\\b",
    "..%2f",
    "a\0b",
    "-x",
    "",
)


def test_names_that_lead_elsewhere(serve: Serve, tls: Tls, definition: Definition, tmp_path: Path) -> None:
    address, service = serve()
    client = Client(address, TOKEN, tls.certificate)
    client.create(definition("web"))

    def files() -> list[Path]:
        return [path for path in sorted(tmp_path.rglob("*")) if "store" not in path.parts]

    before = files()
    for name in UP:
        quoted = quote(name, safe="")
        lines = [
            *(f"GET /v1/exports/{quoted}", f"DELETE /v1/exports/{quoted}", f"GET /v1/guests/{quoted}/logs"),
            f"DELETE /v1/guests/web/snapshots/{quoted}",
            f"GET /v1/exports/{name.translate({0: 'x'})}" if name else "GET /v1/exports/",
        ]
        for line in lines:
            assert ask(address, tls, with_token(line)).split(b" ")[1] in (b"400", b"404")
        put = with_token(f"PUT /v1/exports/{quoted}", "Content-Length: 4", body=b"data")
        assert ask(address, tls, put).split(b" ")[1] in (b"400", b"404")
        calls = (
            lambda name=name: client.rename("web", name),
            lambda name=name: client.clone("web", [name]),
            lambda name=name: client.snapshot("web", name or "/"),
            lambda name=name: client.create({**definition("x"), "name": name}),
        )
        for call in calls:
            with pytest.raises(UsageError):
                call()
    assert [path for path in files() if path.name != "exports"] == before
    assert [guest.name for guest in service.manager.guests()] == ["web"]
