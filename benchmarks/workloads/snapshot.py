"""Snapshots of a Debian guest in a store: how long it stands, what is written, and how soon a restored one runs."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guests import NAME, debian_config, has_image, program
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Settings, Task
from benchmarks.process import environment
from emuvisor.host import Guest, Host
from emuvisor.host.snapshots import take_snapshot
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.choices import BoardName
from emuvisor.store import Store
from emuvisor.units import GIB, MIB

__all__ = ["Snapshots"]

BOOT_S = 120
RESTORE_S = 60
RUN_S = 0.5
"""How long the guest works between a snapshot and its increment."""
WORK = "while :; do sha256sum /bin/busybox > /tmp/sum; done\n"
MOST_STOP_MS, MOST_RESTORE_MS = 10.0, 5.0
GUESTS, QUICK_GUESTS = 10, 3
BOARDS: tuple[BoardName, ...] = ("microvm", "pc")
STOP, FULL, AGAIN, MORE = "stop", "full snapshot", "full snapshot of known pages", "increment"
UP, CALL = "Host() to first instruction", "restore to first instruction"
MEMORY, STORED, TIMES = "memory of the guests", "stored", "deduplication and compression"


def booted(host: Host, settings: Settings, name: str, board: BoardName) -> Guest:
    """A guest at its shell. Raises BenchmarkError."""
    guest = host.create(replace(debian_config(settings, name, "host"), board=board))
    guest.start()
    if not guest.expect(BOOT_MARKER, BOOT_S):
        raise BenchmarkError(f"{name} does not boot:\n{guest.console.text[-1000:]}")
    return guest


class Subject:
    """A guest that works, and the store that its snapshots go to."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self._guest = guest
        self._folder = folder
        self._numbers = count()
        guest.type(WORK)
        guest.pause()

    def take(self) -> Figures:
        """A snapshot in an empty store, the same one again, and one of what the guest did meanwhile."""
        self._guest.resume()
        try:
            time.sleep(RUN_S)
            return self._take(next(self._numbers))
        finally:
            self._guest.pause()  # what is restored is measured without it

    def _take(self, number: int) -> Figures:
        with Store(self._folder / str(number)) as store:
            store.define("guest", "")
            with self._guest.checkpoint() as checkpoint:
                began = time.perf_counter()
                first = take_snapshot(checkpoint, store, "guest", "first")
                full = time.perf_counter()
                take_snapshot(checkpoint, store, "guest", "again")
                again = time.perf_counter()
            size = store.info().live_bytes
            time.sleep(RUN_S)
            with self._guest.checkpoint() as later:
                then = time.perf_counter()
                take_snapshot(later, store, "guest", "later", parent="first")
                more = time.perf_counter()
            return {
                STOP: max(checkpoint.stop_ns, later.stop_ns) / 1e6,
                FULL: (full - began) * 1e3,
                AGAIN: (again - full) * 1e3,
                MORE: (more - then) * 1e3,
                f"{FULL}, memory": first.pages * 4096 / MIB,
                f"{FULL}, size": size / MIB,
                f"{MORE}, size": (store.info().live_bytes - size) / MIB,
            }

    def restore(self) -> Figures:
        """Restore the first snapshot in a process of its own. Raises BenchmarkError."""
        argv = program("restore", str(self._folder / "0"), "guest", "first")
        done = subprocess.run(
            argv, env=environment(), capture_output=True, text=True, timeout=RESTORE_S, check=False
        )
        if done.returncode:
            raise BenchmarkError(f"{argv[2]} failed: {done.stderr[-400:]}")
        times = json.loads(done.stdout)
        return {UP: times["host_ms"], CALL: times["call_ms"]}


class Snapshots:
    """Guests are booted once for each board; the store is in the folder for temporary files."""

    name = "snapshot"
    measures = "a working Debian guest's snapshot: stop, writing, size; a restored one's first instruction"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Taking and restoring by board; what a store of several guests' snapshots takes."""
        if not has_image(context, self.name):
            yield []
            return
        settings = context.settings
        context.note(
            "The guest runs on while its snapshot is written; it hashes a file without end. Each full snapshot goes to "
            "an empty store. While a restored guest is measured the others stand; it runs in a process of its own, in "
            "which Python and the modules that the guest needs are there (they take some 0.2 s); its "
            "pages are read when it touches them."
        )
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emuvisor-benchmark-")))
            host = stack.enter_context(Host(GIB))
            tasks = []
            for board in BOARDS:
                guest = booted(host, settings, board, board)
                tasks += _tasks(board, Subject(guest, folder / board), folder)
            yield [*tasks, _ten(settings, folder)]


def _tasks(board: BoardName, subject: Subject, folder: Path) -> list[Task]:
    (folder / board).mkdir()
    sizes = (f"{FULL}, memory", f"{FULL}, size", f"{MORE}, size")
    return [
        Task(
            name=f"snapshot, {board}",
            unit="ms",
            contenders=[Contender(NAME, partial(_named, board, subject.take))],
            goals={f"{STOP}, {board}": Goal(MOST_STOP_MS)},
            units=dict.fromkeys((f"{size}, {board}" for size in sizes), "MiB"),
            warm_ups=0,
        ),
        Task(
            name=f"restore, {board}",
            unit="ms",
            contenders=[Contender(NAME, partial(_named, board, subject.restore))],
            goals={f"{UP}, {board}": Goal(MOST_RESTORE_MS)},
        ),
    ]


def _named(board: BoardName, measure: Callable[[], Figures]) -> Figures:
    return {f"{name}, {board}": value for name, value in measure().items()}


def _ten(settings: Settings, folder: Path) -> Task:
    guests = QUICK_GUESTS if settings.quick else GUESTS
    return Task(
        name=f"{guests} guests",
        unit="MiB",
        contenders=[Contender(NAME, partial(_deduplicate, settings, folder / "many", guests))],
        units={TIMES: "times"},
        warm_ups=0,
        repeats=1,
    )


def _deduplicate(settings: Settings, folder: Path, guests: int) -> Figures:
    """Boot guests one by one and have a snapshot of each."""
    with Store(folder) as store, Host(GIB) as host:
        for number in range(guests):
            guest = booted(host, settings, f"guest{number}", "microvm")
            store.define(guest.name, "")
            with guest.checkpoint() as checkpoint:
                take_snapshot(checkpoint, store, guest.name, "booted")
            guest.delete()
        info = store.info()
        return {
            MEMORY: info.snapshot_bytes / MIB,
            STORED: info.live_bytes / MIB,
            TIMES: info.snapshot_bytes / info.live_bytes,
        }
