"""What a migration is asked to do, and what it says of itself while it does it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, Self, get_args

from emuvisor.errors import UsageError

__all__ = ["Compression", "DiskMode", "Mode", "Options", "Phase", "Progress", "Round"]

Mode = Literal["pre-copy", "post-copy", "hybrid"]
DiskMode = Literal["shared", "copy"]
Compression = Literal["none", "lz4", "zstd"]

MAX_ROUNDS = 1000
MAX_DOWNTIME_MS = 60_000


@dataclass(frozen=True, slots=True)
class Options:
    """How a guest is to be moved. Raises UsageError for impossible values."""

    mode: Mode = "pre-copy"
    """"pre-copy": all pages go while the guest runs here, again and again those that it wrote meanwhile, and it changes
    over when little is left. "post-copy": it changes over at once and its pages follow. "hybrid": one round of
    pre-copy, then post-copy."""
    downtime_ms: int = 300
    """How long it may stand still, as far as can be foreseen."""
    bandwidth: int | None = None
    """Bytes per second that pages may take of the line; None is no limit."""
    compression: Compression = "none"
    throttle: bool = True
    """Slow a guest down that writes faster than pages can be sent."""
    max_rounds: int = 30
    """After so many it changes over, however much is left."""
    disks: DiskMode = "shared"
    """"shared": both hosts reach the same files under the same paths. "copy": the content goes over the line, into
    files with these paths at the target, where no such files may be."""

    def __post_init__(self) -> None:
        for name, choices in (("mode", Mode), ("compression", Compression), ("disks", DiskMode)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise UsageError(f"migration: {name} {getattr(self, name)!r} is none of {known}")
        for name, least, most in (
            ("downtime_ms", 1, MAX_DOWNTIME_MS),
            ("max_rounds", 1, MAX_ROUNDS),
            ("bandwidth", 1 << 16, 1 << 50),
        ):
            value = getattr(self, name)
            if name == "bandwidth" and value is None:
                continue
            if type(value) is not int or not least <= value <= most:
                raise UsageError(f"migration: {name} is {value!r}; {least} to {most} are allowed")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Those of `values`. Raises UsageError for an unknown name."""
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError(f"migration: there is no option {name!r}; there are: {', '.join(known)}")
        return cls(**values)


class Phase(StrEnum):
    """Where a migration is."""

    COPYING = "copying"
    """The guest runs at the source."""
    SWITCHING = "switching"
    """It stands still, and the sides agree who goes on."""
    IN_DOUBT = "in doubt"
    """As SWITCHING, and the other side does not answer."""
    FOLLOWING = "following"
    """It runs at the target, and pages follow (post-copy)."""
    MOVED = "moved"
    """It is at the target."""
    STAYED = "stayed"
    """It goes on at the source."""
    LOST = "lost"
    """A side died while pages followed: parts of the guest were on either."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of copying."""

    pages: int
    """That were to be sent."""
    sent: int
    """That had to be: the others were zeros, or on the other side already."""
    bytes: int
    """That went over the line."""
    ns: int
    """How long it took."""
    left: int
    """Pages that the guest wrote meanwhile."""
    disk_left: int = 0
    """Bytes of disks that it wrote meanwhile."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A migration at one moment."""

    guest: str
    phase: Phase
    pages: int = 0
    """Of the guest, those that were never touched included."""
    rounds: tuple[Round, ...] = ()
    left: int = 0
    """Pages that are still to be sent."""
    bytes_sent: int = 0
    zero_pages: int = 0
    copied_pages: int = 0
    """That the target had under another number."""
    unchanged_pages: int = 0
    """That were written, but with what the target had."""
    resent_pages: int = 0
    """That were sent more than once."""
    demanded_pages: int = 0
    """That the guest wanted before their turn (post-copy)."""
    throttle: int = 0
    """Per cent of its pCPUs that were taken from the guest."""
    downtime_ns: int | None = None
    """From the guest's last instruction here until the target said that it runs there."""
    reason: str = ""
    """Why it stayed or waits."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON can have it."""
        return asdict(self)


@dataclass(slots=True)
class Counts:
    """What `Progress` has of pages; counted on the way."""

    zero: int = 0
    copied: int = 0
    unchanged: int = 0
    resent: int = 0
    sent: int = 0
    demanded: int = 0
    rounds: list[Round] = field(default_factory=list)
