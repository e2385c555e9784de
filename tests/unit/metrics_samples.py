"""Hand-written samples of a host for the tests of metrics and dashboard."""

from dataclasses import MISSING, fields
from typing import Any

from memory_samples import guest as guest_memory
from memory_samples import host as host_memory

from emuvisor.host.statistics import GuestStatistics
from emuvisor.metrics import GuestSample, HostSample

EXITS = dict.fromkeys(
    (
        *("port_read", "port_write", "mmio_read", "mmio_write", "cpuid", "rdtsc", "halt", "exception"),
        *("page_fault", "soft_interrupt", "interrupt", "syscall", "tlb_fill", "tlb_flush", "stale", "switch"),
    ),
    0,
)
DISK = {
    "reads": 0,
    "writes": 0,
    "flushes": 0,
    "discards": 0,
    "read_bytes": 0,
    "written_bytes": 0,
    "errors": 0,
}
NIC = {
    "sent_frames": 0,
    "sent_bytes": 0,
    "received_frames": 0,
    "received_bytes": 0,
    "sent_dropped": {},
    "received_dropped": {},
    "card_dropped": {},
}
_EMPTY = {"str": "", "int": 0, "dict": {}, "list": [], "tuple": (), "float": 0.0}


def statistics(name: str = "web", **changes: Any) -> GuestStatistics:
    """A guest that has done nothing, but for `changes`; fields that are not known here are empty."""
    values: dict[str, Any] = {"name": name, "state": "running", "exits": EXITS | changes.pop("exits", {})}
    for field in fields(GuestStatistics):
        if field.default is MISSING and field.default_factory is MISSING:
            values.setdefault(
                field.name, _EMPTY[str(getattr(field.type, "__name__", field.type)).split("[")[0]]
            )
    return GuestStatistics(**values | changes)


def guest(
    name: str = "web",
    *,
    weight: int = 100,
    cap: float | None = None,
    memory: dict[str, Any] | None = None,
    **changes: Any,
) -> GuestSample:
    """A guest with these `statistics` and this memory."""
    return GuestSample(statistics(name, **changes), guest_memory(name, **memory or {}), weight, cap)


def host(*guests: GuestSample, seconds: float = 0, pcpus: int = 2, **memory: Any) -> HostSample:
    """A host with `guests`, `seconds` after it was made, which was at midnight of the first day of 2026 (UTC)."""
    return HostSample(
        1767225600 + seconds, round((1000 + seconds) * 1e9), pcpus, host_memory(**memory), guests
    )
