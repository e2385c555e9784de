"""Where a host keeps what outlives its process: guests' definitions, disks, snapshots, events; docs/store.md.

store.py     Store, the folder as a whole: guests, snapshots, disks, events
location.py  where it is; names.py: what guests and snapshots may be called; format.py: its version
files.py     every change of the file system, so that tests can stop at each one
plain.py     plain data with bytes as JSON
manifest.py  the file of a snapshot
pack.py      a file of pages; packs.py: all of them, hashes.py: which page is where
draft.py     a snapshot that is being written
snapshot.py  a snapshot that is open; lazy.py: its pages as a `PageStore`, for stage-2 faults
index.py     what SQLite knows; it can be made anew from the files: rebuild.py
collect.py   what no snapshot refers to is deleted
check.py     is everything readable, and what is not
events.py    what happened to guests

The names below are loaded when they are first used: a daemon's client needs `files` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emuvisor.store.lazy import LazyPages
    from emuvisor.store.location import default_folder
    from emuvisor.store.snapshot import Snapshot
    from emuvisor.store.store import Store

__all__ = ["LazyPages", "Snapshot", "Store", "default_folder"]

_MODULES = {"LazyPages": "lazy", "Snapshot": "snapshot", "Store": "store", "default_folder": "location"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
