"""How often each cluster of the image file is used, and which are free.

Source: "qcow2 image file format", section "Host cluster management".
"""

import errno

import numpy as np

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.entries import decode_table, encode_table
from emuvisor.devices.storage.qcow2.header import ENTRY_SIZE, MAX_REFCOUNT_TABLE_BYTES, Header
from emuvisor.devices.storage.qcow2.metadata import MetadataClusters
from emuvisor.devices.storage.qcow2.widths import Counts, pack, unpack
from emuvisor.units import MIB

__all__ = ["Refcounts"]

CACHE_BYTES = 16 * MIB
"""Refcount blocks that stay in memory, as many bytes as they have in the file; those with changes always stay."""
SCAN_BYTES = 64 * MIB
"""Refcount blocks, in bytes, that one search for a free cluster looks through before it goes to the file's end."""


class Refcounts:
    """The reference counts of the clusters of `file`, held in memory and stored by `write`.

    Whatever a damaged image says of the clusters `metadata`, they are never given out. Clusters are numbered from the
    start of the file. Methods raise OSError when the host fails, or when the refcount table or a block of it cannot
    be right.
    """

    def __init__(self, file: ImageFile, header: Header, metadata: MetadataClusters) -> None:
        self._file = file
        self._bits = header.cluster_bits
        self._order = header.refcount_order
        self._per_block = header.refcounts_per_block
        self._metadata = metadata
        self._maximum = (1 << header.refcount_bits) - 1
        self._limit = 1 << 56 - header.cluster_bits
        """Clusters from this one on cannot be named in an L2 table."""
        self.table_offset = header.refcount_table_offset
        self._table = decode_table(
            file.read(self.table_offset, header.refcount_table_clusters << header.cluster_bits)
        )
        self._table_changed = False
        self._abandoned: list[tuple[int, int]] = []
        self._blocks: dict[int, Counts] = {}
        """By number, in the order of their loading."""
        self._dirty: dict[int, tuple[int, int]] = {}
        """For each block with changes, the counts (from, up to) that hold all of them."""
        self._next = 0
        """No cluster before this one is free."""
        self.end = -(-file.size >> self._bits)
        """Cluster behind the last that the file has or will have: it and all behind it are holes."""

    @property
    def table_clusters(self) -> int:
        """Clusters of the refcount table."""
        return len(self._table) * ENTRY_SIZE >> self._bits

    def abandoned(self) -> list[tuple[int, int]]:
        """Places (offset, length) that the table has left since the last call; they still count as used."""
        abandoned, self._abandoned = self._abandoned, []
        return abandoned

    @property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._dirty) or self._table_changed

    def allocate(self, most: int) -> tuple[int, int]:
        """Take the first free clusters in a row, up to `most`: the first one, and how many. Their count is now 1."""
        for _ in range(2):
            for _ in range(max(1, SCAN_BYTES >> self._bits)):
                run = self._take_in_block(most)
                if run is not None:
                    return run
            if self._next >= self.end:
                break
            self._next = self.end
        raise self._damaged("counts clusters behind the file's end")

    def _take_in_block(self, most: int) -> tuple[int, int] | None:
        """A run from the block of the next cluster, or None and the next block's turn."""
        number, index = divmod(self._next, self._per_block)
        block = self._block(number)
        if block is None:
            block = self._make_own_block(number)
        if block[index]:
            free = np.flatnonzero(block[index:] == 0)
            if not free.size:
                self._next = (number + 1) * self._per_block
                return None
            index += int(free[0])
        first = number * self._per_block + index
        if first + most > self._limit:
            raise OSError(errno.EFBIG, "the qcow2 image cannot grow further", str(self._file.path))
        used = np.flatnonzero(block[index : index + most])
        count = int(used[0]) if used.size else min(most, self._per_block - index)
        self._set(number, block, index, index + count, 1)
        self._next = first + count
        self.end = max(self.end, self._next)
        return first, count

    def allocate_behind_end(self, count: int) -> int:
        """Take `count` clusters in a row behind all others; returns the first."""
        # Enough for the run, for blocks that count it, and for a bigger table.
        last = (self.end + 2 * count) // self._per_block + 2
        if last >= len(self._table):
            self._grow_table(last)
        first = self.end
        self.end += count
        self._claim(first, count)
        return first

    def _claim(self, first: int, count: int) -> None:
        """Set the refcount of clusters behind the end to 1; blocks that are missing go behind them."""
        while count:
            number, index = divmod(first, self._per_block)
            block = self._block(number)
            if block is None:
                place = self.end
                block = self._make_block(number, place)
                self._claim(place, 1)
            stop = min(index + count, self._per_block)
            self._set(number, block, index, stop, 1)
            first += stop - index
            count -= stop - index

    def share(self, cluster: int) -> bool:
        """One reference more to a used cluster; False when the count has no room for it."""
        number, index = divmod(cluster, self._per_block)
        block = self._block(number)
        if block is None or not 0 < int(block[index]) < self._maximum:
            return False
        self._set(number, block, index, index + 1, int(block[index]) + 1)
        return True

    def release(self, cluster: int) -> bool:
        """One reference less; whether the cluster is free now. A count that is 0 already, as only damaged images
        have it, stays."""
        number, index = divmod(cluster, self._per_block)
        block = self._block(number)
        if block is None or not block[index]:
            return False
        left = int(block[index]) - 1
        self._set(number, block, index, index + 1, left)
        if not left:
            self._next = min(self._next, cluster)
        return not left

    def write(self) -> None:
        """Store the changed blocks, and when these are on stable storage, a changed table."""
        for number, (start, stop) in sorted(self._dirty.items()):
            # Whole bytes, however narrow a count is.
            low, high = start & -8, -(-stop // 8) * 8
            place = self._table[number] + (low << self._order >> 3)
            self._file.write(place, pack(self._blocks[number][low:high], self._order))
            del self._dirty[number]
        if self._table_changed:
            self._file.flush()
            self._file.write(self.table_offset, encode_table(self._table))
            self._table_changed = False

    def _set(self, number: int, block: Counts, start: int, stop: int, value: int) -> None:
        block[start:stop] = value
        low, high = self._dirty.get(number, (start, stop))
        self._dirty[number] = min(low, start), max(high, stop)

    def _block(self, number: int) -> Counts | None:
        """A refcount block; None when the table has none."""
        block = self._blocks.get(number)
        if block is not None or number >= len(self._table) or not self._table[number]:
            return block
        offset = self._table[number]
        size = 1 << self._bits
        if offset & size - 1 or offset >> self._bits >= self.end:
            raise self._damaged(f"has a block at byte {offset}, which is misaligned or outside the file")
        block = unpack(self._file.read(offset, size), self._order)
        self._make_room()
        self._blocks[number] = block
        self._count_metadata(number, block)
        return block

    def _make_room(self) -> None:
        """Forget the blocks without changes that were loaded first, as far as the cache is full."""
        too_many = len(self._blocks) + 1 - max(2, CACHE_BYTES >> self._bits)
        if too_many > 0:
            clean = [number for number in self._blocks if number not in self._dirty]
            for number in clean[:too_many]:
                del self._blocks[number]

    def _count_metadata(self, number: int, block: Counts) -> None:
        """Count metadata that a damaged image does not count."""
        first = number * self._per_block
        for cluster in self._metadata.between(first, first + self._per_block):
            index = cluster - first
            if not block[index]:
                self._set(number, block, index, index + 1, 1)

    def _make_own_block(self, number: int) -> Counts:
        """A new block that lies in the first free cluster of those that it counts itself."""
        if number >= len(self._table):
            self._grow_table(number)
            # The new table and its blocks lie behind the file's end, where the cluster that is looked for was too.
            block = self._block(number)
            if block is not None:
                return block
        first = number * self._per_block
        used = set(self._metadata.between(first, first + self._per_block))
        place = next((place for place in range(first, first + self._per_block) if place not in used), None)
        if place is None:
            raise self._damaged("misses a block")
        block = self._make_block(number, place)
        self._set(number, block, place - first, place - first + 1, 1)
        return block

    def _make_block(self, number: int, place: int) -> Counts:
        """A new block that lies in cluster `place`. It is written at once, so that a full host is noticed before
        anything depends on it."""
        self._file.write(place << self._bits, bytes(1 << self._bits))
        block = unpack(bytes(1 << self._bits), self._order)
        self._make_room()
        self._blocks[number] = block
        self._dirty[number] = 0, self._per_block
        self._table[number] = place << self._bits
        self._table_changed = True
        self.end = max(self.end, place + 1)
        self._count_metadata(number, block)
        return block

    def _grow_table(self, number: int) -> None:
        """Move the table to a place behind the file's end where it has room for block `number`, and for half as many
        again. The file's header says so only later (`Image.commit`); until then the old place stays as it is."""
        entries = number + number // 2 + 2
        size = -(-entries * ENTRY_SIZE >> self._bits) << self._bits
        # The table's own clusters need blocks too.
        size += -(-size // self._per_block >> self._bits) + 1 << self._bits
        if size > MAX_REFCOUNT_TABLE_BYTES:
            raise OSError(errno.EFBIG, "the refcount table of the qcow2 image is full", str(self._file.path))
        old, changed = self._table, self._table_changed
        place = self.table_offset, len(old) * ENTRY_SIZE
        self._table = old + type(old)("Q", bytes(size - len(old) * ENTRY_SIZE))
        try:
            offset = self.allocate_behind_end(size >> self._bits) << self._bits
            self._file.write(offset, encode_table(self._table))
        except OSError:
            self._table, self._table_changed = old, changed
            for lost in [lost for lost in self._blocks if lost >= len(old) or not old[lost]]:
                del self._blocks[lost]
                self._dirty.pop(lost, None)
            raise
        self.table_offset = offset
        self._table_changed = True
        self._abandoned.append(place)

    def _damaged(self, why: str) -> OSError:
        return OSError(
            errno.EIO, f"the qcow2 image is damaged: its refcount table {why}", str(self._file.path)
        )
