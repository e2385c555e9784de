"""A file system that stops at a chosen operation and loses what was not made safe, for tests."""

import errno
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from emuvisor.store.files import HostFiles


class Crash(BaseException):
    """The power is gone."""


class CrashingFiles(HostFiles):
    """Stops before its operation number `stop`; from then on nothing works.

    `crash` makes of the folder what a disk may have after it. In all variants what was synced is there. "kept": the
    rest too, as after a killed process; "lost": nothing of the rest, neither content nor names; "torn": all names, and
    of content the first half, with zeros behind it.
    """

    def __init__(self, stop=None, variant="kept", backup: Path | None = None):
        self.stop = stop
        self.variant = variant
        self.refuse = None
        """Number of the operation that the host refuses, once."""
        self.count = 0
        self._backup = backup
        self._safe: dict[Path, int] = {}
        """How much of a file is on the disk, where that is not all."""
        self._names: list[tuple[set[Path], object]] = []
        """Changes of names: the folders that have to be synced, and how it is undone."""

    def _step(self):
        if self.refuse == self.count:
            self.refuse = None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.stop is not None and self.count >= self.stop:
            self.count = self.stop + 1
            raise Crash
        self.count += 1

    def _keep(self, path):
        """A link to a file that is about to lose its name."""
        kept = self._backup / uuid4().hex
        os.link(path, kept)
        return kept

    def _will_undo(self, undo, *folders):
        self._names.append((set(folders), undo))

    # ---- operations ----

    def append(self, path, data):
        if self.stop is not None and self.count == self.stop and self.variant == "torn":
            self._append(path, data[: len(data) // 2])
        self._step()
        self._append(path, data)

    def _append(self, path, data):
        if not path.exists():
            self._will_undo(path.unlink, path.parent)
            self._safe[path] = 0
        self._safe.setdefault(path, path.stat().st_size if path.exists() else 0)
        super().append(path, data)

    def sync(self, path):
        self._step()
        self._safe.pop(path, None)

    def sync_folder(self, path):
        self._step()
        for folders, _ in self._names:
            folders.discard(path)
        self._names = [(folders, undo) for folders, undo in self._names if folders]

    def rename(self, old, new):
        self._step()
        kept = self._keep(new) if new.is_file() else None
        super().rename(old, new)
        if old in self._safe:
            self._safe[new] = self._safe.pop(old)

        def undo():
            new.rename(old)
            if kept is not None:
                os.link(kept, new)
            if new in self._safe:
                self._safe[old] = self._safe.pop(new)

        self._will_undo(undo, old.parent, new.parent)

    def unlink(self, path):
        self._step()
        kept = self._keep(path)
        super().unlink(path)
        self._will_undo(lambda: os.link(kept, path), path.parent)

    def make_folder(self, path):
        self._step()
        super().make_folder(path)
        self._will_undo(lambda: shutil.rmtree(path), path.parent)

    def remove_folder(self, path):
        self._step()
        super().remove_folder(path)
        self._will_undo(path.mkdir, path.parent)

    def connect(self, path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(
            "PRAGMA synchronous = OFF"
        )  # only this process stops, so SQLite need not wait for the disk
        connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def commit(self, connection):
        self._step()
        super().commit(connection)

    # ---- afterwards ----

    def crash(self):
        """Make the folder what the disk has when the machine is on again."""
        if self.variant == "lost":
            for _, undo in reversed(self._names):
                with suppress(FileNotFoundError, FileExistsError):  # a database was made anew by SQLite
                    undo()
        if self.variant != "kept":
            for path, safe in self._safe.items():
                if path.exists():
                    size = path.stat().st_size
                    os.truncate(path, safe if self.variant == "lost" else safe + (size - safe) // 2)
                    if self.variant == "torn":
                        os.truncate(path, size)
