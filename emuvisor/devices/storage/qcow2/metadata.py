"""Which clusters of an image file hold metadata, so that no damaged table can make us write data over them."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["MetadataClusters"]


class MetadataClusters:
    """A set of cluster numbers."""

    def __init__(self, *parts: npt.NDArray[np.int64]) -> None:
        self._clusters = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def among(self, clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """For each of `clusters`, whether it is in the set."""
        if not len(self._clusters):
            return np.zeros(clusters.shape, np.bool_)
        places = np.searchsorted(self._clusters, clusters).clip(max=len(self._clusters) - 1)
        found: npt.NDArray[np.bool_] = self._clusters[places] == clusters
        return found

    def between(self, first: int, end: int) -> list[int]:
        """Those from `first` up to `end`, ascending."""
        low, high = np.searchsorted(self._clusters, [first, end])
        between: list[int] = self._clusters[low:high].tolist()
        return between

    def forget(self, clusters: Iterable[int]) -> None:
        """They are free now, and may become anything."""
        self._clusters = np.setdiff1d(self._clusters, np.fromiter(clusters, np.int64), assume_unique=True)
