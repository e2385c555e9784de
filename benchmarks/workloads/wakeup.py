"""How late a guest runs that its timer wakes, alone and beside busy guests.

The guest, in real mode, sets the PIT for as long as the host says, halts, and says when it is awake:

    jmp 2f
    inc dx                              # IRQ 0's handler, at 2
    inc dx
    out dx, al                          # it woke
    dec dx
    dec dx
    mov al, 0x20
    out 0x20, al                        # end of interrupt
    iret
2:  xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7C00
    mov word ptr [0x20 * 4], 2
    mov [0x20 * 4 + 2], cs
    mov al, 0x11                        # ICW1 to 4: IRQ 0 is vector 0x20
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xFE                        # all but IRQ 0 are masked
    out 0x21, al
    mov dx, METER
3:  mov al, 0x30                        # counter 0, mode 0: once
    out 0x43, al
    in ax, dx                           # for how long
    out 0x40, al
    mov al, ah
    out 0x40, al
    out dx, al                          # the timer is set
    sti
    hlt
    cli
    jmp 3b

The bytes are what GNU as makes of it.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

from benchmarks.bare_guests import COMPUTE, bare_host, config, running
from benchmarks.figures import Goal
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Task
from emuvisor.bus.clock import Clock
from emuvisor.host.scheduler.claim import DEFAULT_LATENCY_US
from emuvisor.machine.machine import Machine

__all__ = ["METER_PORT", "SLEEPER", "Meter", "Wakeup", "quantile"]

SLEEPER = bytes.fromhex(
    "eb0a 42 42 ee 4a 4a b020 e620 cf"
    "31c0 8ed8 8ed0 bc007c c70680000200 8c0e8200 b011 e620 b020 e621 b004 e621 b001 e621 b0fe e621"
    "bad00e b030 e643 ed e640 88e0 e640 ee fb f4 fa ebef"
)
METER_PORT = 0xED0
PIT_HZ = 1_193_182
SHORTEST_S, LONGEST_S = 0.001, 0.005
SET_WITHIN_NS = 100_000
"""The timer has just been set: if the machine's next one is due further from its time than this, it is another one."""
SEED = 6
SETTLE_S = 0.3
WINDOW_S = 1.5
LEAST_WAKES = 5
NS_PER_S = 1_000_000_000
NS_PER_US = 1_000
SHORT_US = 500
"""The latency of the guest that asks for one."""
MOST_ALONE_US, MOST_SHORT_US = 500.0, 1_000.0
"""Goals: the median alone; the median of who has asked for it beside 20 guests, a hundredth of the time that a turn
of each takes."""
SHORT = f"proportional, latency {SHORT_US / 1000:g} ms"
USUAL = "proportional"
CONTENDERS = {SHORT: ("proportional", SHORT_US)} | {
    policy: (policy, DEFAULT_LATENCY_US) for policy in (USUAL, "credit", "round-robin", "deadline")
}
"""Policies, and the sleeper's latency."""


@dataclass(frozen=True, slots=True)
class Company:
    """Guests that compute beside the one that sleeps."""

    name: str
    busy: int
    pcpus: int = 1
    contenders: tuple[str, ...] = tuple(CONTENDERS)


COMPANIES = (
    Company("alone", 0, contenders=(USUAL,)),
    Company("beside 2 busy guests", 2),
    Company("beside 20 busy guests", 20),
    Company("beside 20 busy guests, 2 pCPUs", 20, 2, (SHORT, USUAL)),
)


class Meter:
    """Tells the guest how long to sleep, and notes how late it wakes, in nanoseconds of its clock, the host's."""

    name = "meter"
    SET, WOKE = 0, 2
    LENGTH = 4

    def __init__(self, clock: Clock) -> None:
        self.late_ns: list[int] = []
        self._clock = clock
        self._chance = Random(SEED)
        self._count = 0
        self._due_ns: int | None = None

    @classmethod
    def of(cls, machine: Machine) -> Self:
        """A meter for the guest of `machine`, which does not run yet."""
        meter = cls(machine.clock)
        machine.board.ports.attach(METER_PORT, cls.LENGTH, meter, width=2)
        return meter

    def read(self, offset: int, size: int) -> int:
        """For how many counts the guest is to set its timer."""
        self._count = int(self._chance.uniform(SHORTEST_S, LONGEST_S) * PIT_HZ)
        return self._count

    def write(self, offset: int, value: int, size: int) -> None:
        """The timer is set, or the guest woke."""
        now_ns = self._clock.now_ns()
        if offset == self.SET:
            due_ns = self._clock.next_deadline_ns()
            expected_ns = now_ns + self._count * NS_PER_S // PIT_HZ
            near = due_ns is not None and abs(due_ns - expected_ns) < SET_WITHIN_NS
            self._due_ns = due_ns if near else None
        elif self._due_ns is not None:
            self.late_ns.append(now_ns - self._due_ns)
            self._due_ns = None

    def reset(self) -> None:
        """Nothing is forgotten."""


def quantile(values: Sequence[int], part: float) -> int:
    """The least of `values` that is not exceeded by `part` of them (nearest rank)."""
    return sorted(values)[max(0, -int(-part * len(values) // 1) - 1)]


def measure(folder: Path, company: Company, policy: str, latency_us: int) -> Figures:
    """Median and 99th percentile of how late the guest is."""
    with bare_host(company.busy + 1, company.pcpus, policy) as host:
        sleeper = host.create(config(folder, "sleeper", SLEEPER, clock="host", cpu_latency_us=latency_us))
        meter = Meter.of(sleeper.machine)
        busy = [host.create(config(folder, f"busy{number}", COMPUTE)) for number in range(company.busy)]
        for guest in (*busy, sleeper):
            guest.start()
        time.sleep(SETTLE_S)
        first = len(meter.late_ns)
        time.sleep(WINDOW_S)
        running((*busy, sleeper))
        late_ns = meter.late_ns[first:]
    if len(late_ns) < LEAST_WAKES:
        raise BenchmarkError(f"{company.name}: the guest woke {len(late_ns)} times in {WINDOW_S:g} s")
    return {
        median(company): quantile(late_ns, 0.5) / NS_PER_US,
        f"{company.name}, p99": quantile(late_ns, 0.99) / NS_PER_US,
        f"{company.name}, wakes": len(late_ns),
    }


def median(company: Company) -> str:
    """The name of the median's figure."""
    return f"{company.name}, p50"


class Wakeup:
    """In this process: a host with a guest that sleeps, and others that do not."""

    name = "wakeup"
    measures = "microseconds between the time that a guest set its timer for and its telling that it is awake"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A task for each company, by policy and latency."""
        cores = len(os.sched_getaffinity(0))
        context.note(
            f"The guest sleeps for {SHORTEST_S * 1000:g} to {LONGEST_S * 1000:g} ms at a time, and does nothing else. "
            "Both times are of the host's clock: what its PIT was set for, and when it writes to a port in the handler "
            "of the interrupt. So the figure has in it: the waking of a sleeping thread of the host (on Linux some "
            "50 us late by itself) or the end of what another guest runs, the host's lock, the scheduler, the "
            "interrupt, and one port exit. Who waits for its turn is late by that: by 20 guests' turns of 5 ms. Where "
            "it wakes seldom, p99 is the worst of few."
        )
        with tempfile.TemporaryDirectory() as folder:
            yield [_task(Path(folder), company) for company in COMPANIES if company.pcpus <= cores]
        for company in COMPANIES:
            if company.pcpus > cores:
                context.notice(f"{company.name} is skipped: this process has {cores} cores")


def _task(folder: Path, company: Company) -> Task:
    contenders = [
        Contender(name, partial(measure, folder, company, *CONTENDERS[name])) for name in company.contenders
    ]
    alone = not company.busy
    goal = Goal(MOST_ALONE_US if alone else MOST_SHORT_US, contender=USUAL if alone else SHORT)
    return Task(
        company.name,
        "us",
        contenders,
        goals={median(company): goal},
        units={f"{company.name}, wakes": "in a window"},
        warm_ups=0,
    )
