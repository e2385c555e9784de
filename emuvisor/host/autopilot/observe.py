"""A host as the autopilot sees it: counters to look at, and guests with knobs."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from emuvisor.devices.limits import Limits, Rate
from emuvisor.host.autopilot.moves import Knob, Tunable
from emuvisor.host.autopilot.view import GuestCounters, HostCounters, MemoryState, RateCounter
from emuvisor.host.states import GuestState
from emuvisor.machine.config import USER_NETWORK

if TYPE_CHECKING:
    from emuvisor.host.guest import Guest
    from emuvisor.host.host import Host

__all__ = ["Controls", "HostControls"]

DONE: Mapping[str, tuple[str, ...]] = {
    "read_bytes": ("read_bytes",),
    "write_bytes": ("written_bytes",),
    "total_bytes": ("read_bytes", "written_bytes"),
    "read_iops": ("reads",),
    "write_iops": ("writes",),
    "total_iops": ("reads", "writes"),
    "in_bytes": ("received_bytes",),
    "out_bytes": ("sent_bytes",),
    "in_packets": ("received_frames",),
    "out_packets": ("sent_frames",),
}
"""For each limit, the statistics that count what is done under it."""


class Controls(Protocol):
    """What the autopilot needs of a host."""

    def look(self) -> HostCounters:
        """What it and its guests have done until now."""
        ...

    def tunable(self, name: str) -> Tunable | None:
        """The guest of that name; None when it is gone."""
        ...

    def warn(self, text: str) -> None:
        """Tell people what they should see to."""
        ...

    def watch(self) -> None:
        """Keep estimating working sets, until `unwatch`."""
        ...

    def unwatch(self) -> None:
        """Nobody needs them any more."""
        ...


class HostControls:
    """Those of a real one. Guests that do not run are left out."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    def look(self) -> HostCounters:
        """All that is there now."""
        guests = []
        for guest in self._host.all_guests():
            with self._host.lock:  # for each anew: pCPUs are not to wait for all of it
                if guest.state is GuestState.RUNNING:
                    guests.append(_counters(guest))
        return HostCounters(time.perf_counter_ns(), self._host.pcpus, tuple(guests))

    def tunable(self, name: str) -> "Guest | None":
        """The guest itself."""
        return self._host.guests.get(name)

    def warn(self, text: str) -> None:
        """To the listeners of `Host.warnings`."""
        self._host.warn(text)

    def watch(self) -> None:
        """The memory manager samples."""
        self._host.memory.watch()

    def unwatch(self) -> None:
        """It need not for us."""
        self._host.memory.unwatch()


def _counters(guest: "Guest") -> GuestCounters:
    statistics, memory = guest.statistics(), guest.memory_statistics()
    return GuestCounters(
        name=guest.name,
        used_ns=statistics.cpu_ns,
        ready_ns=statistics.waited_ns,
        throttled_ns=statistics.throttled_ns,
        fault_ns=GuestCounters.fault_cost_ns(memory.decompressed, memory.swapped_in),
        cpu=guest.cpu_claim,
        memory=MemoryState(
            size=memory.configured,
            reservation=memory.reservation,
            limit=memory.limit,
            shares=memory.shares,
            resident=memory.resident,
            out=memory.compressed + memory.swapped,
            active=memory.active,
        ),
        rates=tuple(_rates(guest, statistics.disks, statistics.nics)),
        deterministic=guest.deterministic,
    )


def _rates(guest: "Guest", disks: list[dict[str, Any]], nics: list[dict[str, Any]]) -> Iterator[RateCounter]:
    """Those limits that are set."""
    hard_disks = [
        (number, drive)
        for number, drive in enumerate(guest.machine.drives)
        if drive.kind == "disk" and drive.image is not None
    ]
    for (number, drive), numbers in zip(hard_disks, disks, strict=True):
        assert drive.image is not None
        pool = f"file system {drive.image.host_path.stat().st_dev}"
        yield from _of_device(Knob.DISK_LIMIT, number, pool, drive.meter.throttle.limits, numbers)
    cards = [] if guest.machine.virtio is None else guest.machine.virtio.nics
    for number, (card, config, numbers) in enumerate(zip(cards, guest.config.nics, nics, strict=True)):
        own = config.network == USER_NETWORK  # each card has a network of its own
        pool = f"network of {guest.name} {number}" if own else f"network {config.network}"
        yield from _of_device(Knob.NIC_LIMIT, number, pool, card.meter.throttle.limits, numbers)


def _of_device(
    knob: Knob, number: int, pool: str, limits: Limits, numbers: Mapping[str, Any]
) -> Iterator[RateCounter]:
    waited_ns = numbers["latency"]["throttled"]["total_ns"]
    for name, keys in DONE.items():
        rate: Rate | None = getattr(limits, name, None)
        if rate is not None:
            waited = 0 if name.startswith("in_") else waited_ns  # what comes in does not wait: it is dropped
            yield RateCounter(knob, number, name, pool, rate, sum(numbers[key] for key in keys), waited)
