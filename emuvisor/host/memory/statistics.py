"""Where guests' memory is, as plain numbers for people and JSON: bytes, unless they say otherwise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["GuestMemoryStatistics", "HostMemoryStatistics"]


@dataclass(frozen=True, slots=True)
class GuestMemoryStatistics:
    """One guest's memory at one moment."""

    name: str
    configured: int
    """What the guest sees as its RAM."""
    reservation: int
    limit: int | None
    shares: int
    priority: int
    active: int | None
    """Its working set, estimated; None while nobody samples."""
    resident: int
    """Frames of its own, ROM and devices' memory included."""
    shared: int
    """Pages whose frames others have too."""
    zero: int
    """Pages of zeros that were found; they cost nothing."""
    ballooned: int
    balloon_target: int
    compressed: int
    swapped: int
    in_flight: int
    """Pages that are being sent away or shared at this moment."""
    decompressed: int
    swapped_in: int
    """What came back because the guest touched it, since the guest was made."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HostMemoryStatistics:
    """The host's memory at one moment."""

    state: str
    """"high", "soft", "hard" or "low"."""
    pool: int
    free: int
    configured: int
    """The sizes of all guests that are switched on."""
    reserved: int
    """Their reservations."""
    overcommit: float
    """`configured` as a multiple of the pool."""
    savings: Mapping[str, int]
    """What the guests hold beyond the pool's frames, by the rung that made it possible: "sharing", "zero", "balloon",
    "compression" (what compressed pages still take is subtracted), "swap"."""
    compression_used: int
    """Host memory that compressed pages take, beside the pool."""
    swap_used: int
    checkpoints: int
    """Frames that only checkpoints of guests have."""
    starving: int
    """Guests that wait for a frame."""
    scanned: int
    """What was looked at for sharing since the host was made, as often as it was."""
    scan_s: float
    """CPU time in seconds that this took, with comparing and sharing."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
