"""What it costs that a pCPU runs another guest than before."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guests import NAME, debian_config, has_image, machine, run_until
from benchmarks.harness import Contender, Context, Task, one
from emuvisor import firmware
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import GIB, MIB

__all__ = ["Switch"]

SLICE_WORK = 1_000_000
"""Bytes of guest code in a turn: long enough for a guest to touch its working set again."""
TURNS = 1000
QUICK_TURNS = 200
ENTRIES = 200_000
QUICK_ENTRIES = 20_000

ENTER = "Pcpu.run: enter, one block, leave"
SWITCH_SPIN = "switch, guests of one page"
SWITCH_DEBIAN = "switch, Debian guests"
ENDLESS_LOOP = "while :; do i=$((i+1)); done"


class Switch:
    """In this process: slices of two guests in turns, less the same slices of one after the other."""

    name = "switch"
    measures = "microseconds to put one guest away and run another, refilling the TLB included"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Entering alone, small guests, and Debian guests that run a shell loop."""
        quick = context.settings.quick
        turns, entries = (QUICK_TURNS, QUICK_ENTRIES) if quick else (TURNS, ENTRIES)
        pool = FramePool(GIB)
        pcpu = Pcpu(pool)
        context.note(
            f"{turns} slices of {SLICE_WORK} bytes of code of each of two guests in turns (A B A B), "
            "less the time of the same work in two runs (A A B B). What the guests' own misses cost "
            "after a switch is in it."
        )
        with ExitStack() as stack:
            spin = [stack.enter_context(machine(config, pool)) for config in _spin_configs(stack)]
            tasks = [
                _task(ENTER, partial(_enter, spin[0], pcpu, entries)),
                _task(SWITCH_SPIN, partial(_switch, spin, pcpu, turns)),
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
                tasks.append(_task(SWITCH_DEBIAN, partial(_switch, debian, pcpu, turns), Goal(30)))
            yield tasks


def _task(name: str, measure: partial[float], goal: Goal | None = None) -> Task:
    goals = {name: goal} if goal else {}
    return Task(name=name, unit="us", contenders=[Contender(NAME, one(name, measure))], goals=goals)


def _spin_configs(stack: ExitStack) -> list[GuestConfig]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    image = folder / "spin.bin"
    image.write_bytes(firmware.image("spin"))
    flat = FlatConfig(image, firmware.FLAT_ADDRESS)
    return [GuestConfig(name=f"spin{number}", memory=16 * MIB, flat=flat) for number in range(2)]


def _enter(guest: Machine, pcpu: Pcpu, entries: int) -> float:
    """Microseconds of a run whose budget is spent by its first block."""
    vcpu = guest.vcpu
    start = time.perf_counter()
    for _ in range(entries):
        pcpu.run(vcpu, 1)
    return (time.perf_counter() - start) / entries * 1e6


def _slices(order: Sequence[Machine], pcpu: Pcpu) -> float:
    """Seconds per byte of code when the guests run a slice each in this order."""
    before = sum(guest.vcpu.work for guest in set(order))
    start = time.perf_counter()
    for guest in order:
        guest.run_slice(pcpu, SLICE_WORK)
    seconds = time.perf_counter() - start
    return seconds / (sum(guest.vcpu.work for guest in set(order)) - before)


def _switch(guests: Sequence[Machine], pcpu: Pcpu, turns: int) -> float:
    """Microseconds a switch costs."""
    first, second = guests
    alone = _slices([first] * turns + [second] * turns, pcpu)
    switches = {guest: guest.vcpu.counters()["switch"] for guest in guests}
    work = sum(guest.vcpu.work for guest in guests)
    in_turns = _slices([first, second] * turns, pcpu)
    work = sum(guest.vcpu.work for guest in guests) - work
    switched = sum(guest.vcpu.counters()["switch"] - switches[guest] for guest in guests)
    return (in_turns - alone) * work / switched * 1e6
