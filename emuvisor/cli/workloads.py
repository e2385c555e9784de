"""The guests of `emuvisor demo`, and running them together."""

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emuvisor.cli.scheduler_options import DEFAULT_SCHEDULER, recorded_schedule
from emuvisor.errors import StateError
from emuvisor.firmware import boot_disk
from emuvisor.host import Guest, GuestStatistics, Host
from emuvisor.machine.choices import ClockMode
from emuvisor.machine.config import DiskConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

__all__ = [
    "DEMO",
    "LASTING",
    "GuestResult",
    "Show",
    "Summary",
    "Workload",
    "guest_config",
    "run_workloads",
]

TIMEOUT_S = 60
POOL = 256 * MIB
REFRESH_S = 0.1
PARAMETER_SIZE = 8


@dataclass(frozen=True, slots=True)
class Workload:
    """A guest program of ours with its parameter block; `does` says in two words what it is about."""

    program: str
    does: str
    parameters: tuple[int, ...]
    memory: int = 64 * MIB
    clock: ClockMode = "virtual"

    def parameter_block(self) -> bytes:
        """The parameters as the program reads them: 64-bit numbers."""
        return b"".join(value.to_bytes(PARAMETER_SIZE, "little") for value in self.parameters)


DEMO = (
    # Parameters: iterations a line, lines
    Workload("spin", "computes", (10_000_000, 15)),
    # start (0: the default), length, stride, passes
    Workload("memtouch", "fills memory", (0, 96 * MIB, 64, 4), memory=128 * MIB),
    # turns of each loop
    Workload("vmexit", "exits", (1_000,)),
    # seconds
    Workload("halt", "sleeps", (3,), clock="host"),
)


LASTING = (
    Workload("spin", "computes", (10_000_000, 1_000_000)),
    Workload("memtouch", "fills memory", (0, 96 * MIB, 64, 1_000_000), memory=128 * MIB),
    Workload("vmexit", "exits", (10_000_000,)),
    Workload("halt", "sleeps", (1_000_000,), clock="host"),
)
"""The same, for people who look on until they have seen enough."""


@dataclass(frozen=True, slots=True)
class GuestResult:
    """How one guest ended: `ending` is how, empty when it was still running at the time limit."""

    workload: Workload
    ending: str
    well: bool
    seconds: float
    statistics: GuestStatistics


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of all of them, in `seconds` of wall time on `pcpus` pCPUs."""

    guests: tuple[GuestResult, ...]
    seconds: float
    pcpus: int

    @property
    def all_well(self) -> bool:
        """Every guest switched itself off."""
        return all(guest.well for guest in self.guests)

    @property
    def switches(self) -> int:
        """How often a pCPU went from one guest to another."""
        return sum(guest.statistics.exits["switch"] for guest in self.guests)


class Show(Protocol):
    """Shows a run while it goes on."""

    def begin(self, guests: Sequence[tuple[Workload, Guest]]) -> None:
        """The guests are about to start."""

    def refresh(self) -> None:
        """A moment has passed."""

    def end(self) -> None:
        """The run is over, or was interrupted."""


def run_workloads(
    workloads: Sequence[Workload],
    pcpus: int = 1,
    show: Show | None = None,
    *,
    scheduler: str = DEFAULT_SCHEDULER,
    record: Path | None = None,
) -> Summary:
    """Boot `workloads` in one host, each from a disk through the BIOS, and wait until all have ended.

    A guest that takes longer than a minute is given up. The schedule is recorded in the file `record`. Raises
    UsageError and HostError as Host does.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Host(POOL, pcpus, scheduler=scheduler) as host,
        recorded_schedule(host, record),
    ):
        guests = [(workload, host.create(guest_config(workload, Path(folder)))) for workload in workloads]
        start = time.monotonic()
        ends: dict[str, float] = {}
        news = threading.Event()
        host.listeners.append(lambda _event: news.set())
        if show is not None:
            show.begin(guests)
        try:
            for _, guest in guests:
                guest.start()
            while len(ends) < len(guests) and time.monotonic() - start < TIMEOUT_S:
                news.wait(REFRESH_S)
                news.clear()
                for _, guest in guests:
                    if guest.outcome is not None:
                        ends.setdefault(guest.name, time.monotonic() - start)
                if show is not None:
                    show.refresh()
        finally:
            if show is not None:
                show.end()
        seconds = time.monotonic() - start
        for _, guest in guests:
            with suppress(StateError):  # not running: it has ended
                guest.pause()
        results = tuple(_result(workload, guest, ends.get(guest.name, seconds)) for workload, guest in guests)
        return Summary(results, seconds, pcpus)


def guest_config(workload: Workload, folder: Path, timeout_s: float | None = None) -> GuestConfig:
    """A guest that boots `workload` through the BIOS, from a disk in `folder`."""
    disk = folder / f"{workload.program}.img"
    disk.write_bytes(boot_disk(workload.program, workload.parameter_block()))
    return GuestConfig(
        name=workload.program,
        memory=workload.memory,
        clock=workload.clock,
        disks=(DiskConfig(disk),),
        timeout_s=timeout_s,
    )


def _result(workload: Workload, guest: Guest, seconds: float) -> GuestResult:
    outcome = guest.outcome
    well = outcome is not None and outcome.ending is Ending.POWER_OFF
    return GuestResult(workload, "" if outcome is None else str(outcome), well, seconds, guest.statistics())
