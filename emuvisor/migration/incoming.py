"""One guest on its way into a host."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import EmuvisorError, MigrationError, SnapshotError
from emuvisor.host.guest import Guest
from emuvisor.host.host import Host
from emuvisor.host.states import GuestState
from emuvisor.machine.machine_state import load_machine
from emuvisor.memory.saved_layout import Layout, MemoryLoader
from emuvisor.memory.stage2 import STATE_SHIFT, FrameState
from emuvisor.migration.announce import announce
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.claims import ask_for_size
from emuvisor.migration.disk_blocks import Sectors
from emuvisor.migration.frames import FrameKind, Message, parse_message
from emuvisor.migration.offer import Offer, bitmap_of, pages_of
from emuvisor.migration.pages import Batch, PageKind, decode_batch
from emuvisor.migration.rehearsal import rehearse
from emuvisor.migration.remote_pages import RemoteGuest, RemotePages
from emuvisor.migration.stage import Stage
from emuvisor.migration.switchover import Act, Answer, TargetState, TargetSwitch
from emuvisor.migration.target_disks import TargetDisks
from emuvisor.units import PAGE_SIZE

__all__ = ["Incoming"]

_ZEROS = bytes(PAGE_SIZE)
_TOO_LATE = "migration: the other side sends later what the guest needs to begin"
"""Whoever would wait for a page before the guest runs is the thread that receives them."""


class Incoming:
    """The guest of `offer`; `name` says from where it comes. `ended` is called when it is known whether it runs here.

    One thread calls the methods that take a channel or an answer. Raises MigrationError for an offer that cannot be
    taken.
    """

    def __init__(self, host: Host, offer: Offer, name: str, ended: "Callable[[Incoming], object]") -> None:
        self._host = host
        self.offer = offer
        self._origin = name
        self._ended = ended
        if offer.config.name in host.guests:
            raise MigrationError(f"migration: there is a guest {offer.config.name!r} at the target already")
        rehearse(host, offer.config)
        self._stage = Stage(host, offer.pages)
        self._disks = TargetDisks(offer.config, offer.disks)
        self._switch = TargetSwitch()
        self._deciding = threading.RLock()
        self.guest: Guest | None = None
        self._running = False
        self._channel: Channel | None = None
        self._remote: RemoteGuest | None = None
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
        return 0 if self._remote is None else int(np.count_nonzero(self._remote.missing))

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
        if self._remote is not None and self.missing:
            self._store().set_line(
                self._remote, broken=f"migration: {self.reason}; it goes on when that is back"
            )
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
            if self._remote is not None:
                self._arrive(batch)
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
                self._send({"type": "round-done"})
            case "machine" if self.state is TargetState.RECEIVING:
                self._load(message)
                self._apply(self._switch.loaded)
            case "commit":
                self._apply(self._switch.committed)
            case "abort":
                self.reason = "the source has cancelled"
                self._apply(self._switch.aborted)
            case "bye":
                self.is_over = True
                self._settle()
            case other:
                raise MigrationError(f"migration: the other side said {other[:40]!r}, which is not for now")

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
            missing = np.zeros(len(layout.kinds), np.bool_)
            missing[later] = True
            remote = RemoteGuest(missing, self._demand, guest.machine.suspend, lost=_TOO_LATE)
            self._store().attach(remote)
            self._remote = remote
            numbers = (later + remote.first).astype(np.uint32)
            try:
                loader.place(later, np.uint32(FrameState.REMOTE << STATE_SHIFT) | numbers)
            except SnapshotError:
                self._store().free(numbers.tolist())
                raise
        loader.finish()
        load_machine(guest.machine, state)
        ask_for_size(guest)
        self._disks.fill(guest.machine)
        if self._remote is not None:
            self._store().set_line(self._remote)

    def _store(self) -> RemotePages:
        with self._host.lock:
            store = self._host.memory.stores.setdefault(FrameState.REMOTE, RemotePages())
        assert isinstance(store, RemotePages)
        return store

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
        if self._remote is None:
            return {"type": "running"}
        return {"type": "running", "missing": bitmap_of(self._remote.missing)}

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
        if self._remote is not None:
            self._store().release(self._remote)
        self._stage.close()
        self._disks.discard()
        self._ended(self)

    def connected(self, channel: Channel) -> None:
        """The source has connected again."""
        self._channel = channel
        self.asks = False
        if self._remote is not None:
            self._store().set_line(self._remote)
        try:
            self._apply(self._switch.connected)
        except LineLost as error:
            self._lose_line(str(error))
            return
        self._go_on_after_stall()
        self._tell_if_complete()
        self.serve(channel)

    def answered(self, answer: Answer) -> None:
        """The source says what it has decided."""
        self._apply(lambda: self._switch.answered(answer))

    def source_gone(self) -> None:
        """The source's process is gone."""
        if self._remote is not None and self.missing and self.state is TargetState.RUNNING:
            self._lose("the source ended before it had sent all pages")
        else:
            self.reason = "the source is gone"
            self._apply(self._switch.source_gone)
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

    # ---- post-copy ----

    def _demand(self, page: int) -> None:
        """Called in the guest's thread."""
        channel = self._channel
        if channel is not None:
            with suppress(LineLost):  # whoever receives finds out
                channel.send({"type": "demand", "page": page})

    def _arrive(self, batch: Batch) -> None:
        assert self._remote is not None
        store = self._store()
        for page, kind, content in batch:
            if kind is not PageKind.COPY:
                store.arrive(self._remote, page, bytes(content) if kind is PageKind.RAW else _ZEROS)
        self._tell_if_complete()

    def _tell_if_complete(self) -> None:
        if self._remote is not None and not self.missing and self.state is TargetState.RUNNING:
            with self._host.held(self.offer.config.name):
                pass  # a stall that its pCPU had begun when the line came back has its effect now
            self._go_on_after_stall()
            self._send({"type": "complete"})

    def _settle(self) -> None:
        """All pages have come: those that nobody has wanted yet get their frames. Where there is none, it happens when
        they are wanted."""
        guest, remote = self.guest, self._remote
        if remote is None or guest is None:
            return
        with self._host.held(guest.name) as got:
            if got:
                for part in guest.memory.sets:
                    for index in np.flatnonzero(part.entries >> STATE_SHIFT == FrameState.REMOTE).tolist():
                        guest.memory.supply(part, index, False)
        self._store().release(remote)

    def _go_on_after_stall(self) -> None:
        guest = self.guest
        if guest is not None and guest.state is GuestState.PAUSED and guest.suspended:
            guest.resume()

    def _lose(self, why: str) -> None:
        """Some of the guest was at the source, and will not come."""
        guest, remote = self.guest, self._remote
        assert guest is not None
        assert remote is not None
        lost = f"{why}: {self.missing} of them, and so the guest, are lost"
        self.reason = lost
        self._store().set_line(remote, lost=lost)
        with self._host.lock:
            if guest.state is not GuestState.GONE:
                self._host.take_off(guest)
                self._host.set_state(guest, GuestState.CRASHED, f"migration: {lost}")
        self._store().release(remote)
        self.is_over = True
