"""uvicorn in a thread of its own: one server for each address."""

import logging
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from emuvisor.daemon.access import Access
from emuvisor.daemon.app import make_app
from emuvisor.daemon.http_protocol import make_protocol
from emuvisor.daemon.limits import Limits
from emuvisor.daemon.service import Service
from emuvisor.errors import HostError, UsageError

__all__ = ["DaemonServer", "Tls"]

GRACE_S = 5
"""For answers that are under way when it ends."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate with those that lead to a known one, and its private key; both are PEM files."""

    certificate: Path
    key: Path


class DaemonServer:
    """Serves `service` to those who connect to `listener` and whom `access` lets in, from the moment it is made until
    `close`; also a context manager.

    Raises UsageError for a certificate or key that cannot be used, HostError without a thread. The listener is closed
    then.
    """

    def __init__(
        self, service: Service, access: Access, listener: socket.socket, tls: Tls | None = None
    ) -> None:
        self._listener = listener
        try:
            config = _config(service, access, tls)
            self._server = uvicorn.Server(config)
            self._thread = threading.Thread(target=self._run, name="daemon", daemon=True)
            self._thread.start()
        except BaseException as error:
            listener.close()
            if isinstance(error, RuntimeError):
                raise HostError("the host gives no thread for the daemon") from None
            raise

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

    def close(self) -> None:
        """Stop listening, and end when what is being answered is answered or GRACE_S have passed."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _config(service: Service, access: Access, tls: Tls | None) -> uvicorn.Config:
    limits: Limits = service.limits
    config = uvicorn.Config(
        make_app(service, access),
        http=make_protocol(lambda: service.limits.header_s),
        ws="auto",
        loop="asyncio",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        h11_max_incomplete_event_size=limits.header,
        ws_max_size=limits.console_message,
        ws_max_queue=4,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        assert tls is not None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"TLS with {tls.certificate} and {tls.key} is impossible: {reason}") from None
    return config
