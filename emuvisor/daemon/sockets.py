"""The addresses of one daemon: the user's own socket, and one for the network."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from emuvisor.daemon.access import Access
from emuvisor.daemon.server import DaemonServer, Tls
from emuvisor.daemon.service import Service
from emuvisor.daemon.unixsocket import UnixSocket
from emuvisor.errors import HostError, UsageError
from emuvisor.serving import listen_tcp

__all__ = ["Network", "serve_on"]

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Network:
    """A TCP address; port 0 is any that is free. Clients know `token`, and may name files below `images`."""

    host: str
    port: int
    tls: Tls
    token: str
    images: tuple[Path, ...] = ()


@contextmanager
def serve_on(service: Service, path: Path, network: Network | None = None) -> Iterator[list[str]]:
    """Inside, `service` is served at `path` and on `network`; gives both addresses, as `Client` takes them.

    Raises UsageError, StateError and HostError as `UnixSocket` and `DaemonServer`; UsageError when files that come
    over the network would become images.
    """
    with ExitStack() as stack:
        unix = UnixSocket(path)
        stack.callback(unix.close)
        where = [f"unix:{path}"]
        servers: list[tuple[Access, socket.socket, Tls | None]] = [(Access(), unix.listener, None)]
        if network is not None:
            access = Access(network.token, network.images)
            if access.covers(service.exports.folder):
                raise UsageError(
                    f"{service.exports.folder} is in a folder of images; a file that came over the network could be "
                    "a disk there, with any file of this host as its backing file"
                )
            try:
                listener = listen_tcp(network.host, network.port, BACKLOG)
            except OSError as error:
                raise HostError(
                    f"cannot listen on {network.host}:{network.port}: {error.strerror or error}"
                ) from None
            stack.callback(listener.close)
            servers.append((access, listener, network.tls))
            host = f"[{network.host}]" if ":" in network.host else network.host
            where.append(f"https://{host}:{listener.getsockname()[1]}")
        for access, listener, tls in servers:
            stack.enter_context(DaemonServer(service, access, listener, tls))
        yield where
