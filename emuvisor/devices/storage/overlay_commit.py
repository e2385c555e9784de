"""Puts what an overlay has into its base, after which the overlay is empty.

Stopping at any moment loses nothing: the overlay keeps all that it has until the base has it on stable storage, and
says meanwhile in its header that a commit is under way, so that nobody takes the base for what it was; committing
again ends what was begun.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.extents import file_extents
from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.overlay_file import read_overlay
from emuvisor.devices.storage.overlay_format import (
    COMMITTING,
    HEADER_SIZE,
    Layout,
    encode_empty_bitmap,
    identity_of,
)
from emuvisor.errors import ImageError
from emuvisor.units import MIB

__all__ = ["commit_overlay"]

CHUNK = 2 * MIB


def commit_overlay(
    path: Path, base: BlockDevice, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> int:
    """Write what the overlay file at `path` has into `base`, and empty it; both stay together as they were to a guest.

    `progress` hears how many bytes of how many are done. Returns the bytes that were changed in the base. Raises
    ImageError for an overlay that is in use, damaged or of another base, and when the host cannot read or write.
    """
    store = ImageFile(path, read_only=False, kind="overlay")
    try:
        layout, present = read_overlay(base, store, to_commit=True)
        store.write(0, replace(layout, identity=COMMITTING).encode())
        store.flush()
        changed = _copy(store, layout, present, base, progress)
        base.flush()
        _empty(store, layout, identity_of(base))
    except OSError as error:
        raise ImageError(f"{path}: cannot commit the overlay into {base.name}: {error.strerror}") from error
    finally:
        store.close()
    return changed


def _copy(
    store: ImageFile,
    layout: Layout,
    present: bytearray,
    base: BlockDevice,
    progress: Callable[[int, int], None],
) -> int:
    """Write the clusters that are `present` into `base`, holes as zeros; returns their bytes. Raises OSError."""
    flags = np.frombuffer(present, np.bool_)
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)) * layout.cluster_size
    runs = [(start, min(end, layout.base_size)) for start, end in edges.reshape(-1, 2).tolist()]
    total = sum(end - start for start, end in runs)
    done = 0
    for start, end in runs:
        progress(done, total)
        for data_start, data_end, is_data in _data_and_holes(store, layout.data_offset, start, end):
            if not is_data:
                count = (data_end - data_start) // SECTOR_SIZE
                base.write_zeroes(data_start // SECTOR_SIZE, count, unmap=True)
                continue
            for offset in range(data_start, data_end, CHUNK):
                progress(done + offset - start, total)
                piece = store.read(layout.data_offset + offset, min(CHUNK, data_end - offset))
                base.write(offset // SECTOR_SIZE, piece)
        done += end - start
    progress(total, total)
    return total


def _data_and_holes(
    store: ImageFile, data_offset: int, start: int, end: int
) -> Iterator[tuple[int, int, bool]]:
    """Byte ranges of the disk that are together `start` to `end`, and whether each is data or a hole of the store."""
    position = start
    for first, behind in file_extents(store.fd, data_offset + start, end - start):
        if first - data_offset > position:
            yield position, first - data_offset, False
        yield first - data_offset, behind - data_offset, True
        position = behind - data_offset
    if position < end:
        yield position, end, False


def _empty(store: ImageFile, layout: Layout, identity: bytes) -> None:
    """Let the overlay have no clusters, of the base with `identity`. Raises OSError."""
    store.write(HEADER_SIZE, encode_empty_bitmap(layout.bitmap_sectors))
    store.flush()
    store.write(0, replace(layout, identity=identity, base_changed_ns=0).encode())
    store.flush()
    store.discard(layout.data_offset, layout.file_size - layout.data_offset)
