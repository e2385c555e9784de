"""Snapshots of guests, and guests that go on from them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from emuvisor.errors import StateError, UsageError
from emuvisor.host import Guest, GuestState
from emuvisor.host.snapshots import restore_guest, take_snapshot
from emuvisor.host.snapshots.contents import Contents
from emuvisor.host.snapshots.disks import remove_unused_disks
from emuvisor.host.states import require
from emuvisor.manager.core import ON, SAVED_STATES
from emuvisor.manager.records import Freed, SnapshotRecord
from emuvisor.manager.switching import Switching
from emuvisor.store.index import SnapshotInfo
from emuvisor.store.names import check_name

__all__ = ["Snapshots"]


class Snapshots(Switching):
    """The part of the manager for snapshots."""

    def snapshots(self, name: str) -> list[SnapshotRecord]:
        """A guest's snapshots, oldest first. Raises UsageError when there is no such guest."""
        infos = [
            info for info in self.store.snapshots(self._entry(name).name) if info.name not in SAVED_STATES
        ]
        names = {info.metadata.id: info.name for info in infos}
        return [_record(info, names) for info in infos]

    def snapshot(
        self,
        name: str,
        snapshot: str = "",
        *,
        comment: str = "",
        progress: Callable[[int, int], object] | None = None,
    ) -> SnapshotRecord:
        """Keep what a guest that is on is now, as `snapshot` or under a name that is free. It stands for a moment, and
        goes on while this is written; `progress` hears how many pages are, and of how many.

        Raises StateError when it is off or has such a snapshot, UsageError for an impossible name, SnapshotError for a
        guest that cannot be saved, HostError.
        """
        with self._locked(name) as entry:
            require(name, entry.life.state, ON, "snapshot")
            entry.require_idle("snapshot")
            known = {info.name for info in self.store.snapshots(name)}
            snapshot = self._snapshot_name(name, snapshot, known)
            guest = self.guest(name)
            checkpoint = guest.checkpoint()
            entry.busy = "a snapshot of it is written"
            parent = entry.life.parent if entry.life.parent in known else None
        try:
            with checkpoint:
                info = take_snapshot(
                    checkpoint,
                    self.store,
                    name,
                    snapshot,
                    parent=parent,
                    comment=comment,
                    progress=progress,
                )
        finally:
            entry.busy = ""
        with entry.lock:
            entry.life = replace(entry.life, parent=snapshot)
            self._write_life(entry)
        self._journal.post(name, "snapshot", {"snapshot": snapshot, "pages": info.pages})
        return next(record for record in self.snapshots(name) if record.name == snapshot)

    def _snapshot_name(self, name: str, wanted: str, known: set[str]) -> str:
        if not wanted:
            return next(free for n in count(1) if (free := f"snapshot-{n}") not in known)
        check_name("snapshot", wanted)
        if wanted in SAVED_STATES:
            raise UsageError(f"{wanted!r} cannot be the name of a snapshot: saved guests go on from it")
        if wanted in known:
            raise StateError(f"guest {name!r} has a snapshot {wanted!r} already")
        return wanted

    def delete_snapshot(self, name: str, snapshot: str) -> Freed:
        """Delete a snapshot; those that came from it stay whole. Raises UsageError when there is none, StateError when
        a guest that goes on from it still needs pages of it."""
        with self._locked(name) as entry:
            info = self._info(name, snapshot)
            before = self.store.parent_of(info)
            freed = self.store.delete_snapshot(name, snapshot)
            freed += remove_unused_disks(self.store)
            if entry.life.parent == snapshot:
                entry.life = replace(entry.life, parent="" if before is None else before.name)
                self._write_life(entry)
        self._collect_garbage()
        self._journal.post(name, "snapshot-deleted", {"snapshot": snapshot, "bytes": freed})
        return Freed(0, freed)

    def _info(self, name: str, snapshot: str) -> SnapshotInfo:
        for info in self.store.snapshots(name):
            if info.name == snapshot and snapshot not in SAVED_STATES:
                return info
        raise UsageError(f"guest {name!r} has no snapshot {snapshot!r}")

    def restore(self, name: str, snapshot: str, *, running: bool = True) -> None:
        """Let a guest, on or off, be what it was when `snapshot` was taken, and go on from there, or stand with
        `running` off. What it was until now is lost, a saved state and what it wrote to its disks too.

        Raises UsageError when there is no such snapshot, SnapshotError when it is damaged, and what `Host.create` does.
        """
        with self._locked(name) as entry:
            entry.require_idle("restore")
            info = self._info(name, snapshot)
            with self.store.open_snapshot(name, snapshot) as opened:  # or else nothing is touched
                opened.states()
            if entry.life.state in (*ON, GuestState.SAVED):
                self.stop(name)
            self._let_go(entry)
            old_disks = self._disks_of(self._definition(entry))
            guest = self._from_snapshot(info, name)
            self._adopt(entry, guest)
            try:
                self._keep_definition(entry, replace(self._definition(entry), config=guest.config))
                entry.life = replace(entry.life, parent=snapshot)
                self._go_on(entry, guest, running, f"restored from snapshot {snapshot!r}")
            except BaseException:
                self._withdraw(entry, entry.life)
                raise
            self._delete_disks(old_disks)
            self._journal.post(name, "restored", {"snapshot": snapshot})

    def _from_snapshot(self, info: SnapshotInfo, name: str, *, same_identity: bool | None = None) -> Guest:
        """A paused guest `name` that is what `info` has; its disks are files of the store's."""
        with self.store.open_snapshot(info.guest, info.name) as opened:
            self._add_networks(Contents.from_plain(opened.states()).config)
        return restore_guest(
            self.host,
            self.store,
            info.guest,
            info.name,
            name=name,
            running=False,
            same_identity=same_identity,
            overlay=lambda number: self._new_disk(name, number),
        )

    def _new_disk(self, guest: str, number: int) -> Path:
        """A file for a disk of a guest, which there is not yet."""
        there = set(self.store.disks())
        names = (f"{guest[:40]}.disk{number}.{n}.overlay" for n in count(1))
        return self.store.disk_path(next(name for name in names if name not in there))


def _record(info: SnapshotInfo, names: Mapping[str, str]) -> SnapshotRecord:
    """`names` has those of the guest's snapshots, by id."""
    about = info.metadata
    return SnapshotRecord(
        guest=info.guest,
        name=info.name,
        parent=next((names[uid] for uid in about.ancestors if uid in names), None),
        created=about.created,
        comment=about.comment,
        pages=info.pages,
        bytes=about.bytes + info.file_bytes,
        disks=tuple(layer for layers in about.disks.values() for layer in layers),
    )
