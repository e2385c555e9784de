"""Whether a reservation is worth what it promises, and what the memory manager costs.

One guest has reserved all of its memory, a quarter of the host's. Its neighbours want twice the rest, and get it by all
rungs of the ladder. All are programs/workingset.c, as in the overcommit curve.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guest_programs import has_compiler
from benchmarks.guests import NAME
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Task, one
from benchmarks.working_set import OWN_PAGES, Crowd, compile_guest
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.units import MIB, PAGE_SIZE

__all__ = ["Reserved"]

MEMORY = 64 * MIB
RESERVED_PART = 4
NEIGHBOURS = 2
RATIO = 2
PCPUS = 2
WINDOW_S, QUICK_WINDOW_S = 3.0, 1.0
SETTLE_S = 1.0
PERIOD_S = 0.02

ALONE, ENOUGH, OVERCOMMITTED = "alone", "neighbours have enough", f"neighbours overcommit {RATIO}x"
THROUGHPUT = "a guest within its reservation"
KINDS = (ALONE, ENOUGH, OVERCOMMITTED)
MOST_LOSS = 0.03


class Reserved:
    """In this process: a host with two pCPUs; one of them is the guest's with the reservation."""

    name = "reserved"
    measures = (
        "what a guest within its reservation loses while others overcommit, and the memory manager's CPU time"
    )

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """The guest's throughput in three kinds of company, and the manager's."""
        if not has_compiler(context, self.name):
            yield []
            return
        window_s = QUICK_WINDOW_S if context.settings.quick else WINDOW_S
        context.note(
            f"A host with {MEMORY // MIB} MiB; the guest has reserved a quarter, and {NEIGHBOURS} neighbours "
            f"want {RATIO} times the rest, with all rungs; with enough memory they want as much of a host that has it. "
            "Two pCPUs: all guests take turns on them, and throughput is per second that the guest had a "
            "pCPU, so that what others do with theirs does not count, but what it waits for locks, the interpreter and "
            "memory does. The manager's CPU time is its thread's."
        )
        with tempfile.TemporaryDirectory() as name:
            rig = _Rig(Path(name), window_s)
            contenders = [Contender(kind, one(THROUGHPUT, partial(rig.throughput, kind))) for kind in KINDS]
            yield [
                Task(
                    name="throughput",
                    unit="MB/s",
                    contenders=contenders,
                    goals={THROUGHPUT: Goal(1 - MOST_LOSS, ENOUGH, OVERCOMMITTED, at_least=True)},
                    against=ENOUGH,
                    warm_ups=0,
                ),
                Task(
                    "CPU time of the memory manager",
                    "% of a core",
                    [Contender(NAME, rig.manager)],
                    warm_ups=0,
                ),
            ]


class _Rig:
    """Makes the hosts."""

    def __init__(self, folder: Path, window_s: float) -> None:
        self._folder = folder
        self._image = compile_guest(folder)
        self._window_s = window_s

    def throughput(self, company: str) -> float:
        """MB of its memory that the guest reads per second on a pCPU."""
        with self._crowd(company) as crowd:
            guest = crowd.members[0]
            _settle(crowd)
            visits, cpu_ns = guest.meter.visits, guest.guest.cpu_ns
            if crowd.visits(self._window_s) is None:
                raise BenchmarkError("a neighbour was paused for want of memory")
            resident = guest.guest.memory.census()
            if resident["compressed"] or resident["swapped"]:
                raise BenchmarkError(f"the guest with the reservation lost pages: {resident}")
            seconds = (guest.guest.cpu_ns - cpu_ns) / 1e9
            return (guest.meter.visits - visits) * PAGE_SIZE / seconds / 1e6

    def manager(self) -> Figures:
        """Hundredths of a core that the memory manager's thread takes."""
        figures = {}
        with self._crowd(OVERCOMMITTED) as crowd:
            _settle(crowd)
            figures[f"{OVERCOMMITTED}, at work"] = _manager_share(self._window_s)
            crowd.pause()
            time.sleep(SETTLE_S)
            figures[f"{OVERCOMMITTED}, all paused"] = _manager_share(self._window_s)
        with self._crowd(ENOUGH) as crowd:
            _settle(crowd)
            figures[f"{ENOUGH}, at work"] = _manager_share(self._window_s)
        return figures

    def _crowd(self, company: str) -> Crowd:
        """The guest with the reservation, and its neighbours."""
        own = MEMORY // RESERVED_PART
        want = 0 if company == ALONE else RATIO * (MEMORY - own) // NEIGHBOURS
        memory = MEMORY if company == OVERCOMMITTED else 2 * (own + want * NEIGHBOURS)
        policy = MemoryPolicy(swap=self._folder / "swap", balloon_virtual_clock=True, period_s=PERIOD_S)
        crowd = Crowd(self._image, self._folder, memory, policy, pcpus=PCPUS)
        crowd.add(own // PAGE_SIZE - OWN_PAGES, reserved=True)
        for _ in range(NEIGHBOURS if want else 0):
            crowd.add(want // PAGE_SIZE - OWN_PAGES)
        return crowd


def _settle(crowd: Crowd) -> None:
    if not crowd.fill() or crowd.visits(SETTLE_S) is None:
        raise BenchmarkError("the guests did not get their memory")


def _manager_share(seconds: float) -> float:
    """Per cent of `seconds` that the thread of the memory manager runs; it has none while there is nothing to do."""
    before, start = _manager_cpu(), time.perf_counter()
    time.sleep(seconds)
    return (_manager_cpu() - before) / (time.perf_counter() - start) * 100


def _manager_cpu() -> float:
    threads = [thread for thread in threading.enumerate() if thread.name == "memory"]
    idents = [thread.ident for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in idents)
