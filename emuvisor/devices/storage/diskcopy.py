"""Copying a disk that is written meanwhile: first all of it, then again and again what was written since."""

from typing import Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay import CopyOnWriteDisk
from emuvisor.units import MIB

__all__ = ["DiskCopy"]


class DiskCopy:
    """What somebody who copies `disk` has not got yet, in whole clusters. With `top_only` he has what is below the
    layer that is written; else he begins with zeros.

    One thread takes ranges and reads them with `disk.read`, or gives them back; the guest's thread writes. Made and
    closed between two requests of the guest. Raises OSError when the host does not say where the disk has data.
    """

    def __init__(self, disk: LayeredDisk, *, top_only: bool = False) -> None:
        self._disk = disk
        self._pending = ClusterMap(disk.sectors * SECTOR_SIZE)
        self._position = 0
        self.passes = 0
        """How often the disk was gone through to its end, and there was something left to copy then."""
        top = disk.layer.disk
        if top_only and isinstance(top, CopyOnWriteDisk):
            for start, end in top.present_runs():
                self._pending.add(start, end)
        else:
            for first, behind in disk.data_extents(0, disk.sectors):
                self._pending.add(first * SECTOR_SIZE, behind * SECTOR_SIZE)
        disk.watch(self._pending)

    @property
    def remaining(self) -> int:
        """Bytes that are still to be copied, as things are now."""
        return self._pending.bytes

    def next_ranges(self, most: int = MIB) -> list[tuple[int, int]]:
        """The next ranges, (first sector, sectors), of `most` bytes together, or a cluster if that is more: from where
        the last ones ended, up to the disk's end. They count as copied now; what is written to them from now on is for
        the next pass. None: there is nothing to be copied at this moment."""
        with self._disk.unwritten():
            ranges = self._take(most)
            if not ranges and self._position:
                self._position = 0
                ranges = self._take(most)
                self.passes += bool(ranges)
        return ranges

    def _take(self, most: int) -> list[tuple[int, int]]:
        taken = self._pending.take(self._position, most)
        if taken:
            self._position = taken[-1][1]
        return [(start // SECTOR_SIZE, (end - start) // SECTOR_SIZE) for start, end in taken]

    def give_back(self, ranges: list[tuple[int, int]]) -> None:
        """They were not copied after all."""
        with self._disk.unwritten():
            for lba, count in ranges:
                self._pending.add(lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE)

    def close(self) -> None:
        """Note no longer what is written; more than once is allowed."""
        self._disk.unwatch(self._pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
