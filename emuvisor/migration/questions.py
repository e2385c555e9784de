"""Where the target can ask the source what it has decided, while the line between them is gone."""

import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from emuvisor.errors import EmuvisorError
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.endpoints import address_of, listen
from emuvisor.migration.greeting import Hello, greet, unknown
from emuvisor.migration.security import Security, secure

__all__ = ["Questions"]

_TIMEOUT_S = 10.0
_LOOK_S = 0.2


class Questions:
    """Answers at `listener`, in a thread, until `close`: as long as this process does not know what became of the
    guest. That nobody listens any more means to the target that the source's process is gone."""

    def __init__(
        self,
        listener: socket.socket,
        security: Security,
        key: bytes,
        migration: str,
        answer: Callable[[], str],
    ) -> None:
        self.address = address_of(listener)
        self._listener = listener
        self._security = security
        self._key = key
        self._migration = migration
        self._answer = answer
        self._closing = threading.Event()
        listener.settimeout(_LOOK_S)
        self._thread = threading.Thread(target=self._serve, name="migration questions", daemon=True)
        self._thread.start()

    @classmethod
    def beside(
        cls,
        line: socket.socket,
        address: str,
        *,
        security: Security,
        key: bytes,
        migration: str,
        answer: Callable[[], str],
    ) -> Self | None:
        """At the address from which `line` leads to `address`. None where there is none that others can reach."""
        if line.family == socket.AF_UNIX:
            if not address.startswith("/"):
                return None
            here = f"{address}.{secrets.token_hex(4)}"
        else:
            host = line.getsockname()[0]
            here = f"[{host}]:0" if ":" in host else f"{host}:0"
        return cls(listen(here), security, key, migration, answer)

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                sock.settimeout(_TIMEOUT_S)
                sock = secure(sock, self._security, server=True)
                channel = Channel(sock, _TIMEOUT_S)
                greet(channel, "source", self._find_key)
                channel.send({"type": "answer", "state": self._answer()})
            except (LineLost, EmuvisorError, OSError):
                pass  # who it was asks again
            finally:
                sock.close()

    def _find_key(self, hello: Hello) -> bytes:
        if hello.purpose != "ask" or hello.migration != self._migration:
            raise unknown()
        return self._key

    def close(self) -> None:
        """Answer no more."""
        self._closing.set()
        with suppress(OSError):  # where that does not wake who waits in accept, it looks by itself
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
