"""All packs of a store: which of them are open, and which page is where.

A page's place is a number: that of its pack, as this process counts them, times 2^16, and the page's in the pack.
"""

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emuvisor.errors import PageLost, SnapshotError
from emuvisor.store.hashes import HashIndex
from emuvisor.store.pack import SUFFIX, Hashes, Pack

__all__ = ["PLACE_BITS", "UNKNOWN_PAGE", "ZERO_PAGE", "Packs", "Places"]

PLACE_BITS = 16
_INDEX_MASK = (1 << PLACE_BITS) - 1
ZERO_PAGE = -1
"""Place of the page of zeros, which is never stored."""
UNKNOWN_PAGE = -2
"""Place of a page that is not stored yet."""
MAX_OPEN = 128
"""Packs that are open at a time: one takes a file descriptor and up to 0.6 MB."""

Places = NDArray[np.int64]


class Packs:
    """The packs in `folder`. Several threads use it at a time."""

    def __init__(self, folder: Path, max_open: int = MAX_OPEN) -> None:
        self.folder = folder
        self._max_open = max_open
        self._uids: list[str] = []
        self._numbers: dict[str, int] = {}
        self._open: OrderedDict[str, Pack] = OrderedDict()
        self._hashes: HashIndex | None = None
        self._lock = threading.Lock()

    # ---- packs ----

    def on_disk(self) -> list[str]:
        """The names of all packs, sorted."""
        return sorted(path.stem for path in self.folder.glob("*" + SUFFIX))

    def path(self, uid: str) -> Path:
        """The file of a pack."""
        return self.folder / (uid + SUFFIX)

    def number(self, uid: str) -> int:
        """What this process calls the pack `uid`, whether it is there or not."""
        with self._lock:
            if uid not in self._numbers:
                self._numbers[uid] = len(self._uids)
                self._uids.append(uid)
            return self._numbers[uid]

    def uid(self, number: int) -> str:
        """The pack's own name."""
        return self._uids[number]

    def open(self, uid: str) -> Pack:
        """The pack `uid`. Raises SnapshotError when it is damaged, OSError when it cannot be read."""
        with self._lock:
            if (pack := self._open.get(uid)) is not None:
                self._open.move_to_end(uid)
                return pack
        pack = Pack(self.path(uid))
        with self._lock:
            pack = self._open.setdefault(uid, pack)
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
            return pack

    def forget(self, uid: str) -> None:
        """The pack is another one now, or gone."""
        with self._lock:
            self._open.pop(uid, None)
            self._hashes = None

    # ---- pages ----

    def read(self, place: int, into: memoryview) -> None:
        """Put a page into the 4096 bytes of `into`. Raises PageLost, MemoryError."""
        try:
            pack = self.open(self._uids[place >> PLACE_BITS])
        except (OSError, SnapshotError) as error:
            raise PageLost(str(error)) from None
        pack.read(place & _INDEX_MASK, into)

    def find(self, hashes: Hashes) -> Places:
        """Where the pages with these hashes are; -1 for those that are in no pack.

        Raises OSError. Packs that are damaged are left out: what they hold is stored once more.
        """
        with self._lock:
            index = self._hashes
        if index is None:
            index = self._index()
        found = index.find(hashes)
        for number in np.unique(found[found >= 0] >> PLACE_BITS).tolist():
            rows = np.flatnonzero(found >> PLACE_BITS == number)
            stored = self.open(self._uids[number]).hashes[found[rows] & _INDEX_MASK]
            found[rows[(stored != hashes[rows]).any(axis=1)]] = -1
        return found

    def _index(self) -> HashIndex:
        index = HashIndex()
        hashes, places = [], []
        for uid in self.on_disk():
            try:
                pack = self.open(uid)
            except SnapshotError:
                continue
            there = np.flatnonzero(pack.lengths)
            hashes.append(pack.hashes[there])
            places.append((self.number(uid) << PLACE_BITS) + there.astype(np.int64))
        if hashes:
            index.add(np.concatenate(hashes), np.concatenate(places))
        with self._lock:
            self._hashes = index
        return index

    def sealed(self, uid: str, hashes: Hashes) -> None:
        """A new pack with pages of these hashes is there: others may refer to them now."""
        places = (self.number(uid) << PLACE_BITS) + np.arange(len(hashes), dtype=np.int64)
        with self._lock:
            if self._hashes is not None:
                self._hashes.add(hashes, places)
