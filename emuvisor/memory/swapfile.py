"""Pages kept in a file of the host's: the last place before a guest has to wait."""

import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import HostError, PageLost, UsageError
from emuvisor.memory.pagingfile import HostPagingFile, PagingFile
from emuvisor.memory.store import SlotOwners
from emuvisor.memory.swapslots import SwapSlots
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE, format_size

__all__ = ["SwapFile"]

MAX_PAGES = 1 << 24
"""Numbers that a stage-2 entry can hold."""
SLOT_BYTES = 10
"""Host memory that the index takes per page of the file."""
WRITE_PAGES = 256
"""Pages written in one call, at most: 1 MiB."""
READ_PAGES = 8
"""Pages read in one call, at most: as Linux's page_cluster of 3."""
AHEAD_PAGES = 64
"""Pages read ahead that wait to be asked for; the oldest is dropped for a new one."""
PUNCH_EVERY = 512
"""Pages freed between two looks for space that the disk can have back."""
PUNCH_PAGES = 16
"""Least run of freed pages that is punched out: a hole costs the same time whatever its length."""


@dataclass(slots=True)
class _Statistics:
    stored: int = 0
    loaded: int = 0
    lost: int = 0
    no_room: int = 0
    write_errors: int = 0
    read_ahead: int = 0
    read_ahead_used: int = 0
    punched: int = 0


class SwapFile:
    """A `PageStore` in a new file at `path`, of at most `limit` bytes, which is deleted at `close`.

    What the file gives back is checked: the CRC-32 of each page lies in the host's memory (`SLOT_BYTES` per page of
    the file with the rest of the index). A disk that is full or fails costs no page: what
    could not be written stays with its owner.

    A page's neighbours in the file that were stored in the same call are read with it, as they will be asked for next.

    Raises UsageError for a limit that is no swap file and when something is at `path` already, HostError when the file
    or its index cannot be made.
    """

    name = "swap"

    def __init__(
        self, path: Path | str, limit: int, open_file: Callable[[Path], PagingFile] = HostPagingFile
    ) -> None:
        count = limit // PAGE_SIZE
        if not 1 <= count <= MAX_PAGES:
            raise UsageError(
                f"a swap file of {limit} bytes is impossible; it has at least 4 KiB and at most "
                f"{format_size(MAX_PAGES * PAGE_SIZE)}"
            )
        self.limit_bytes = count * PAGE_SIZE
        try:
            self._slots = SwapSlots(count)
            self._checksums: NDArray[np.uint32] = np.zeros(count, np.uint32)
            self._batches: NDArray[np.uint32] = np.zeros(count, np.uint32)
            """Which call of `store` each page came with."""
        except MemoryError:
            size = format_size(count * SLOT_BYTES)
            raise HostError(f"the host does not give {size} for the index of swap file {path}") from None
        self._file = open_file(Path(path))
        self._batch = 0
        self._ahead: dict[int, bytearray] = {}
        """Pages that were read ahead, oldest first."""
        self._unpunched = 0
        """Pages freed since the last look."""
        self._holes = True
        """The file system can take space back from the middle of a file, as far as is known."""
        self._owners = SlotOwners()
        self._counts = _Statistics()
        self.last_error = ""
        """What the host last said when it did not write, read or punch; empty when it always did."""
        self.trouble = ""
        """Why the file did not grow when it was to, until it does again; empty when all is well. Meanwhile slots that
        have their space on the disk are used first."""
        self._lock = threading.Lock()
        """Held for the tables, and not while the disk works; but for punching, so that no slot is used meanwhile."""

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def pages(self) -> int:
        """Pages that it keeps."""
        return self._slots.taken

    @property
    def used_bytes(self) -> int:
        """What they take of the limit."""
        return self._slots.taken * PAGE_SIZE

    @property
    def statistics(self) -> dict[str, int]:
        """Pages since it was made: `stored`, `loaded`, `lost`; not stored for `no_room` or as the disk failed
        (`write_errors`); `read_ahead`, and of those `read_ahead_used`; whose space went back to the disk (`punched`).
        And freed pages that have their space in the file at the moment (`unpunched`): new ones will use it."""
        with self._lock:
            return {**asdict(self._counts), "unpunched": self._slots.dirty}

    # ---- store ----

    def store(self, pages: Sequence[memoryview]) -> list[int | None]:
        """Write what finds room; see `PageStore`. After an error of the disk, or when the host has no memory for the
        work, the rest is not tried."""
        with self._lock:
            self._batch = self._batch % 0xFFFF_FFFF + 1
            batch = self._batch
        slots: list[int | None] = []
        while len(slots) < len(pages):
            with self._lock:
                wanted = min(len(pages) - len(slots), WRITE_PAGES)
                old = self._slots.take_dirty(wanted) if self.trouble else range(0)
                run = old or self._slots.take(wanted)
                self._counts.no_room += 0 if run else len(pages) - len(slots)
                self._batches[run.start : run.stop] = 0  # until they are written, nobody reads them ahead
            if not run:
                break
            written = self._write(run, pages[len(slots) : len(slots) + len(run)], batch)
            slots += run[:written]
            if written < len(run):
                with self._lock:
                    self._slots.release(run[written:])
                    self._counts.write_errors += len(pages) - len(slots)
                break
            if not old:
                self.trouble = ""
        return slots + [None] * (len(pages) - len(slots))

    def _write(self, run: range, pages: Sequence[memoryview], batch: int) -> int:
        """Write `pages` to the slots of `run`; returns how many are there for good."""
        done, total = 0, len(pages) << PAGE_SHIFT
        try:
            while done < total:
                first, inside = divmod(done, PAGE_SIZE)
                rest = [pages[first][inside:], *pages[first + 1 :]]
                done += self._file.write(rest, (run.start << PAGE_SHIFT) + done)
        except (OSError, MemoryError) as error:
            self.last_error = (
                f"writing {len(pages)} pages at offset {run.start << PAGE_SHIFT:#x}: {_reason(error)}"
            )
            self.trouble = f"swap file {self.path}: {_reason(error)}"
        written = done >> PAGE_SHIFT
        with self._lock:
            for slot, page in zip(run[:written], pages, strict=False):
                self._checksums[slot] = zlib.crc32(page)
            self._slots.fill(run[:written])
            self._batches[run.start : run.start + written] = batch
            self._counts.stored += written
        return written

    # ---- load ----

    def load(self, slot: int, into: memoryview) -> None:
        """Read a page, and its neighbours if they are new, and check it; see `PageStore`."""
        with self._lock:
            if not self._slots.holds(slot):
                raise PageLost(f"swap file {self.path} has no page {slot}")
            known = self._ahead.pop(slot, None)
            neighbours = [] if known else self._neighbours(slot)
            self._counts.read_ahead_used += known is not None
        try:
            if known is not None:
                into[:] = known
            else:
                self._read(slot, into, neighbours)
            found, wanted = zlib.crc32(into), int(self._checksums[slot])
            if found != wanted:
                raise self._lost(slot, f"its checksum is {found:#010x}, not {wanted:#010x}")
        except PageLost:
            with self._lock:
                self._counts.lost += 1
            raise
        with self._lock:
            self._counts.loaded += 1

    def _neighbours(self, slot: int) -> list[int]:
        """The slots behind `slot` that were stored with it and are not known yet."""
        batch = self._batches[slot]
        out: list[int] = []
        for other in range(slot + 1, slot + READ_PAGES):
            if not self._slots.holds(other) or self._batches[other] != batch or other in self._ahead:
                break
            out.append(other)
        return out

    def _read(self, slot: int, into: memoryview, neighbours: list[int]) -> None:
        """Read a page and, if that works at once, its neighbours."""
        offset = slot << PAGE_SHIFT
        try:
            buffers = [bytearray(PAGE_SIZE) for _ in neighbours]
            length = self._file.read([into, *buffers], offset)
            while length < PAGE_SIZE:  # a file on a network may come in pieces
                more = self._file.read([into[length:]], offset + length)
                if not more:
                    raise self._lost(slot, f"the file was cut: {length} of its {PAGE_SIZE} bytes are there")
                length += more
        except (OSError, MemoryError) as error:
            if neighbours:  # perhaps it is one of them that cannot be read, or has no buffer
                self._read(slot, into, [])
                return
            if isinstance(error, MemoryError):
                raise
            self.last_error = f"reading a page at offset {offset:#x}: {error.strerror}"
            raise self._lost(slot, f"it cannot be read: {error.strerror}") from None
        with self._lock:
            read = (length >> PAGE_SHIFT) - 1
            for other, content in zip(neighbours[:read], buffers, strict=False):
                # one that was freed meanwhile, and perhaps given to somebody else, was read for nothing
                if self._slots.holds(other) and self._batches[other] == self._batches[slot]:
                    self._ahead[other] = content
                    self._counts.read_ahead += 1
            while len(self._ahead) > AHEAD_PAGES:
                del self._ahead[next(iter(self._ahead))]

    def _lost(self, slot: int, reason: str) -> PageLost:
        return PageLost(f"swap file {self.path}, page at offset {slot << PAGE_SHIFT:#x}: {reason}")

    # ---- share and free ----

    def share(self, slots: Sequence[int]) -> None:
        """See `PageStore`."""
        with self._lock:
            self._owners.share(slots)

    def free(self, slots: Sequence[int]) -> None:
        """See `PageStore`. Raises KeyError for a slot without an owner."""
        with self._lock:
            gone = self._owners.free(slots)
            self._slots.release(gone)
            for slot in gone:
                self._ahead.pop(slot, None)
            self._unpunched += len(gone)
            if self._holes and (self._unpunched >= PUNCH_EVERY or not self._slots.taken):
                self._unpunched = 0
                self._punch()

    def _punch(self) -> None:
        """Let the disk have the space of long runs of freed pages; scattered ones wait for their neighbours. A disk
        that fails is not asked again: the slots are of use anyway."""
        for run in self._slots.dirty_runs(PUNCH_PAGES):
            try:
                self._file.punch(run.start << PAGE_SHIFT, len(run) << PAGE_SHIFT)
            except OSError as error:
                self.last_error = f"punching a hole at offset {run.start << PAGE_SHIFT:#x}: {error.strerror}"
                self._holes = False
                break
            self._slots.clean(run)
            self._counts.punched += len(run)

    def close(self) -> None:
        """Delete the file; what it holds is gone. Raises HostError when the host refuses that."""
        try:
            self._file.close()
        except OSError as error:
            raise HostError(f"swap file {self.path} cannot be deleted: {error.strerror}") from None


def _reason(error: OSError | MemoryError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "the host has no memory for it"
