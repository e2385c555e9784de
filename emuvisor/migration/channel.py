"""Frames over a socket: blocking, with time limits, and with a limit of the rate at which pages go."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from emuvisor.bus.bucket import TokenBucket
from emuvisor.errors import MigrationError
from emuvisor.migration.frames import (
    HEADER,
    FrameKind,
    Message,
    check_header,
    frame,
    message_frame,
    parse_message,
    words_of,
)
from emuvisor.units import KIB, NS_PER_S

__all__ = ["Channel", "LineLost", "alert_text"]

_BURST_S = 0.05
"""For so long the line may be used at once after it was idle."""


SLOWEST = 16 * KIB
"""Bytes per second at which a frame has to come: who sends one a byte at a time is as good as silent."""
MAX_LAST = 100
"""Messages among which the last words of the other side are looked for."""
_KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 4}
"""Seconds, seconds, and times."""


def alert_text(reason: str | None) -> str:
    """What OpenSSL's `reason` says when it is the other side's word on this side's certificate (RFC 8446, 6.2), such
    as "TLSV1_ALERT_UNKNOWN_CA"; empty for anything else."""
    _, alert, name = (reason or "").rpartition("_ALERT_")
    if not alert or not any(word in name for word in ("CERTIFICATE", "UNKNOWN_CA")):
        return ""
    return (
        f"migration: the other side does not accept this side's certificate: {name.lower().replace('_', ' ')}"
    )


class LineLost(Exception):
    """The connection is gone, or the other side has been silent for too long. It may still be there."""


class Channel:
    """Frames over `sock`, plain or TLS. `timeout_s` is how long the other side may be silent when something is awaited.

    One thread receives; several may send.
    """

    def __init__(
        self,
        sock: socket.socket | ssl.SSLSocket,
        timeout_s: float = 30.0,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.socket = sock
        self.socket.settimeout(timeout_s)
        _watch(sock)
        self._now_ns = now_ns
        self._sleep = sleep
        self.timeout_s = timeout_s
        """How long the other side may be silent when something is awaited."""
        self._using = threading.Lock()
        """OpenSSL lets one thread at a time use a connection, to send or to receive."""
        self._ended = False
        self._limit: int | None = None
        self._bucket: TokenBucket | None = None
        self.known = False
        """The other side has shown who it is."""
        self.bytes_sent = 0

    @property
    def binding(self) -> bytes:
        """What is unique to this TLS connection, the same on both sides (RFC 5929, tls-unique); nothing without TLS or
        where a certificate says who the other side is."""
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.version() != "TLSv1.3":
            return self.socket.get_channel_binding("tls-unique") or b""
        return b""

    def limit(self, bytes_per_second: int | None) -> None:
        """Let pages take so much of the line from now on."""
        if bytes_per_second == self._limit:
            return
        self._limit = bytes_per_second
        if bytes_per_second is None:
            self._bucket = None
        else:
            rate = bytes_per_second / NS_PER_S
            self._bucket = TokenBucket(rate, bytes_per_second * _BURST_S, self._now_ns())

    def send(self, message: Message) -> None:
        """Send `message`; when this returns, it is on its way, also if this process ends. Raises LineLost."""
        self._send(message_frame(message))

    @property
    def delay_s(self) -> float:
        """How long the limit lets no more pages go."""
        if self._bucket is None:
            return 0.0
        now = self._now_ns()
        return (self._bucket.when(0, now) - now) / NS_PER_S

    def send_data(self, kind: FrameKind, payload: bytes, *, at_once: bool = False) -> None:
        """Send pages or sectors, not faster than the limit; or `at_once`, and what comes later waits the longer. Raises
        LineLost."""
        data = frame(kind, payload)
        if self._bucket is not None:
            self._bucket.take(len(data), self._now_ns())
            if not at_once and self.delay_s:
                self._sleep(self.delay_s)
        self._send(data)

    def _send(self, data: bytes) -> None:
        with self._using:
            try:
                self.socket.sendall(data)
            except OSError as error:
                raise LineLost(str(error) or "the line is gone") from None
            self.bytes_sent += len(data)

    def waits(self, timeout_s: float = 0.0) -> bool:
        """Whether something has come that can be received, at the latest after `timeout_s`."""
        with self._using:
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                return True
        try:
            return bool(select.select([self.socket], [], [], timeout_s)[0])
        except (OSError, ValueError):  # closed: to receive says so
            return True

    @property
    def has_room(self) -> bool:
        """Whether a short message can be sent at once; not when the other side has received nothing for long."""
        try:
            return bool(select.select([], [self.socket], [], 0)[1])
        except (OSError, ValueError):  # closed: to send says so
            return True

    def receive(self) -> tuple[FrameKind, bytes]:
        """The next frame. Raises LineLost, and MigrationError for one that must not be."""
        kind, length = check_header(self._read(HEADER.size), self.known)
        return kind, self._read(length)

    def receive_message(self, *types: str) -> Message:
        """The next frame, which is a message of one of `types`, or any if there are none. Raises LineLost, and
        MigrationError for anything else: with the other side's words when it has refused."""
        message = parse_message(*self.receive())
        if message["type"] in ("refused", "discarded") and message["type"] not in types:
            raise MigrationError(words_of(message))
        if types and message["type"] not in types:
            raise MigrationError(
                f"migration: the other side said {message['type'][:40]!r}; expected {' or '.join(types)}"
            )
        return message

    def last_words(self) -> str:
        """Why the other side has refused, if it said so before it closed the line, on which something was on its way
        to it; empty when it did not."""
        with suppress(LineLost, MigrationError):
            for _ in range(MAX_LAST):
                if not self.waits():
                    break
                message = parse_message(*self.receive())
                if message["type"] in ("refused", "discarded"):
                    return words_of(message)
        return ""

    def _read(self, count: int) -> bytes:
        data = bytearray()
        end_ns = self._now_ns() + int((self.timeout_s + count / SLOWEST) * NS_PER_S)
        while len(data) < count:
            if self._ended:
                raise LineLost("the line is gone")
            if not self.waits(min(self.timeout_s, max(0, end_ns - self._now_ns()) / NS_PER_S)):
                raise LineLost("the other side is silent")
            try:
                with self._using:
                    part = self.socket.recv(min(count - len(data), 1 << 18))
            except TimeoutError:
                raise LineLost("the other side is silent") from None
            except ssl.SSLError as error:
                # with TLS 1.3 a client hears only now that its certificate was refused
                if not self.known and (text := alert_text(error.reason)):
                    raise MigrationError(text) from None
                raise LineLost(str(error)) from None
            except OSError as error:
                raise LineLost(str(error) or "the line is gone") from None
            if not part:
                raise LineLost("the other side has closed the line")
            data += part
        return bytes(data)

    def end(self) -> None:
        """Let whoever sends or receives find the line gone, and what has come and was not received yet, too. Any
        thread."""
        self._ended = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the line up."""
        self.socket.close()


def _watch(sock: socket.socket) -> None:
    """Let the system find out when the other side's machine is gone while nobody says anything."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
