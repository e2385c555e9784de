"""The folder in which a host keeps what outlives its process."""

import fcntl
import os
import sqlite3
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Self

import numpy as np

from emuvisor.errors import ConfigError, SnapshotError, StateError, UsageError
from emuvisor.store import format as store_format
from emuvisor.store.check import Problem, check_guests, check_packs, fresh_dump, leftovers
from emuvisor.store.collect import Collected, collect
from emuvisor.store.draft import Draft
from emuvisor.store.events import Event, EventLog
from emuvisor.store.files import TEMPORARY, HostFiles, host_errors
from emuvisor.store.index import Index, SnapshotInfo
from emuvisor.store.manifest import SUFFIX, Manifest, Metadata, digest_of, parse
from emuvisor.store.names import check_name
from emuvisor.store.pack import Pack, new_uid, rewrite
from emuvisor.store.packs import Packs
from emuvisor.store.rebuild import count_references, rebuild, referred_bytes
from emuvisor.store.snapshot import Snapshot, lock_for_deletion
from emuvisor.units import PAGE_SIZE

__all__ = ["Store", "StoreInfo"]

_INDEX = "index.sqlite"
_FOLDERS = ("packs", "guests", "disks", "trash")
_OWN = {
    *_FOLDERS,
    "lock",
    "format",
    f"format{TEMPORARY}",
    _INDEX,
    f"{_INDEX}-wal",
    f"{_INDEX}-shm",
}
MAX_ANCESTORS = 1024
"""Of a snapshot, that are noted."""
LEAST_DEAD = 0.5
"""Part of a pack that has to be dead before `gc` writes the rest of it again."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What is in a store. Sizes are in bytes."""

    guests: int
    snapshots: int
    snapshot_bytes: int
    """Memory in the snapshots, pages of zeros not counted, each one as if it were alone."""
    packs: int
    pages: int
    """Pages that snapshots refer to, each one counted once."""
    live_bytes: int
    """What they take."""
    pack_bytes: int
    """Files of all packs: more than `live_bytes` by what `gc` can free, and tables."""
    disk_bytes: int

    @property
    def deduplication(self) -> float:
        """How many times the snapshots' memory is bigger than the pages that are kept of it, before compression."""
        return self.snapshot_bytes / (self.pages * PAGE_SIZE) if self.pages else 1.0


class Store:
    """The store in `folder`, which is made when there is none. One process writes; others can open it `read_only`.

    Several threads use it at a time. `files` does what changes the file system. Every operation that returned is on
    the disk, and stays whole whatever happens then; one that was cut by a crash was done or was not.

    Raises UsageError when something else is in the folder, StateError when another process has it open for writing,
    SnapshotError when it is of a version that cannot be read, HostError when the host refuses.
    """

    def __init__(
        self, folder: Path | str, *, read_only: bool = False, files: HostFiles | None = None
    ) -> None:
        self.folder = Path(folder)
        self.read_only = read_only
        self._files = files or HostFiles()
        self._lock = threading.RLock()
        self._guests = self.folder / "guests"
        self._disks = self.folder / "disks"
        self._trash = self.folder / "trash"
        self._packs = Packs(self.folder / "packs")
        self._drafts = 0
        self._behind = False
        """The index is not known to have all that is in the files."""
        self._dirty = False
        """The index says itself that it may be behind."""
        self._closing = ExitStack()
        with host_errors(f"store {self.folder}"), ExitStack() as undo:
            undo.enter_context(self._closing)
            if read_only:
                self._require_version()
            else:
                self._prepare()
            self._index = Index(self.folder / _INDEX, self._files, read_only)
            self._closing.callback(self._index.close)
            self._events = EventLog(self.folder / "events.jsonl", self._files)
            if not read_only and not self._index.clean:
                self._recover()
            undo.pop_all()

    # ---- opening and closing ----

    def _require_version(self) -> None:
        version = store_format.read_version(self.folder)
        if version is None:
            raise UsageError(f"{self.folder} is no store")
        if version != store_format.VERSION:
            raise SnapshotError(f"{self.folder} is a store of version {version}; open it for writing once")

    def _prepare(self) -> None:
        """Lock the folder, and make of it a store of this version."""
        if not self.folder.is_dir():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._files.make_folder(self.folder)
            self._files.sync_folder(self.folder.parent)
        version = store_format.read_version(self.folder)
        if version is None:
            foreign = sorted({path.name for path in self.folder.iterdir()} - _OWN)
            if foreign:
                raise UsageError(
                    f"{self.folder} is no store: {foreign[0]} is in it; name an empty or a new folder"
                )
        self._take_lock()
        if version is not None:
            store_format.upgrade(self.folder, self._files, version)
            return
        for name in _FOLDERS:
            if not (self.folder / name).is_dir():
                self._files.make_folder(self.folder / name)
        store_format.write_version(self.folder, self._files)

    def _take_lock(self) -> None:
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._closing.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            raise StateError(f"store {self.folder} is in use by process {owner}") from None
        os.pwrite(
            fd, f"{os.getpid():<19}\n".encode(), 0
        )  # of one length, as cutting a file takes milliseconds

    def _recover(self) -> None:
        """After a crash: delete what is not whole, and bring the index up to date."""
        for path in leftovers(self.folder, TEMPORARY):
            self._remove(path)
        try:
            rebuild(self._guests, self._packs, self._index)
        except sqlite3.DatabaseError:
            self._remake_index()
        self._dirty = True

    def _remake_index(self) -> None:
        self._index.reset()
        rebuild(self._guests, self._packs, self._index)
        self._dirty, self._behind = True, False

    def _remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            self._files.remove_tree(path)
        else:
            self._files.unlink(path)

    def close(self) -> None:
        """Close it; drafts are abandoned by those who have them. Closing it twice does no harm."""
        with self._lock, self._closing:
            if self._dirty and not self._behind:
                self._dirty = False
                with host_errors(f"store {self.folder}"), self._index.change():
                    self._index.set_clean(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Around a change: when it fails, the index is behind."""
        self._require_writable()
        with self._lock, host_errors(f"store {self.folder}"):
            self._catch_up()
            if not self._dirty:
                with self._index.change():
                    self._index.set_clean(False)
                self._dirty = True
            try:
                yield
            except BaseException:
                self._behind = True
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, host_errors(f"store {self.folder}"):
            self._catch_up()
            yield

    def _catch_up(self) -> None:
        """After a change that failed somewhere between the files and the index."""
        if self._behind:
            rebuild(self._guests, self._packs, self._index)
            self._behind = False

    def _require_writable(self) -> None:
        if self.read_only:
            raise StateError(f"store {self.folder} is open for reading only")

    # ---- guests ----

    def guests(self) -> list[str]:
        """The names of all guests, sorted."""
        with self._reading():
            return self._index.guests()

    def define(self, guest: str, definition: str, *, replace: bool = False) -> None:
        """Keep the TOML text `definition` for a new guest, or with `replace` for one that there may be already.

        Raises UsageError for an impossible name, ConfigError for what is no TOML, StateError when there is such a
        guest.
        """
        check_name("guest", guest)
        try:
            tomllib.loads(definition)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the definition of guest {guest!r} is no TOML: {error}") from None
        with self._lock:
            folder = self._guests / guest
            known = (folder / "guest.toml").exists()
            if known and not replace:
                raise StateError(f"there is a guest {guest!r} already")
            with self._changing():
                for path in (folder, folder / "snapshots"):
                    if not path.is_dir():
                        self._files.make_folder(path)
                self._files.replace(folder / "guest.toml", definition.encode())
                if not known:
                    self._files.sync_folder(self._guests)
                with self._index.change():
                    self._index.add_guest(guest)

    def definition(self, guest: str) -> str:
        """The TOML text of a guest. Raises UsageError when there is none of this name."""
        with self._reading():
            return (self._guest_folder(guest) / "guest.toml").read_bytes().decode("utf-8", "replace")

    def rename_guest(self, old: str, new: str) -> None:
        """Give a guest with its snapshots another name. Raises UsageError for a name that is impossible or that no
        guest has, StateError when another guest has the new one."""
        check_name("guest", new)
        with self._lock:
            folder = self._guest_folder(old)
            if (self._guests / new).exists():
                raise StateError(f"there is a guest {new!r} already")
            with self._changing():
                self._files.rename(folder, self._guests / new)
                self._files.sync_folder(self._guests)
                with self._index.change():
                    self._index.rename_guest(old, new)

    def delete_guest(self, guest: str) -> int:
        """Delete a guest with its snapshots; returns how many bytes `gc` can free now. Its disks stay.

        Raises UsageError when there is no such guest, StateError when one of its snapshots is in use.
        """
        with self._lock:
            folder = self._guest_folder(guest)
            with ExitStack() as locks:
                found = sorted((folder / "snapshots").glob("*" + SUFFIX))
                self._require_writable()
                with host_errors(f"store {self.folder}"):
                    for path in found:
                        locks.callback(os.close, lock_for_deletion(path))
                with self._changing():
                    manifests = [self._read_for_deletion(path) for path in found]
                    gone = self._trash / new_uid()
                    self._files.rename(folder, gone)
                    self._files.sync_folder(self._trash)
                    self._files.sync_folder(self._guests)
                    freed = self._forget_all(guest, [path.stem for path in found], manifests)
                    self._files.remove_tree(gone)
            return freed

    def guest_folder(self, guest: str) -> Path:
        """The folder of a guest, in which others keep what belongs to it, too. Raises UsageError when there is none."""
        with self._lock:
            return self._guest_folder(guest)

    def write_file(self, guest: str, file: str, data: bytes) -> None:
        """Have a `file` with `data` in the folder of a guest, in one step; it is on the disk when this returns. Never
        while `check` looks for what crashes left behind. Raises UsageError when there is no such guest, HostError."""
        with self._lock:
            path = self._guest_folder(guest) / file
            with host_errors(path):
                self._files.replace(path, data)

    def _guest_folder(self, guest: str) -> Path:
        folder = self._guests / check_name("guest", guest)
        if not (folder / "guest.toml").exists():
            raise UsageError(f"there is no guest {guest!r} in store {self.folder}")
        return folder

    # ---- snapshots ----

    def snapshots(self, guest: str | None = None) -> list[SnapshotInfo]:
        """The snapshots of `guest`, or of all; in the order in which they were made."""
        with self._reading():
            return self._index.snapshots(guest)

    def parent_of(self, snapshot: SnapshotInfo) -> SnapshotInfo | None:
        """The nearest snapshot from which this one came that there still is."""
        known = {info.metadata.id: info for info in self.snapshots() if not info.damage}
        return next((known[uid] for uid in snapshot.metadata.ancestors if uid in known), None)

    def new_snapshot(
        self,
        guest: str,
        name: str,
        *,
        parent: SnapshotInfo | None = None,
        comment: str = "",
        now: Callable[[], float] = time.time,
    ) -> Draft:
        """Begin a snapshot `name` of `guest`, which came from `parent`.

        Raises UsageError for an impossible name or when there is no such guest, StateError when it has a snapshot of
        this name.
        """
        self._require_writable()
        with self._lock:
            self._new_snapshot_path(guest, name)
            ancestors = (
                () if parent is None else (parent.metadata.id, *parent.metadata.ancestors)[:MAX_ANCESTORS]
            )
            about = Metadata(new_uid(), name, now(), comment, ancestors, emuvisor=_version())
            self._drafts += 1
            return Draft(
                about, self._packs, self._files, lambda manifest: self._finish(guest, manifest), self._ended
            )

    def _new_snapshot_path(self, guest: str, name: str) -> Path:
        path = self._guest_folder(guest) / "snapshots" / (check_name("snapshot", name) + SUFFIX)
        if path.exists():
            raise StateError(f"guest {guest!r} has a snapshot {name!r} already")
        return path

    def _ended(self) -> None:
        with self._lock:
            self._drafts -= 1

    def _finish(self, guest: str, manifest: Manifest) -> SnapshotInfo:
        """Put the file of a new snapshot into the store, all of whose pages are there."""
        with self._lock:
            path = self._new_snapshot_path(guest, manifest.metadata.name)
            for layer in (layer for layers in manifest.metadata.disks.values() for layer in layers):
                self._disk_path(layer)
            with self._changing():
                about = replace(manifest.metadata, bytes=referred_bytes(manifest, self._packs))
                manifest = replace(manifest, metadata=about)
                data = manifest.encode()
                self._files.replace(path, data)
                info = SnapshotInfo(guest, about, len(manifest.frames), len(data), digest_of(data))
                with self._index.change():
                    self._index.add_snapshot(info)
                    count_references(manifest, self._packs, self._index, 1)
            return info

    def open_snapshot(self, guest: str, name: str) -> Snapshot:
        """A snapshot, open for reading; it can be closed when no page of it is needed any more.

        Raises UsageError for an impossible name, SnapshotError when it is not there or is damaged.
        """
        check_name("guest", guest)
        path = self._guests / guest / "snapshots" / (check_name("snapshot", name) + SUFFIX)
        with self._reading():
            known = self._index.snapshots(guest, name)
            if known and known[0].damage:
                raise SnapshotError(known[0].damage)
            return Snapshot(path, self._packs, known[0].digest if known else None)

    def delete_snapshot(self, guest: str, name: str) -> int:
        """Delete a snapshot; returns how many bytes `gc` can free now, and the snapshot's file has freed. Snapshots
        that came from it stay whole.

        Raises UsageError when there is no such snapshot, StateError when it is in use.
        """
        self._require_writable()
        with self._lock:
            path = self._guest_folder(guest) / "snapshots" / (check_name("snapshot", name) + SUFFIX)
            if not path.exists():
                raise UsageError(f"guest {guest!r} has no snapshot {name!r}")
            with host_errors(f"store {self.folder}"), ExitStack() as locks:
                locks.callback(os.close, lock_for_deletion(path))
                with self._changing():
                    manifest = self._read_for_deletion(path)
                    self._files.unlink(path)
                    self._files.sync_folder(path.parent)
                    return self._forget_all(guest, [name], [manifest], whole_guest=False)

    def _read_for_deletion(self, path: Path) -> tuple[Manifest | None, int]:
        """A snapshot's file and its size; no manifest when it is damaged."""
        data = path.read_bytes()
        try:
            return parse(path, data), len(data)
        except SnapshotError:
            return None, len(data)

    def _forget_all(
        self, guest: str, names: list[str], found: list[tuple[Manifest | None, int]], whole_guest: bool = True
    ) -> int:
        """The index forgets snapshots whose files are gone; returns the bytes that are, or can be, free."""
        freed = sum(size for _, size in found)
        if any(manifest is None for manifest, _ in found):  # nobody knows what it referred to
            rebuild(self._guests, self._packs, self._index)
            return freed
        with self._index.change():
            for name, (manifest, _) in zip(names, found, strict=True):
                self._index.remove_snapshot(guest, name)
                if manifest is not None:
                    freed += count_references(manifest, self._packs, self._index, -1)
            if whole_guest:
                self._index.remove_guest(guest)
        return freed

    # ---- disks ----

    def disk_path(self, name: str) -> Path:
        """Where the disk `name` is, or is to be made. Raises UsageError for an impossible name."""
        return self._disks / check_name("disk", name)

    def _disk_path(self, name: str) -> Path:
        path = self.disk_path(name)
        if not path.is_file():
            raise UsageError(f"there is no disk {name!r} in store {self.folder}")
        return path

    def disks(self) -> list[str]:
        """The names of all disks, sorted; those that are being written have none yet."""
        return sorted(path.name for path in self._disks.iterdir() if not path.name.startswith("."))

    def delete_disk(self, name: str) -> int:
        """Delete a disk; returns the bytes that it took. Raises UsageError when there is none of this name, StateError
        when a snapshot refers to it."""
        self._require_writable()
        with self._lock:
            path = self._disk_path(name)
            for info in self.snapshots():
                if any(name in layers for layers in info.metadata.disks.values()):
                    raise StateError(f"disk {name!r} is part of snapshot {info.guest}/{info.name}")
            with host_errors(f"store {self.folder}"):
                size = path.stat().st_blocks * 512
                self._files.unlink(path)
                self._files.sync_folder(self._disks)
            return size

    # ---- events ----

    def add_event(self, event: Event) -> None:
        """Note what happened to a guest."""
        self._require_writable()
        with self._lock:
            self._events.append(event)

    def events(self) -> list[Event]:
        """What happened to guests, oldest first; what is long ago is dropped."""
        with self._reading():
            return list(self._events)

    def last_event(self) -> Event | None:
        """The newest event, without reading the others."""
        with self._reading():
            return self._events.last()

    # ---- upkeep ----

    def info(self) -> StoreInfo:
        """What is in it."""
        with self._reading():
            snapshots, rows = self._index.snapshots(), self._index.packs()
            uids = self._packs.on_disk()
            return StoreInfo(
                guests=len(self._index.guests()),
                snapshots=len(snapshots),
                snapshot_bytes=sum(info.pages for info in snapshots) * PAGE_SIZE,
                packs=len(uids),
                pages=sum(row.live_pages for row in rows),
                live_bytes=sum(row.live_bytes for row in rows),
                pack_bytes=sum(self._packs.path(uid).stat().st_size for uid in uids),
                disk_bytes=sum(self.disk_path(name).stat().st_blocks * 512 for name in self.disks()),
            )

    def gc(self, least_dead: float = LEAST_DEAD) -> Collected:
        """Free what pages take that no snapshot refers to. Packs of which a part of less than `least_dead` is dead are
        left as they are; 0 leaves nothing behind.

        Raises StateError while a snapshot is written, and when one is damaged: nobody knows what it refers to.
        """
        with self._alone("gc"):
            for info in self._index.snapshots():
                if info.damage:
                    raise StateError(
                        f"snapshot {info.guest}/{info.name} is damaged; delete it first, or bring its file back"
                    )
            with self._changing():
                return collect(self._packs, self._index, self._files, least_dead)

    @contextmanager
    def quiet(self) -> Iterator[bool]:
        """Nobody begins to write a snapshot meanwhile; False when somebody is at it already."""
        with self._lock:
            yield not self._drafts

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Nobody writes a snapshot meanwhile."""
        self._require_writable()
        with self._lock:
            if self._drafts:
                raise StateError(f"{what} of store {self.folder} is impossible while a snapshot is written")
            yield

    def check(self, *, repair: bool = False) -> list[Problem]:
        """Read everything, every page too; returns what is wrong.

        With `repair` what is not whole is deleted, the index is made again when it is wrong, and damaged pages are
        taken out of their packs, so that a snapshot that has the same page stores it again. What was lost stays lost.
        """
        with self._alone("check"), host_errors(f"store {self.folder}"):
            problems = []
            if not self._index_is_right():
                if repair:
                    self._remake_index()
                problems.append(Problem("index", "it does not say what is in the files", repair))
            for path in leftovers(self.folder, TEMPORARY):
                if repair:
                    self._remove(path)
                problems.append(Problem(str(path), "it was left behind by a crash", repair))
            good = dict(check_packs(self._packs))
            for uid, pages in good.items():
                if isinstance(pages, str):
                    problems.append(Problem(f"pack {uid}", pages))
                else:
                    problems += self._check_pages(uid, pages, repair)
            problems += check_guests(self._guests, self._disks, good)
            return problems

    def _check_pages(
        self, uid: str, good: "np.ndarray[tuple[int], np.dtype[np.bool_]]", repair: bool
    ) -> list[Problem]:
        pack = Pack(self._packs.path(uid))
        bad = int((pack.lengths > 0).sum()) - int(good.sum())
        if not bad:
            return []
        if repair:
            with self._changing():
                rewrite(pack, good.tolist(), self._files)
                self._packs.forget(uid)
                rebuild(self._guests, self._packs, self._index)
        return [Problem(f"pack {uid}", f"{bad} of its pages are damaged", repair)]

    def _index_is_right(self) -> bool:
        try:
            return self._index.dump() == fresh_dump(self._guests, self._packs)
        except sqlite3.Error:
            return False


@cache
def _version() -> str:
    try:
        return metadata.version("emuvisor")
    except metadata.PackageNotFoundError:
        return ""
