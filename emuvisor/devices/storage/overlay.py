"""A disk that is a read-only base plus the clusters that were written since, kept in a sparse file of their own."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice, reads_in_parallel
from emuvisor.devices.storage.extents import data_extents, file_extents
from emuvisor.devices.storage.imagefile import ImageFile, sync_directory
from emuvisor.devices.storage.overlay_file import changed_ns, read_overlay
from emuvisor.devices.storage.overlay_format import (
    BITMAP_SECTOR,
    BITS_PER_SECTOR,
    CLUSTER_SIZE,
    FIRST_SECTOR,
    HEADER_SIZE,
    UNBOUND,
    BaseFile,
    Layout,
    encode_bitmap_sector,
    encode_empty_bitmap,
    identity_of,
)
from emuvisor.devices.storage.scatter import Buffers, part, total_length
from emuvisor.devices.storage.temporary import TemporaryFile
from emuvisor.errors import ImageError

__all__ = ["CopyOnWriteDisk", "OverlayDisk", "TemporaryOverlay"]


class CopyOnWriteDisk:
    """`base` with the clusters marked in `present` taken from `store` instead, where cluster 0 lies at `data_offset`.
    Without any, `present` may be empty.

    The base is never written. The disk owns `base` and `store`, and closes them.
    """

    read_only = False

    def __init__(
        self, base: BlockDevice, store: ImageFile, present: bytearray, cluster_size: int, data_offset: int
    ) -> None:
        self._base = base
        self._store = store
        self._present = present
        self._cluster_size = cluster_size
        self._data_offset = data_offset

    @property
    def base(self) -> BlockDevice:
        """What is below."""
        return self._base

    @property
    def name(self) -> str:
        """The overlay file's path, or the base's name for a temporary overlay."""
        return str(self._store.path)

    @property
    def host_path(self) -> Path:
        """The overlay file, or the folder that a temporary overlay is in."""
        return self._store.path

    @property
    def sectors(self) -> int:
        """Capacity in sectors, the base's."""
        return self._base.sectors

    @property
    def allocated(self) -> int:
        """Bytes that the overlay takes on the host's file system, without the base. Raises OSError."""
        return self._store.allocated

    @property
    def clusters_present(self) -> int:
        """How many clusters no longer come from the base."""
        return self._present.count(1)

    @property
    def cluster_size(self) -> int:
        """Bytes that the first write to a place copies."""
        return self._cluster_size

    def _runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Byte ranges (start, end, present) that together are `start` to `end`, as long as they can be."""
        if not self._present:
            yield start, end, False
            return
        while start < end:
            cluster = start // self._cluster_size
            present = self._present[cluster]
            change = self._present.find(1 - present, cluster, -(-end // self._cluster_size))
            stop = end if change < 0 else min(end, change * self._cluster_size)
            yield start, stop, bool(present)
            start = stop

    @property
    def reads_in_parallel(self) -> bool:
        """Whether several threads may read it, while one writes to other places."""
        return reads_in_parallel(self._base)

    def present_runs(self) -> Iterator[tuple[int, int]]:
        """The byte ranges that no longer come from the base."""
        size = self.sectors * SECTOR_SIZE
        return ((start, end) for start, end, present in self._runs(0, size) if present)

    def _from_base(self, start: int, end: int) -> bytes:
        return self._base.read(start // SECTOR_SIZE, (end - start) // SECTOR_SIZE)

    def data_extents(self, lba: int, count: int) -> Iterator[tuple[int, int]]:
        """The sector ranges among `count` from `lba` that may have something else than zeros. Raises OSError."""
        for start, end, present in self._runs(lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE):
            if present:
                for first, behind in file_extents(self._store.fd, self._data_offset + start, end - start):
                    yield (
                        (first - self._data_offset) // SECTOR_SIZE,
                        -(-(behind - self._data_offset) // SECTOR_SIZE),
                    )
            else:
                yield from data_extents(self._base, start // SECTOR_SIZE, (end - start) // SECTOR_SIZE)

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`. Raises OSError."""
        parts = [
            self._store.read(self._data_offset + start, end - start)
            if present
            else self._from_base(start, end)
            for start, end, present in self._runs(lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views`, whole sectors together, with the sectors from `lba` on. Raises OSError."""
        first = lba * SECTOR_SIZE
        for start, end, present in self._runs(first, first + total_length(views)):
            piece = part(views, start - first, end - first)
            if present:
                self._store.read_into(self._data_offset + start, piece)
            else:
                self._base.read_into(start // SECTOR_SIZE, piece)

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on. Raises OSError; the sectors then keep what they had, or
        have what was written."""
        self.write_from(lba, [memoryview(data)])

    def write_from(self, lba: int, views: Buffers) -> None:
        """Store what `views` have, whole sectors together, from sector `lba` on. Raises OSError as `write` does."""
        first = lba * SECTOR_SIZE
        for start, end, present in self._runs(first, first + total_length(views)):
            piece = part(views, start - first, end - first)
            if present:
                self._store.write_from(self._data_offset + start, piece)
            else:
                self._copy(start, piece, end)

    def _copy(self, start: int, piece: Buffers, end: int) -> None:
        """Write whole clusters: `piece`, and around it what the base has."""
        size = self._cluster_size
        first, last = start // size, -(-end // size)
        whole_start, whole_end = first * size, min(last * size, self.sectors * SECTOR_SIZE)
        before, behind = self._from_base(whole_start, start), self._from_base(end, whole_end)
        whole = [memoryview(before), *piece, memoryview(behind)]
        self._store.write_from(self._data_offset + whole_start, whole)
        self._mark(first, last)

    def _mark(self, first: int, last: int) -> None:
        """Clusters `first` up to `last` come from the store from now on."""
        self._present[first:last] = b"\1" * (last - first)

    def _whole_clusters(self, start: int, end: int) -> tuple[int, int]:
        """The first of the clusters that lie wholly between byte `start` and `end`, and the one behind the last."""
        first = -(-start // self._cluster_size)
        size = self._cluster_size
        last = -(-end // size) if end == self.sectors * SECTOR_SIZE else end // size
        return first, max(first, last)

    def write_zeroes(self, lba: int, count: int, *, unmap: bool) -> None:
        """Make the sectors zeros; with `unmap` they take no space. Raises OSError as `write` does."""
        for start, end, present in self._runs(lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE):
            if present:
                self._store.write_zeroes(self._data_offset + start, end - start, unmap=unmap)
                continue
            first, last = self._whole_clusters(start, end)
            whole_start, whole_end = first * self._cluster_size, last * self._cluster_size
            if first < last:
                self._store.write_zeroes(
                    self._data_offset + whole_start, whole_end - whole_start, unmap=unmap
                )
                self._mark(first, last)
            for edge_start, edge_end in ((start, min(end, whole_start)), (max(start, whole_end), end)):
                if edge_start < edge_end:
                    self._copy(edge_start, [memoryview(bytes(edge_end - edge_start))], edge_end)

    def discard(self, lba: int, count: int) -> None:
        """Make zeros that take no space of sectors that were written, and of whole clusters that were not; nothing
        happens on a file system that has no holes. Raises OSError."""
        for start, end, present in self._runs(lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE):
            if present:
                self._store.discard(self._data_offset + start, end - start)
                continue
            first, last = self._whole_clusters(start, end)
            size = (last - first) * self._cluster_size
            if size and self._store.discard(self._data_offset + first * self._cluster_size, size):
                self._mark(first, last)

    def flush(self) -> None:
        """Nothing lasts longer than the file is open."""

    def close(self) -> None:
        """Close overlay and base; more than once is allowed."""
        self._store.close()
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TemporaryOverlay(CopyOnWriteDisk):
    """`base` as a disk whose changes vanish when it is closed, or when this process ends in whatever way.

    They go to a nameless sparse file in `directory` (None: the host's directory for temporary files), which is made by
    the first of them. Raises ImageError when there is no such directory, or it cannot be written to.
    """

    def __init__(self, base: BlockDevice, directory: str | os.PathLike[str] | None = None) -> None:
        size = base.sectors * SECTOR_SIZE
        store = TemporaryFile(
            Path(directory or tempfile.gettempdir()), -(-size // CLUSTER_SIZE) * CLUSTER_SIZE
        )
        super().__init__(base, store, bytearray(), CLUSTER_SIZE, 0)

    def _mark(self, first: int, last: int) -> None:
        if not self._present:
            self._present = bytearray(self._store.size // CLUSTER_SIZE)
        super()._mark(first, last)

    def clear(self) -> None:
        """Forget what was written: it shows the base."""
        self._present = bytearray()
        self._store.close()

    @property
    def name(self) -> str:
        """The base's name."""
        return self._base.name


class OverlayDisk(CopyOnWriteDisk):
    """`base` with the changes in the overlay file at `path`, which `OverlayDisk.create` made for it.

    What was written is in the file for good after `flush` or `close`: clusters are on stable storage before the bitmap
    says that they are there, so a host that stops at any moment leaves an overlay that opens and has all that was
    flushed. Raises ImageError for a file that is not an overlay, is damaged or cut short, belongs to another
    base, or is in use.
    """

    def __init__(
        self,
        base: BlockDevice,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        file: BaseFile | None = None,
    ) -> None:
        store = ImageFile(path, read_only=read_only, kind="overlay")
        try:
            layout, present = read_overlay(base, store)
            named = file is not None and not layout.base_name
            if file is not None and named:
                layout = replace(layout, base_name=file.name_for(store.path), base_format=file.format)
                layout.check(str(path))
        except OSError as error:
            store.close()
            raise ImageError(f"{path}: cannot read the overlay: {error.strerror}") from error
        except ImageError:
            store.close()
            raise
        self.read_only = read_only
        self._dirty: set[int] = set()
        """Bitmap sectors that differ from the file's."""
        self._bound = read_only or not (named or layout.identity == UNBOUND)
        """The header says which base it is."""
        self._layout = layout
        super().__init__(base, store, present, layout.cluster_size, layout.data_offset)

    @classmethod
    def create(
        cls,
        base: BlockDevice,
        path: str | os.PathLike[str],
        cluster_size: int = CLUSTER_SIZE,
        *,
        file: BaseFile | None = None,
        later: bool = False,
    ) -> Self:
        """Make an overlay file without changes for `base` and open it; it notes that the base is in `file`, if that is
        given. Raises ImageError, also when `path` exists.

        With `later` nothing waits for stable storage before the first `flush`; until then, a host that stops leaves
        neither the file nor what was last written to the base.
        """
        path = Path(path)
        try:
            layout = Layout(cluster_size, base.sectors * SECTOR_SIZE, UNBOUND)
            if file is not None:
                layout = replace(layout, base_name=file.name_for(path), base_format=file.format)
            layout.check(str(path))
            with path.open("xb") as new:
                try:
                    _write_empty(layout, new)
                except BaseException:
                    path.unlink()
                    raise
        except OSError as error:
            raise ImageError(f"{path}: cannot make the overlay: {error.strerror}") from error
        disk = cls(base, path)
        if not later:
            try:
                disk._bind()
            except BaseException as error:
                disk._store.close()
                path.unlink()
                if isinstance(error, OSError):
                    raise ImageError(f"{path}: cannot make the overlay: {error.strerror}") from error
                raise
        return disk

    def _bind(self) -> None:
        """Note which base it is, once that is on stable storage. Raises OSError."""
        self._base.flush()
        layout = replace(self._layout, identity=identity_of(self._base))
        if layout.base_name:
            layout = replace(
                layout, base_changed_ns=changed_ns(self._base), inode=os.fstat(self._store.fd).st_ino
            )
        header = layout.encode()
        if layout.base_name:  # what the first sector says must be there
            self._store.write(FIRST_SECTOR, header[FIRST_SECTOR:])
            self._store.flush()
        self._store.write(0, header[:FIRST_SECTOR])
        self._store.flush()
        sync_directory(self._store.path)
        self._layout = layout
        self._bound = True

    @property
    def file(self) -> BaseFile | None:
        """The base's file, as the header says."""
        return self._layout.base_file(self._store.path)

    def _mark(self, first: int, last: int) -> None:
        super()._mark(first, last)
        self._dirty.update(range(first // BITS_PER_SECTOR, (last - 1) // BITS_PER_SECTOR + 1))

    def flush(self) -> None:
        """Return when everything written is in the overlay file on stable storage; the first time after `create` with
        `later`, what is below it too. Raises OSError."""
        if not self._bound:
            self._bind()
        self._store.flush()
        if self._dirty:
            for number in self._dirty:
                self._store.write(
                    HEADER_SIZE + number * BITMAP_SECTOR, encode_bitmap_sector(self._present, number)
                )
            self._store.flush()
            self._dirty.clear()

    def share_file(self) -> None:
        """It is written no more: from now on others may read the file too. Raises ImageError."""
        self._store.share()

    def close(self) -> None:
        """Flush and close overlay and base; more than once is allowed. Raises OSError when the flush fails."""
        try:
            if self._dirty or not self._bound:
                self.flush()
        finally:
            self._dirty.clear()
            self._bound = True
            super().close()


def _write_empty(layout: Layout, file: BinaryIO) -> None:
    """Fill a new overlay file. Raises OSError."""
    file.write(layout.encode())
    file.write(encode_empty_bitmap(layout.bitmap_sectors))
    file.truncate(layout.file_size)
