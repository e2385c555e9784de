"""Guests with names, from creation to deletion: docs/guests.md."""

from emuvisor.manager.attachment import ConsoleAttachment
from emuvisor.manager.manager import Manager
from emuvisor.manager.records import (
    EventRecord,
    Freed,
    GuestInfo,
    LogPart,
    MigrationStatus,
    SnapshotRecord,
)

__all__ = [
    "ConsoleAttachment",
    "EventRecord",
    "Freed",
    "GuestInfo",
    "LogPart",
    "Manager",
    "MigrationStatus",
    "SnapshotRecord",
]
