"""A qcow2 image as a disk: writing, zeros, giving space back."""

import errno
import os
from array import array
from collections.abc import Callable, Iterator
from typing import Literal

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.qcow2.backing import Chain
from emuvisor.devices.storage.qcow2.compressed import compress
from emuvisor.devices.storage.qcow2.entries import COPIED, OFFSET, ZERO, Kind, kind_of
from emuvisor.devices.storage.qcow2.reader import ZEROS, Extent, Qcow2Reader
from emuvisor.devices.storage.scatter import Buffers, part, total_length

__all__ = ["Qcow2Disk"]


class Qcow2Disk(Qcow2Reader):
    """The qcow2 image at `path` as a block device; a context manager that flushes and closes.

    What is written is in the file at once, and part of the image for good after `flush`. With `backing` "auto", what
    is not in the image comes from the backing file that its header names; with None it reads as zeros. `chain` has
    the images above this one, if there are any.

    Raises ImageError for an image that cannot be opened, is in use, is damaged, or needs what is not supported; of a
    backing file too. An access that meets damage raises OSError (EIO).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        backing: Literal["auto"] | None = "auto",
        chain: Chain | None = None,
    ) -> None:
        super().__init__(path, read_only=read_only, backing=backing, chain=chain)
        self._has_zero_flag = self.image.header.version > 2
        self._packed_end = 0
        """Where the compressed data that was written last ends in the file; 0 without any."""

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on. Raises OSError."""
        start, length = lba * SECTOR_SIZE, len(data)
        place = self._in_place(start, length)
        if not (place and os.pwrite(self._file.fd, data, place) == length):
            self._write(start, [memoryview(data)], length)

    def write_from(self, lba: int, views: Buffers) -> None:
        """Store what `views` have, whole sectors together, from sector `lba` on. Raises OSError."""
        start, length = lba * SECTOR_SIZE, total_length(views)
        place = self._in_place(start, length)
        if place:
            self._file.write_from(place, views)
        else:
            self._write(start, views, length)

    def _write(self, start: int, views: Buffers, length: int) -> None:
        self._check_writable()
        position, end = start, start + length
        while position < end:
            extent = self._extent(position, end)
            wanted = part(views, position - start, position - start + extent.length)
            if extent.kind is Kind.DATA and extent.entry & COPIED:
                self._file.write_from(extent.host, wanted)
                position += extent.length
            else:
                position += self._write_new(extent, wanted)
        self.image.commit_if_much_waits()

    def _check_writable(self) -> None:
        if self._read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.name)

    def _write_new(self, extent: Extent, views: Buffers) -> int:
        """Write to clusters that must be allocated first; returns how many bytes of the extent are done.

        Data that surrounds them in their clusters is copied. When the host is full, nothing has changed.
        """
        bits, size = self._cluster_bits, self._cluster_size
        start = extent.start
        first = start >> bits
        count = (start + extent.length - 1 >> bits) - first + 1
        number = first >> self._l2_bits
        table = self._tables.own(number)
        index = first & self._l2_mask
        entry = table[index]
        refcounts = self.image.refcounts
        fresh = refcounts.end
        """Clusters from here on are holes in the file."""
        reused = entry & COPIED and kind_of(entry) is Kind.ZERO
        if reused:
            host, count = (entry & OFFSET) >> bits, 1
        else:
            host, count = refcounts.allocate(count)
        stop = min(start + extent.length, first + count << bits)
        try:
            head = self._around(first << bits, start, extent.kind, host >= fresh)
            tail = self._around(stop, first + count << bits, extent.kind, host + count - 1 >= fresh)
            place = (host << bits) + (start & self._in_cluster) - len(head)
            self._file.write_from(place, [head, *part(views, 0, stop - start), tail])
        except OSError:
            if not reused:
                for cluster in range(host, host + count):
                    refcounts.release(cluster)
            raise
        for offset in range(count):
            old = table[index + offset]
            if not reused:
                self.image.unuse(old)
            table[index + offset] = (host + offset) * size | COPIED
        self._tables.touch(number, index, index + count)
        return stop - start

    def _around(self, start: int, end: int, kind: Kind, fresh: bool) -> memoryview:
        """What a new cluster must have from `start` to `end`, which the guest does not write: empty where the file
        has zeros there anyway."""
        if start == end:
            return ZEROS[:0]
        nothing_below = kind is Kind.ZERO or (kind is Kind.BACKING and start >= self._backing_size)
        if nothing_below:
            return ZEROS[:0] if fresh else memoryview(bytes(end - start))
        there = min(end, self._size) - start
        data = self._bytes(start, there) if there > 0 else b""
        return memoryview(data.ljust(end - start, b"\0"))

    def write_zeroes(self, lba: int, count: int, *, unmap: bool) -> None:
        """Make the sectors zeros; with `unmap`, clusters among them are given back to the host. Raises OSError."""
        self._check_writable()
        start, end = lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE
        first, last = self._whole_clusters(start, end)
        if first >= last:
            self._overwrite_with_zeros(start, end)
            return
        self._overwrite_with_zeros(start, first << self._cluster_bits)
        self._zero_clusters(first, last, unmap=unmap)
        self._overwrite_with_zeros(min(end, last << self._cluster_bits), end)
        self.image.commit_if_much_waits()

    def discard(self, lba: int, count: int) -> None:
        """Give the clusters among the sectors back to the host. They become zeros, but for those that would show the
        backing file: version 2 has no way to say that, and these keep their content. Raises OSError."""
        self._check_writable()
        first, last = self._whole_clusters(lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE)
        for number, start, stop in self._by_table(first, last):
            if self._tables.get(number) is not None:
                self._change(number, start, stop, self._discarded)
                self.image.commit_if_much_waits()

    def _whole_clusters(self, start: int, end: int) -> tuple[int, int]:
        """The clusters (first, behind the last) that lie between; the disk's last one may be shorter."""
        last = end >> self._cluster_bits if end < self._size else -(-end >> self._cluster_bits)
        return -(-start >> self._cluster_bits), last

    def _by_table(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Clusters `first` up to `last` as (L2 table, first index, index behind the last)."""
        while first < last:
            number, start = first >> self._l2_bits, first & self._l2_mask
            stop = min(start + last - first, 1 << self._l2_bits)
            yield number, start, stop
            first += stop - start

    def _overwrite_with_zeros(self, start: int, end: int) -> None:
        """Write zeros to what does not read as zeros for sure."""
        while start < end:
            extent = self._extent(start, end)
            stop = start + extent.length
            zero = extent.kind is Kind.ZERO or (extent.kind is Kind.BACKING and start >= self._backing_size)
            while not zero and start < stop:
                length = min(stop - start, len(ZEROS))
                self._write(start, [ZEROS[:length]], length)
                start += length
            start = stop

    def _zero_clusters(self, first: int, last: int, *, unmap: bool) -> None:
        for number, start, stop in self._by_table(first, last):
            begin = (number << self._l2_bits) + start << self._cluster_bits
            if self._tables.get(number) is None and begin >= self._backing_size:
                continue
            if self._has_zero_flag:
                self._change(number, start, stop, self._zeroed_unmapped if unmap else self._zeroed)
            elif unmap and begin >= self._backing_size:
                self._change(number, start, stop, self._discarded)
            else:
                end = (number << self._l2_bits) + stop << self._cluster_bits
                self._overwrite_with_zeros(begin, min(end, self._size))
            self.image.commit_if_much_waits()

    def _zeroed(self, entry: int, below: bool) -> int:
        """The entry of a cluster that becomes zeros and keeps its space."""
        if kind_of(entry) is Kind.DATA and entry & COPIED:
            return entry | ZERO
        return entry if kind_of(entry) is Kind.ZERO else self._zeroed_unmapped(entry, below)

    def _zeroed_unmapped(self, entry: int, below: bool) -> int:
        """The entry of a cluster that becomes zeros and gives its space back."""
        return ZERO if below or entry else 0

    def _discarded(self, entry: int, below: bool) -> int:
        """The entry of a cluster that the guest does not need."""
        if not below:
            return 0
        return ZERO if entry and self._has_zero_flag else entry

    def _change(self, number: int, start: int, stop: int, new: Callable[[int, bool], int]) -> None:
        """Give the entries `start` up to `stop` of an L2 table new values: `new(entry, below)`, where `below` tells
        whether the backing file reaches there. What they do not name any more becomes unused."""
        table = self._tables.get(number)
        first = number << self._l2_bits
        changes = []
        for index in range(start, stop):
            entry = 0 if table is None else self._sound(table, number, index)
            below = first + index << self._cluster_bits < self._backing_size
            value = new(entry, below)
            if value != entry:
                changes.append((index, entry, value))
        if not changes:
            return
        table = self._tables.own(number)
        for index, entry, value in changes:
            if value & OFFSET != entry & OFFSET:
                self.image.unuse(entry)
            table[index] = value
        self._tables.touch(number, changes[0][0], changes[-1][0] + 1)

    def pack(self, data: bytes) -> bytes:
        """`data`, a cluster, as `write_compressed` stores it. It touches nothing, so any thread may call it."""
        return compress(data.ljust(self._cluster_size, b"\0"), self.image.header.compression)

    def write_compressed(self, cluster: int, data: bytes, packed: bytes | None = None) -> None:
        """Store `data`, all of cluster number `cluster` (of the disk's last one, what the disk has of it), compressed
        if it becomes smaller. `packed` is what `pack` made of it, if it was called before. Raises OSError."""
        self._check_writable()
        packed = self.pack(data) if packed is None else packed
        if len(packed) >= self._cluster_size:
            self._write(cluster << self._cluster_bits, [memoryview(data)], len(data))
            return
        number, index = cluster >> self._l2_bits, cluster & self._l2_mask
        table = self._tables.own(number)
        old = self._sound(table, number, index)
        place = self._place_packed(len(packed))
        try:
            self._file.write(place, packed)
        except OSError:
            self._packed_end = 0
            for used in range(
                place >> self._cluster_bits, (place + len(packed) - 1 >> self._cluster_bits) + 1
            ):
                self.image.refcounts.release(used)
            raise
        self._packed_end = place + len(packed)
        table[index] = self.image.compressed_entries.encode(place, len(packed))
        self._tables.touch(number, index, index + 1)
        self.image.unuse(old)
        self.image.commit_if_much_waits()

    def _place_packed(self, length: int) -> int:
        """Where in the file `length` bytes of compressed data go: behind the last, if there is room, and if the
        cluster there can have one use more. The clusters are counted."""
        self._forget_if_freed()
        refcounts, bits, size = self.image.refcounts, self._cluster_bits, self._cluster_size
        last = self._packed_end
        room = -last % size
        if length <= room and refcounts.share(last >> bits):
            return last
        cluster, _ = refcounts.allocate(1)
        place = cluster << bits
        if place + length > self.image.compressed_entries.end:
            refcounts.release(cluster)
            raise OSError(errno.EFBIG, "the qcow2 image cannot grow further", self.name)
        # The sectors of the last compressed cluster of a file may not lie behind its end.
        if os.fstat(self._file.fd).st_size < place + size:
            os.ftruncate(self._file.fd, place + size)
        if room and place == last + room and refcounts.share(last >> bits):
            return last
        return place

    def _forget_if_freed(self) -> None:
        if self._generation != self.image.generation:
            self._packed_end = 0
        super()._forget_if_freed()

    def preallocate(self) -> None:
        """Give every cluster that is not in the image its space in the file; it reads as zeros. Only for a new image
        without a backing file. Raises OSError."""
        refcounts = self.image.refcounts
        for number, _, stop in self._by_table(0, self.image.header.clusters):
            table = self._tables.own(number)
            index = 0
            while index < stop:
                first, count = refcounts.allocate(stop - index)
                hosts = [(first + more) * self._cluster_size | COPIED for more in range(count)]
                table[index : index + count] = array("Q", hosts)
                index += count
            self._tables.touch(number, 0, stop)
        if os.fstat(self._file.fd).st_size < refcounts.end << self._cluster_bits:
            os.ftruncate(self._file.fd, refcounts.end << self._cluster_bits)

    def forget(self, first: int, last: int) -> None:
        """Take the clusters `first` up to `last` out of the image: what is below it shows again. Raises OSError."""
        for number, start, stop in self._by_table(first, last):
            table = self._tables.get(number)
            if table is None:
                continue
            whole = (number + 1 << self._l2_bits) >= self.image.header.clusters and start == 0
            if stop - start == len(table) or whole:
                for index in range(len(table)):
                    self.image.unuse(self._sound(table, number, index))
                self._tables.drop(number)
            else:
                self._change(number, start, stop, _nothing)
            self.image.commit_if_much_waits()

    def resized(self, size: int) -> None:
        """From now on the disk has `size` bytes; the header says so only after `Image.set_size`."""
        self._size = size

    def flush(self) -> None:
        """Return when everything written is part of the image on the host's stable storage. Raises OSError."""
        if not self._read_only:
            self.image.commit()

    def share_file(self) -> None:
        """It is written no more: from now on others may read the file too. Raises ImageError."""
        self._file.share()

    def close(self) -> None:
        """Store what is not stored yet and close image and backing file; more than once is allowed. Raises OSError
        when it cannot be stored."""
        try:
            if not self._read_only and self.image.changed:
                self.flush()
        finally:
            super().close()


def _nothing(_entry: int, _below: bool) -> int:
    """The entry of a cluster that is not in the image."""
    return 0
