"""What a guest used, as plain numbers."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["GuestStatistics"]


@dataclass(frozen=True, slots=True)
class GuestStatistics:
    """One guest's numbers at one moment."""

    name: str
    state: str
    reason: str
    retired: int
    """Bytes of guest code executed."""
    guest_ns: int
    """Time on the guest's own clock."""
    cpu_ns: int
    """Host time on a pCPU."""
    waited_ns: int
    """Host time in which it wanted a pCPU and others had them."""
    throttled_ns: int
    """Host time in which it wanted a pCPU, and its cap or limit forbade it."""
    stolen_ns: int
    """Host time in which it wanted a pCPU and had none, for whatever reason."""
    slices: int
    frames: dict[str, int]
    """Guest frames by state."""
    exits: dict[str, int]
    """VM exits and other events by kind."""
    disks: list[dict[str, Any]]
    """What each hard disk did, and how long it took: `latency` has summaries of histograms."""
    nics: list[dict[str, Any]]
    """What passed each network card, what was dropped, by reason, and how long it took."""
    console_bytes: int
    last_line: str

    @property
    def resident(self) -> int:
        """Host frames that back the guest, its own and shared ones."""
        return self.frames["resident"] + self.frames["shared"] + self.frames["rom"]

    @property
    def exit_count(self) -> int:
        """VM exits to Python: ports, MMIO, CPUID and halts."""
        kinds = ("port_read", "port_write", "mmio_read", "mmio_write", "cpuid", "halt")
        return sum(self.exits[kind] for kind in kinds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
