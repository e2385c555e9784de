"""`emuvisor demo --memory`: guests that hold twice the host's memory together, and who moves what to where."""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from emuvisor import firmware
from emuvisor.cli.memory_live import LiveView
from emuvisor.cli.memory_overview import Overview
from emuvisor.cli.memory_table import as_text, view
from emuvisor.cli.scheduler_options import DEFAULT_SCHEDULER, recorded_schedule
from emuvisor.errors import StateError
from emuvisor.host import Guest, Host
from emuvisor.host.memory.decisions import Decision
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.recording import Sample
from emuvisor.host.memory.sampler import MemorySampler
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.outcome import Ending
from emuvisor.units import MIB

__all__ = ["DEMO", "POOL", "Holder", "run_memory_demo"]

POOL = 64 * MIB
TIMEOUT_S = 60
WAIT_S = 0.5
LATENCY_US = 2_000
"""Short turns, so that guests fill their memory side by side."""
ENTRY = b"\xea\x00\x00\x00\x08".ljust(16, b"\0")
"""jmp 0800h:0, over the parameter block to the program."""
PARAMETER_SIZE = 8


@dataclass(frozen=True, slots=True)
class Holder:
    """A guest that writes its memory full and reads it back, pass by pass: `program` with its parameters."""

    name: str
    does: str
    program: str
    parameters: tuple[int, ...]
    memory: int = 32 * MIB
    reservation: int = 0

    def config(self, folder: Path) -> GuestConfig:
        """The guest, with its program in `folder`."""
        block = b"".join(value.to_bytes(PARAMETER_SIZE, "little") for value in self.parameters)
        path = folder / f"{self.name}.bin"
        path.write_bytes(ENTRY + block.ljust(firmware.PARAMETERS_SIZE, b"\0") + firmware.image(self.program))
        balloon = self.program == "balloon"
        return GuestConfig(
            name=self.name,
            board="microvm",
            memory=self.memory,
            memory_reservation=self.reservation,
            balloon=balloon,
            cpu_latency_us=LATENCY_US,
            clock="host" if balloon else "virtual",  # balloons of guests that repeat exactly are left alone
            flat=FlatConfig(path, firmware.PARAMETERS - len(ENTRY)),
        )


DEMO = (
    # Parameters: start (0: 1 MiB), length, stride, passes
    Holder("castor", "the same as pollux", "memtouch", (0, 30 * MIB, 16, 2)),
    Holder("pollux", "the same as castor", "memtouch", (0, 30 * MIB, 16, 2)),
    Holder("dense", "half is reserved", "memtouch", (0, 30 * MIB, 8, 2), reservation=16 * MIB),
    # start, length, stride, passes, mode (honest), what it keeps
    Holder("giver", "has a balloon", "balloon", (0, 30 * MIB, 64, 60, 0, 8 * MIB)),
)


class _Show:
    """The table on a terminal, or a line for each guest that starts and ends. Nothing when `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self.overview = Overview()
        self._quiet = quiet
        self._live: LiveView | None = None

    @contextmanager
    def shown(self, host: Host) -> Iterator[None]:
        """Show `host` while inside."""
        if not self._quiet and sys.stdout.isatty():
            with LiveView() as self._live, MemorySampler(host, self._take):
                yield
        else:
            with MemorySampler(host, self._take):
                yield

    def say(self, seconds: float, guest: Guest, text: str) -> None:
        """Where there is no table, print what happened to `guest`."""
        if not self._quiet and self._live is None:
            print(f"{seconds:6.2f} s  {guest.name:8} {text}", flush=True)

    def _take(self, item: Sample | Decision) -> None:
        self.overview.add(item)
        if self._live is not None and isinstance(item, Sample):
            with suppress(OSError):
                self._live.update(self.overview)


def run_memory_demo(
    holders: Sequence[Holder],
    pcpus: int = 1,
    *,
    as_json: bool = False,
    scheduler: str = DEFAULT_SCHEDULER,
    record: Path | None = None,
) -> bool:
    """Run `holders` on a host of POOL bytes, show where their memory is, and print what it came to; whether all
    ended well. The schedule is recorded in the file `record`. Raises UsageError and HostError as Host does."""
    show = _Show(quiet=as_json)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = MemoryPolicy(swap=folder / "swap")
        with (
            Host(POOL, pcpus, memory_policy=policy, scheduler=scheduler) as host,
            recorded_schedule(host, record),
        ):
            guests = [host.create(holder.config(folder)) for holder in holders]
            start = time.monotonic()
            with show.shown(host):
                for holder, guest in zip(holders, guests, strict=True):
                    show.say(time.monotonic() - start, guest, f"starts: {holder.program}, {holder.does}")
                    guest.start()
                _wait(host, guests, start, show)
            seconds = time.monotonic() - start
    endings = {guest.name: str(guest.outcome) if guest.outcome else "" for guest in guests}
    bad = [
        guest.name
        for guest in guests
        if guest.outcome is None or guest.outcome.ending is not Ending.POWER_OFF
    ]
    if as_json:
        document = {
            "all_well": not bad,
            "seconds": round(seconds, 6),
            "pcpus": pcpus,
            "endings": endings,
            "memory": show.overview.as_dict(),
        }
        print(json.dumps(document, indent=2))
        return not bad
    _print_result(show.overview)
    print(
        f"{len(guests)} guests in {seconds:.1f} s: {show.overview.decisions:,} decisions, "
        f"{'all sums were right' if not bad else 'not all ended well'}."
    )
    if bad:
        print(f"emuvisor: these did not end well: {', '.join(bad)}", file=sys.stderr)
    return not bad


def _wait(host: Host, guests: Sequence[Guest], start: float, show: _Show) -> None:
    """Until all have ended, or take too long."""
    news = threading.Event()
    host.listeners.append(lambda _event: news.set())
    running = list(guests)
    while running and (seconds := time.monotonic() - start) < TIMEOUT_S:
        news.wait(WAIT_S)
        news.clear()
        for guest in [guest for guest in running if guest.outcome is not None]:
            show.say(seconds, guest, f"ends: {guest.outcome}")
            running.remove(guest)
            guest.delete()
    for guest in running:
        with suppress(StateError):  # paused
            guest.pause()


def _print_result(overview: Overview) -> None:
    if not sys.stdout.isatty():
        print(as_text(overview, fullest=True))
        return
    from rich.console import Console

    console = Console()
    console.print(view(overview, console.width, fullest=True))
