"""`emuvisor demo --cpu`: guests that all want the processor all the time, and who gets how much of it."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.live import Live
from rich.table import Table

from emuvisor.cli.scheduler_options import DEFAULT_SCHEDULER, recorded_schedule
from emuvisor.cli.tables import show_table
from emuvisor.cli.workloads import Workload, guest_config
from emuvisor.host import Guest, Host
from emuvisor.host.autopilot.entitlement import Due, divide
from emuvisor.machine.config import GuestConfig
from emuvisor.units import MIB, NS_PER_S

__all__ = ["DEMO", "Sharer", "due", "run_cpu_demo"]

POOL = 64 * MIB
ENDLESS = Workload("spin", "computes", (10_000_000, 1_000_000), memory=8 * MIB)
BOOT_S = 0.5
"""Which is not counted."""
SECONDS = 4.0
REFRESH_S = 0.2
COLUMNS = ("guest", "claim", "due", "got", "waited", "throttled", "slices")


@dataclass(frozen=True, slots=True)
class Sharer:
    """A guest that computes without an end, with its claim to the pCPUs."""

    name: str
    weight: int = 100
    cap: float | None = None
    reservation: float = 0.0

    @property
    def claim(self) -> str:
        """For people."""
        parts = [f"weight {self.weight}"]
        if self.cap is not None:
            parts.append(f"cap {self.cap:g} %")
        if self.reservation:
            parts.append(f"reservation {self.reservation:g} %")
        return ", ".join(parts)

    def config(self, folder: Path) -> GuestConfig:
        """The guest; its disk is in a new folder of `folder`."""
        own = folder / self.name
        own.mkdir()
        return replace(
            guest_config(ENDLESS, own),
            name=self.name,
            cpu_weight=self.weight,
            cpu_cap=self.cap,
            cpu_reservation=self.reservation,
        )


DEMO = (
    Sharer("heavy", weight=400),
    Sharer("medium", weight=200),
    Sharer("light", weight=100),
    Sharer("capped", weight=400, cap=10),
    Sharer("reserved", weight=10, reservation=15),
)


def due(sharers: Sequence[Sharer], pcpus: int) -> list[float]:
    """The part of a pCPU that each is due when all want as much as they can get."""
    dues = [Due(s.weight, 1.0 if s.cap is None else s.cap / 100, s.reservation / 100) for s in sharers]
    return divide(pcpus, dues)


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of one of them. `due` and `got` are parts of a pCPU, times parts of the whole time."""

    name: str
    claim: str
    due: float
    got: float
    waited: float
    throttled: float
    slices: int


def run_cpu_demo(
    sharers: Sequence[Sharer],
    pcpus: int = 1,
    *,
    as_json: bool = False,
    scheduler: str = DEFAULT_SCHEDULER,
    record: Path | None = None,
    seconds: float = SECONDS,
) -> bool:
    """Let `sharers` compute for a while, then print what each was due and what it got; whether all ran on.

    The schedule is recorded in the file `record`. Raises UsageError and HostError as Host does.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Host(POOL, pcpus, scheduler=scheduler) as host,
        recorded_schedule(host, record),
    ):
        guests = [host.create(sharer.config(Path(folder))) for sharer in sharers]
        for guest in guests:
            guest.start()
        time.sleep(BOOT_S)
        results = _watch(sharers, guests, seconds, live=not as_json and sys.stdout.isatty())
        bad = [guest.name for guest in guests if guest.outcome is not None]
    if as_json:
        document = {"pcpus": pcpus, "scheduler": scheduler, "guests": [asdict(result) for result in results]}
        print(json.dumps(document, indent=2))
    else:
        show_table(COLUMNS, [_row(result) for result in results], right=COLUMNS[2:])
        print(
            f"{len(guests)} guests that never sleep, {'one pCPU' if pcpus == 1 else f'{pcpus} pCPUs'}, "
            f"{seconds:g} s, divided by {scheduler}; due is by weight, which not every policy knows. They got "
            f"{sum(r.got for r in results) / pcpus:.0%} of it; the rest is switching, and what else this machine does."
        )
    if bad:
        print(f"emuvisor: these did not run on: {', '.join(bad)}", file=sys.stderr)
    return not bad


def _watch(
    sharers: Sequence[Sharer], guests: Sequence[Guest], seconds: float, *, live: bool
) -> list[_Result]:
    """What each has got after `seconds`; shown meanwhile if `live`."""
    wanted = due(sharers, guests[0].host.pcpus)
    first = [guest.statistics() for guest in guests]
    start = time.monotonic_ns()
    with Live(auto_refresh=False, transient=True) if live else nullcontext() as screen:
        while True:
            left_s = seconds - (time.monotonic_ns() - start) / NS_PER_S
            time.sleep(max(0.0, min(REFRESH_S, left_s)))
            now = [guest.statistics() for guest in guests]
            span_ns = max(1, time.monotonic_ns() - start)
            results = [
                _Result(
                    sharer.name,
                    sharer.claim,
                    due=share,
                    got=(new.cpu_ns - old.cpu_ns) / span_ns,
                    waited=(new.waited_ns - old.waited_ns) / span_ns,
                    throttled=(new.throttled_ns - old.throttled_ns) / span_ns,
                    slices=new.slices - old.slices,
                )
                for sharer, share, old, new in zip(sharers, wanted, first, now, strict=True)
            ]
            if screen is not None:
                screen.update(_table(results), refresh=True)
            if left_s <= REFRESH_S:
                return results


def _table(results: Sequence[_Result]) -> Table:
    table = Table(title="parts of a pCPU so far")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[2:] else "left")
    for result in results:
        table.add_row(*_row(result))
    return table


def _row(result: _Result) -> tuple[str, ...]:
    parts = (result.due, result.got, result.waited, result.throttled)
    return (result.name, result.claim, *(f"{part:.1%}" for part in parts), f"{result.slices:,}")
