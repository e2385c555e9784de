"""One guest on its way into a host."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import EmuvisorError, MigrationError, SnapshotError
from emuvisor.host.claims import contract_of
from emuvisor.host.garbage import no_garbage
from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.machine.machine_state import load_machine
from emuvisor.memory.saved_layout import Layout, MemoryLoader
from emuvisor.migration.announce import announce
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.claims import ask_for_size
from emuvisor.migration.disk_blocks import Sectors
from emuvisor.migration.frames import FrameKind, Message, parse_message
from emuvisor.migration.late_pages import LatePages
from emuvisor.migration.offer import Offer, pages_of
from emuvisor.migration.pages import decode_batch
from emuvisor.migration.rehearsal import rehearse
from emuvisor.migration.stage import Stage
from emuvisor.migration.switchover import Act, Answer, TargetState, TargetSwitch
from emuvisor.migration.target_disks import TargetDisks

__all__ = ["Incoming"]


class Incoming:
    """The guest of `offer`; `name` says from where it comes. `ended` is called when it is known whether it runs here.

    One thread calls the methods that take a channel or an answer. Raises MigrationError for an offer that cannot be
    taken, AdmissionError for one that the host has no memory for.
    """

    def __init__(self, host: Host, offer: Offer, name: str, ended: "Callable[[Incoming], object]") -> None:
        self._host = host
        self.offer = offer
        self._origin = name
        self._ended = ended
        if offer.config.name in host.guests:
            raise MigrationError(f"migration: there is a guest {offer.config.name!r} at the target already")
        with host.lock:
            host.memory.admit(offer.config.name, contract_of(offer.config))
        self.load_ns = rehearse(host, offer.config)
        """What building the guest will take, as far as can be foreseen."""
        self._stage = Stage(host, offer.pages, offer.held)
        self._disks = TargetDisks(offer.config, offer.disks)
        self._switch = TargetSwitch()
        self._deciding = threading.RLock()
        self.guest: Guest | None = None
        self._running = False
        self._channel: Channel | None = None
        self._late: LatePages | None = None
        self.reason = ""
        """Why it did not come, or waits."""
        self.is_over = False
        """The source knows, too, what became of the guest."""
        self.asks = False
        """The line is gone, and the source is to be asked."""

    @property
    def state(self) -> TargetState:
        """Where it is."""
        return self._switch.state

    @property
    def missing(self) -> int:
        """Pages that are still at the source while the guest runs here."""
        return 0 if self._late is None else self._late.missing

    # ---- frames ----

    def serve(self, channel: Channel) -> None:
        """Take what comes over `channel` until the migration is over, or the line is gone."""
        self._channel = channel
        self.asks = False
        try:
            while not self.is_over:
                self._take(*channel.receive())
        except LineLost as error:
            self._lose_line(str(error))
        except EmuvisorError as error:
            self._fail(str(error))
        except MemoryError:
            self._fail("the host has no memory for it")
        finally:
            self._channel = None
            channel.close()

    def _lose_line(self, reason: str) -> None:
        self.reason = f"the line to the source was lost: {reason}"
        if self._late is not None and self.missing:
            self._late.line_lost(f"migration: {self.reason}; it goes on when that is back")
            self.asks = True
        self._apply(self._switch.line_lost)

    def _fail(self, reason: str) -> None:
        """What came cannot be used."""
        if self.state is TargetState.RECEIVING:
            self.reason = reason
            self._apply(self._switch.failed)
        else:  # the source sends nonsense: as good as no line
            self._lose_line(reason)

    def _take(self, kind: FrameKind, payload: bytes) -> None:
        if kind is FrameKind.PAGES:
            batch = decode_batch(payload)
            if self._late is not None:
                self._late.arrive(batch)
                self._tell_if_complete()
            elif self.state is TargetState.RECEIVING:
                self._stage.put(batch)
        elif kind is FrameKind.DISK:
            if self.state is TargetState.RECEIVING:
                self._disks.receive(Sectors.decode(payload))
        else:
            self._hear(parse_message(kind, payload))

    def _hear(self, message: Message) -> None:
        match message["type"]:
            case "round":
                self._disks.sync()
                self._send({"type": "round-done"})
            case "machine" if self.state is TargetState.RECEIVING:
                with no_garbage():
                    self._load(message)
                self._apply(self._switch.loaded)
            case "commit":
                self._apply(self._switch.committed)
            case "abort":
                self.reason = "the source has cancelled"
                self._apply(self._switch.aborted)
            case "bye" if self.state in (TargetState.RUNNING, TargetState.DISCARDED):
                self._leave()
            case other:
                raise MigrationError(f"migration: the other side said {other[:40]!r}, which is not for now")

    def _leave(self) -> None:
        """The source knows what became of the guest, and needs to hear no more."""
        self.is_over = True
        if self.missing and self.state is TargetState.RUNNING:
            self._lose("the source left before it had sent all pages")
        elif self._late is not None:
            self._late.settle()

    def _send(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    # ---- building the guest ----

    def _load(self, message: Message) -> None:
        """Make the guest. Raises EmuvisorError."""
        state, layout, running, later = (
            message.get(name) for name in ("state", "layout", "running", "later")
        )
        if not isinstance(state, dict) or type(running) is not bool:
            raise MigrationError("migration: the other side does not say in which state the guest is")
        pages = pages_of(later, len(self._stage.frames))
        self._running = running
        self._disks.close_files()
        self.guest = guest = self._host.create(self._disks.config)
        guest.arrive(lambda: self._fill(guest, state, layout, pages), f"it comes from {self._origin}")

    def _fill(self, guest: Guest, state: dict[str, Any], plain: Any, later: NDArray[np.int64]) -> None:
        layout = Layout.from_plain(plain, guest.memory)
        if len(layout.kinds) != len(self._stage.frames):
            raise SnapshotError(
                f"migration: the guest has {len(layout.kinds)} pages now; it was offered with {len(self._stage.frames)}"
            )
        loader = MemoryLoader(guest.memory, layout)
        self._stage.give(loader, layout.kinds, later)
        if len(later):
            self._late = LatePages(self._host, guest, later, len(layout.kinds), self._demand)
            self._late.place(loader)
        loader.finish()
        load_machine(guest.machine, state)
        ask_for_size(guest)
        self._disks.fill(guest.machine)
        if self._late is not None:
            self._late.begin()

    # ---- changing over ----

    def _apply(self, event: Callable[[], list[Act]]) -> None:
        with self._deciding:
            for act in event():
                self._act(act)

    def _act(self, act: Act) -> None:
        if act is Act.RUN:
            self._run()
        elif act is Act.DISCARD:
            self._discard()
        elif act is Act.ASK:
            self.asks = True
        elif act is Act.SEND_READY:
            self._send({"type": "ready"})
        elif act is Act.SEND_RUNNING:
            try:
                self._send(self._running_message())
            except LineLost as error:
                self.reason = str(error)  # it runs all the same: the source has decided, and will ask
        elif act is Act.SEND_DISCARDED:
            self.is_over = True
            try:
                self._send({"type": "discarded", "reason": self.reason})
            except LineLost:
                self.is_over = False  # the source will ask

    def _running_message(self) -> Message:
        if self._late is None:
            return {"type": "running"}
        return {"type": "running", "missing": self._late.bitmap()}

    def _run(self) -> None:
        guest = self.guest
        assert guest is not None
        self._disks.keep()
        self.asks, self.reason = False, ""
        guest.go_on(self._running, f"it came from {self._origin}")
        announce(guest.nics)
        self._ended(self)

    def _discard(self) -> None:
        self.asks = False
        if self.guest is not None:
            self.guest.delete()
            self.guest = None
        if self._late is not None:
            self._late.release()
        self._stage.close()
        self._disks.discard()
        self._ended(self)

    def connected(self, channel: Channel) -> None:
        """The source has connected again."""
        self._channel = channel
        self.asks = False
        try:
            self._apply(self._switch.connected)
            if self._late is not None:
                self._late.line_back()
            self._tell_if_complete()
        except LineLost as error:
            self._channel = None
            self._lose_line(str(error))
        else:
            self.serve(channel)

    def answered(self, answer: Answer) -> None:
        """The source says what it has decided."""
        self._apply(lambda: self._switch.answered(answer))

    def source_gone(self) -> None:
        """The source's process is gone."""
        self.reason = "the source is gone"
        self._apply(self._switch.source_gone)
        if self.missing and self.state is TargetState.RUNNING:  # since now, or for long
            self._lose("the source ended before it had sent all pages")
        self.is_over = True
        self.asks = False

    def decide(self, run: bool) -> None:
        """An operator ends the doubt. Any thread."""
        self.reason = "an operator decided so"
        self._apply(lambda: self._switch.operator(run))

    def close(self) -> None:
        """The target takes no more, and the source will find that out."""
        self.reason = self.reason or "the target was closed"
        self._apply(lambda: self._switch.operator(False))
        if self.missing and self.state is TargetState.RUNNING:
            self._lose("the target was closed before all pages had come")
        elif self._late is not None and self.state is TargetState.RUNNING and not self.is_over:
            self._late.settle()  # the source's last word is on its way, and nobody waits for it

    # ---- post-copy ----

    def _demand(self, page: int) -> None:
        """Called in the guest's thread, which must not wait for a source that does not listen."""
        channel = self._channel
        if channel is None:
            return
        if not channel.has_room:
            channel.end()
            return
        with suppress(LineLost):  # whoever receives finds out
            channel.send({"type": "demand", "page": page})

    def _tell_if_complete(self) -> None:
        if self._late is not None and not self.missing and self.state is TargetState.RUNNING:
            self._send({"type": "complete"})

    def _lose(self, why: str) -> None:
        """Some of the guest was at the source, and will not come."""
        assert self._late is not None
        self.reason = self._late.lose(why)
        self.is_over = True
