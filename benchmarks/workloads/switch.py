"""What it costs that a pCPU runs another guest than before."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.bare_guests import COMPUTE, bare_host, config, window
from benchmarks.figures import Goal
from benchmarks.guests import NAME, debian_config, has_image, machine, run_until
from benchmarks.harness import Contender, Context, Figures, Task, one
from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.host.scheduler.claim import DEFAULT_LATENCY_US, MIN_LATENCY_US
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import GIB, MIB

__all__ = ["Switch"]

SLICE_WORK = 10_000_000
"""Of Debian guests: some 10 ms."""
SPIN_SLICE_WORK = 50_000
"""For guests whose working set is a page."""
BLOCK = 25
"""Slices of one guest in a run, and pairs of slices in turns."""
ROUNDS = 20
QUICK_ROUNDS = 5
ENTRIES = 200_000
QUICK_ENTRIES = 20_000

ENTER = "Pcpu.run: enter, one block, leave"
SWITCH_SPIN = "switch, guests of one page"
SWITCH_DEBIAN = "switch, Debian guests"
SWITCH_HOST = "switch by a host, its scheduler and locks included"
SWITCHES, THROUGHPUT = "switches", "throughput of two guests"
SETTLE_S = 0.3
WINDOW_S = 1.0
SHORT_TURNS, USUAL_TURNS = (
    f"turns of {MIN_LATENCY_US / 1000:g} ms",
    f"turns of {DEFAULT_LATENCY_US / 1000:g} ms",
)
LATENCY_US = {SHORT_TURNS: MIN_LATENCY_US, USUAL_TURNS: DEFAULT_LATENCY_US}
MOST_HOST_US = 50.0
ENDLESS_LOOP = "while :; do i=$((i+1)); done"


class Switch:
    """In this process: slices of two guests in turns, less the same work of one after the other."""

    name = "switch"
    measures = (
        "putting one guest away and running another, refilling the TLB included, and how often a host can"
    )

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Entering alone, small guests, and Debian guests that run a shell loop."""
        quick = context.settings.quick
        rounds, entries = (QUICK_ROUNDS, QUICK_ENTRIES) if quick else (ROUNDS, ENTRIES)
        pool = FramePool(GIB)
        pcpu = Pcpu(pool)
        context.note(
            f"Slices of two guests in turns (A B A B), less the time of the same work in runs of {BLOCK} "
            f"slices (A A B B): {SLICE_WORK} bytes of code a slice for Debian guests, {SPIN_SLICE_WORK} for "
            "small ones. What the guests' own misses cost afterwards is in the figure, so longer slices make it larger."
        )
        context.note(
            "Switches a second are those of a host with one pCPU and two guests that compute, whose latencies make "
            "their turns that long; throughput is of both together. What a switch by a host costs is the throughput "
            "that is lost with the short turns, divided by the switches that are more: leaving and entering the "
            "engine, the host's lock, the scheduler's decision, and the guests' own misses."
        )
        with ExitStack() as stack:
            spin = [stack.enter_context(machine(config, pool)) for config in _spin_configs(stack)]
            tasks = [
                _task(ENTER, partial(_enter, spin[0], pcpu, entries)),
                _task(SWITCH_SPIN, partial(_switch, spin, pcpu, SPIN_SLICE_WORK, rounds)),
            ]
            if has_image(context, SWITCH_DEBIAN):
                debian = []
                for number in range(2):
                    guest = stack.enter_context(
                        machine(debian_config(context.settings, f"debian{number}"), pool)
                    )
                    run_until(guest, pcpu, BOOT_MARKER)
                    run_until(guest, pcpu, "looping", f"echo loop''ing; {ENDLESS_LOOP}\n")
                    debian.append(guest)
                tasks.append(
                    _task(SWITCH_DEBIAN, partial(_switch, debian, pcpu, SLICE_WORK, rounds), Goal(30))
                )
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            yield [*tasks, _host_task(folder)]


def _task(name: str, measure: partial[float], goal: Goal | None = None) -> Task:
    goals = {name: goal} if goal else {}
    return Task(name=name, unit="us", contenders=[Contender(NAME, one(name, measure))], goals=goals)


def _spin_configs(stack: ExitStack) -> list[GuestConfig]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    image = folder / "spin.bin"
    image.write_bytes(firmware.image("spin"))
    flat = FlatConfig(image, firmware.FLAT_ADDRESS)
    return [GuestConfig(name=f"spin{number}", board="pc", memory=16 * MIB, flat=flat) for number in range(2)]


def _enter(guest: Machine, pcpu: Pcpu, entries: int) -> float:
    """Microseconds of a run whose budget is spent by its first block."""
    vcpu = guest.vcpu
    start = time.perf_counter()
    for _ in range(entries):
        pcpu.run(vcpu, 1)
    return (time.perf_counter() - start) / entries * 1e6


def _switches(guests: Sequence[Machine]) -> int:
    return sum(guest.vcpu.counters()["switch"] for guest in guests)


def _work(guests: Sequence[Machine]) -> int:
    return sum(guest.vcpu.work for guest in guests)


class _Account:
    """Time, work and switches of slices that were run in one kind of order."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.work = 0
        self.switches = 0

    def run(self, order: Sequence[Machine], guests: Sequence[Machine], pcpu: Pcpu, slice_work: int) -> None:
        """Run a slice of each machine of `order`."""
        work, switches = _work(guests), _switches(guests)
        start = time.perf_counter()
        for guest in order:
            guest.run_slice(pcpu, slice_work)
        self.seconds += time.perf_counter() - start
        self.work += _work(guests) - work
        self.switches += _switches(guests) - switches


def _switch(guests: Sequence[Machine], pcpu: Pcpu, slice_work: int, rounds: int) -> float:
    """Microseconds a switch costs. Both orders in short blocks, so that a slower machine slows both."""
    first, second = guests
    runs, turns = _Account(), _Account()
    for _ in range(rounds):
        runs.run([first] * BLOCK + [second] * BLOCK, guests, pcpu, slice_work)
        turns.run([first, second] * BLOCK, guests, pcpu, slice_work)
    expected = runs.seconds * turns.work / runs.work
    return (turns.seconds - expected) / (turns.switches - runs.switches) * 1e6


def _host_task(folder: Path) -> Task:
    contenders = [Contender(turns, partial(_host_turns, folder, turns)) for turns in LATENCY_US]
    contenders.append(Contender(NAME, one(SWITCH_HOST, partial(_host_switch, folder))))
    return Task(
        "switches by a host",
        "MB of code/s",
        contenders,
        goals={SWITCH_HOST: Goal(MOST_HOST_US)},
        units={SWITCHES: "1/s", SWITCH_HOST: "us"},
        warm_ups=0,
    )


def _host_turns(folder: Path, turns: str) -> Figures:
    """Switches and throughput of two guests with turns of that length."""
    with bare_host(2, 1) as host:
        guests = [
            host.create(config(folder, f"guest{number}", COMPUTE, cpu_latency_us=LATENCY_US[turns]))
            for number in range(2)
        ]
        for guest in guests:
            guest.start()
        time.sleep(SETTLE_S)
        machines = [guest.machine for guest in guests]
        switches = _switches(machines)
        work, seconds = window(WINDOW_S, guests, partial(_work, machines))
        switches = _switches(machines) - switches
    return {SWITCHES: switches / seconds, THROUGHPUT: work / seconds / 1e6}


def _host_switch(folder: Path) -> float:
    """Microseconds a switch by a host costs."""
    short, usual = (_host_turns(folder, turns) for turns in (SHORT_TURNS, USUAL_TURNS))
    lost = 1 - short[THROUGHPUT] / usual[THROUGHPUT]
    return lost / (short[SWITCHES] - usual[SWITCHES]) * 1e6
