"""Recording what passes a network, or one port of it, while it runs."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from emuvisor.bus.ethernet import Offload
from emuvisor.net.offload import finish
from emuvisor.net.pcapng import INBOUND, OUTBOUND, PcapngWriter

__all__ = ["Capture"]


class Capture:
    """A pcapng file that grows while frames pass. Thread-safe; a context manager that closes itself.

    Each port is an interface of the file, and directions are as the guest sees them: what it sends is outbound. Frames
    are shown as they would be on a cable: segments cut, checksums complete.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        port: str | None,
        now_ns: Callable[[], int],
        on_close: Callable[["Capture"], None],
    ) -> None:
        self.port = port
        """The one port that is recorded; None for all, where each frame is recorded once, as its sender's."""
        self._now_ns = now_ns
        self._on_close = on_close
        self._lock = threading.Lock()
        self._writer = PcapngWriter(path, max_bytes)
        self._interfaces: dict[str, int | None] = {}
        self._closed = False

    @property
    def path(self) -> Path:
        """The file."""
        return self._writer.path

    @property
    def missed(self) -> int:
        """Frames that did not fit into `max_bytes`, or could not be written."""
        return self._writer.missed

    @property
    def error(self) -> str:
        """Why writing ended early; empty if it did not."""
        return self._writer.error

    def sent(self, port: str, frame: bytes, offload: Offload | None) -> None:
        """The station at `port` has sent a frame."""
        if self.port is None or self.port == port:
            self._record(port, frame, offload, OUTBOUND)

    def received(self, port: str, frame: bytes, offload: Offload | None) -> None:
        """The station at `port` has been given a frame."""
        if self.port == port:
            self._record(port, frame, offload, INBOUND)

    def _record(self, port: str, frame: bytes, offload: Offload | None, direction: int) -> None:
        pieces = [(frame, offload)] if offload is None else finish(frame, offload, accepts=0)
        with self._lock:
            if self._closed:
                return
            now_ns = self._now_ns()
            if self._interfaces.get(port) is None:
                self._interfaces[port] = self._writer.interface(port)
            interface = self._interfaces[port]
            for piece, _ in pieces:
                if interface is None:
                    self._writer.missed += 1
                else:
                    self._writer.packet(interface, now_ns, piece, direction)

    def close(self) -> None:
        """Stop recording, and leave a whole file."""
        self._on_close(self)
        with self._lock:
            if not self._closed:
                self._closed = True
                self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
