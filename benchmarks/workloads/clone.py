"""Clones of a booted Debian in the same host: until one runs, a thousand of them, and the memory of each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guests import NAME, has_image
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Settings, Task
from benchmarks.programs.many import Residence, residence
from benchmarks.workloads.wakeup import quantile
from emuvisor.host import Guest, Host
from emuvisor.host.checkpoint import Checkpoint
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import GuestConfig, KernelConfig
from emuvisor.units import GIB, MIB, NS_PER_S, PAGE_SIZE

__all__ = ["Clone"]

POOL = 6 * GIB
"""Reserved, not touched: a thousand clones write some 4 MiB each."""
BOARDS: tuple[BoardName, ...] = ("microvm", "pc")
ONES, QUICK_ONES = 200, 40
CROWD, QUICK_CROWD = 1000, 100
WORKERS = 100
"""Of how many it is measured what they write: their work takes far longer than making them."""
TIMEOUT_S = 300
LOOK_S, LOOK_AT_ALL_S = 20e-6, 0.02
SOME_WORK = 1_000_000
"""Bytes of code that each of many retires: its kernel hears of the new generation ID, and answers to it."""
RUNS, ALL_MADE = "until it runs", "Host.clone_many returns"
MADE, MADE_P99 = "Host.clone returns", "Host.clone returns, 99th percentile"
RUNS_P99 = "until it runs, 99th percentile"
FIRECRACKER_RESTORE_MS = "4-5 ms"
UNITS = {
    "clones a second": "1/s",
    "resident memory of a clone": "MiB",
    "written by a clone after some work": "MiB",
    "translated for the source's boot": "MiB",
    "translated for all clones": "MiB",
}
MOST_MS = 1.0
MOST_S = 2.0


class Source:
    """A booted guest that computes, and a checkpoint of it."""

    def __init__(self, settings: Settings, board: BoardName) -> None:
        image = settings.image
        assert image is not None
        assert image.kernel is not None
        self.host = Host(POOL)
        config = GuestConfig(
            name="source",
            board=board,
            memory=settings.memory_mib * MIB,
            clock="host",
            kernel=KernelConfig(image.kernel, image.initrd, f"{image.append} {settings.append}".strip()),
        )
        self.guest = self.host.create(config)
        before = self.residence().translations
        self.guest.start()
        for text in (BOOT_MARKER, "# "):
            _expect(self.guest, text)
        _expect(self.guest, "warm 42", "echo warm $((6*7)); sleep 0\n")
        self.booted = self.residence().translations - before
        """Bytes of code that the engine translated for the source's boot."""
        self.checkpoint: Checkpoint = self.guest.checkpoint()
        self.work: int = self.checkpoint.state["processors"][0]["work"]
        """Bytes of code that it had retired then, and with it each clone."""
        self.guest.pause()
        self._names = count()

    def residence(self) -> Residence:
        """What this process holds besides the pool."""
        return residence(Path("/proc/self/smaps").read_text(), self.host.pool.frames.ctypes.data)

    def name(self) -> str:
        """One that nobody had."""
        return f"clone{next(self._names)}"

    def close(self) -> None:
        """End the host."""
        self.checkpoint.close()
        self.host.close()


def _expect(guest: Guest, text: str, send: str = "") -> None:
    if (send or text not in guest.console.text) and not guest.expect(text, TIMEOUT_S, send):
        raise BenchmarkError(f"no {text!r} from {guest.name}; it printed {guest.console.text[-300:]!r}")


class Clone:
    """Sources are booted once for each board, when their first figure is wanted."""

    name = "clone"
    measures = (
        "clones of a booted Debian guest in the same host: until one runs, many at once, memory of each"
    )

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """One at a time, and a thousand at once."""
        if not has_image(context, self.name):
            yield []
            return
        ones, crowd = (QUICK_ONES, QUICK_CROWD) if context.settings.quick else (ONES, CROWD)
        context.note(
            "The source stands; a clone runs from the moment at which its vCPU has retired code, seen by a thread that "
            f"looks every {LOOK_S * 1e6:g} us: the change of its VM generation ID wakes it. Firecracker's published "
            f"restore of a snapshot takes {FIRECRACKER_RESTORE_MS}, in a process of its own. Resident memory is the "
            "growth of the whole process, with the clones' frames. The work, of "
            f"{WORKERS} others, is what their kernels do about the new ID. Translations are the code that the engine "
            "has made of the guests' since the source was booted."
        )
        sources: dict[BoardName, Source] = {}

        def source(board: BoardName) -> Source:
            if board not in sources:
                sources[board] = Source(context.settings, board)
            return sources[board]

        def contenders(measure: Callable[[Source, int], Figures], number: int) -> list[Contender]:
            return [
                Contender(f"{NAME}, {board}", lambda board=board: measure(source(board), number))
                for board in BOARDS
            ]

        first = f"{NAME}, {BOARDS[0]}"
        many = f"{crowd} clones at once"
        try:
            yield [
                Task(
                    "one clone",
                    "ms",
                    contenders(_one_by_one, ones),
                    goals={RUNS: Goal(MOST_MS, contender=first)},
                ),
                Task(
                    many,
                    "s",
                    contenders(_at_once, crowd),
                    goals={ALL_MADE: Goal(MOST_S * crowd / CROWD, contender=first)},
                    units=UNITS,
                    warm_ups=0,
                    repeats=1,
                ),
            ]
        finally:
            for made in sources.values():
                made.close()


def _one_by_one(source: Source, number: int) -> Figures:
    """Medians and 99th percentiles of `number` clones, each deleted before the next."""
    returned, ran = [], []
    for _ in range(number):
        began = time.perf_counter_ns()
        clone = source.host.clone(source.checkpoint, source.name())
        returned.append(time.perf_counter_ns() - began)
        while clone.machine.vcpu.work == source.work:
            if time.perf_counter_ns() - began > TIMEOUT_S * NS_PER_S:
                raise BenchmarkError(f"{clone.name} does not run: {clone.reason}")
            time.sleep(LOOK_S)
        ran.append(time.perf_counter_ns() - began)
        clone.delete()
    return {
        name: quantile(values, part) / 1e6
        for name, values, part in (
            (RUNS, ran, 0.5),
            (RUNS_P99, ran, 0.99),
            (MADE, returned, 0.5),
            (MADE_P99, returned, 0.99),
        )
    }


def _at_once(source: Source, number: int) -> Figures:
    """How long `number` clones take until all are made and run, and what they hold then; some of them work."""
    memory = _resident()
    began = time.perf_counter()
    clones = source.host.clone_many(source.checkpoint, [source.name() for _ in range(number)])
    made = time.perf_counter() - began
    idle = (_resident() - memory) / number / MIB
    _delete(clones)
    return {
        ALL_MADE: made,
        "clones a second": number / made,
        "resident memory of a clone": idle,
        **_work(source, min(number, WORKERS)),
    }


def _work(source: Source, number: int) -> Figures:
    """What `number` clones write and have translated until each has done some work, and how long that takes."""
    used, translated = source.host.pool.used, source.residence().translations
    began = time.perf_counter()
    clones = source.host.clone_many(source.checkpoint, [source.name() for _ in range(number)])
    enough = source.work + SOME_WORK
    while any(clone.machine.vcpu.work < enough for clone in clones):
        if time.perf_counter() - began > TIMEOUT_S:
            raise BenchmarkError(f"not all of {number} clones have run within {TIMEOUT_S} s")
        time.sleep(LOOK_AT_ALL_S)
    worked = time.perf_counter() - began
    written = (source.host.pool.used - used) * PAGE_SIZE / number / MIB
    translated = source.residence().translations - translated
    _delete(clones)
    return {
        f"until {number} have done some work": worked,
        "written by a clone after some work": written,
        "translated for the source's boot": source.booted / MIB,
        "translated for all clones": translated / MIB,
    }


def _delete(clones: Sequence[Guest]) -> None:
    for clone in clones:
        clone.delete()


def _resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
