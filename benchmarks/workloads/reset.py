"""Going back to a checkpoint in place, by the pages that were written since, and how long a guest stands for one."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.figures import Goal
from benchmarks.guests import NAME, debian_config, has_image
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Task
from benchmarks.workloads.wakeup import quantile
from emuvisor import firmware
from emuvisor.host import Guest, Host
from emuvisor.host.checkpoint import Checkpoint
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.choices import BoardName
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.units import GIB, MIB, PAGE_SIZE

__all__ = ["Reset"]

DIRTY = (0, 16, 64, 256, 1024)
"""Pages that are written before each reset."""
GOAL_PAGES, MOST_US = 64, 200.0
MOST_STOP_MS = 10.0
ROUNDS, QUICK_ROUNDS = 200, 20
STOPS, QUICK_STOPS = 20, 5
FIRST_PAGE = 16 * MIB // PAGE_SIZE
"""The guest's pages from here on are written; those before are the kernel's, or hold code."""
TIMEOUT_S = 300


class Reset:
    """In this process: a paused guest, so that the time until it leaves its pCPU is not in the figures."""

    name = "reset"
    measures = "going back to a checkpoint in place by pages written since, and the stop for taking one"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """A guest of firmware on the isa board, Debian on microvm and pc; each of 256 MiB."""
        quick = context.settings.quick
        context.note(
            "The pages are written from outside while the guest is paused, each once before each reset; what the guest "
            "pays for copying them is not in the figures. Each figure is the median of "
            f"{QUICK_ROUNDS if quick else ROUNDS} resets, or the 99th percentile."
        )
        with ExitStack() as stack:
            host = stack.enter_context(Host(2 * GIB))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            tasks = [*_tasks("isa", _spinning(host, folder), quick)]
            if has_image(context, "Debian"):
                for board in ("microvm", "pc"):
                    tasks += _tasks(board, _booted(host, board, context), quick)
            yield tasks


def _spinning(host: Host, folder: Path) -> Guest:
    image = folder / "spin.bin"
    image.write_bytes(firmware.image("spin"))
    flat = FlatConfig(image, firmware.FLAT_ADDRESS)
    guest = host.create(GuestConfig(name="isa", board="isa", memory=256 * MIB, flat=flat))
    guest.start()
    guest.pause()
    guest.memory.write(FIRST_PAGE * PAGE_SIZE, b"\1" * (max(DIRTY) * PAGE_SIZE))
    return guest


def _booted(host: Host, board: BoardName, context: Context) -> Guest:
    guest = host.create(replace(debian_config(context.settings, board), board=board))
    guest.start()
    if BOOT_MARKER not in guest.console.text and not guest.expect(BOOT_MARKER, TIMEOUT_S):
        raise BenchmarkError(f"{board}: no {BOOT_MARKER!r}; it printed {guest.console.text[-300:]!r}")
    guest.pause()
    return guest


def _tasks(board: str, guest: Guest, quick: bool) -> list[Task]:
    reset, stop = f"reset, {board}", f"stop for a checkpoint, {board}"
    checkpoint = guest.checkpoint()
    pages = [page for page in guest.memory.written_pages() if page >= FIRST_PAGE][: max(DIRTY)]
    rounds = QUICK_ROUNDS if quick else ROUNDS
    resets = Task(
        reset,
        "us",
        [
            Contender(_name(count), partial(_resets, reset, guest, checkpoint, pages[:count], rounds))
            for count in DIRTY
        ],
        goals={reset: Goal(MOST_US, contender=_name(GOAL_PAGES))},
        against=_name(0),
    )
    stops = Task(
        stop,
        "ms",
        [Contender(NAME, partial(_stop, stop, guest, QUICK_STOPS if quick else STOPS))],
        goals={stop: Goal(MOST_STOP_MS)},
    )
    return [resets, stops]


def _name(count: int) -> str:
    return f"{count} pages"


def _resets(name: str, guest: Guest, checkpoint: Checkpoint, pages: Sequence[int], rounds: int) -> Figures:
    """Microseconds of a reset after `pages` were written."""
    times = []
    for _ in range(rounds):
        for page in pages:
            guest.memory.write(page * PAGE_SIZE, b"written")
        start = time.perf_counter_ns()
        changed = guest.reset_to(checkpoint)
        times.append(time.perf_counter_ns() - start)
        if changed != len(pages):
            raise BenchmarkError(f"{guest.name}: {changed} pages went back, of {len(pages)}")
    return {name: quantile(times, 0.5) / 1000, f"{name}, 99th percentile": quantile(times, 0.99) / 1000}


def _stop(name: str, guest: Guest, rounds: int) -> Figures:
    """Milliseconds for which a guest stands while a checkpoint is taken."""
    times = []
    for _ in range(rounds):
        with guest.checkpoint() as checkpoint:
            times.append(checkpoint.stop_ns)
    return {name: quantile(times, 0.5) / 1e6}
