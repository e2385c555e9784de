"""Guests with names, from creation to deletion: docs/guests.md.

`Manager` is loaded when it is first used: whoever talks to a daemon's needs only the records.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emuvisor.manager.attachment import ConsoleAttachment
from emuvisor.manager.records import (
    DiskMoveRecord,
    EventRecord,
    Freed,
    GuestInfo,
    LogPart,
    MigrationStatus,
    SnapshotRecord,
    StoreFreed,
    StoreProblem,
)

if TYPE_CHECKING:
    from emuvisor.manager.manager import Manager

__all__ = [
    "ConsoleAttachment",
    "DiskMoveRecord",
    "EventRecord",
    "Freed",
    "GuestInfo",
    "LogPart",
    "Manager",
    "MigrationStatus",
    "SnapshotRecord",
    "StoreFreed",
    "StoreProblem",
]


def __getattr__(name: str) -> Any:
    if name != "Manager":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.manager").Manager
