"""Which guests there are, what they are, and how that changes."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emuvisor.errors import ConfigError, EmuvisorError, StateError, UsageError
from emuvisor.host import GuestState
from emuvisor.host.snapshots import Prefetch
from emuvisor.host.snapshots.disks import remove_unused_disks
from emuvisor.host.states import require
from emuvisor.manager.changes import applied_live, changed_definition
from emuvisor.manager.core import OFF, ON, SAVED_STATES, ManagerCore
from emuvisor.manager.definitions import Definition, new_definition
from emuvisor.manager.entry import Entry
from emuvisor.manager.lives import Life
from emuvisor.manager.parts import named_files
from emuvisor.manager.presence import require_files
from emuvisor.manager.records import Freed, GuestInfo
from emuvisor.store.names import check_name

__all__ = ["Inventory"]


class Inventory(ManagerCore):
    """The part of the manager that makes, describes, changes and deletes guests."""

    max_guests: int

    def guests(self) -> list[GuestInfo]:
        """All guests, by name."""
        counts: dict[str, int] = {}
        for info in self.store.snapshots():
            counts[info.guest] = counts.get(info.guest, 0) + (info.name not in SAVED_STATES)
        with self._lock:
            entries = sorted(self._entries.items())
        return [self._describe(entry, counts.get(name, 0)) for name, entry in entries]

    def _describe(self, entry: Entry, snapshots: int | None = None) -> GuestInfo:
        if snapshots is None:
            snapshots = sum(info.name not in SAVED_STATES for info in self.store.snapshots(entry.name))
        life = entry.life
        told = {"state": str(life.state), "reason": life.reason, "since": life.since}
        try:
            definition = self._definition(entry)
        except (ConfigError, UsageError) as error:  # one that is damaged must not hide the others
            told["reason"] = str(error)
            unknown = {"board": "?", "memory": 0, "vcpus": 0, "clock": "?", "autostart": False}
            return GuestInfo(name=entry.name, snapshots=snapshots, **told, **unknown)  # type: ignore[arg-type]
        config = definition.config
        guest = entry.guest
        return GuestInfo(
            name=entry.name,
            state=str(life.state),
            reason=life.reason,
            board=config.board,
            memory=config.memory if guest is None else guest.contract.size,
            vcpus=config.vcpus,
            clock=config.clock,
            autostart=definition.autostart,
            snapshots=snapshots,
            since=life.since,
        )

    def info(self, name: str) -> dict[str, Any]:
        """All of a guest, as JSON can have it: the fields of GuestInfo, `busy` (what goes on with it), `definition`,
        `disks`, and, while the host has it, `statistics`, `memory_use` and `forwards`, else None for them.

        Raises UsageError when there is no such guest.
        """
        entry = self._entry(name)
        definition = self._definition(entry)
        guest = entry.guest
        disks = [
            {
                "path": str(disk.path),
                "overlay": None if disk.overlay is None else str(disk.overlay),
                "kind": disk.kind,
                "bytes": _taken(Path(disk.overlay or disk.path)),
            }
            for disk in definition.config.disks
        ]
        whole: dict[str, Any] = {
            **asdict(self._describe(entry)),
            "busy": entry.busy,
            "definition": definition.plain(),
            "disks": disks,
            "statistics": None,
            "memory_use": None,
            "forwards": None,
        }
        if guest is not None:
            with suppress(StateError, KeyError):  # it may be gone by now
                whole |= {
                    "statistics": guest.statistics().as_dict(),
                    "memory_use": guest.memory_statistics().as_dict(),
                    "forwards": [str(forward) for forward in guest.forwards],
                }
        return whole

    def definition(self, name: str) -> str:
        """The TOML text that defines a guest. Raises UsageError when there is none."""
        return self.store.definition(self._entry(name).name)

    def create(self, definition: Mapping[str, Any], *, folder: Path | None = None) -> GuestInfo:
        """Define a guest by the keys of `GuestConfig`, `autostart` besides; relative paths start from `folder` and
        are kept as absolute ones.

        Raises ConfigError for an impossible definition, and for one that names files which are not there (ImageError
        for disks), UsageError for a name that the store cannot have and when there
        are too many guests, StateError when there is a guest of this name.
        """
        made = new_definition(definition, folder, self.store)
        require_files(made.config)
        return self._add(made, "created")

    def _add(self, made: Definition, kind: str, **details: Any) -> GuestInfo:
        name = check_name("guest", made.config.name)
        text = made.text()
        with self._lock:
            if name in self._entries:
                raise StateError(f"there is a guest {name!r} already")
            self._require_room(1)
            self.store.define(name, text)
            entry = Entry(name, Life(), made)
            self._entries[name] = entry
        self._journal.post(name, kind, details)
        return self._describe(entry, 0)

    def _require_room(self, guests: int) -> None:
        """Raises UsageError when there cannot be so many more."""
        if len(self._entries) + guests > self.max_guests:
            raise UsageError(
                f"there are {len(self._entries)} guests; {guests} more are too many, {self.max_guests} is the limit"
            )

    def set(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change what `emuvisor.manager.changes` knows by key, in the guest as it runs and in its definition; with
        None it gets the default. Nothing is changed when one of the changes is impossible.

        Raises UsageError (unknown keys too, and what only a guest that is off can be given), ConfigError,
        AdmissionError for promises that the host cannot make, StateError for a saved guest.
        """
        with self._locked(name) as entry:
            live = entry.life.state in ON
            if entry.life.state is GuestState.SAVED and set(changes) - {"autostart"}:
                require(name, entry.life.state, (*ON, GuestState.DEFINED, GuestState.CRASHED), "set")
            before = self._definition(entry)
            definition = changed_definition(before, changes, live)
            with ExitStack() as undo:
                if live and entry.guest is not None:
                    undo.enter_context(applied_live(entry.guest, before, definition, changes))
                if definition != before:
                    self._keep_definition(entry, definition)
            self._journal.post(name, "changed", {"keys": sorted(changes)})

    def rename(self, name: str, new: str) -> None:
        """Give a guest that is off another name; its snapshots, disks and addresses stay. Raises StateError when it is
        on, or there is a guest `new`, UsageError for an impossible name."""
        with self._locked(name) as entry:
            require(name, entry.life.state, OFF, "rename")
            entry.require_idle("rename")
            definition = self._definition(entry)
            definition = replace(definition, config=replace(definition.config, name=check_name("guest", new)))
            self._let_go(entry)
            self._journal.flush()
            with self._lock:
                self.store.rename_guest(name, new)
                del self._entries[name]
                renamed = self._entries[new] = Entry(new, entry.life)
                entry.gone = True
            self._keep_definition(renamed, definition)
            self._journal.post(new, "renamed", {"old": name})

    def remove(self, name: str, *, force: bool = False) -> Freed:
        """Delete a guest with its snapshots, its console's log, and its disks that are in the store; files of the
        user's stay. `force`: also when it is on.

        Raises StateError when it is on, and when another guest still takes pages from a snapshot of it; with `force`
        that one gets them first, and only where the host has too little memory for them this guest stays, and is off.
        """
        with self._locked(name) as entry:
            if not force:
                require(name, entry.life.state, OFF, "rm")
            entry.require_idle("rm")
            frames = self._let_go(entry)
            self._journal.flush()
            disks = self._own_disks(entry)
            if entry.life.state in ON:
                self._enter(entry, GuestState.DEFINED, "stopped")
            try:
                freed = self._delete(entry)
            except StateError:
                if not force:
                    raise
                self._bring_pages()
                freed = self._delete(entry)
            freed += self._delete_disks(disks)
            self._collect_garbage()
            self._journal.post(name, "removed", {"frames": frames, "bytes": freed})
        return Freed(frames, freed)

    def _delete(self, entry: Entry) -> int:
        with self._lock:
            freed = self.store.delete_guest(entry.name)
            del self._entries[entry.name]
            entry.gone = True
        return freed

    def _bring_pages(self) -> None:
        """Let the guests that go on from snapshots have their pages now, as far as the host has frames for them."""
        with self._lock:
            guests = [entry.guest for entry in self._entries.values() if entry.guest is not None]
        for prefetch in [Prefetch(guest).start() for guest in guests if guest.state in ON]:
            prefetch.wait()

    def _own_disks(self, entry: Entry) -> list[str]:
        """The files among the store's disks that a guest's definition names."""
        try:
            return self._disks_of(self._definition(entry))
        except ConfigError:  # a damaged one names none
            return []

    def _disks_of(self, definition: Definition) -> list[str]:
        files = list(named_files(definition.plain()).values())
        files += [str(disk.overlay) for disk in definition.config.disks if disk.overlay is not None]
        folder = self.store.disk_path("x").parent.resolve()
        return [path.name for path in map(Path, files) if path.parent.resolve() == folder]

    def _delete_disks(self, names: list[str]) -> int:
        """Those of `names` that no guest and no snapshot has any more; returns the bytes that they took."""
        with self._lock:
            entries = list(self._entries.values())
        used: set[str] = set()
        for entry in entries:
            with suppress(EmuvisorError):  # a damaged definition keeps none
                used |= set(self._disks_of(self._definition(entry)))
        freed = 0
        there = set(self.store.disks())
        for name in names:
            if name in there and name not in used:
                with suppress(StateError):  # it is part of a snapshot
                    freed += self.store.delete_disk(name)
        return freed + remove_unused_disks(self.store)

    def _collect_garbage(self) -> None:
        with suppress(StateError):  # a snapshot is being written, or one is damaged: later, then
            self.store.gc()


def _taken(path: Path) -> int | None:
    """Bytes that a file takes on its file system; None when there is none."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return None
