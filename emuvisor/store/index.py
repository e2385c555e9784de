"""What SQLite knows of a store: guests, snapshots, and how many snapshots refer to each page.

All of it is in the files too. They are written first and this last, so after a crash it may be behind them by one
operation; `clean` says whether it is not.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import zstandard
from numpy.typing import NDArray

from emuvisor.store.files import HostFiles
from emuvisor.store.manifest import Manifest, Metadata
from emuvisor.store.pack import MAX_PAGES, Pack
from emuvisor.store.packs import PLACE_BITS

__all__ = ["Index", "PackRow", "SnapshotInfo", "references"]

SCHEMA = 1
_TABLES = """
CREATE TABLE state (clean INTEGER NOT NULL);
CREATE TABLE guests (name TEXT PRIMARY KEY);
CREATE TABLE packs (
    uid TEXT PRIMARY KEY, pages INTEGER, bytes INTEGER, live_pages INTEGER, live_bytes INTEGER, counts BLOB
);
CREATE TABLE snapshots (
    guest TEXT, name TEXT, metadata TEXT, pages INTEGER, file_bytes INTEGER, digest BLOB, damage TEXT,
    PRIMARY KEY (guest, name)
);
"""
Counts = NDArray[np.uint32]
"""By page of a pack: how many snapshots refer to it."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot of the store. `digest` is the hash at the end of its file."""

    guest: str
    metadata: Metadata
    pages: int
    file_bytes: int
    digest: bytes
    damage: str = ""
    """Why its file cannot be used; empty for one that can."""

    @property
    def name(self) -> str:
        """Its name; unique among those of its guest."""
        return self.metadata.name


@dataclass(frozen=True, slots=True)
class PackRow:
    """A pack, and how much of it snapshots refer to. `bytes` are those of its pages."""

    uid: str
    pages: int
    bytes: int
    live_pages: int
    live_bytes: int


def references(manifest: Manifest) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The pages that a snapshot refers to: by pack, their numbers in it, each one once."""
    places = np.unique(manifest.places)
    packs = places >> PLACE_BITS
    for number in np.unique(packs).tolist():
        yield manifest.packs[number], (places[packs == number] & 0xFFFF).astype(np.int64)


class Index:
    """The index in the database `path`. One thread at a time; changes are made inside `change`.

    All calls raise sqlite3.Error.
    """

    def __init__(self, path: Path, files: HostFiles, read_only: bool = False) -> None:
        self._path = path
        self._files = files
        self._db = self._open_read_only() if read_only else self._open()

    def _open_read_only(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _open(self) -> sqlite3.Connection:
        """The database, a new one in place of one that is damaged or of another version."""
        try:
            db = self._files.connect(self._path)
            if _is_usable(db):
                return db
            db.close()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.OperationalError):  # the disk, not the content
                raise
        return self._make()

    def _make(self) -> sqlite3.Connection:
        """A new database, of nothing, in the place of the one that is there."""
        for suffix in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + suffix)
            if path.exists():
                self._files.unlink(path)
        db = self._files.connect(self._path)
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";")[:-1]:
            db.execute(statement)
        db.execute("INSERT INTO state VALUES (0)")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        self._files.commit(db)
        return db

    def reset(self) -> None:
        """Make a new one, of nothing."""
        self._db.close()
        self._db = self._make()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: all changes in it, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._files.commit(self._db)
        except BaseException:
            self._db.rollback()
            raise

    @property
    def clean(self) -> bool:
        """It knew all of the files when it was last written."""
        with _damage():
            return bool(self._db.execute("SELECT clean FROM state").fetchone()[0])

    def set_clean(self, clean: bool) -> None:
        """Note whether it knows all of the files."""
        self._db.execute("UPDATE state SET clean = ?", (clean,))

    def clear(self) -> None:
        """Forget everything."""
        for table in ("guests", "packs", "snapshots"):
            self._db.execute(f"DELETE FROM {table}")

    # ---- guests ----

    def guests(self) -> list[str]:
        """All names, sorted."""
        with _damage():
            return [name for (name,) in self._db.execute("SELECT name FROM guests ORDER BY name")]

    def add_guest(self, name: str) -> None:
        """Add a guest, or leave it as it is."""
        self._db.execute("INSERT OR IGNORE INTO guests VALUES (?)", (name,))

    def rename_guest(self, old: str, new: str) -> None:
        """A guest and its snapshots have another name."""
        self._db.execute("UPDATE guests SET name = ? WHERE name = ?", (new, old))
        self._db.execute("UPDATE snapshots SET guest = ? WHERE guest = ?", (new, old))

    def remove_guest(self, name: str) -> None:
        """Forget a guest."""
        self._db.execute("DELETE FROM guests WHERE name = ?", (name,))

    # ---- snapshots ----

    def snapshots(self, guest: str | None = None, name: str | None = None) -> list[SnapshotInfo]:
        """Those of `guest`, or all; in the order in which they were made."""
        with _damage():
            rows = self._db.execute(
                "SELECT guest, metadata, pages, file_bytes, digest, damage FROM snapshots "
                "WHERE guest = ifnull(?, guest) AND name = ifnull(?, name)",
                (guest, name),
            )
            found = [SnapshotInfo(row[0], Metadata.from_plain(json.loads(row[1])), *row[2:]) for row in rows]
            return sorted(found, key=lambda info: (info.metadata.created, info.guest, info.name))

    def add_snapshot(self, info: SnapshotInfo) -> None:
        """Add a snapshot. The pages that it refers to are counted by `refer`."""
        self._db.execute(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                info.guest,
                info.name,
                json.dumps(info.metadata.as_plain()),
                info.pages,
                info.file_bytes,
                info.digest,
                info.damage,
            ),
        )

    def remove_snapshot(self, guest: str, name: str) -> None:
        """Forget a snapshot."""
        self._db.execute("DELETE FROM snapshots WHERE guest = ? AND name = ?", (guest, name))

    # ---- packs ----

    def packs(self) -> list[PackRow]:
        """All packs, by name."""
        columns = "uid, pages, bytes, live_pages, live_bytes"
        with _damage():
            return [PackRow(*row) for row in self._db.execute(f"SELECT {columns} FROM packs ORDER BY uid")]

    def counts(self, pack: Pack) -> Counts:
        """How many snapshots refer to each page of `pack`."""
        with _damage():
            row = self._db.execute("SELECT counts FROM packs WHERE uid = ?", (pack.uid,)).fetchone()
            if row is None:
                return np.zeros(pack.count, np.uint32)
            data = zstandard.ZstdDecompressor().decompress(row[0], max_output_size=4 * MAX_PAGES)
            counts = np.frombuffer(data, np.uint32).copy()
            if len(counts) != pack.count:
                raise ValueError(f"{len(counts)} counts for {pack.count} pages")
            return counts

    def set_counts(self, pack: Pack, counts: Counts) -> None:
        """Note how many snapshots refer to each page of `pack`, which need not be known yet."""
        live = counts > 0
        self._db.execute(
            "INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?)",
            (
                pack.uid,
                int((pack.lengths > 0).sum()),
                int(pack.lengths.sum()),
                int(live.sum()),
                int(pack.lengths[live].sum()),
                zstandard.ZstdCompressor(level=1).compress(counts.tobytes()),
            ),
        )

    def refer(self, pack: Pack, pages: NDArray[np.int64], by: int) -> int:
        """One snapshot more (`by` 1) or less (-1) refers to these pages; returns the bytes of those that no snapshot
        refers to now."""
        counts = self.counts(pack)
        changed = counts[pages].astype(np.int64) + by
        counts[pages] = np.maximum(changed, 0)
        self.set_counts(pack, counts)
        return int(pack.lengths[pages[changed <= 0]].sum())

    def remove_pack(self, uid: str) -> None:
        """Forget a pack."""
        self._db.execute("DELETE FROM packs WHERE uid = ?", (uid,))

    def dump(self) -> list[tuple[object, ...]]:
        """All that it knows but `clean`, to compare it with another one."""
        rows: list[tuple[object, ...]] = []
        with _damage():
            for select in (
                "SELECT * FROM guests ORDER BY name",
                "SELECT * FROM packs WHERE live_pages ORDER BY uid",  # with others it need not be up to date
                "SELECT * FROM snapshots ORDER BY guest, name",
            ):
                rows += self._db.execute(select).fetchall()
        return rows


def _is_usable(db: sqlite3.Connection) -> bool:
    """Whether it is whole as far as is seen at once, and of this version."""
    if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
        return False
    return db.execute("SELECT clean FROM state").fetchone() is not None


@contextmanager
def _damage() -> Iterator[None]:
    """A value that is not what it was is damage that SQLite does not see; it shows what it sees in its own messages."""
    try:
        yield
    except (ValueError, TypeError, zstandard.ZstdError) as error:
        raise sqlite3.DatabaseError(f"it is damaged: {error}") from None
