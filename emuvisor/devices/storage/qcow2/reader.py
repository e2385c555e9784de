"""Reading a qcow2 image: its own clusters, and the backing file's."""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.extents import file_extents
from emuvisor.devices.storage.qcow2.backing import Chain, backing_path
from emuvisor.devices.storage.qcow2.compressed import decompress
from emuvisor.devices.storage.qcow2.entries import COPIED, DAMAGED, IN_PLACE, OFFSET, Kind, kind_of
from emuvisor.devices.storage.qcow2.image import Image
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.devices.storage.scatter import Buffers, part, total_length, transfer
from emuvisor.units import MIB

__all__ = ["ZEROS", "Extent", "Qcow2Reader"]

ZEROS = memoryview(bytes(MIB))
MOST_UNPACKED = 4 * MIB
"""Bytes of unpacked clusters that are kept for the next read."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of the virtual disk that are of one kind; if they are data, in a row in the file and all shared or
    not."""

    start: int
    length: int
    kind: Kind
    entry: int
    """L2 entry of the first cluster, 0 for clusters that are not in the image."""
    host: int
    """Where data begins in the file."""


class Qcow2Reader:
    """What a `Qcow2Disk` is for reading. Arguments and errors are as there."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        backing: Literal["auto"] | None = "auto",
        chain: Chain | None = None,
    ) -> None:
        chain = chain or Chain()
        chain.enter(path)
        self._read_only = read_only
        self.image = image = Image(path, read_only=read_only)
        """The file and its tables."""
        header = image.header
        self._file = image.file
        self._tables = image.tables
        self._cluster_size = header.cluster_size
        self._cluster_bits = header.cluster_bits
        self._in_cluster = header.cluster_size - 1
        self._l2_bits = header.l2_bits
        self._l2_mask = (1 << header.l2_bits) - 1
        self._size = header.size
        self._unpacked: dict[int, bytes] = {}
        """Contents of compressed clusters by their L2 entries."""
        self._generation = image.generation
        self._backing: Qcow2Reader | RawDisk | None = None
        if backing == "auto":
            try:
                self._backing = self._open_backing(chain)
            except BaseException:
                image.close()
                raise
        self._backing_size = 0 if self._backing is None else self._backing.sectors * SECTOR_SIZE

    def _open_backing(self, chain: Chain) -> "Qcow2Reader | RawDisk | None":
        path = backing_path(self.image.name, self.image.header)
        if path is None:
            return None
        if self.image.header.backing_format == "qcow2":
            return Qcow2Reader(path, read_only=True, chain=chain)
        chain.enter(path)
        return RawDisk(path, read_only=True)

    @property
    def name(self) -> str:
        """The file's path."""
        return self.image.name

    @property
    def host_path(self) -> Path:
        """The file's path."""
        return self._file.path

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        return self._size // SECTOR_SIZE

    @property
    def read_only(self) -> bool:
        """Whether the file was opened for reading only."""
        return self._read_only

    @property
    def cluster_size(self) -> int:
        """Bytes that are allocated at a time."""
        return self._cluster_size

    @property
    def backing(self) -> "Qcow2Reader | RawDisk | None":
        """The disk below this one."""
        return self._backing

    @property
    def allocated(self) -> int:
        """Bytes that the image takes on the host's file system, backing files not counted. Raises OSError."""
        return self._file.allocated

    def _in_place(self, start: int, length: int) -> int:
        """Where in the file `length` bytes from `start` lie, if they are in one cluster that may be read and written
        there and whose table is in memory; otherwise 0. The short way of nearly every access."""
        if (start & self._in_cluster) + length > self._cluster_size:
            return 0
        cluster = start >> self._cluster_bits
        table = self._tables.loaded.get(cluster >> self._l2_bits)
        if table is None:
            return 0
        entry = table[cluster & self._l2_mask]
        return (entry ^ COPIED) + (start & self._in_cluster) if entry & IN_PLACE == COPIED else 0

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`. Raises OSError."""
        start, length = lba * SECTOR_SIZE, count * SECTOR_SIZE
        place = self._in_place(start, length)
        if place:
            data = os.pread(self._file.fd, length, place)
            if len(data) == length:
                return data
        return self._bytes(start, length)

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views`, whole sectors together, with the sectors from `lba` on. Raises OSError."""
        start, length = lba * SECTOR_SIZE, total_length(views)
        place = self._in_place(start, length)
        if not (place and transfer(os.preadv, self._file.fd, place, views) == length):
            self._read(start, views, length)

    def _bytes(self, start: int, length: int) -> bytes:
        data = bytearray(length)
        self._read(start, [memoryview(data)], length)
        return bytes(data)

    def _read(self, start: int, views: Buffers, length: int) -> None:
        for extent in self.extents(start, length):
            offset = extent.start - start
            wanted = part(views, offset, offset + extent.length)
            if extent.kind is Kind.DATA:
                done = transfer(os.preadv, self._file.fd, extent.host, wanted)
                _clear(part(wanted, done, extent.length))  # a hole at the file's end
            elif extent.kind is Kind.ZERO:
                _clear(wanted)
            elif extent.kind is Kind.COMPRESSED:
                inside = extent.start & self._in_cluster
                _fill(wanted, memoryview(self._unpack(extent.entry))[inside : inside + extent.length])
            else:
                self._read_backing(extent.start, wanted, extent.length)

    def _read_backing(self, start: int, views: Buffers, length: int) -> None:
        there = max(0, min(length, self._backing_size - start))
        if there and self._backing is not None:
            self._backing.read_into(start // SECTOR_SIZE, part(views, 0, there))
        _clear(part(views, there, length))

    def extents(self, start: int = 0, length: int | None = None) -> Iterator[Extent]:
        """What `length` bytes from `start` (None: up to the disk's end) are in this image, in order; compressed
        clusters one by one. Raises OSError at damage."""
        end = self._size if length is None else start + length
        while start < end:
            extent = self._extent(start, end)
            yield extent
            start += extent.length

    def data_extents(self, lba: int, count: int) -> Iterator[tuple[int, int]]:
        """The sector ranges among `count` from `lba` that may have something else than zeros, here or in the backing
        file. Raises OSError."""
        for extent in self.extents(lba * SECTOR_SIZE, count * SECTOR_SIZE):
            start, end = extent.start, extent.start + extent.length
            if extent.kind is Kind.COMPRESSED:
                yield start // SECTOR_SIZE, end // SECTOR_SIZE
            elif extent.kind is Kind.DATA:
                # Preallocated clusters may be holes of the file.
                for first, behind in file_extents(self._file.fd, extent.host, extent.length):
                    yield (
                        (start + first - extent.host) // SECTOR_SIZE,
                        (start + behind - extent.host) // SECTOR_SIZE,
                    )
            elif extent.kind is Kind.BACKING and self._backing is not None:
                end = min(end, self._backing_size)
                if start < end:
                    yield from self._backing.data_extents(start // SECTOR_SIZE, (end - start) // SECTOR_SIZE)

    def _extent(self, start: int, end: int) -> Extent:
        """The longest extent from `start` up to `end` that one L2 table tells of."""
        bits = self._cluster_bits
        cluster = start >> bits
        number, index = cluster >> self._l2_bits, cluster & self._l2_mask
        table = self._tables.get(number)
        table_end = number + 1 << self._l2_bits << bits
        if table is None:
            return Extent(start, min(end, table_end) - start, Kind.BACKING, 0, 0)
        entry = self._sound(table, number, index)
        kind = kind_of(entry)
        last = min(-(-end >> bits) - (number << self._l2_bits), len(table))
        next_index = index + 1
        if kind is Kind.DATA:
            while next_index < last and table[next_index] == entry + (next_index - index << bits):
                next_index += 1
        elif kind is not Kind.COMPRESSED:
            while next_index < last and table[next_index] != DAMAGED and kind_of(table[next_index]) is kind:
                next_index += 1
        stop = min(end, ((number << self._l2_bits) + next_index) << bits)
        return Extent(start, stop - start, kind, entry, (entry & OFFSET) + (start & self._in_cluster))

    def _sound(self, table: "array[int]", number: int, index: int) -> int:
        """An L2 entry that can be right. Raises OSError."""
        entry = table[index]
        if entry == DAMAGED:
            raise self._tables.error(f"entry {index} of L2 table {number} cannot be right")
        return entry

    def _unpack(self, entry: int) -> bytes:
        """The content of a compressed cluster."""
        self._forget_if_freed()
        data = self._unpacked.get(entry)
        if data is None:
            offset, length = self.image.compressed_entries.decode(entry)
            packed = bytearray(length)
            done = transfer(os.preadv, self._file.fd, offset, [memoryview(packed)])
            data = decompress(bytes(packed[:done]), self._cluster_size, self.image.header.compression)
            if data is None:
                raise self._tables.error(f"the compressed cluster at byte {offset} cannot be unpacked")
            if len(self._unpacked) >= max(1, MOST_UNPACKED >> self._cluster_bits):
                del self._unpacked[next(iter(self._unpacked))]
            self._unpacked[entry] = data
        return data

    def _forget_if_freed(self) -> None:
        """Unpacked clusters are remembered by their place, and a place that became free may hold another."""
        if self._generation != self.image.generation:
            self._generation = self.image.generation
            self._unpacked.clear()

    def close(self) -> None:
        """Close the image and its backing file; more than once is allowed."""
        self.image.close()
        if self._backing is not None:
            self._backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _clear(views: Buffers) -> None:
    for view in views:
        for start in range(0, len(view), len(ZEROS)):
            piece = view[start : start + len(ZEROS)]
            piece[:] = ZEROS[: len(piece)]


def _fill(views: Buffers, data: memoryview) -> None:
    done = 0
    for view in views:
        view[:] = data[done : done + len(view)]
        done += len(view)
