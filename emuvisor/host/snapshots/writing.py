"""From a checkpoint to a snapshot in the store. The guest runs on meanwhile: nobody changes the checkpoint's pages."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import HostError, SnapshotError, UsageError
from emuvisor.host.snapshots.contents import Contents
from emuvisor.host.snapshots.disks import keep_disks
from emuvisor.memory import GuestMemory
from emuvisor.memory.pool import ZERO_FRAME
from emuvisor.memory.slot import Slot
from emuvisor.memory.stage2 import FRAME_MASK, FRAMED, STORED, in_states
from emuvisor.memory.store import PageStore
from emuvisor.store.draft import Draft
from emuvisor.store.index import SnapshotInfo
from emuvisor.store.lazy import LazyPages
from emuvisor.store.store import Store
from emuvisor.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from emuvisor.host.checkpoint import Checkpoint

__all__ = ["take_snapshot"]

BATCH = 512
"""Pages that are handed to the store at a time: 2 MiB."""

Progress = Callable[[int, int], object]
"""Hears how many pages are done, and of how many."""
Places = NDArray[np.int64]


def take_snapshot(
    checkpoint: "Checkpoint",
    store: Store,
    guest_name: str,
    snapshot_name: str,
    *,
    parent: str | None = None,
    comment: str = "",
    progress: Progress | None = None,
) -> SnapshotInfo:
    """Write `checkpoint` to `store` as snapshot `snapshot_name` of guest `guest_name`, which came from its snapshot
    `parent`. Returns when it is on the disk. What `progress` raises ends it.

    A snapshot is there as a whole or, after any error, not at all. Pages that the store has, of whatever guest, are not
    stored again. It takes no frames of the host and some MiB of memory besides 16 bytes a page.

    Raises UsageError when there is no such guest or parent, StateError when the guest has a snapshot of this name,
    SnapshotError for a checkpoint that is closed, PageLost for a page that cannot be had; HostError and, for disks,
    ImageError when the host cannot write.
    """
    _require_open(checkpoint)
    before = None
    if parent is not None:
        before = next((info for info in store.snapshots(guest_name) if info.name == parent), None)
        if before is None:
            raise UsageError(f"guest {guest_name!r} has no snapshot {parent!r}")
    with store.new_snapshot(
        guest_name, snapshot_name, parent=before, comment=comment, now=lambda: checkpoint.taken
    ) as draft:
        _Pages(checkpoint.memory, draft, progress).write()
        with keep_disks(checkpoint.disks, store) as disks:
            contents = Contents.of(checkpoint.config, checkpoint.state, checkpoint.memory, disks.described)
            # The host may have closed it meanwhile: what was read then is anybody's.
            _require_open(checkpoint)
            return draft.commit(contents.as_plain(), disks.layers)


def _require_open(checkpoint: "Checkpoint") -> None:
    if checkpoint.closed:
        raise SnapshotError(f"the checkpoint of guest {checkpoint.guest!r} is closed")


class _Pages:
    """The pages of `memory`, which nobody changes, on their way into `draft`."""

    def __init__(self, memory: GuestMemory, draft: Draft, progress: Progress | None) -> None:
        self._memory = memory
        self._draft = draft
        self._progress = progress
        self._done = 0
        self._total = sum(int(np.count_nonzero(_holding(part))) for part in memory.sets)

    def write(self) -> None:
        """Write them. Raises PageLost, HostError."""
        first = 0
        for part in self._memory.sets:
            holding = _holding(part)
            self._framed(part, first, np.flatnonzero(holding & in_states(part.entries, FRAMED)))
            for state, store in tuple(self._memory.stores.items()):
                self._stored(part, first, np.flatnonzero(in_states(part.entries, (state,))), store)
            first += len(part.entries)

    def _framed(self, part: Slot, first: int, places: Places) -> None:
        """Pages that have a frame."""
        host = self._memory.host
        for batch in _batches(places):
            starts = ((part.entries[batch] & np.uint32(FRAME_MASK)).astype(np.int64) << PAGE_SHIFT).tolist()
            self._put(first + batch, [host[start : start + PAGE_SIZE] for start in starts])

    def _stored(self, part: Slot, first: int, places: Places, store: PageStore) -> None:
        """Pages that `store` keeps. Those of a snapshot in the same store are only named; the others are read into
        memory of our own."""
        if isinstance(store, LazyPages) and len(places):
            slots = part.entries[places] & np.uint32(FRAME_MASK)
            known = self._draft.keep(first + places, store, slots)
            self._note(int(np.count_nonzero(known)))
            places = places[~known]
        if not len(places):
            return
        buffer = memoryview(bytearray(min(BATCH, len(places)) * PAGE_SIZE))
        for batch in _batches(places):
            pages = [buffer[n * PAGE_SIZE : (n + 1) * PAGE_SIZE] for n in range(len(batch))]
            for number, page in zip(
                (part.entries[batch] & np.uint32(FRAME_MASK)).tolist(), pages, strict=True
            ):
                try:
                    store.load(number, page)
                except MemoryError:
                    raise HostError("the host has no memory to read a guest's page from its store") from None
            self._put(first + batch, pages)

    def _put(self, numbers: Places, pages: list[memoryview]) -> None:
        self._draft.put(numbers, pages)
        self._note(len(pages))

    def _note(self, pages: int) -> None:
        self._done += pages
        if self._progress is not None:
            self._progress(self._done, self._total)


def _holding(part: Slot) -> NDArray[np.bool_]:
    """Which pages may hold something: they have a frame that is not the one of zeros, or a store keeps them."""
    framed = in_states(part.entries, FRAMED)
    holding: NDArray[np.bool_] = framed & ((part.entries & np.uint32(FRAME_MASK)) != ZERO_FRAME)
    holding |= in_states(part.entries, STORED)
    return holding


def _batches(places: Places) -> list[Places]:
    return [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
