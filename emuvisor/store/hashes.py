"""Where the page with a given hash is: sorted arrays, 16 bytes of the host's memory per page."""

import numpy as np
from numpy.typing import NDArray

from emuvisor.store.pack import HASH_SIZE, Hashes

__all__ = ["HashIndex", "as_rows"]


def as_rows(digests: list[bytes]) -> Hashes:
    """`digests` as an array with one in each row."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), HASH_SIZE)


class HashIndex:
    """Finds candidates by the first 64 bits of a hash; the caller compares the rest.

    Somebody who makes two pages with the same 64 bits gains nothing: one of them is not found, and is stored again.
    """

    def __init__(self) -> None:
        self._keys: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._places: NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, hashes: Hashes, places: NDArray[np.int64]) -> None:
        """Add pages: their hashes, and where they are."""
        keys = _keys(hashes)
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        at = np.searchsorted(self._keys, keys)
        self._keys = np.insert(self._keys, at, keys)
        self._places = np.insert(self._places, at, places)

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """For each hash a place that may have its page, or -1."""
        found = np.full(len(hashes), -1, np.int64)
        if len(self._keys):
            keys = _keys(hashes)
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            hit = self._keys[at] == keys
            found[hit] = self._places[at[hit]]
        return found


def _keys(hashes: Hashes) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64)[:, 0]
