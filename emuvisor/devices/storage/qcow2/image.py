"""An open image file: its header, tables and reference counts, and the order in which they reach stable storage."""

import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.entries import (
    COMPRESSED,
    OFFSET,
    CompressedEntries,
    decode_table,
    encode_table,
)
from emuvisor.devices.storage.qcow2.header import CORRUPT, DIRTY, ENTRY_SIZE, MAGIC, Header
from emuvisor.devices.storage.qcow2.metadata import MetadataClusters
from emuvisor.devices.storage.qcow2.rebuild import rebuild_refcounts
from emuvisor.devices.storage.qcow2.refcounts import Refcounts
from emuvisor.devices.storage.qcow2.snapshots import read_snapshots, snapshot_table_length
from emuvisor.devices.storage.qcow2.tables import Tables, offsets_in_l1
from emuvisor.errors import ImageError

__all__ = ["Image", "read_header"]

FIXED_FIELDS = 512
"""Enough of an image for the fields of its header."""
MOST_UNUSED = 4096
"""Clusters that wait to become free before they are made free without a flush of the guest's."""


def read_header(file: ImageFile) -> Header:
    """The header of the open image `file`. Raises ImageError, OSError."""
    start = file.read(0, min(FIXED_FIELDS, file.size))
    if start[: len(MAGIC)] == MAGIC and len(start) == FIXED_FIELDS:
        bits = int.from_bytes(start[20:24], "big")
        start = file.read(0, min(1 << min(bits, 21), file.size))
    return Header.decode(start, file.size, str(file.path))


class Image:
    """The qcow2 image at `path`.

    Changes are made in memory; `commit` stores them so that a host that stops at any moment leaves at worst clusters
    that nothing uses: first data and the refcounts of what is used newly, then the L2 tables, then the L1 table, and
    only when all that is on stable storage the refcounts of what is not used any more. Clusters are given out again
    no sooner.

    Raises ImageError for a file that cannot be opened, is in use, is not a qcow2 image, is damaged, or needs a
    feature that is not supported. An image with stale refcounts (dirty bit) gets new ones when it is opened for
    writing.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool) -> None:
        self.file = ImageFile(path, read_only=read_only, kind="qcow2 image")
        try:
            self.header = read_header(self.file)
            if not read_only:
                self._prepare_for_writing()
            self._open(read_only)
        except OSError as error:
            self.file.close()
            raise ImageError(f"{path}: cannot read the qcow2 image: {error.strerror}") from error
        except BaseException:
            self.file.close()
            raise

    def _prepare_for_writing(self) -> None:
        features = self.header.incompatible_features
        if features & CORRUPT:
            raise ImageError(
                f"{self.file.path}: the qcow2 image is marked as corrupt and can only be opened read-only; "
                "check and repair it first"
            )
        if features & DIRTY:
            self.header = rebuild_refcounts(self.file, self.header)
        if self.header.autoclear_features:
            # Others' bitmaps would be out of date after the first write.
            self._store_header(replace(self.header, autoclear_features=0))

    def _open(self, read_only: bool) -> None:
        header, file = self.header, self.file
        size = header.cluster_size
        end = -(-file.size // size)
        l1 = decode_table(file.read(header.l1_table_offset, header.l1_size * ENTRY_SIZE))
        parts = [
            np.zeros(1, np.int64),
            self._run(header.l1_table_offset, header.l1_size * ENTRY_SIZE),
            self._run(header.refcount_table_offset, header.refcount_table_clusters * size),
            offsets_in_l1(l1, header, end),
        ]
        if not read_only:
            table = np.asarray(
                decode_table(file.read(header.refcount_table_offset, header.refcount_table_clusters * size))
            )
            blocks = (table[table % np.uint64(size) == 0] // np.uint64(size)).astype(np.int64)
            parts.append(blocks[blocks < end])
            if header.nb_snapshots:
                snapshots = read_snapshots(file, header)
                parts.append(self._run(header.snapshots_offset, snapshot_table_length(snapshots)))
                parts += [self._run(each.l1_table_offset, each.l1_size * ENTRY_SIZE) for each in snapshots]
        self._metadata = MetadataClusters(*parts)
        self._refcounts = None if read_only else Refcounts(file, header, self._metadata)
        self.tables = Tables(file, header, self._refcounts, self._metadata, self.commit)
        self.compressed_entries = CompressedEntries(header.cluster_bits)
        self._unused: list[int] = []
        """Clusters that lose a reference once the tables are on stable storage."""
        self.generation = 0
        """Grows whenever clusters became free, and so may come to hold something else."""

    def _run(self, offset: int, length: int) -> npt.NDArray[np.int64]:
        size = self.header.cluster_size
        return np.arange(offset // size, -(-(offset + length) // size))

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.file.path)

    @property
    def refcounts(self) -> Refcounts:
        """The reference counts, of an image that was opened for writing."""
        assert self._refcounts is not None
        return self._refcounts

    @property
    def changed(self) -> bool:
        """Whether there is something that `commit` would store; never of a file that is closed."""
        waiting = self.tables.changed or self.refcounts.changed or bool(self._unused)
        return waiting and self.file.fd >= 0

    def unuse(self, entry: int) -> None:
        """What the L2 entry names loses a reference."""
        bits = self.header.cluster_bits
        if entry & COMPRESSED:
            offset, length = self.compressed_entries.decode(entry)
            self._unused += range(offset >> bits, (offset + length - 1 >> bits) + 1)
        elif entry & OFFSET:
            self._unused.append((entry & OFFSET) >> bits)

    def unuse_run(self, offset: int, length: int) -> None:
        """The clusters of a table that was replaced lose a reference."""
        self._unused += self._run(offset, length).tolist()

    def commit_if_much_waits(self) -> None:
        """Give space back before very much of it waits. Raises OSError."""
        if len(self._unused) > MOST_UNUSED:
            self.commit()

    def commit(self) -> None:
        """Return when all changes are on stable storage. Raises OSError; what was not stored is kept for the next
        time."""
        refcounts, tables, header = self.refcounts, self.tables, self.header
        refcounts.write()
        self.file.flush()
        if refcounts.table_offset != header.refcount_table_offset:
            self._store_header(
                replace(
                    header,
                    refcount_table_offset=refcounts.table_offset,
                    refcount_table_clusters=refcounts.table_clusters,
                )
            )
            for place in refcounts.abandoned():
                self.unuse_run(*place)
        if tables.changed:
            tables.write_l2()
            self.file.flush()
            if tables.write_l1():
                self.file.flush()
        self._unused += [offset >> header.cluster_bits for offset in tables.dropped()]
        if self._unused:
            self._free()

    def _free(self) -> None:
        """Take the references away that nothing in the file makes any more, and give free clusters back to the
        host."""
        unused, self._unused = self._unused, []
        free = sorted(cluster for cluster in unused if self.refcounts.release(cluster))
        self.refcounts.write()
        self._metadata.forget(free)
        self.generation += 1
        size = self.header.cluster_size
        for first, count in _runs(free):
            # A host that cannot make holes keeps the space; the clusters are used again.
            with suppress(OSError):
                self.file.discard(first * size, count * size)

    def _store_header(self, header: Header) -> None:
        self.file.write(0, header.encode_fields())
        self.file.flush()
        self.header = header

    def grow_l1(self, entries: int) -> None:
        """Give the L1 table `entries` entries, more than it has, at a new place. Raises OSError."""
        header = self.header
        table = self.tables.l1 + array("Q", bytes((entries - header.l1_size) * ENTRY_SIZE))
        clusters = -(-entries * ENTRY_SIZE >> header.cluster_bits)
        first = self.refcounts.allocate_behind_end(clusters)
        offset = first << header.cluster_bits
        try:
            self.file.write(offset, encode_table(table).ljust(clusters << header.cluster_bits, b"\0"))
        except OSError:
            for cluster in range(first, first + clusters):
                self.refcounts.release(cluster)
            raise
        self.commit()
        self._store_header(replace(self.header, l1_size=entries, l1_table_offset=offset))
        self.tables.use_l1(table, offset)
        self.unuse_run(header.l1_table_offset, header.l1_size * ENTRY_SIZE)

    def set_size(self, size: int) -> None:
        """Give the virtual disk another size, for which the L1 table has room. Raises OSError."""
        self._store_header(replace(self.header, size=size))

    def close(self) -> None:
        """Close the file, whatever has not been stored; more than once is allowed."""
        self.file.close()


def _runs(clusters: list[int]) -> Iterator[tuple[int, int]]:
    """Runs (first, count) of the ascending numbers."""
    start = 0
    for index in range(1, len(clusters) + 1):
        if index == len(clusters) or clusters[index] != clusters[index - 1] + 1:
            yield clusters[start], index - start
            start = index
