"""What a second pCPU is worth: the same guests on one and on two."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bare_guests import COMPUTE, OUT, bare_host, config, window
from benchmarks.figures import Goal, interval_of_ratio
from benchmarks.guests import debian_config, has_image
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Settings, Task, one
from emuvisor.host import Guest, Host
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.units import MIB

__all__ = ["TwoPcpus"]

SETTLE_S = 0.4
WINDOW_S = 0.5
WINDOWS, QUICK_WINDOWS = 3, 2
BOOT_TIMEOUT_S = 120
LEAST = 1.8
ONE, TWO = "1 pCPU", "2 pCPUs"
PCPUS = {ONE: 1, TWO: 2}
BOOTS = 2
BOOT = f"boots of {BOOTS} Debian guests"
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Load:
    """Guests that all run `program`."""

    name: str
    program: bytes
    guests: int
    goal: Goal | None = None

    @property
    def unit(self) -> str:
        """What counts."""
        return "MB of code/s" if self.program is COMPUTE else "1,000 writes/s"

    def done(self, guests: Sequence[Guest]) -> float:
        """What all `guests` have done so far, in what counts."""
        if self.program is COMPUTE:
            return sum(guest.machine.vcpus.work for guest in guests) / 1e6
        return sum(guest.machine.vcpus.counters()["port_write"] for guest in guests) / 1e3


LOADS = (
    Load("2 guests that compute", COMPUTE, 2, Goal(LEAST, ONE, TWO, at_least=True)),
    Load("4 guests that compute", COMPUTE, 4, Goal(LEAST, ONE, TWO, at_least=True)),
    Load("2 guests that write to a port without end", OUT, 2),
)


class Windows:
    """Runs a load on one pCPU and on two, and keeps the throughput of each window."""

    def __init__(self, folder: Path, load: Load, windows: int) -> None:
        self.load = load
        self.throughputs: dict[str, list[float]] = {name: [] for name in PCPUS}
        self.at_work: list[float] = []
        """Of the time that guests were on two pCPUs, the part in which their threads had a core."""
        self._folder = folder
        self._windows = windows

    def measure(self, contender: str) -> Figures:
        """What all guests do together in a second."""
        load = self.load
        found = []
        with bare_host(load.guests, PCPUS[contender]) as host:
            guests = [
                host.create(config(self._folder, f"guest{number}", load.program))
                for number in range(load.guests)
            ]
            for guest in guests:
                guest.start()
            time.sleep(SETTLE_S)
            threads_s, on_pcpu_s = pcpu_threads_s(), sum(guest.cpu_ns for guest in guests) / 1e9
            for _ in range(self._windows):
                done, seconds = window(WINDOW_S, guests, partial(load.done, guests))
                found.append(done / seconds)
            if contender == TWO:
                on_pcpu_s = sum(guest.cpu_ns for guest in guests) / 1e9 - on_pcpu_s
                self.at_work.append((pcpu_threads_s() - threads_s) / on_pcpu_s)
        self.throughputs[contender] += found
        return {load.name: sum(found) / len(found)}

    def text(self) -> str:
        """The ratio with its confidence interval, and where the rest is."""
        one, two = self.throughputs[ONE], self.throughputs[TWO]
        if not one or not two:
            return f"{self.load.name}: not measured."
        low, high = interval_of_ratio(two, one, CONFIDENCE)
        at_work = sum(self.at_work) / len(self.at_work)
        return (
            f"{self.load.name}: {sum(two) / sum(one):.2f} times ({CONFIDENCE:.0%} interval {low:.2f} to {high:.2f}, "
            f"{len(two)} windows); while a guest was on a pCPU, its thread had a core for {at_work:.0%} of the time."
        )


def pcpu_threads_s() -> float:
    """Processor time of the pCPUs' threads of this process so far, in seconds."""
    idents = [t.ident for t in threading.enumerate() if t.name.startswith("pcpu") and t.ident is not None]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in idents)


def boot_s(settings: Settings, contender: str) -> float:
    """Seconds until all guests, started at once, have come to user space."""
    with Host((BOOTS + 1) * settings.memory_mib * MIB, pcpus=PCPUS[contender]) as host:
        guests = [host.create(debian_config(settings, f"debian{number}")) for number in range(BOOTS)]
        start = time.perf_counter()
        for guest in guests:
            guest.start()
        for guest in guests:
            if BOOT_MARKER not in guest.console.text and not guest.expect(BOOT_MARKER, BOOT_TIMEOUT_S):
                raise BenchmarkError(f"{guest.name} did not boot: {guest.console.text[-300:]!r}")
        return time.perf_counter() - start


class TwoPcpus:
    """In this process: a host with one pCPU and one with two, in turn."""

    name = "pcpus"
    measures = "what guests do together on two pCPUs against one"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Bare guests, and boots of Debian."""
        cores = len(os.sched_getaffinity(0))
        if cores < PCPUS[TWO]:
            context.notice(f"{self.name} is skipped: this process has {cores} cores")
            yield []
            return
        count = QUICK_WINDOWS if context.settings.quick else WINDOWS
        context.note(
            "Throughput is of all guests together; the loads differ in what they need Python for: a guest that "
            "computes leaves its engine once a turn; one that writes to a port does so with every other instruction, "
            "and then needs the interpreter's lock (GIL), which only one pCPU can have. A pCPU's thread that has a "
            "guest but no core waits for that lock, for the host's, or for the system's scheduler."
        )
        with tempfile.TemporaryDirectory() as folder:
            loads = [Windows(Path(folder), load, count) for load in LOADS]
            tasks = [_load_task(windows) for windows in loads]
            if has_image(context, BOOT):
                tasks.append(_boot_task(context.settings))
            yield tasks
        for windows in loads:
            context.note(windows.text())


def _load_task(windows: Windows) -> Task:
    load = windows.load
    return Task(
        load.name,
        load.unit,
        [Contender(name, partial(windows.measure, name)) for name in PCPUS],
        goals={load.name: load.goal} if load.goal else {},
        against=ONE,
        warm_ups=0,
    )


def _boot_task(settings: Settings) -> Task:
    contenders = [Contender(name, one(BOOT, partial(boot_s, settings, name))) for name in PCPUS]
    return Task(BOOT, "s", contenders, against=ONE, warm_ups=0)
