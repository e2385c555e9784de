"""The side to which guests come."""

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from emuvisor.errors import EmuvisorError, MigrationError, UsageError
from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.machine.config import GuestConfig
from emuvisor.migration.calling import call
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.endpoints import Gone, address_of, listen
from emuvisor.migration.greeting import Hello, UnknownMigration, greet, unknown
from emuvisor.migration.incoming import Incoming
from emuvisor.migration.offer import Offer
from emuvisor.migration.security import Insecure, Security, Token, refuse_far_away, secure
from emuvisor.migration.switchover import Answer, TargetState

__all__ = ["Target"]

_LOOK_S = 0.1
ASK_S = 0.5
"""How often the source is asked while the line is gone."""
GREETING_S = 10.0
PATIENCE_S = 3600.0
"""How long the source may think between two rounds: people may step them."""
REMEMBERED = 100
"""Migrations that are over, of which the source may still want to know."""


class Target:
    """Takes guests into `host`, one after the other, from whoever `security` lets in; with a token, a single one.

    `admit` is asked about each guest's configuration before anything is sent, and raises a UsageError for one that is
    not wanted: it names files of this machine that the guest will use. Use it as a context manager, or call `close`;
    but as long as `in_doubt` says something, its process must neither end nor close it, or the source will take its
    guest back. Raises what `listen` of an address raises, and UsageError for one that others reach without TLS.
    """

    def __init__(
        self,
        host: Host,
        address: str = "127.0.0.1:0",
        security: Security | None = None,
        *,
        timeout_s: float = 30.0,
        admit: Callable[[GuestConfig], object] = lambda _: None,
    ) -> None:
        self._host = host
        self._security: Security = security or Insecure()
        self._timeout_s = timeout_s
        self._admit = admit
        self._listener = listen(address)
        if isinstance(self._security, Insecure):
            try:
                refuse_far_away(self._listener, self._listener.getsockname())
            except UsageError:
                self._listener.close()
                raise
        self._listener.settimeout(_LOOK_S)
        self.address = address_of(self._listener)
        """Where it listens."""
        self._spent = False
        """The token has been used."""
        self._incoming: dict[str, Incoming] = {}
        """By the migration's identity; the last one may go on."""
        self._came: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self._present: Incoming | None = None
        self._line: Channel | None = None
        self._closing = threading.Event()
        self._ending = threading.Lock()
        self._next_question = 0.0
        self.refused: deque[str] = deque(maxlen=REMEMBERED)
        """Why connections were refused, the last ones."""
        self._thread = threading.Thread(target=self._serve, name="migration target", daemon=True)
        self._thread.start()
        host.before_close.append(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more; a host that closes does that first. A guest that is on its way does not come; one that runs
        here already stays, but one that still waits for pages has crashed."""
        with self._ending:
            if self.close in self._host.before_close:
                self._host.before_close.remove(self.close)
                self._end()

    def _end(self) -> None:
        self._closing.set()
        line = self._line
        if line is not None:
            line.end()
        self._thread.join()
        if self._present is not None:
            self._present.close()
        self._listener.close()  # not before: to the source it means that nothing of its guest is here

    def receive(self, timeout_s: float | None = None) -> Guest:
        """Wait for the next guest that comes, and runs here (or is paused, if it was).

        Raises MigrationError with the reason when one did not come, or none has come in `timeout_s`.
        """
        try:
            incoming = self._came.get(timeout=timeout_s)
        except queue.Empty:
            raise MigrationError("migration: no guest has come") from None
        if incoming.guest is None:
            raise MigrationError(
                f"guest {incoming.offer.config.name!r} does not come: {incoming.reason or 'its source has it'}"
            )
        return incoming.guest

    @property
    def in_doubt(self) -> str:
        """Why a guest waits here that may be at its source; nothing when there is none."""
        incoming = self._present
        if incoming is None or incoming.state is not TargetState.HOLDING:
            return ""
        return incoming.reason or "its source has not decided yet"

    @property
    def missing(self) -> int:
        """Pages that the last guest still waits for (post-copy)."""
        return 0 if self._present is None else self._present.missing

    def decide(self, run: bool) -> None:
        """End the doubt when the source does not answer: `run` the guest here, or throw it away. Who says this must
        know what the source does: nobody else can see to it that the guest runs on one side only. Any thread."""
        if self._present is not None:
            self._present.decide(run)

    # ---- the thread ----

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                self._ask()
                continue
            except OSError:
                return
            try:
                self._receive(sock)
            except (LineLost, EmuvisorError, OSError) as error:
                self.refused.append(str(error))
            finally:
                line, self._line = self._line, None
                (line or sock).close()

    def _receive(self, sock: socket.socket) -> None:
        """Somebody has connected."""
        sock.settimeout(GREETING_S)
        self._line = channel = Channel(secure(sock, self._security, server=True), GREETING_S)
        hello = greet(channel, "target", self._find_key)
        channel.timeout_s = self._timeout_s
        if hello.purpose == "migrate":
            self._spent = True
            incoming = self._take_offer(channel, hello)
            channel.timeout_s = PATIENCE_S
            incoming.serve(channel)
        else:
            self._incoming[hello.migration].connected(channel)

    def _find_key(self, hello: Hello) -> bytes | None:
        if hello.purpose == "connect" and hello.migration in self._incoming:
            return self._incoming[hello.migration].offer.key
        if hello.purpose != "migrate":
            raise unknown()
        if self._present is not None and not self._is_free(self._present):
            raise MigrationError("migration: another guest is on its way to this target")
        if self._spent and isinstance(self._security, Token):
            raise MigrationError("migration: the token has been used")
        return self._security.key()

    @staticmethod
    def _is_free(incoming: Incoming) -> bool:
        return incoming.is_over or incoming.state is TargetState.DISCARDED

    def _take_offer(self, channel: Channel, hello: Hello) -> Incoming:
        message = channel.receive_message("offer")
        try:
            offer = Offer.of(message)
            self._admit(offer.config)
            if offer.ask is not None and not _is_beside(offer.ask, channel.socket, self.address):
                raise MigrationError("migration: the other side cannot be asked where it says")
            name = channel.socket.getpeername()
            origin = str(name[0]) if isinstance(name, tuple) else "this machine"
            incoming = Incoming(self._host, offer, origin, self._came.put)
        except EmuvisorError as error:
            channel.send({"type": "refused", "reason": str(error)})
            raise
        while len(self._incoming) >= REMEMBERED:
            del self._incoming[next(iter(self._incoming))]
        self._incoming[hello.migration] = self._present = incoming
        self._id = hello.migration
        channel.send({"type": "accepted", "load_ns": incoming.load_ns})
        return incoming

    def _ask(self) -> None:
        """Ask the source what it has decided, if that is what a guest waits for, now and then."""
        incoming = self._present
        now = time.monotonic()
        if incoming is None or not incoming.asks or incoming.offer.ask is None or now < self._next_question:
            return
        self._next_question = now + ASK_S
        try:
            channel = call(
                incoming.offer.ask,
                self._security,
                Hello("ask", self._id),
                incoming.offer.key,
                role="target",
                timeout_s=GREETING_S,
            )
            try:
                answer = channel.receive_message("answer").get("state")
            finally:
                channel.close()
        except Gone:
            incoming.source_gone()
        except UnknownMigration as error:
            if isinstance(self._security, Token):  # nobody has shown that this is the source
                incoming.reason = str(error)
            else:
                incoming.source_gone()
        except (LineLost, MigrationError) as error:
            incoming.reason = str(error)
        else:
            if answer in tuple(Answer):
                incoming.answered(Answer(answer))


def _is_beside(ask: str, sock: socket.socket, here: str) -> bool:
    """Whether a source that has connected by `sock` may be asked at `ask`: it names no other machine."""
    if sock.family == socket.AF_UNIX:
        return ask.startswith(f"{here}.")
    host: str = sock.getpeername()[0]
    return ask.rpartition(":")[0].removeprefix("[").removesuffix("]") == host
