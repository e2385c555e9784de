"""What the switch between two Debian guests is made of: a slice after one of the things that a switch does."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks.guests import NAME, debian_config, has_image, machine, run_until
from benchmarks.harness import Contender, Context, Figures, Task
from benchmarks.workloads.switch import ENDLESS_LOOP
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool
from emuvisor.units import GIB, MIB

__all__ = ["SwitchParts", "parts"]

SLICES = {100_000: 600, 1_000_000: 300, 10_000_000: 60}
"""Slices to be measured, by bytes of code."""
QUICK_PART = 10
L2_BYTES = os.sysconf("SC_LEVEL2_CACHE_SIZE") if "SC_LEVEL2_CACHE_SIZE" in os.sysconf_names else 0
NOTHING, FLUSHED, EVICTED, BOTH, SWITCHED = (
    "slice after one of the same guest",
    "more after the TLB was emptied",
    "more after the L2 cache was emptied",
    "more after both",
    "more after a slice of another guest",
)
FILLS = "more TLB fills after a slice of another guest"


class SwitchParts:
    """In this process. Another guest is loaded and nothing of it executed: that empties the TLB, and little else."""

    name = "switch-parts"
    measures = "what a switch between two guests is made of"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Two Debian guests that run a shell loop, with slices of several lengths."""
        if not has_image(context, self.name):
            yield []
            return
        context.note(
            "Processor time of a slice of one guest after a slice of the same, or of the other one, or after a part of "
            "what a switch does. Means of the middle half, the kinds in turns. To empty the TLB takes with it the "
            "engine's cache of where translated code is. What another guest's slice costs more than both is L1 caches, "
            "branch prediction, and what else it takes."
        )
        pool = FramePool(GIB)
        pcpu = Pcpu(pool)
        part = QUICK_PART if context.settings.quick else 1
        with ExitStack() as stack:
            guests = []
            for number in range(2):
                guest = stack.enter_context(machine(debian_config(context.settings, f"debian{number}"), pool))
                run_until(guest, pcpu, BOOT_MARKER)
                run_until(guest, pcpu, "looping", f"echo loop''ing; {ENDLESS_LOOP}\n")
                guests.append(guest)
            yield [
                Task(
                    f"slices of {work / 1e6:g} MB",
                    "us",
                    [
                        Contender(
                            f"{NAME}, slices of {work / 1e6:g} MB",
                            partial(parts, *guests, pcpu, work, count // part),
                        )
                    ],
                    units={FILLS: ""},
                    warm_ups=0,
                )
                for work, count in SLICES.items()
            ]


def parts(guest: Machine, other: Machine, pcpu: Pcpu, work: int, count: int) -> Figures:
    """Microseconds of a slice of `guest` of `work` bytes of code, and what is more after each part of a switch to
    `other`, from `count` slices of each kind; TLB fills."""
    cache = bytearray(2 * (L2_BYTES or MIB))
    empty = bytes(len(cache))

    def flush() -> None:
        pcpu.run(other.vcpu, 0)

    def evict() -> None:
        cache[:] = empty

    def both() -> None:
        flush()
        evict()

    before: dict[str, Callable[[], object]] = {
        NOTHING: lambda: None,
        FLUSHED: flush,
        EVICTED: evict,
        BOTH: both,
        SWITCHED: lambda: other.run_slice(pcpu, work),
    }
    took: dict[str, list[float]] = {kind: [] for kind in before}
    fills = dict.fromkeys(before, 0)
    for _ in range(count):
        for kind, prepare in before.items():
            guest.run_slice(pcpu, work)
            prepare()
            done, filled = guest.vcpu.work, guest.vcpu.counters()["tlb_fill"]
            start = time.thread_time_ns()
            guest.run_slice(pcpu, work)
            ns = time.thread_time_ns() - start
            took[kind].append(ns * work / (guest.vcpu.work - done) / 1000)
            fills[kind] += guest.vcpu.counters()["tlb_fill"] - filled
    usual = _middle(took[NOTHING])
    figures = {kind: _middle(took[kind]) - (0 if kind == NOTHING else usual) for kind in before}
    return {**figures, FILLS: (fills[SWITCHED] - fills[NOTHING]) / count}


def _middle(values: Sequence[float]) -> float:
    """The mean of the middle half."""
    middle = sorted(values)[len(values) // 4 : (3 * len(values) + 3) // 4]
    return sum(middle) / len(middle)
