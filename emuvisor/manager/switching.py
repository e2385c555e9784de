"""Switching guests on and off, also with their whole state in the store, from where they go on once."""

import time
from collections.abc import Callable
from contextlib import suppress

from emuvisor.errors import EmuvisorError, SnapshotError, StateError
from emuvisor.host import Guest, GuestState
from emuvisor.host.snapshots import Prefetch, restore_guest, take_snapshot
from emuvisor.host.states import require
from emuvisor.manager.core import OFF, ON, SAVED_STATES
from emuvisor.manager.entry import Entry
from emuvisor.manager.inventory import Inventory
from emuvisor.manager.lives import Life
from emuvisor.store.index import SnapshotInfo

__all__ = ["WITH_HOST", "Switching"]

WITH_HOST = "saved when the host ended"
"""Why a guest is saved that goes on when there is a host again."""


class Switching(Inventory):
    """The part of the manager that switches guests on and off, and saves them.

    A saved state is a snapshot without disks, which stay as the guest left them in their own files. Before the guest
    goes on it is noted that the state is consumed, so that nothing goes on from it again, whatever happens then; it is
    deleted when the guest has all its pages.
    """

    def start(self, name: str, *, paused: bool = False) -> None:
        """Switch a guest on; a saved one goes on where it was. `paused`: it stands before its next instruction, until
        `resume`.

        Raises what `Host.create` and `Guest.start` do, SnapshotError for a saved state that is damaged.
        """
        with self._locked(name) as entry:
            require(name, entry.life.state, OFF, "start")
            entry.require_idle("start")
            if entry.life.state is GuestState.SAVED:
                self._resume_saved(entry, paused)
            else:
                self._boot(entry, paused)

    def stop(self, name: str) -> None:
        """Switch a guest off at once, as by pulling the plug; the memory of a crashed one is given back, and the state
        of a saved one is thrown away."""
        with self._locked(name) as entry:
            require(name, entry.life.state, (*ON, GuestState.CRASHED, GuestState.SAVED), "stop")
            if entry.guest is not None and entry.life.state in ON:
                with suppress(StateError):  # it ended by itself just now
                    entry.guest.stop()
            self._let_go(entry)
            self._journal.flush()
            if entry.life.state is not GuestState.DEFINED:
                self._enter(entry, GuestState.DEFINED, "stopped")
            self._drop_all(name)

    def start_marked(self) -> list[str]:
        """Start the guests that are off and whose definitions have `autostart`; returns their names. What hinders one
        is a warning of the host's."""
        off = (GuestState.DEFINED, GuestState.CRASHED)
        return self._start_all(lambda entry: entry.life.state in off and self._definition(entry).autostart)

    def save(self, name: str) -> None:
        """Put the whole state of a guest that is on into the store, and switch it off; `start` lets it go on.

        Raises StateError, SnapshotError for a guest that cannot be saved, HostError; then it is as it was.
        """
        self._save(name, "saved")

    def _save(self, name: str, reason: str) -> None:
        with self._locked(name) as entry:
            require(name, entry.life.state, ON, "save")
            entry.require_idle("save")
            guest = self.guest(name)
            running = entry.life.state is GuestState.RUNNING
            if running:
                guest.pause()
                require(name, guest.state, ON, "save")  # it may have ended by itself
            try:
                info = self._write_saved_state(entry, guest)
            except BaseException:
                if running:
                    guest.resume()
                raise
            self._journal.flush()
            self._enter(entry, GuestState.SAVED, reason)  # from now on it goes on from there
            self._let_go(entry)
            self._drop_all(name, besides=info)

    def _write_saved_state(self, entry: Entry, guest: Guest) -> SnapshotInfo:
        self._drop_all(entry.name)
        known = {info.name for info in self.store.snapshots(entry.name)}
        free = next((name for name in SAVED_STATES if name not in known), None)
        if free is None:
            raise StateError(f"guest {entry.name!r}: clones of it still need pages of its last saved states")
        with guest.checkpoint() as checkpoint:
            for frozen in checkpoint.disks:
                if frozen is not None:
                    frozen.sync()
                    frozen.close()
            checkpoint.disks = [None for _ in checkpoint.disks]
            parent = entry.life.parent if entry.life.parent in known else None
            return take_snapshot(checkpoint, self.store, entry.name, free, parent=parent)

    def _drop_all(self, name: str, besides: SnapshotInfo | None = None) -> None:
        """Delete the guest's saved states, as far as nobody needs pages of them."""
        for info in self.store.snapshots(name):
            if info.name in SAVED_STATES and (besides is None or info.name != besides.name):
                self._drop(info)

    def _saved_state(self, entry: Entry) -> SnapshotInfo:
        """From which a saved guest goes on. Raises SnapshotError when it is not there."""
        for info in reversed(self.store.snapshots(entry.name)):
            if info.name in SAVED_STATES and info.metadata.id != entry.life.consumed:
                return info
        raise SnapshotError(f"guest {entry.name!r}: its saved state is gone; 'stop' forgets it")

    def _resume_saved(self, entry: Entry, paused: bool) -> None:
        """Let a saved guest go on."""
        info, before = self._saved_state(entry), entry.life
        self._add_networks(self._definition(entry).config)
        guest = restore_guest(
            self.host, self.store, entry.name, info.name, name=entry.name, running=False, same_identity=True
        )
        self._adopt(entry, guest)
        try:
            self._go_on(entry, guest, not paused, "resumed", info)
        except BaseException:
            self._withdraw(entry, before)
            raise
        entry.prefetch = Prefetch(
            guest, lambda prefetch: None if prefetch.reason else self._drop(info)
        ).start()

    def _go_on(
        self, entry: Entry, guest: Guest, running: bool, reason: str, consumed: SnapshotInfo | None = None
    ) -> None:
        """A guest that was made and is paused goes on, or stays paused for `reason`."""
        self._mark_on(entry, "" if consumed is None else consumed.metadata.id)
        if running:
            guest.resume()
            return
        old, life = entry.life.state, entry.life
        entry.life = Life(GuestState.PAUSED, reason, time.time(), life.consumed, life.parent)
        self._journal.post(entry.name, "paused", {"old": str(old), "reason": reason}, at=entry.life.since)

    def resume_saved(self) -> list[str]:
        """Let the guests go on that `close` has saved; returns their names. What hinders one is a warning of the
        host's."""
        return self._start_all(
            lambda entry: entry.life.state is GuestState.SAVED and entry.life.reason == WITH_HOST
        )

    def _start_all(self, wanted: Callable[[Entry], bool]) -> list[str]:
        started = []
        for name, entry in sorted(self._entries.items()):
            try:
                if wanted(entry):
                    self.start(name)
                    started.append(name)
            except EmuvisorError as error:
                self.host.warn(f"guest {name!r} is not started: {error}")
        return started
