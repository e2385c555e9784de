"""Counting how often each cluster of an image file is used."""

import numpy as np
import numpy.typing as npt

from emuvisor.errors import ImageError

__all__ = ["References"]

CHUNK_BITS = 14
CHUNK = 1 << CHUNK_BITS
MAX_CHUNKS = 1 << 14
"""268 million clusters, 16 TiB of the usual size; their counts take 1.3 GiB."""
MAX_COUNT = (1 << 32) - 1

# What a cluster is used for
ALONE = 1 << 0
"""Something that nothing else may share."""
L2 = 1 << 1
"""An L2 table, of which several L1 tables may have the same."""
DATA = 1 << 2


class _Chunk:
    """The counts of `CHUNK` clusters."""

    def __init__(self) -> None:
        self.total = np.zeros(CHUNK, np.uint32)
        self.uses = np.zeros(CHUNK, np.uint8)


class References:
    """Uses of the clusters of the image `name`. Memory is taken only for parts of the file that are used; ImageError
    when there are too many."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._chunks: dict[int, _Chunk] = {}

    def add_run(self, first: int, count: int) -> None:
        """A structure that nothing else may share uses `count` clusters from `first` on."""
        self._add(np.arange(first, first + count), np.ones(count, np.uint64), ALONE)

    def add(self, clusters: npt.NDArray[np.int64], times: int = 1, *, l2: bool = False) -> None:
        """`clusters`, each as often as it is there times `times`, are used for data or as L2 tables."""
        values, counts = np.unique(clusters, return_counts=True)
        self._add(values, counts.astype(np.uint64) * np.uint64(times), L2 if l2 else DATA)

    def _add(self, clusters: npt.NDArray[np.int64], counts: npt.NDArray[np.uint64], use: int) -> None:
        numbers, starts = np.unique(clusters >> CHUNK_BITS, return_index=True)
        ends = np.append(starts, len(clusters))[1:]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends.tolist(), strict=True):
            if number not in self._chunks:
                if len(self._chunks) == MAX_CHUNKS:
                    raise ImageError(
                        f"{self._name}: the qcow2 image uses more clusters than can be checked; "
                        f"{MAX_CHUNKS * CHUNK} are possible"
                    )
                self._chunks[number] = _Chunk()
            chunk = self._chunks[number]
            places = clusters[start:end] & CHUNK - 1
            chunk.total[places] = (chunk.total[places] + counts[start:end]).clip(max=MAX_COUNT)
            chunk.uses[places] |= use

    def of(self, clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """How often each of `clusters` is used."""
        counts = np.zeros(len(clusters), np.uint32)
        numbers = clusters >> CHUNK_BITS
        for number in np.unique(numbers).tolist():
            if number in self._chunks:
                here = numbers == number
                counts[here] = self._chunks[number].total[clusters[here] & CHUNK - 1]
        return counts

    def between(self, first: int, end: int) -> npt.NDArray[np.uint32]:
        """The counts of clusters `first` up to `end`."""
        counts = np.zeros(end - first, np.uint32)
        for number in range(first >> CHUNK_BITS, (end - 1 >> CHUNK_BITS) + 1):
            if number in self._chunks:
                start = number << CHUNK_BITS
                low, high = max(first, start), min(end, start + CHUNK)
                counts[low - first : high - first] = self._chunks[number].total[low - start : high - start]
        return counts

    def used(self) -> npt.NDArray[np.int64]:
        """Every cluster that is used, ascending; at least the header is."""
        return np.concatenate(
            [
                np.flatnonzero(chunk.total) + (number << CHUNK_BITS)
                for number, chunk in sorted(self._chunks.items())
            ]
        )

    def overlaps(self) -> npt.NDArray[np.int64]:
        """Clusters that one structure has for itself, or that are L2 tables, and that something else uses too."""
        return np.concatenate(
            [
                np.flatnonzero(
                    ((chunk.uses & ALONE > 0) & (chunk.total > 1)) | (chunk.uses & (L2 | DATA) == L2 | DATA)
                )
                + (number << CHUNK_BITS)
                for number, chunk in sorted(self._chunks.items())
            ]
        )
