"""Going through all tables of an image file: what uses which cluster, and what cannot be right."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.bitmaps import bitmap_clusters
from emuvisor.devices.storage.qcow2.entries import (
    COMPRESSED,
    COPIED,
    OFFSET,
    RESERVED_L1,
    CompressedEntries,
    decode_table,
    encode_table,
)
from emuvisor.devices.storage.qcow2.header import ENTRY_SIZE, Header
from emuvisor.devices.storage.qcow2.metadata import MetadataClusters
from emuvisor.devices.storage.qcow2.references import References
from emuvisor.devices.storage.qcow2.snapshots import read_snapshots, snapshot_table_length
from emuvisor.devices.storage.qcow2.tables import wrong_entries

__all__ = ["Problems", "Scan"]

U64 = np.uint64
MAX_MESSAGES = 20


@dataclass(slots=True)
class Problems:
    """What is wrong with an image: how much, and a sentence each for the first."""

    count: int = 0
    messages: list[str] = field(default_factory=list)

    def add(self, message: str, count: int = 1) -> None:
        """`count` problems of a kind."""
        self.count += count
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append(message)


class Scan:
    """The uses of the clusters of `file`, but for the refcount table and its blocks. Raises ImageError for an image
    whose snapshots or bitmaps cannot be right, OSError."""

    def __init__(self, file: ImageFile, header: Header) -> None:
        self._file = file
        self._header = header
        self._compressed_entries = CompressedEntries(header.cluster_bits)
        self.end = -(-file.size // header.cluster_size)
        self.references = References(str(file.path))
        self.problems = Problems()
        self.data_clusters = 0
        """Clusters of the virtual disk that the image has, compressed ones too."""
        self.compressed_clusters = 0
        self._active: list[tuple[int, int]] = []
        """(index in the L1 table, cluster) of each L2 table of the active L1 table."""
        self._scan()

    def _scan(self) -> None:
        header, file = self._header, self._file
        size = header.cluster_size
        self.references.add_run(0, 1)
        l1_tables = [(header.l1_table_offset, header.l1_size)]
        if header.nb_snapshots:
            snapshots = read_snapshots(file, header)
            self.references.add_run(
                header.snapshots_offset // size, -(-snapshot_table_length(snapshots) // size)
            )
            l1_tables += [(snapshot.l1_table_offset, snapshot.l1_size) for snapshot in snapshots]
        for first, count in bitmap_clusters(file, header):
            self.references.add_run(first, count)
        l2_tables: Counter[int] = Counter()
        for number, (offset, entries) in enumerate(l1_tables):
            self.references.add_run(offset // size, -(-entries * ENTRY_SIZE // size))
            found = self._l1_table(decode_table(file.read(offset, entries * ENTRY_SIZE)))
            l2_tables.update(cluster for _, cluster in found)
            if number == 0:
                self._active = found
        active = {cluster for _, cluster in self._active}
        for cluster, times in l2_tables.items():
            self._l2_table(cluster, times, active=cluster in active)
            self.references.add(np.array([cluster], np.int64), times, l2=True)

    def overlaps(self) -> int:
        """Add to the problems that metadata lies where something else does; returns how many clusters."""
        clusters = self.references.overlaps().tolist()
        for cluster in clusters:
            self.problems.add(f"cluster {cluster} holds metadata and is used for something else too")
        return len(clusters)

    def _l1_table(self, table: "array[int]") -> list[tuple[int, int]]:
        """(index, cluster) of each L2 table."""
        entries = np.asarray(table)
        offsets = entries & U64(OFFSET)
        clusters = (offsets // U64(self._header.cluster_size)).astype(np.int64)
        wrong = (entries & U64(RESERVED_L1) != 0) | (offsets % U64(self._header.cluster_size) != 0)
        wrong |= ((offsets == 0) & (entries != 0)) | (clusters >= self.end)
        for index in np.flatnonzero(wrong).tolist():
            self.problems.add(f"entry {index} of an L1 table is misaligned or outside the file")
        good = np.flatnonzero((offsets != 0) & ~wrong)
        return list(zip(good.tolist(), clusters[good].tolist(), strict=True))

    def _read_l2(self, cluster: int) -> "array[int]":
        size = self._header.cluster_size
        # The table may be the end of the file, and cut short as a whole cluster never is.
        length = min(size, self._file.size - cluster * size)
        return decode_table(self._file.read(cluster * size, length).ljust(size, b"\0"))

    def _l2_table(self, cluster: int, times: int, *, active: bool) -> None:
        """Count what the L2 table in `cluster`, which `times` L1 entries name, uses."""
        bits = U64(self._header.cluster_bits)
        entries = np.asarray(self._read_l2(cluster))
        wrong = wrong_entries(entries, self._header, self.end, MetadataClusters())
        for index in wrong.tolist():
            self.problems.add(
                f"entry {index} of the L2 table in cluster {cluster} is misaligned or outside the file"
            )
        entries = np.delete(entries, wrong)
        compressed = entries[entries & U64(COMPRESSED) != 0]
        offsets = entries[entries & U64(COMPRESSED) == 0] & U64(OFFSET)
        data = (offsets[offsets != 0] >> bits).astype(np.int64)
        self.references.add(data, times)
        if active:
            self.data_clusters += len(data) + len(compressed)
            self.compressed_clusters += len(compressed)
        if len(compressed):
            first, behind = self._compressed_entries.ends(compressed)
            firsts, lasts = (first >> bits).astype(np.int64), (behind - U64(1) >> bits).astype(np.int64)
            self.references.add(firsts, times)
            self.references.add(lasts[lasts != firsts], times)

    def wrong_copied_flags(self, *, repair: bool) -> int:
        """How many entries of the active tables say of a cluster with one use that it has more, or the opposite; with
        `repair`, they are set right in the file."""
        size, l1 = self._header.cluster_size, self._header.l1_table_offset
        wrong = 0
        tables = decode_table(self._file.read(l1, self._header.l1_size * ENTRY_SIZE))
        numbers = np.array([number for number, _ in self._active], np.int64)
        wrong += self._copied_flags(tables, numbers, l1, repair=repair)
        for cluster in dict.fromkeys(cluster for _, cluster in self._active):
            table = self._read_l2(cluster)
            entries = np.asarray(table)
            right = np.ones(len(entries), np.bool_)
            right[wrong_entries(entries, self._header, self.end, MetadataClusters())] = False
            plain = right & (entries & U64(COMPRESSED) == 0) & (entries & U64(OFFSET) != 0)
            wrong += self._copied_flags(table, np.flatnonzero(plain), cluster * size, repair=repair)
        return wrong

    def _copied_flags(
        self, table: "array[int]", places: npt.NDArray[np.int64], offset: int, *, repair: bool
    ) -> int:
        """The same for the entries at `places` of the table at `offset`."""
        entries = np.asarray(table)
        clusters = ((entries[places] & U64(OFFSET)) >> U64(self._header.cluster_bits)).astype(np.int64)
        should = self.references.of(clusters) == 1
        wrong = places[(entries[places] & U64(COPIED) != 0) != should]
        if repair and len(wrong):
            entries[wrong] ^= U64(COPIED)
            self._file.write(offset, encode_table(table))
        return len(wrong)
