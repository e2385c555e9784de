"""A snapshot that is being written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import StateError, UsageError
from emuvisor.store.files import HostFiles, host_errors
from emuvisor.store.hashes import as_rows
from emuvisor.store.index import SnapshotInfo
from emuvisor.store.lazy import LazyPages
from emuvisor.store.manifest import Manifest, Metadata, compress_states
from emuvisor.store.pack import MAX_PAGES, PackWriter, hash_page
from emuvisor.store.packs import PLACE_BITS, UNKNOWN_PAGE, ZERO_PAGE, Packs, Places
from emuvisor.store.snapshot import Snapshot
from emuvisor.units import PAGE_SIZE

__all__ = ["Draft", "Pages"]

Pages = Sequence[memoryview] | Sequence[bytes] | NDArray[np.uint8]
"""4096 bytes each, or an array with a page in each row."""
MAX_FRAME = (1 << 32) - 1
"""Guest frame numbers: 16 TiB of guest physical addresses."""
_ZERO_HASH = hash_page(bytes(PAGE_SIZE))


class Draft:
    """Pages, and which guest frames they are for; `commit` makes a snapshot of it, `abandon` and an error none.

    One thread uses it at a time; others may use the store meanwhile. Pages that the store has are not stored again.
    `finish` puts the manifest into the store, `ended` hears that there is no draft any more.
    """

    def __init__(
        self,
        metadata: Metadata,
        packs: Packs,
        files: HostFiles,
        finish: Callable[[Manifest], SnapshotInfo],
        ended: Callable[[], None],
    ) -> None:
        self._metadata = metadata
        self._packs = packs
        self._files = files
        self._finish = finish
        self._ended = ended
        self._open = True
        self._writer: PackWriter | None = None
        self._mine: dict[bytes, int] = {}
        """Places of the pages in the pack that is being written."""
        self._frames: list[NDArray[np.int64]] = []
        self._places: list[Places] = []
        self.new_pages = 0
        """Pages stored that the store did not have."""
        self.new_bytes = 0
        """What they take."""

    # ---- pages ----

    def put_pages(self, pages: Pages) -> Places:
        """Store those of `pages` that the store does not have; returns their places, for `map`.

        Raises UsageError for one that has not 4096 bytes; StateError when the draft is at its end; HostError when the
        host cannot write them, which ends it.
        """
        self._require_open()
        rows = _rows(pages)
        digests = [hash_page(page) for page in rows]
        if not digests:
            return np.empty(0, np.int64)
        try:
            with host_errors(self._packs.folder):
                places = self._packs.find(as_rows(digests))
                for row in np.flatnonzero(places < 0).tolist():
                    places[row] = self._put(digests[row], rows[row])
        except BaseException:
            self.abandon()
            raise
        return places

    def _put(self, digest: bytes, page: memoryview | bytes) -> int:
        if digest == _ZERO_HASH:
            return ZERO_PAGE
        place = self._mine.get(digest, UNKNOWN_PAGE)
        if place == UNKNOWN_PAGE:
            if self._writer is None:
                self._writer = PackWriter(self._packs.folder, self._files)
            number = self._packs.number(self._writer.uid)
            place = self._mine[digest] = (number << PLACE_BITS) + self._writer.count
            self.new_bytes += self._writer.add(digest, page)
            self.new_pages += 1
            if self._writer.count == MAX_PAGES:
                self._seal(self._writer)
        return place

    def _seal(self, writer: PackWriter) -> None:
        writer.seal()
        self._packs.sealed(writer.uid, as_rows(list(self._mine)))  # a dict keeps the order of its keys
        self._writer = None
        self._mine = {}

    # ---- the map ----

    def map(self, frames: Iterable[int] | NDArray[np.integer[Any]], places: Places) -> None:
        """Guest frame `frames[i]` has the page at `places[i]`, whatever was said of it before. Frames that are never
        named are zeros. Raises UsageError for frame numbers of 2^32 and more."""
        self._require_open()
        numbers = (
            np.fromiter(frames, np.int64) if not isinstance(frames, np.ndarray) else frames.astype(np.int64)
        )
        if len(numbers) != len(places):
            raise UsageError(f"{len(numbers)} guest frames for {len(places)} pages")
        if len(numbers) and (numbers.min() < 0 or numbers.max() > MAX_FRAME):
            raise UsageError(
                f"guest frames {numbers.min():#x} to {numbers.max():#x}; the last one is {MAX_FRAME:#x}"
            )
        self._frames.append(numbers)
        self._places.append(places)

    def put(self, frames: Iterable[int] | NDArray[np.integer[Any]], pages: Pages) -> None:
        """`put_pages` and `map`."""
        self.map(frames, self.put_pages(pages))

    def keep(
        self, frames: NDArray[np.integer[Any]], lazy: LazyPages, slots: NDArray[np.integer[Any]]
    ) -> NDArray[np.bool_]:
        """Guest frame `frames[i]` has page `slots[i]` of `lazy`, without a look at its content; returns for which of
        them that could be said: not for pages of another store. Raises PageLost for a slot without an owner."""
        places = lazy.places(slots, self._packs)
        known: NDArray[np.bool_] = places != UNKNOWN_PAGE
        self.map(frames[known], places[known])
        return known

    def inherit(self, parent: Snapshot) -> None:
        """All guest frames as in `parent`: call it first, and `put` what is different."""
        self.map(parent.frames, parent.places)

    # ---- the end ----

    def commit(
        self, states: Any = None, disks: Mapping[str, Sequence[str]] | None = None, comment: str = ""
    ) -> SnapshotInfo:
        """Make it a snapshot, with the devices' `states` (plain data) and the layers of each drive in the store's
        disks; when this returns it is safe on the disk.

        Raises SnapshotError for states that are no plain data, StateError when the guest is gone or has a snapshot of
        this name meanwhile, HostError. In all cases the draft is at its end.
        """
        self._require_open()
        try:
            compressed = compress_states(states)
            with host_errors(self._packs.folder):
                if self._writer is not None:
                    self._seal(self._writer)
            metadata = replace(
                self._metadata,
                disks={drive: tuple(layers) for drive, layers in (disks or {}).items()},
                comment=comment or self._metadata.comment,
            )
            info = self._finish(self._manifest(metadata, compressed))
        finally:
            self.abandon()
        return info

    def _manifest(self, metadata: Metadata, states: bytes) -> Manifest:
        frames = np.concatenate([np.empty(0, np.int64), *self._frames])
        places = np.concatenate([np.empty(0, np.int64), *self._places])
        # Of several places for a frame the last one counts: the first one that `unique` finds from the end.
        frames, last = np.unique(frames[::-1], return_index=True)
        places = places[::-1][last]
        there = places != ZERO_PAGE
        frames, places = frames[there], places[there]
        numbers, packs = np.unique(places >> PLACE_BITS, return_inverse=True)
        return Manifest(
            metadata,
            states,
            [self._packs.uid(number) for number in numbers.tolist()],
            frames.astype(np.uint32),
            ((packs << PLACE_BITS) + (places & 0xFFFF)).astype(np.uint32),
        )

    def abandon(self) -> None:
        """Forget it. What it stored and nobody needs goes with the next `gc`."""
        if not self._open:
            return
        self._open = False
        try:
            if self._writer is not None:
                with host_errors(self._packs.folder):
                    self._writer.abandon()
        finally:
            self._ended()

    def _require_open(self) -> None:
        if not self._open:
            raise StateError(f"the draft of snapshot {self._metadata.name!r} is committed or abandoned")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()


def _rows(pages: Pages) -> Sequence[memoryview] | Sequence[bytes]:
    """The pages one by one. Raises UsageError for one that has not 4096 bytes."""
    if isinstance(pages, np.ndarray):
        data = pages.reshape(-1).data
        pages = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
    for page in pages:
        if len(page) != PAGE_SIZE:
            raise UsageError(f"a page of {len(page)} bytes; it has {PAGE_SIZE}")
    return pages
