"""What the scheduler is told, and what it says. Times are nanoseconds of a monotonic clock.

Nobody changes them. They are not frozen, because that makes creating one three times as slow: half of a decision's
cost.
"""

from dataclasses import dataclass

from emuvisor.host.scheduler.claim import CpuClaim

__all__ = [
    "Added",
    "Changed",
    "Event",
    "Instruction",
    "Left",
    "Preempt",
    "Removed",
    "Run",
    "Slept",
    "Timer",
    "Woke",
]


@dataclass(slots=True)
class Added:
    """There is a guest `name`; it sleeps. AdmissionError: its reservation cannot be promised; there is none."""

    name: str
    claim: CpuClaim


@dataclass(slots=True)
class Changed:
    """It has another claim now. AdmissionError: its reservation cannot be promised; it keeps the one it had."""

    name: str
    claim: CpuClaim


@dataclass(slots=True)
class Removed:
    """It is gone. It has left its pCPU before."""

    name: str


@dataclass(slots=True)
class Woke:
    """It wants to run. Nothing new when it runs: `Left` says what it wants then."""

    name: str


@dataclass(slots=True)
class Slept:
    """It waited for a pCPU and does not want one any more. Nothing happens when it runs: `Left` will say it."""

    name: str


@dataclass(slots=True)
class Left:
    """It has left `pcpu`, on which it spent `ran_ns` and retired `work` bytes of code; whether it `wants` to go on."""

    pcpu: int
    name: str
    ran_ns: int
    work: int
    wants: bool


@dataclass(slots=True)
class Timer:
    """It is `Scheduler.timer_ns`, or later."""


Event = Added | Changed | Removed | Woke | Slept | Left | Timer


@dataclass(slots=True)
class Run:
    """`pcpu`, which is free, runs guest `name` for `slice_ns`, and then says that it has left."""

    pcpu: int
    name: str
    slice_ns: int


@dataclass(slots=True)
class Preempt:
    """Guest `name` is to leave `pcpu` at once, for `why`."""

    pcpu: int
    name: str
    why: str


Instruction = Run | Preempt
