"""Disks of guests that can be frozen: what is there stays to be seen, and to be the base of other disks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.convert import Progress
from emuvisor.devices.storage.extents import is_zero
from emuvisor.devices.storage.layer import Layer
from emuvisor.devices.storage.layerfiles import MAX_LAYERS, base_file, depth_of, files_of
from emuvisor.devices.storage.moment import Moment
from emuvisor.devices.storage.overlay import CopyOnWriteDisk, OverlayDisk, TemporaryOverlay
from emuvisor.devices.storage.overlay_format import BaseFile
from emuvisor.devices.storage.saving import DiskFiles, save_moment
from emuvisor.devices.storage.scatter import Buffers, total_length
from emuvisor.devices.storage.temporary import temporary_folder
from emuvisor.errors import ImageError, UsageError
from emuvisor.units import MIB

__all__ = ["Frozen", "LayeredDisk"]

PIECE_SECTORS = MIB // SECTOR_SIZE
"""What going back compares at a time."""


class LayeredDisk:
    """`disk`, written as ever, of which `freeze` keeps moments. It owns `disk`, whose base is `base`, if that was
    frozen itself.

    One thread uses it at a time; what was frozen is anybody's. While a moment is kept, the first write to a cluster
    of 64 KiB saves what the cluster has: like any write it raises an OSError of which `is_host_full` is true when
    there is no room for that, and then nothing has changed.
    """

    read_only = False

    def __init__(self, disk: BlockDevice, base: Moment | None = None) -> None:
        self._layer = Layer(disk, base)
        self._closed = False
        self.moving = threading.Lock()
        """Held by who moves it to another file, or another host."""

    @property
    def name(self) -> str:
        """The name of what is written now."""
        return self._layer.disk.name

    @property
    def host_path(self) -> Path:
        """The file or folder that it takes its space from."""
        return self._layer.disk.host_path

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        return self._layer.size // SECTOR_SIZE

    @property
    def allocated(self) -> int:
        """Bytes on the host: without its base, with what is saved for those who see it as it was. Raises OSError."""
        return self._layer.allocated

    @property
    def layer(self) -> Layer:
        """What is written now."""
        return self._layer

    def data_extents(self, lba: int, count: int) -> Iterator[tuple[int, int]]:
        """The sector ranges among `count` from `lba` that may have something else than zeros. Raises OSError."""
        return self._layer.saved_extents(None, lba, count)

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`. Raises OSError."""
        return self._layer.read(lba, count)

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views` from sector `lba` on. Raises OSError."""
        self._layer.read_into(lba, views)

    def write(self, lba: int, data: bytes) -> None:
        """Store `data` from sector `lba` on. Raises OSError."""
        layer = self._layer
        with layer.lock:
            layer.changing(lba, len(data) // SECTOR_SIZE)
            layer.disk.write(lba, data)

    def write_from(self, lba: int, views: Buffers) -> None:
        """Store what `views` have from sector `lba` on. Raises OSError."""
        layer = self._layer
        with layer.lock:
            layer.changing(lba, total_length(views) // SECTOR_SIZE)
            layer.disk.write_from(lba, views)

    def write_zeroes(self, lba: int, count: int, *, unmap: bool) -> None:
        """Make the sectors zeros; with `unmap` their space may go back to the host. Raises OSError."""
        layer = self._layer
        with layer.lock:
            layer.changing(lba, count)
            layer.disk.write_zeroes(lba, count, unmap=unmap)

    def discard(self, lba: int, count: int) -> None:
        """The sectors keep their content or become zeros. Raises OSError."""
        layer = self._layer
        with layer.lock:
            layer.changing(lba, count)
            layer.disk.discard(lba, count)

    def flush(self) -> None:
        """Return when everything written is on stable storage, in every layer that has some of it. Raises OSError."""
        self._layer.flush()

    def close(self) -> None:
        """Leave it; what is frozen stays. More than once is allowed. Raises OSError as closing the disk does."""
        if not self._closed:
            self._closed = True
            self._layer.leave()

    # ---- those who copy it ----

    def watch(self, written: ClusterMap) -> None:
        """`written` gets the clusters that are written from now on."""
        self._layer.watchers.append(written)

    def unwatch(self, written: ClusterMap) -> None:
        """`written` gets them no longer; more than once is allowed."""
        watchers = self._layer.watchers
        watchers[:] = [watcher for watcher in watchers if watcher is not written]

    @contextmanager
    def unwritten(self) -> Iterator[None]:
        """Nobody writes inside."""
        while True:
            layer = self._layer
            with layer.lock:
                if layer is self._layer:  # it was not frozen meanwhile
                    yield
                    return

    def replace(self, disk: BlockDevice, base: Moment | None = None) -> None:
        """Go on with `disk`, whose content is the same; `base`, which it owns, is what it stands on. The one before is
        closed. While the guest does not run. Raises OSError as closing does; it is replaced then."""
        self._layer.replace(disk, base)

    # ---- moments ----

    def freeze(self, overlay: Path | None = None) -> "Frozen":
        """The disk as it is now, to be closed by the caller; between two requests of the guest.

        Without `overlay` the disk's file stays the guest's, and what it loses is saved for whoever looks. With it, the
        file stays as it is for good, and what the guest writes from now on goes to a new overlay file there. Raises
        ImageError when that cannot be made.
        """
        if overlay is None:
            return Frozen(self._layer, self._layer.save())
        old = self._layer
        old.share(None)
        below = Frozen(old, None)
        try:
            top = OverlayDisk.create(below, overlay, file=below.file_for(overlay), later=True)
        except BaseException:
            below.close()
            raise
        layer = Layer(top, below)
        layer.watchers = old.watchers
        with old.lock:  # for those in `unwritten`
            self._layer = layer
        kept = below.share()
        old.leave()
        return kept

    def go_back(self, frozen: "Frozen") -> None:
        """Make the disk what it was at `frozen`, which stays; so do newer ones. Between two requests of the guest.

        It costs by the clusters that were written since. Raises UsageError when `frozen` is not of this disk; OSError
        when the host cannot write: then it is neither what it was nor what it is to be, and can be tried again.
        """
        layer = self._layer
        top = layer.disk
        alone = not layer.is_saving and not layer.watchers
        if (
            alone
            and isinstance(top, TemporaryOverlay)
            and layer.base is not None
            and layer.base.is_same(frozen)
        ):
            top.clear()
            return
        for start, end in self._written_since(frozen).runs():
            last = end // SECTOR_SIZE
            for lba in range(start // SECTOR_SIZE, last, PIECE_SECTORS):
                self._copy_back(frozen, lba, min(PIECE_SECTORS, last - lba))
        if frozen.layer is layer:
            layer.is_back(frozen.saved)

    def has_been(self, frozen: "Frozen") -> bool:
        """Whether `frozen` is a moment of this disk, to which it can go back."""
        layer: Layer | None = self._layer
        while layer is not None and layer is not frozen.layer:
            layer = None if layer.base is None else layer.base.layer
        return layer is not None

    def _written_since(self, frozen: "Frozen") -> ClusterMap:
        """The clusters that may be others than at `frozen`. Raises UsageError."""
        layer: Layer | None = self._layer
        written = ClusterMap(self._layer.size)
        if frozen.layer.size != written.size:
            raise UsageError(
                f"disk {self.name} has {written.size} bytes; it cannot go back to what had {frozen.layer.size}"
            )
        while layer is not None and layer is not frozen.layer:
            if layer.base is None:  # it was moved into a file of its own, or never was that
                written.add(0, written.size)
            elif isinstance(layer.disk, CopyOnWriteDisk):
                for start, end in layer.disk.present_runs():
                    written.add(start, end)
            layer = None if layer.base is None else layer.base.layer
        if layer is not None:
            written.update(layer.written_since(frozen.saved))
        return written

    def _copy_back(self, frozen: "Frozen", lba: int, count: int) -> None:
        old = frozen.read(lba, count)
        if old == self.read(lba, count):
            return
        if is_zero(old):
            self.write_zeroes(lba, count, unmap=True)
        else:
            self.write(lba, old)


class Frozen(Moment):
    """A disk at one moment, made by `LayeredDisk.freeze`: a read-only disk for any threads, and the base of others."""

    def open(self, overlay: Path | None = None) -> LayeredDisk:
        """A disk that begins as this one, and is written by itself: to a nameless file, or to a new overlay file, which
        needs a disk that was frozen with an overlay file too. The handle stays open. Raises ImageError."""
        base = self.share()
        try:
            disk: CopyOnWriteDisk
            if overlay is None:
                self._require_room(self.name)
                disk = TemporaryOverlay(base, temporary_folder(self.host_path))
            else:
                base.sync()
                disk = OverlayDisk.create(base, overlay, file=self.file_for(overlay))
        except OSError as error:
            base.close()
            raise ImageError(f"{self.name}: cannot be stored: {error.strerror}") from error
        except BaseException:
            base.close()
            raise
        return LayeredDisk(disk, base)

    # ---- its files ----

    def save(self, path: Path, progress: Progress = lambda _done, _all: None) -> DiskFiles:
        """Write what no file has yet to a new one at `path`, as `saving.save_moment` does, in any
        thread. Raises ImageError."""
        return save_moment(self, path, progress)

    @property
    def paths(self) -> list[Path]:
        """The files that it consists of, the top one first. Raises StateError when it is not made of files alone: it
        was frozen without an overlay file, or is on top of such a one."""
        return files_of(self)

    def file_for(self, overlay: Path) -> BaseFile:
        """The file that a new overlay file has as its base. Raises ImageError when there is none, or when there are too
        many below it."""
        if self.saved is not None:
            raise ImageError(
                f"{overlay}: no file has what disk {self.name} was; freeze it with an overlay file"
            )
        self._require_room(str(overlay))
        return base_file(self.layer.disk, overlay)

    def _require_room(self, name: str) -> None:
        depth = depth_of(self.layer.disk)
        if depth > MAX_LAYERS:
            raise ImageError(
                f"{name}: {depth} layers of a disk would be below it, {MAX_LAYERS} are the most; "
                "move the disk into a single file first"
            )
