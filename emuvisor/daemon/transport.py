"""How a client reaches a daemon: HTTP over a Unix socket, or over TLS."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from emuvisor.daemon.faults import error_of
from emuvisor.errors import EmuvisorError, HostError, UsageError
from emuvisor.units import MIB

__all__ = ["Address", "Transport", "path_of", "plain_json"]

TIMEOUT_S = 300.0
"""For an answer; a guest that is started may have a large image to read."""
MAX_ANSWER = 256 * MIB
"""Of one that is read at once."""
DEFAULT_PORT = 443


class Address:
    """A socket's path, or "unix:PATH", or "https://HOST:PORT". Raises UsageError for what is none of these."""

    def __init__(self, text: Path | str) -> None:
        self.text = str(text)
        self.path: Path | None = None
        self.host, self.port = "localhost", 0
        if isinstance(text, Path) or "://" not in text:
            self.path = Path(self.text.removeprefix("unix:"))
            return
        try:
            parts = urlsplit(text)
            self.host, self.port = parts.hostname or "", parts.port or DEFAULT_PORT
        except ValueError:  # a port that is none
            parts = urlsplit("")
        if parts.scheme != "https" or not self.host or parts.path not in ("", "/") or parts.query:
            raise UsageError(f"{text!r} is not a daemon's address; write https://HOST:PORT or unix:PATH")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Transport:
    """Requests to the daemon at `address`, with `token` where it wants one. `ca` is a file of certificates by which the
    daemon's is known; None are the system's. Any thread; each request has a connection of its own.

    Raises UsageError for a file of certificates that is none.
    """

    def __init__(self, address: Address, token: str | None, ca: Path | None) -> None:
        self.address = address
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.tls: ssl.SSLContext | None = None
        if address.path is None:
            try:
                self.tls = ssl.create_default_context(cafile=ca)
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"{ca}: the certificates cannot be read: {error}") from None

    def call(
        self, method: str, path: str, query: Mapping[str, object] | None = None, body: object = None
    ) -> Any:
        """What the answer's JSON says; None when it has none. Raises what the daemon says, and HostError."""
        with self.open(method, path, query, body) as response:
            data = read(response)
        if not data:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise error_of(data) from None

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer, to be read. `body` is JSON, or a file that is sent as it is. Raises what the daemon says, and
        HostError when it is not there."""
        sent = dict(self.headers)
        if body is not None and not hasattr(body, "read"):
            body = plain_json(body)
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        connection = self._connection(timeout_s)
        try:
            with self.errors():
                connection.request(method, with_query(path, query), body, sent)
                response = connection.getresponse()
                if response.status >= http.client.BAD_REQUEST:
                    raise _error(read(response))
                yield response
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        address = self.address
        if address.path is not None:
            return _UnixConnection(address.path, timeout_s)
        return http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=self.tls)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong with the connection inside becomes a HostError."""
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError):
            raise HostError(f"no daemon listens at {self.address.text}") from None
        except ssl.SSLCertVerificationError as error:
            raise HostError(
                f"the daemon at {self.address.text}: nobody vouches for its certificate: {error.verify_message}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise HostError(f"the daemon at {self.address.text}: {reason}") from None


def read(response: http.client.HTTPResponse) -> bytes:
    """All of an answer. Raises HostError for one that is too long, or cut off."""
    data = response.read(MAX_ANSWER + 1)
    if len(data) > MAX_ANSWER:
        raise HostError(f"the daemon's answer has more than {MAX_ANSWER} bytes")
    if response.length:  # it has as many bytes that did not come
        raise HostError(f"the daemon's answer ended {response.length} bytes early")
    return data


def _error(data: bytes) -> EmuvisorError:
    try:
        return error_of(json.loads(data))
    except (ValueError, RecursionError):
        return error_of(data)


def path_of(*parts: str) -> str:
    """The path of the API that has `parts` in it, whatever characters they have."""
    return "/v1/" + "/".join(quote(part, safe="", errors="replace") for part in parts)


def with_query(path: str, query: Mapping[str, object] | None) -> str:
    """The path with those of `query` that are not None."""
    given = {key: value for key, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def plain_json(body: object) -> bytes:
    """JSON of plain data, paths, and the dates of TOML. Raises UsageError for anything else."""
    try:
        return json.dumps(body, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"this is not plain data: {error}") from None


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
