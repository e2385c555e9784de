"""Clones: guests that go on from where another one is."""

from collections.abc import Sequence
from contextlib import ExitStack

from emuvisor.errors import StateError, UsageError
from emuvisor.host import Guest, GuestState
from emuvisor.host.states import require
from emuvisor.manager.core import ON
from emuvisor.manager.definitions import Definition
from emuvisor.manager.entry import Entry
from emuvisor.manager.records import GuestInfo
from emuvisor.manager.snapshots import Snapshots
from emuvisor.store.names import check_name

__all__ = ["Clones"]

MAX_CLONES = 10_000


class Clones(Snapshots):
    """The part of the manager for clones."""

    def clone(
        self,
        name: str,
        new: Sequence[str],
        *,
        snapshot: str | None = None,
        same_identity: bool = False,
        running: bool = True,
    ) -> list[GuestInfo]:
        """Guests called `new` that go on from what a guest that is on, or saved, is now, or from a snapshot of it.
        They get MAC addresses, a generation ID and random numbers of their own, unless `same_identity`; ports of the
        host's that are taken are not forwarded to them. A guest that is on and writes to disks is cloned by way of a
        new snapshot, which stays.

        Raises StateError when it is off or there is a guest of one of the names, UsageError for impossible names and
        too many of them, and what `Host.create` does; then there is no clone.
        """
        if len(new) > MAX_CLONES or len(set(new)) < len(new):
            raise UsageError(f"{len(new)} clones: at most {MAX_CLONES}, each with a name of its own")
        for clone in new:
            check_name("guest", clone)
            if clone in self._entries:
                raise StateError(f"there is a guest {clone!r} already")
        self._require_room(len(new))
        if snapshot is None and self.state(name) in ON and self._writes_disks(name):
            snapshot = self.snapshot(name, comment=f"for clones: {', '.join(new)[:100]}").name
        with self._locked(name) as entry, ExitStack() as undo:
            made = self._make_clones(entry, new, snapshot, same_identity, undo)
            autostart = self._definition(entry).autostart
            infos = []
            for guest in made:
                definition = Definition(guest.config, autostart)
                info = self._add(definition, "cloned", source=name, snapshot=snapshot or "")
                undo.callback(self.remove, guest.name, force=True)
                with self._locked(guest.name) as added:
                    self._adopt(added, guest)
                    self._go_on(added, guest, running, f"cloned from guest {name!r}")
                    infos.append(self._describe(added, info.snapshots))
            undo.pop_all()
        return infos

    def _writes_disks(self, name: str) -> bool:
        return any(disk.kind != "cdrom" and not disk.readonly for disk in self.guest(name).config.disks)

    def _make_clones(
        self, entry: Entry, new: Sequence[str], snapshot: str | None, same_identity: bool, undo: ExitStack
    ) -> list[Guest]:
        """The host's guests, which are paused; `undo` deletes them."""
        made = []
        if snapshot is None and entry.life.state is not GuestState.SAVED:
            require(entry.name, entry.life.state, (*ON, GuestState.SAVED), "clone")
            with self.guest(entry.name).checkpoint() as checkpoint:
                for clone in new:
                    guest = self.host.clone(checkpoint, clone, same_identity=same_identity, running=False)
                    undo.callback(guest.delete)
                    made.append(guest)
            return made
        info = self._saved_state(entry) if snapshot is None else self._info(entry.name, snapshot)
        for clone in new:
            guest = self._from_snapshot(info, clone, same_identity=same_identity)
            undo.callback(guest.delete)
            made.append(guest)
        return made
