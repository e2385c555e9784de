"""Where the clusters of the virtual disk are: the active L1 table and its L2 tables.

Source: "qcow2 image file format", section "Cluster mapping".
"""

import errno
from array import array
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.entries import (
    COMPRESSED,
    COPIED,
    DAMAGED,
    OFFSET,
    RESERVED_L1,
    RESERVED_L2,
    ZERO,
    CompressedEntries,
    decode_table,
    encode_table,
)
from emuvisor.devices.storage.qcow2.header import ENTRY_SIZE, Header
from emuvisor.devices.storage.qcow2.metadata import MetadataClusters
from emuvisor.devices.storage.qcow2.refcounts import Refcounts
from emuvisor.units import MIB

__all__ = ["Tables", "offsets_in_l1", "wrong_entries"]

CACHE_BYTES = 32 * MIB
"""L2 tables that stay in memory."""

U64 = np.uint64


class Tables:
    """The L1 table of `file` and its L2 tables, held in memory; `write_l2` and `write_l1` store changes.

    `loaded` has the L2 tables that are in memory, by their index in the L1 table, in the order of their loading.
    Entries that cannot be right are DAMAGED there, and keep what they are in the file. `metadata` are the clusters
    that no L2 entry may name. `make_room` is called when the cache is full of changes; it must write them.
    """

    def __init__(
        self,
        file: ImageFile,
        header: Header,
        refcounts: Refcounts | None,
        metadata: MetadataClusters,
        make_room: Callable[[], None],
    ) -> None:
        self._file = file
        self._header = header
        self._refcounts = refcounts
        self._metadata = metadata
        self._make_room = make_room
        self._size = header.cluster_size
        self._entries = 1 << header.l2_bits
        self._most = max(4, CACHE_BYTES // header.cluster_size)
        self.l1_offset = header.l1_table_offset
        self.l1 = decode_table(file.read(self.l1_offset, header.l1_size * ENTRY_SIZE))
        self.loaded: dict[int, array[int]] = {}
        self._damaged: dict[int, dict[int, int]] = {}
        """What DAMAGED entries are in the file, by table and by index."""
        self._dirty: dict[int, tuple[int, int]] = {}
        """For each L2 table with changes, the entries (from, up to) that hold all of them."""
        self._l1_dirty: set[int] = set()
        self._dropped: list[int] = []

    @property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._dirty or self._l1_dirty)

    def get(self, number: int) -> "array[int] | None":
        """L2 table `number`, or None where the L1 table has none. Raises OSError."""
        table = self.loaded.get(number)
        if table is not None or not self.l1[number]:
            return table
        offset = self._l2_offset(number)
        table = decode_table(self._file.read(offset, self._size))
        end = -(-self._file.size // self._size) if self._refcounts is None else self._refcounts.end
        wrong = wrong_entries(np.asarray(table), self._header, end, self._metadata)
        self._keep(number, table)
        if wrong.size:
            self._damaged[number] = {index: table[index] for index in wrong.tolist()}
            for index in wrong.tolist():
                table[index] = DAMAGED
        return table

    def _l2_offset(self, number: int) -> int:
        entry = self.l1[number]
        offset = entry & OFFSET
        if entry & RESERVED_L1 or offset % self._size or not offset:
            raise self.error(f"entry {number} of its L1 table cannot be right")
        return offset

    def error(self, why: str) -> OSError:
        """The error for an access that comes upon damage."""
        return OSError(errno.EIO, f"the qcow2 image is damaged: {why}", str(self._file.path))

    def own(self, number: int) -> "array[int]":
        """L2 table `number` for changing: made where there is none, copied where a snapshot uses it too. Whoever
        changes it calls `touch`. Raises OSError."""
        table = self.get(number)
        if table is not None and self.l1[number] & COPIED:
            return table
        assert self._refcounts is not None
        cluster, _ = self._refcounts.allocate(1)
        if table is None:
            table = array("Q", bytes(self._size))
        try:
            self._keep(number, table)
            # At once, so that a full host is noticed before anything depends on it.
            self._file.write(cluster * self._size, self._encode(number, table, 0, self._entries))
        except OSError:
            self._refcounts.release(cluster)
            if not self.l1[number]:
                self.loaded.pop(number, None)
            raise
        if self.l1[number]:
            self._dropped.append(self.l1[number] & OFFSET)
        self.l1[number] = cluster * self._size | COPIED
        self._l1_dirty.add(number)
        self.touch(number, 0, self._entries)
        return table

    def touch(self, number: int, start: int, stop: int) -> None:
        """Entries `start` up to `stop` of L2 table `number` were changed."""
        low, high = self._dirty.get(number, (start, stop))
        self._dirty[number] = min(low, start), max(high, stop)

    def drop(self, number: int) -> None:
        """Take L2 table `number` out of the L1 table; its entries name nothing any more. Raises OSError."""
        self._dropped.append(self._l2_offset(number))
        self.l1[number] = 0
        self._l1_dirty.add(number)
        self.loaded.pop(number, None)
        self._dirty.pop(number, None)
        self._damaged.pop(number, None)

    def dropped(self) -> list[int]:
        """Offsets of the L2 tables that lost a reference since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def write_l2(self) -> None:
        """Store the changed entries of L2 tables. Raises OSError."""
        for number, (start, stop) in sorted(self._dirty.items()):
            place = (self.l1[number] & OFFSET) + start * ENTRY_SIZE
            self._file.write(place, self._encode(number, self.loaded[number], start, stop))
            del self._dirty[number]

    def write_l1(self) -> bool:
        """Store the changed entries of the L1 table; False when there were none. Raises OSError."""
        if not self._l1_dirty:
            return False
        start, stop = min(self._l1_dirty), max(self._l1_dirty) + 1
        self._file.write(self.l1_offset + start * ENTRY_SIZE, encode_table(self.l1[start:stop]))
        self._l1_dirty.clear()
        return True

    def use_l1(self, table: "array[int]", offset: int) -> None:
        """From now on the L1 table is `table`, which begins as it was and is stored at `offset`."""
        self.l1, self.l1_offset = table, offset

    def _encode(self, number: int, table: "array[int]", start: int, stop: int) -> bytes:
        entries = table[start:stop]
        for index, entry in self._damaged.get(number, {}).items():
            if start <= index < stop and table[index] == DAMAGED:
                entries[index - start] = entry
        return encode_table(entries)

    def _keep(self, number: int, table: "array[int]") -> None:
        if len(self.loaded) >= self._most and number not in self.loaded:
            clean = [old for old in self.loaded if old not in self._dirty]
            if len(clean) * 8 < self._most:
                self._make_room()
                clean = list(self.loaded)
            for old in clean[: 1 + len(clean) // 8]:
                del self.loaded[old]
                self._damaged.pop(old, None)
        self.loaded[number] = table


def wrong_entries(
    entries: npt.NDArray[U64], header: Header, end: int, metadata: MetadataClusters
) -> npt.NDArray[np.int64]:
    """Indices of L2 entries that cannot be right: misaligned, outside the `end` clusters of the file, on one of
    the clusters `metadata`, or with bits that this version does not have."""
    compressed = entries & U64(COMPRESSED) != 0
    offsets = entries & U64(OFFSET)
    clusters = (offsets >> U64(header.cluster_bits)).astype(np.int64)
    reserved = RESERVED_L2 | header.cluster_size - 1 & ~ZERO | (ZERO if header.version == 2 else 0)
    wrong = entries & U64(reserved) != 0
    wrong |= clusters >= end
    wrong |= (entries & U64(COPIED) != 0) & (offsets == 0)
    wrong |= metadata.among(clusters) & (offsets != 0)
    if compressed.any():
        first, behind = CompressedEntries(header.cluster_bits).ends(entries)
        bits = U64(header.cluster_bits)
        first_cluster, last_cluster = (
            (first >> bits).astype(np.int64),
            (behind - U64(1) >> bits).astype(np.int64),
        )
        # The last sector may lie behind the end of a file that ends with the compressed data.
        bad = (first_cluster >= end) | (last_cluster > end) | (entries & U64(COPIED) != 0)
        bad |= metadata.among(first_cluster) | metadata.among(last_cluster)
        wrong = np.where(compressed, bad, wrong)
    return np.flatnonzero(wrong)


def offsets_in_l1(l1: "array[int]", header: Header, end: int) -> npt.NDArray[np.int64]:
    """Clusters of the L2 tables in an L1 table, those that can be right, ascending and each once."""
    entries = np.asarray(l1)
    offsets = entries & U64(OFFSET)
    right = (entries & U64(RESERVED_L1) == 0) & (offsets != 0) & (offsets % U64(header.cluster_size) == 0)
    clusters = (offsets[right] >> U64(header.cluster_bits)).astype(np.int64)
    return np.unique(clusters[clusters < end])
