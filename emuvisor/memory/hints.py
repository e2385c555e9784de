"""Where a page with such content was seen: a table of hints that never grows."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["HintTable"]

_WAYS = 4


class HintTable:
    """Hints by 64-bit keys, in buckets of four, for `count` of them: room for two to four times as many.

    It forgets: a full bucket loses a hint to a new one. So its memory, at most 64 bytes for each of `count`, is
    bounded, and many keys are looked up in one step.
    """

    def __init__(self, count: int) -> None:
        buckets = 1 << max(0, (count - 1) // 2).bit_length()
        self._keys: NDArray[np.uint64] = np.zeros((buckets, _WAYS), np.uint64)
        self._hints: NDArray[np.uint64] = np.zeros((buckets, _WAYS), np.uint64)
        """0 where there is none. The ways of a bucket fill up in order."""
        self._mask = np.uint64(buckets - 1)

    @property
    def bytes(self) -> int:
        """Memory that it takes at most."""
        return self._keys.nbytes + self._hints.nbytes

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The hint for each of `keys`, 0 for none."""
        buckets = keys & self._mask
        hits = self._keys[buckets] == keys[:, None]
        found: NDArray[np.uint64] = self._hints[buckets, hits.argmax(axis=1)]
        found[~hits.any(axis=1)] = 0
        return found

    def put(self, keys: NDArray[np.uint64], hints: NDArray[np.uint64]) -> None:
        """Remember `hints` (not 0) for `keys`, in place of what was known of them. Of several for one place the last
        is remembered."""
        buckets = keys & self._mask
        same = self._keys[buckets] == keys[:, None]
        free = self._hints[buckets] == 0
        victim = (keys >> np.uint64(62)).astype(np.int64)
        way = np.where(free.any(axis=1), free.argmax(axis=1), victim)
        way = np.where(same.any(axis=1), same.argmax(axis=1), way)
        self._keys[buckets, way] = keys
        self._hints[buckets, way] = hints
