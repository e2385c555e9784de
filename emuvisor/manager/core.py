"""What all operations of the manager stand on: guests by name, switched on and off, and what is noted of that."""

import queue
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

from emuvisor.errors import EmuvisorError, StateError, UsageError
from emuvisor.host import Event, Guest, GuestState, Host
from emuvisor.machine.config import USER_NETWORK, GuestConfig
from emuvisor.manager.console_log import ConsoleLog, LogWriter
from emuvisor.manager.consoles import Consoles
from emuvisor.manager.definitions import Definition
from emuvisor.manager.entry import Entry
from emuvisor.manager.journal import Journal
from emuvisor.manager.lives import Life, read_life, write_life
from emuvisor.net.config import NetworkConfig
from emuvisor.store import Store
from emuvisor.store.files import HostFiles
from emuvisor.store.index import SnapshotInfo

__all__ = ["CUT_OFF", "OFF", "ON", "SAVED_STATES", "ManagerCore"]

OFF = (GuestState.DEFINED, GuestState.SAVED, GuestState.CRASHED)
ON = (GuestState.RUNNING, GuestState.PAUSED)
SAVED_STATES = ("saved-state", "saved-state-2")
"""The snapshots with which a saved guest goes on: two, as pages of the last one may be needed while the next one is
written. They are not listed, and no other ones can have these names."""
CUT_OFF = "the host process ended"
"""Why a guest is crashed that ran when its process was killed."""


class ManagerCore:
    """The guests of `store`, which run on `host`. It closes neither of them when it cannot be made.

    Locks are taken in this order: an entry's, `_lock`, the guest's, the host's.
    """

    def __init__(self, host: Host, store: Store) -> None:
        self.host = host
        self.store = store
        self._files = HostFiles()
        self._lock = threading.RLock()
        """Guards which entries there are."""
        self._entries: dict[str, Entry] = {}
        self._journal = Journal(store, host.warn)
        self._log_writer = LogWriter()
        self._ended: queue.Queue[tuple[Entry, Guest] | None] = queue.Queue()
        """Guests that switched themselves off and have memory still."""
        self._recover()
        host.listeners.append(self._heard)
        self._reaper = threading.Thread(target=self._reap, name="ended guests", daemon=True)
        self._reaper.start()

    # ---- which guests there are ----

    def _recover(self) -> None:
        """Read where all guests are; those that ran when their process was killed have crashed."""
        saved: dict[str, list[SnapshotInfo]] = defaultdict(list)
        for info in self.store.snapshots():
            if info.name in SAVED_STATES:
                saved[info.guest].append(info)
        for name in self.store.guests():
            life = read_life(self.store.guest_folder(name))
            entry = self._entries[name] = Entry(name, life)
            fresh = [info for info in saved[name] if info.metadata.id != life.consumed]
            if life.state not in (GuestState.RUNNING, GuestState.SAVED):
                fresh = []
            if fresh and life.state is GuestState.RUNNING:  # killed when all of it was in the store
                self._enter(entry, GuestState.SAVED, "saved")
            elif life.state is GuestState.RUNNING:
                self._enter(entry, GuestState.CRASHED, CUT_OFF)
            elif life.state is GuestState.SAVED and not fresh:
                self._enter(entry, GuestState.DEFINED, "its saved state is gone")
            for info in saved[name]:
                if info not in fresh[-1:]:
                    self._drop(info)

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise UsageError(f"there is no guest {name!r} in store {self.store.folder}")
        return entry

    def _locked(self, name: str) -> "_Locked":
        """The entry of a guest, to oneself. Raises UsageError when there is none."""
        return _Locked(self._entry(name), self.store)

    def _definition(self, entry: Entry) -> Definition:
        if entry.definition is None:
            entry.definition = Definition.load(self.store, entry.name)
        return entry.definition

    def _keep_definition(self, entry: Entry, definition: Definition) -> None:
        """Raises HostError."""
        self.store.define(entry.name, definition.text(), replace=True)
        entry.definition = definition

    def guest(self, name: str) -> Guest:
        """The host's guest of this name. Raises UsageError when there is none, StateError when it is switched off."""
        entry = self._entry(name)
        guest = entry.guest
        if guest is None:
            raise StateError(f"guest {name!r} is {entry.life.state}; this needs it running or paused")
        return guest

    def state(self, name: str) -> GuestState:
        """Where a guest is in its life. Raises UsageError when there is none."""
        return self._entry(name).life.state

    # ---- what is noted ----

    def _enter(self, entry: Entry, state: GuestState, reason: str) -> None:
        """A guest that the host does not have enters `state`."""
        old, entry.life = entry.life.state, Life(state, reason, time.time(), parent=entry.life.parent)
        self._write_life(entry)
        self._journal.post(entry.name, str(state), {"old": str(old), "reason": reason}, at=entry.life.since)

    def _write_life(self, entry: Entry) -> None:
        life = entry.life
        if life.state in ON:
            life = replace(life, state=GuestState.RUNNING)
        write_life(self.store, entry.name, life)

    def _heard(self, event: Event) -> None:
        """The host's event. Under the host's lock, in whichever thread."""
        entry = self._entries.get(event.guest)
        if entry is None or entry.guest is None or event.new is GuestState.GONE:
            return
        old = entry.life.state
        life = entry.life = replace(entry.life, state=event.new, reason=event.reason, since=event.time)
        guest, consoles = entry.guest, entry.consoles

        def ended() -> None:
            assert consoles is not None
            consoles.end()
            write_life(self.store, entry.name, life)
            if life.state is GuestState.DEFINED:
                self._ended.put((entry, guest))

        self._journal.post(
            event.guest,
            str(event.new),
            {"old": str(old), "reason": event.reason},
            at=event.time,
            then=None if event.new in ON else ended,
        )

    def _reap(self) -> None:
        """The thread that gives back what ended guests have."""
        while (item := self._ended.get()) is not None:
            entry, guest = item
            with entry.lock:
                if entry.guest is guest and guest.state is GuestState.DEFINED:
                    self._let_go(entry)
            self._ended.task_done()

    def settle(self) -> None:
        """Return when all that happened until now is noted, and ended guests have given back what they had. Not for
        one who has a guest's lock."""
        self._journal.flush()
        self._ended.join()

    # ---- on and off; all with the entry's lock ----

    def _adopt(self, entry: Entry, guest: Guest) -> None:
        """The host made `guest`, which does not run yet."""
        entry.consoles = Consoles(guest, self._log(entry), self._log_writer)
        entry.guest = guest

    def _log(self, entry: Entry) -> ConsoleLog:
        if entry.log is None:
            entry.log = ConsoleLog(self.store.guest_folder(entry.name), self._files)
        return entry.log

    def _mark_on(self, entry: Entry, consumed: str = "") -> None:
        """Before it runs: whoever finds this and no process knows that it was cut off."""
        self._journal.flush()  # the end of its last run may not be written yet
        entry.life = replace(entry.life, consumed=consumed)
        on = replace(entry.life, state=GuestState.RUNNING, since=time.time())
        write_life(self.store, entry.name, on)

    def _let_go(self, entry: Entry) -> int:
        """Have the host delete its guest; returns the frames that became free."""
        guest, consoles = entry.guest, entry.consoles
        if guest is None:
            return 0
        entry.guest = entry.consoles = None
        if entry.prefetch is not None:
            entry.prefetch.stop()
            entry.prefetch = None
        if consoles is not None:
            consoles.end()
        freed = guest.delete()
        if entry.life.consumed:
            for info in self.store.snapshots(entry.name):
                if info.metadata.id == entry.life.consumed:
                    self._drop(info)
        return freed

    def _withdraw(self, entry: Entry, life: Life) -> None:
        """It could not be switched on: it is what it was."""
        entry.life = life  # before: a saved state that is consumed would go with the guest
        self._let_go(entry)
        with suppress(EmuvisorError):  # the first error says more
            self._write_life(entry)

    def _boot(self, entry: Entry, paused: bool) -> None:
        definition = self._definition(entry)
        self._let_go(entry)  # what crashed and was there to be looked at
        before = entry.life
        self._add_networks(definition.config)
        self._adopt(entry, self.host.create(definition.config))
        guest = entry.guest
        assert guest is not None
        try:
            self._mark_on(entry)
            self._power_on(guest, paused)
            if definition.current_memory is not None:
                guest.resize(definition.current_memory)
        except BaseException:
            self._withdraw(entry, before)
            raise

    def _power_on(self, guest: Guest, paused: bool) -> None:
        if not paused:
            guest.start()
            return
        with self.host.lock:  # so that no pCPU takes it in between
            guest.start()
            guest.pause()

    def _add_networks(self, config: GuestConfig) -> None:
        """Networks that only guests' definitions name lead nowhere but to each other."""
        for nic in config.nics:
            if nic.network != USER_NETWORK and nic.network not in self.host.networks:
                self.host.add_network(NetworkConfig(nic.network))

    def _drop(self, info: SnapshotInfo) -> None:
        """Delete a saved state that nobody needs any more; or later, when that is impossible now."""
        try:
            self.store.delete_snapshot(info.guest, info.name)
        except UsageError:  # a clone needs pages of it, or it is gone already
            pass
        except EmuvisorError as error:
            self.host.warn(f"guest {info.guest!r}: its old saved state cannot be deleted: {error}")


class _Locked:
    """With an entry's lock; the guest is still there then."""

    def __init__(self, entry: Entry, store: Store) -> None:
        self._entry = entry
        self._store = store

    def __enter__(self) -> Entry:
        self._entry.lock.acquire()
        if self._entry.gone:
            self._entry.lock.release()
            raise UsageError(f"there is no guest {self._entry.name!r} in store {self._store.folder}")
        return self._entry

    def __exit__(self, *_: object) -> None:
        self._entry.lock.release()
