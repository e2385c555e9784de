"""The mechanisms of memory as a resource, each alone: scanning, sharing, stores and the way back, balloons.

Each page of the refaults is a quarter random bytes and three quarters copies of those, so that it compresses to a
third.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.figures import Goal
from benchmarks.guest_programs import has_compiler
from benchmarks.guests import NAME, STEP_WORK, debian_config, has_image, machine, run_until
from benchmarks.harness import BenchmarkError, Contender, Context, Figures, Task
from benchmarks.page_walk import DATA_ADDRESS, IN_ORDER, SCATTERED, PageWalker, walker_machine
from benchmarks.working_set import Meter, compile_guest, guest_config
from emuvisor.cpu.pcpu import Pcpu
from emuvisor.devices.virtio.balloon import Balloon
from emuvisor.images.initramfs import BOOT_MARKER
from emuvisor.machine.machine import Machine
from emuvisor.memory import FramePool, FrameState, GuestMemory
from emuvisor.memory.compressed import CompressedStore
from emuvisor.memory.sharing import PageSharing
from emuvisor.memory.store import PageStore
from emuvisor.memory.swapfile import SwapFile
from emuvisor.units import GIB, MIB, PAGE_SHIFT, PAGE_SIZE

__all__ = ["Memory"]

SCAN_SIZE, QUICK_SCAN_SIZE = 128 * MIB, 32 * MIB
WALK_PAGES, QUICK_WALK_PAGES = 8192, 2048
RANDOM_BYTES = 1024
FORGIVEN = 1.5
"""Times the frames that two guests with equal pages need at least: one look forgets some hints, the next finds them."""
CHUNK = 64
"""Bytes that are copied as one when a page is made."""

SCAN_ZERO, SCAN_EQUAL = "scan of pages of zeros", "scan of pages for equal ones"
SHARE_ZERO, SHARE_EQUAL = "sharing of pages of zeros", "sharing of equal pages"
SCAN_GOAL = Goal(1, at_least=True)

TLB, TOUCH, COPY = "page in place, not in the TLB", "first touch", "write to a shared page"
LZ4, ZSTD = "refault from compression, lz4", "refault from compression, zstd"
SWAP, SWAP_SCATTERED = "refault from swap, in order", "refault from swap, scattered"
DISK = "the disk's part of it, scattered"
REFAULT_GOALS = {LZ4: Goal(20), ZSTD: Goal(20), SWAP: Goal(60), SWAP_SCATTERED: Goal(60)}
STORE_LZ4, STORE_ZSTD, STORE_SWAP = "compressing, lz4", "compressing, zstd", "writing to swap"

BALLOON_PAGES, QUICK_BALLOON_PAGES = 16384, 4096
DEBIAN_BALLOON = 96 * MIB
FILL = "dd if=/dev/zero of=/tmp/full bs=64k count=2048 2>/dev/null; rm /tmp/full; echo filled-$((6*7))\n"
"""So that its free pages have frames."""
BALLOON_TIMEOUT_S = 60


class Memory:
    """In this process, without a host around the guests."""

    name = "memory"
    measures = "scanning and sharing pages, storing them and bringing them back, and balloons"

    @contextmanager
    def tasks(self, context: Context) -> Iterator[Sequence[Task]]:
        """Scans, faults and stores, balloons."""
        quick = context.settings.quick
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            faults = stack.enter_context(_faults(folder, QUICK_WALK_PAGES if quick else WALK_PAGES))
            tasks = [
                _task(
                    "scanning",
                    "GB/s",
                    partial(_scan, QUICK_SCAN_SIZE if quick else SCAN_SIZE),
                    dict.fromkeys((SCAN_ZERO, SCAN_EQUAL), SCAN_GOAL),
                ),
                _task("faults", "us", faults.measure, REFAULT_GOALS),
            ]
            context.note(
                "Scanning is `PageSharing.find` over pages of one guest, 512 at a time as the memory manager does; "
                "sharing is `PageSharing.share` with the full comparison, in bytes of pages that found a partner. "
                "Faults are met by a guest: from its access over the C core, the frame pool and the store back to "
                "the instruction; its pages compress to a third. In order, pages come back as they were stored, and "
                "reading ahead helps; scattered it does not. The swap file is in the host's temporary folder and in "
                "its page cache; the disk's part is what a scattered walk takes longer when the cache has dropped it."
            )
            if has_compiler(context, "the balloon of a bare guest"):
                image = compile_guest(folder)
                pages = QUICK_BALLOON_PAGES if quick else BALLOON_PAGES
                tasks.append(_task("balloon", "pages/s", partial(_bare_balloon, image, folder, pages)))
            if has_image(context, "the balloon of a Debian guest"):
                tasks.append(
                    _task("balloon of Debian", "pages/s", partial(_debian_balloon, context), repeats=1)
                )
            yield tasks


def _task(
    name: str,
    unit: str,
    measure: Callable[[], Figures],
    goals: dict[str, Goal] | None = None,
    repeats: int | None = None,
) -> Task:
    warm_ups = 0 if repeats == 1 else 1
    contenders = [Contender(NAME, measure)]
    return Task(name, unit, contenders, goals=goals or {}, warm_ups=warm_ups, repeats=repeats)


# ---- scanning and sharing ----


def _scan(size: int) -> Figures:
    """GB of pages a second, for pages of zeros and for pages of which each has an equal one in another guest."""
    pool = FramePool(2 * size)
    guests = [GuestMemory(pool, [(0, size)]) for _ in range(2)]
    count = size >> PAGE_SHIFT
    for page in range(count):
        guests[0].place(page, True)
    content = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    content_bytes = content.tobytes()
    sharing = PageSharing(pool)
    figures = dict(zip((SCAN_ZERO, SHARE_ZERO), _pass(sharing, guests[0], count), strict=True))
    for guest in guests:
        guest.discard(0, size)
        guest.write(0, content_bytes)
        sharing.join(guest)
        sharing.find(guest, count)  # so that the next look finds them unchanged
    first, _ = _pass(sharing, guests[0], count)
    second, shared = _pass(sharing, guests[1], count)
    figures[SCAN_EQUAL] = 2 / (1 / first + 1 / second)
    figures[SHARE_EQUAL] = shared
    if pool.used > FORGIVEN * count:  # what the table of hints forgot
        raise BenchmarkError(f"{pool.used} frames are used for two guests of {count} equal pages")
    for guest in guests:
        guest.close()
    return figures


SLICE_PAGES = 512


def _pass(sharing: PageSharing, guest: GuestMemory, count: int) -> tuple[float, float]:
    """GB a second of one look at all pages, and of the sharing (0 when nothing is shared)."""
    looking = sharing_s = 0.0
    shared = 0
    for _ in range(count // SLICE_PAGES):
        start = time.perf_counter()
        findings = sharing.find(guest, SLICE_PAGES)
        middle = time.perf_counter()
        result = sharing.share(findings)
        sharing_s += time.perf_counter() - middle
        looking += middle - start
        shared += result.zero + result.shared
    return count * PAGE_SIZE / looking / 1e9, shared * PAGE_SIZE / sharing_s / 1e9


# ---- faults ----


class _Faults:
    """A guest that walks over its pages, which were put away before each walk."""

    def __init__(self, walker: PageWalker, stores: dict[str, PageStore], swap_path: Path) -> None:
        self._walker = walker
        self._stores = stores
        self._swap_path = swap_path
        self._content = _compressible(walker.pages)

    def measure(self) -> Figures:
        """Microseconds of each kind of fault, and of storing a page."""
        walk = self._walker.walk
        figures: dict[str, float] = {}
        self._fill()
        walk(SCATTERED)
        self._walker.memory.revoke()
        figures[TLB] = walk(SCATTERED)
        self._walker.memory.discard(DATA_ADDRESS, len(self._content))
        figures[TOUCH] = walk(SCATTERED, write=True)
        self._fill()
        twin = self._walker.memory.clone()
        figures[COPY] = walk(SCATTERED, write=True)
        twin.close()
        for store, refault in ((STORE_LZ4, LZ4), (STORE_ZSTD, ZSTD)):
            figures[store] = self._send_away(FrameState.COMPRESSED, self._stores[store])
            figures[refault] = walk(SCATTERED)
        swap = self._stores[STORE_SWAP]
        figures[STORE_SWAP] = self._send_away(FrameState.SWAPPED, swap)
        figures[SWAP] = walk(IN_ORDER)
        self._send_away(FrameState.SWAPPED, swap)
        figures[SWAP_SCATTERED] = walk(SCATTERED)
        self._send_away(FrameState.SWAPPED, swap)
        _drop_from_cache(self._swap_path)
        figures[DISK] = max(0.0, walk(SCATTERED) - figures[SWAP_SCATTERED])
        if self._walker.memory.read(DATA_ADDRESS, len(self._content)) != self._content:
            raise BenchmarkError("pages came back from swap with another content")
        return figures

    def _fill(self) -> None:
        self._walker.memory.discard(DATA_ADDRESS, len(self._content))
        self._walker.memory.write(DATA_ADDRESS, self._content)

    def _send_away(self, state: FrameState, store: PageStore) -> float:
        """Fill all pages and send them to `store`; microseconds for each."""
        self._fill()
        memory = self._walker.memory
        memory.stores[state] = store
        first = DATA_ADDRESS >> PAGE_SHIFT
        number, slot = next(
            (n, s) for n, s in enumerate(memory.slots) if s.first <= first < s.first + len(s.entries)
        )
        pages = [(number, first - slot.first + page) for page in range(self._walker.pages)]
        start = time.perf_counter()
        freed = memory.send_away(state, pages)
        seconds = time.perf_counter() - start
        if freed != len(pages):
            raise BenchmarkError(f"{store.name} took {freed} of {len(pages)} pages")
        return seconds / len(pages) * 1e6


@contextmanager
def _faults(folder: Path, pages: int) -> Iterator[_Faults]:
    pool = FramePool(4 * pages * PAGE_SIZE)
    size = pages * PAGE_SIZE
    path = folder / "refault.swap"
    swap = SwapFile(path, size)
    compressed = [CompressedStore(size, "lz4"), CompressedStore(size, "zstd")]
    stores: dict[str, PageStore] = dict(zip((STORE_LZ4, STORE_ZSTD), compressed, strict=True))
    try:
        with walker_machine(folder, pages, pool) as guest:
            yield _Faults(PageWalker(guest, pages, pool), {**stores, STORE_SWAP: swap}, path)
    finally:
        swap.close()
        for store in compressed:
            store.close()


def _compressible(pages: int) -> bytes:
    """Pages of random bytes and copies of them."""
    random = np.random.default_rng(1)
    content = np.empty((pages, PAGE_SIZE // CHUNK, CHUNK), np.uint8)
    new = RANDOM_BYTES // CHUNK
    content[:, :new] = random.integers(0, 256, (pages, new, CHUNK), dtype=np.uint8)
    chosen = random.integers(0, new, (pages, PAGE_SIZE // CHUNK - new))
    content[:, new:] = np.take_along_axis(content, chosen[:, :, None], axis=1)
    return content.tobytes()


def _drop_from_cache(path: Path) -> None:
    """Have the host forget what it caches of a file. Nothing happens on a file system in memory."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


# ---- balloons ----


def _bare_balloon(image: bytes, folder: Path, pages: int) -> Figures:
    """Pages a second that programs/workingset.c gives and takes: all that it can do without, about half of `pages`."""
    pool = FramePool(2 * pages * PAGE_SIZE)
    with machine(guest_config(image, folder, pages), pool) as guest:
        pcpu = Pcpu(pool)
        meter = Meter.of(guest)
        _run(guest, pcpu, lambda: meter.filled)
        wanted = pages * 2 // 5
        return _inflate_and_deflate(guest, pcpu, wanted, "a bare guest")


def _debian_balloon(context: Context) -> Figures:
    """The same of Linux's driver."""
    config = replace(debian_config(context.settings), balloon=True)
    pool = FramePool(GIB)
    with machine(config, pool) as guest:
        pcpu = Pcpu(pool)
        run_until(guest, pcpu, BOOT_MARKER)
        run_until(guest, pcpu, "filled-42", FILL)
        return _inflate_and_deflate(guest, pcpu, DEBIAN_BALLOON // PAGE_SIZE, "Debian")


def _inflate_and_deflate(guest: Machine, pcpu: Pcpu, pages: int, who: str) -> Figures:
    assert guest.virtio is not None
    balloon = guest.virtio.balloon
    assert balloon is not None
    figures = {}
    for name, target in ((f"inflating, {who}", pages), (f"deflating, {who}", 0)):
        balloon.target_pages = target
        start = time.perf_counter()
        _run(guest, pcpu, partial(_holds, balloon, target))
        figures[name] = pages / (time.perf_counter() - start)
    return figures


def _holds(balloon: Balloon, target: int) -> bool:
    return balloon.ballooned_pages == target


def _run(guest: Machine, pcpu: Pcpu, until: Callable[[], bool]) -> None:
    """Run the guest, in short slices, until something is the case. Raises BenchmarkError when it takes too long."""
    end = time.perf_counter() + BALLOON_TIMEOUT_S
    while not until():
        guest.run_slice(pcpu, STEP_WORK)
        if guest.outcome is not None or time.perf_counter() > end:
            raise BenchmarkError(
                f"{guest.config.name} did not get there in {BALLOON_TIMEOUT_S} s: {guest.outcome}"
            )
