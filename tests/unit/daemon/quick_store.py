"""A store on a disk that is never lost."""

import sqlite3
from pathlib import Path

from emuvisor.store import Store
from emuvisor.store.files import HostFiles


class QuickFiles(HostFiles):
    """Does not wait for the disk: no test here pulls the plug."""

    def sync(self, path: Path) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass

    def connect(self, path: Path) -> sqlite3.Connection:
        connection = super().connect(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection


def quick_store(folder: Path) -> Store:
    """The store in `folder`."""
    return Store(folder, files=QuickFiles())
