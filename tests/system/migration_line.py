"""A line that can be cut: a relay before a target."""

import contextlib
import socket
import threading
from typing import Self


class Line:
    """Relays connections to `to` ("HOST:PORT"). While it is cut, who connects is dropped at once, which is not the same
    as that nobody listens."""

    def __init__(self, to: str) -> None:
        host, _, port = to.rpartition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._cut = False
        self._gone = False
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._gone = True
        self._listener.close()
        self._drop()

    def cut(self, for_s: float = 0.5) -> None:
        """Drop all connections, and take none for a while."""
        self._cut = True
        self._drop()
        threading.Timer(for_s, self._mend).start()

    def _mend(self) -> None:
        self._cut = False

    def _drop(self) -> None:
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            self._open.clear()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._gone:
                near, _ = self._listener.accept()
                if self._cut:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._to)
                except ConnectionRefusedError:  # so is who comes here, from now on
                    self._listener.close()
                    near.close()
                    return
                with self._lock:
                    self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    @staticmethod
    def _relay(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
