"""Where a disk has data: copying and comparing need not look at the rest, which reads as zeros."""

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from emuvisor.devices.storage.blockdevice import BlockDevice

__all__ = ["SparseDevice", "aligned_extents", "data_extents", "file_extents", "is_zero", "nonzero_runs"]

Extent = tuple[int, int]
"""The first, and the first behind the last."""


@runtime_checkable
class SparseDevice(Protocol):
    """A disk that knows where its zeros are."""

    def data_extents(self, lba: int, count: int) -> Iterator[Extent]:
        """Of `count` sectors from `lba`, the ranges that may have something else than zeros: in order, not overlapping.
        Raises OSError."""
        ...


def data_extents(disk: BlockDevice, lba: int, count: int) -> Iterator[Extent]:
    """As `SparseDevice.data_extents`, of any disk: all of it when it does not know. Raises OSError."""
    if isinstance(disk, SparseDevice):
        yield from disk.data_extents(lba, count)
    elif count:
        yield lba, lba + count


def file_extents(fd: int, offset: int, length: int) -> Iterator[Extent]:
    """The byte ranges from `offset` on that are not holes of the file `fd`. Raises OSError."""
    end = offset + length
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            stop = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end of the file
                return
            if error.errno != errno.EINVAL:
                raise
            start, stop = offset, end  # this file system does not tell
        if start >= end:
            return
        yield start, min(stop, end)
        offset = stop


def aligned_extents(extents: Iterable[Extent], unit: int, end: int) -> Iterator[Extent]:
    """`extents` widened to whole units, the last of them cut off at `end`; those that then meet become one."""
    start, stop = 0, 0
    for first, behind in extents:
        aligned = first - first % unit
        if aligned > stop:
            if stop > start:
                yield start, stop
            start = aligned
        stop = max(stop, min(behind + -behind % unit, end))
    if stop > start:
        yield start, stop


def is_zero(data: bytes) -> bool:
    """Whether there are only zeros in `data`."""
    return data == bytes(len(data))


def nonzero_runs(data: bytes | bytearray | memoryview, granule: int) -> list[Extent]:
    """The byte ranges of `data` left when each run of granules that have only zeros is taken away.

    `granule` is a power of two from 8 on. `data` begins with a whole granule; the last may be shorter, of a multiple of
    8 bytes.
    """
    words = np.frombuffer(data, np.uint64)
    each = granule // words.itemsize
    whole = len(words) // each * each
    used = words[:whole].reshape(-1, each).max(axis=1) != 0
    if whole < len(words):
        used = np.append(used, words[whole:].any())
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False)) * granule
    return [(start, min(stop, len(data))) for start, stop in edges.reshape(-1, 2).tolist()]
