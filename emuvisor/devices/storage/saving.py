"""A disk at one moment written to files: only what no file has yet."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.convert import Progress, copy_disk, write_image
from emuvisor.devices.storage.extents import is_zero
from emuvisor.devices.storage.formats import DiskFormat, open_image
from emuvisor.devices.storage.layerfiles import base_file, files_of
from emuvisor.devices.storage.moment import Moment
from emuvisor.devices.storage.overlay import CopyOnWriteDisk, OverlayDisk
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE, BaseFile
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.errors import ImageError
from emuvisor.units import MIB

__all__ = ["DiskFiles", "save_moment"]

PIECE_SECTORS = MIB // SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class DiskFiles:
    """A disk that can be opened from its file."""

    path: Path
    format: DiskFormat
    below: list[Path]
    """The files that it stands on, the top one first; nobody may write them any more."""


def save_moment(moment: Moment, path: Path, progress: Progress = lambda _done, _all: None) -> DiskFiles:
    """Write a new file at `path`: an overlay on the nearest file below `moment` that nobody writes, with what is above
    it, or a raw image with everything, where there is none. It is on stable storage when this returns, or not there.

    `progress` hears how many sectors of how many are done; what it raises ends it. Raises ImageError.
    """
    changed = ClusterMap(moment.sectors * SECTOR_SIZE)
    base = _find_base(moment, changed, path)
    if base is None:
        size = moment.sectors * SECTOR_SIZE
        write_image(path, _raw_maker(size), lambda disk: copy_disk(moment, disk, progress))
        return DiskFiles(path, "raw", [])
    with closing(open_image(base.path, base.format, read_only=True)) as below:
        files = files_of(below)

    def make(unfinished: Path) -> OverlayDisk:
        below = open_image(base.path, base.format, read_only=True)
        try:
            return OverlayDisk.create(below, unfinished, file=base, later=True)
        except BaseException:
            below.close()
            raise

    write_image(path, make, lambda disk: _copy(moment, disk, changed, progress))
    return DiskFiles(path, "overlay", files)


def _raw_maker(size: int) -> Callable[[Path], RawDisk]:
    def make(unfinished: Path) -> RawDisk:
        create_raw(unfinished, size)
        return RawDisk(unfinished)

    return make


def _find_base(moment: Moment, changed: ClusterMap, path: Path) -> BaseFile | None:
    """The nearest file below `moment` that nobody writes; `changed` gets the clusters that may differ from it. Raises
    ImageError when it is not on stable storage and cannot be brought there."""
    at: BlockDevice = moment
    while True:
        if isinstance(at, Moment):
            saved = at.saved
            if saved is None:
                try:
                    at.sync()
                except OSError as error:
                    raise ImageError(f"{at.name}: cannot be stored: {error.strerror}") from error
                return base_file(at, path)
            at = at.layer.disk
            while saved is not None:
                changed.update(saved.present)
                saved = saved.newer
        elif isinstance(at, CopyOnWriteDisk) and not at.read_only:
            # What the guest writes meanwhile is saved first, and had the base's content.
            for start, end in at.present_runs():
                changed.add(start, end)
            at = at.base
        elif at.read_only:
            return base_file(at, path)
        else:
            return None


def _copy(moment: Moment, target: OverlayDisk, changed: ClusterMap, progress: Progress) -> None:
    """Write what `moment` has in the `changed` clusters, if it is something else than `target` has. Raises OSError."""
    total = changed.bytes // SECTOR_SIZE
    done = 0
    for start, end in changed.runs():
        for lba in range(start // SECTOR_SIZE, end // SECTOR_SIZE, PIECE_SECTORS):
            progress(done, total)
            count = min(PIECE_SECTORS, end // SECTOR_SIZE - lba)
            data, there = moment.read(lba, count), target.read(lba, count)
            for at in range(0, len(data), CLUSTER_SIZE):
                cluster = data[at : at + CLUSTER_SIZE]
                if cluster == there[at : at + CLUSTER_SIZE]:
                    continue
                first = lba + at // SECTOR_SIZE
                if is_zero(cluster):
                    target.write_zeroes(first, len(cluster) // SECTOR_SIZE, unmap=True)
                else:
                    target.write(first, cluster)
            done += count
    progress(total, total)
