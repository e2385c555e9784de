"""Every change that the store makes to the file system goes through here, so that tests can stop at each one."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emuvisor.errors import HostError

__all__ = ["TEMPORARY", "HostFiles", "host_errors"]

TEMPORARY = ".new"
"""Suffix of a file that is not whole yet; after a crash it is deleted."""


class HostFiles:
    """The file system of this machine. All calls raise OSError, those about SQLite sqlite3.Error.

    A file's content is safe after `sync`; that there is a file of its name, or none any more, after `sync_folder`.
    """

    def append(self, path: Path, data: bytes) -> None:
        """Write `data` behind the end of a file, which is made, with mode 600, when there is none."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)

    def sync(self, path: Path) -> None:
        """Return when the content of a file is on the disk."""
        _fsync(path)

    def sync_folder(self, path: Path) -> None:
        """Return when the names in a folder are on the disk."""
        _fsync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder another name, in one step; a file that had it is gone."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder, with mode 700."""
        path.mkdir(mode=0o700)

    def remove_folder(self, path: Path) -> None:
        """Delete an empty folder."""
        path.rmdir()

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a database for writing, for several threads that take turns; transactions are begun by hand."""
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def commit(self, connection: sqlite3.Connection) -> None:
        """End a transaction; it is on the disk then."""
        connection.execute("COMMIT")

    # ---- made of those above ----

    def replace(self, path: Path, data: bytes) -> None:
        """Put a file with `data` at `path`, in one step that is on the disk when this returns."""
        new = path.with_name(path.name + TEMPORARY)
        if new.exists():  # of an attempt that failed
            self.unlink(new)
        self.append(new, data)
        self.sync(new)
        self.rename(new, path)
        self.sync_folder(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Delete a folder and what is in it; a link in it is deleted, not followed."""
        for entry in sorted(path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                self.remove_tree(entry)
            else:
                self.unlink(entry)
        self.remove_folder(path)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def host_errors(what: object) -> Iterator[None]:
    """What the host says inside becomes a HostError about `what`."""
    try:
        yield
    except OSError as error:
        raise HostError(f"{what}: {error.strerror}: {error.filename or what}") from error
    except sqlite3.Error as error:
        raise HostError(f"{what}: its index: {error}") from error
