"""What the manager says of guests: plain data, which `dataclasses.asdict` makes fit for JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "DiskMoveRecord",
    "EventRecord",
    "Freed",
    "GuestInfo",
    "LogPart",
    "MigrationStatus",
    "SnapshotRecord",
    "StoreFreed",
    "StoreProblem",
]


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """A guest in one line. `memory` is in bytes, `since` (when it entered `state`) in seconds since 1970."""

    name: str
    state: str
    reason: str
    board: str
    memory: int
    vcpus: int
    clock: str
    autostart: bool
    snapshots: int
    """How many it has."""
    since: float


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot. `parent` is the nearest one of the same guest that there still is."""

    guest: str
    name: str
    parent: str | None
    created: float
    """In seconds since 1970."""
    comment: str
    pages: int
    """Pages of memory in it that are not zeros."""
    bytes: int
    """What it would take alone: pages that it shares with others are counted for each one."""
    disks: tuple[str, ...] = ()
    """Files of the store that its disks consist of."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What a deletion gave back: frames of the host's memory, and bytes of the store (`gc` frees those of pages)."""

    frames: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something happened to `guest`. `number` grows with each event of the store; `time` is in seconds since 1970.

    `kind` is the state that was entered ("running", "paused", "saved", "crashed", "defined"; `details` has `old` and
    `reason`), or a verb: "created", "changed", "renamed", "snapshot", "snapshot-deleted", "restored", "cloned",
    "exported", "imported", "migrated", "disk-moved", "removed".
    """

    number: int
    time: float
    guest: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogPart:
    """A part of a console's log: `data` ends at byte `position` of all that the log has had."""

    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """How far a migration is. `phase` is a word of `emuvisor.migration.Phase`: "copying", "switching", "in doubt",
    "following", "moved", "stayed", "lost". Of `total` pages `sent` need not be sent again."""

    guest: str
    to: str
    phase: str
    round: int = 0
    total: int = 0
    sent: int = 0
    remaining: int = 0
    bytes_sent: int = 0
    bytes_per_s: float = 0.0
    downtime_ms: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class DiskMoveRecord:
    """Disk number `disk` of `guest` is the file `path` now. `copied` bytes were written to it in `passes`, those that
    the guest changed meanwhile more than once; at the end the guest stood for `stop_ms`."""

    guest: str
    disk: int
    path: str
    format: str
    copied: int
    passes: int
    stop_ms: float


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Something is wrong with `subject`, a part of the store; `repaired` when it no longer is."""

    subject: str
    text: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class StoreFreed:
    """What was freed in the store."""

    packs_deleted: int
    packs_rewritten: int
    bytes_freed: int
