"""What a plan consists of. Each instruction says what to do, what it gains, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Allow", "Balloon", "Instruction", "Pause", "Resume", "ScanSharing", "SendAway"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One step of a plan, asked for by `rung`."""

    rung: str
    guest: str
    """Empty when it concerns all guests."""
    frames: int = 0
    """Frames that the host gains, as far as is known; negative when the guest gets them."""
    why: str
    """A short sentence for people."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSharing(Instruction):
    """Look at `pages` more pages, of all guests in turn, for zeros and for contents that are there already."""

    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Balloon(Instruction):
    """Let the guest's balloon hold `target` pages; when that is its target already, go on waiting for it."""

    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendAway(Instruction):
    """Put `pages` of the guest's pages, the longest untouched first, into the store `store`. For no guest: as many
    frames that several guests share."""

    store: str
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Instruction):
    """Stop the guest until a `Resume`; `why` is the reason that people see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Instruction):
    """Let a guest go on that was paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow(Instruction):
    """Until the next plan the guest takes at most `may_take` more frames; None: as many as it wants.

    At the bound it starves as on an empty pool. This is what keeps limits and reservations between two plans.
    """

    may_take: int | None
