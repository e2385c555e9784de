"""A disk that is written while others see it as it was: before a cluster changes, what it had is saved for them.

So the file below is always the guest's present disk, a flush means what it always means, and closing what was frozen
costs nothing. What is saved lies in nameless files: it ends with this process, as the checkpoints do that need it.
"""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice, reads_in_parallel
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.extents import aligned_extents, data_extents, file_extents, is_zero
from emuvisor.devices.storage.overlay_format import CLUSTER_SIZE
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.devices.storage.scatter import Buffers, part
from emuvisor.devices.storage.temporary import TemporaryFile, temporary_folder
from emuvisor.errors import ImageError
from emuvisor.units import MIB

if TYPE_CHECKING:
    from emuvisor.devices.storage.moment import Moment

__all__ = ["Layer", "Saved"]

PIECE = MIB
"""Bytes that are saved at a time; whole clusters."""
CLUSTER_SECTORS = CLUSTER_SIZE // SECTOR_SIZE


@runtime_checkable
class SharedFile(Protocol):
    """A disk whose file can be left to readers."""

    def share_file(self) -> None:
        """It is written no more: from now on others may read the file too. Raises ImageError."""
        ...


class Saved:
    """What a disk of `size` bytes had at one moment in those clusters that were `written` since: `present` says which
    are in `file`. What is in none of these and of the `newer` ones, the disk still has."""

    __slots__ = ("file", "newer", "present", "users", "written")

    def __init__(self, folder: Path, size: int) -> None:
        self.file = TemporaryFile(folder, size)
        self.present = ClusterMap(size)
        self.written = ClusterMap(size)
        """Since the moment, until the next one; less than `present` after going back."""
        self.newer: Saved | None = None
        self.users = 0

    def find(self, start: int, end: int) -> "tuple[int, Saved | None]":
        """Who has the bytes from `start` on, None is the disk, and where that ends: `end` at the most."""
        saved: Saved | None = self
        while saved is not None:
            stop, inside = saved.present.run(start, end)
            if inside:
                return stop, saved
            end = stop
            saved = saved.newer
        return end, None


class _Ground:
    """A disk, and how many read it without the lock; when it is `retired`, the last of them closes it."""

    __slots__ = ("disk", "parallel", "readers", "retired")

    def __init__(self, disk: BlockDevice) -> None:
        self.disk = disk
        self.parallel = reads_in_parallel(disk)
        self.readers = 0
        self.retired = False


class Layer:
    """`disk` and what is saved of it. `users` are those who need it: the last one to leave closes it.

    The guest's thread writes; any thread reads what was frozen. Who only waits for the lock waits for one request of
    the guest's at most.
    """

    def __init__(self, disk: BlockDevice, base: "Moment | None" = None) -> None:
        self._ground = _Ground(disk)
        self.base = base
        """What it stands on, if that was frozen in this process; `disk` owns it."""
        self.size = disk.sectors * SECTOR_SIZE
        self.users = 1
        self.lock = threading.Lock()
        self.watchers: list[ClusterMap] = []
        """Each gets the clusters that are written."""
        self._settled = False
        self._saved: list[Saved] = []
        """In the order of the moments."""

    @property
    def disk(self) -> BlockDevice:
        """What is written now."""
        return self._ground.disk

    @property
    def allocated(self) -> int:
        """Bytes that the disk and what is saved of it take on the host. Raises OSError."""
        return self.disk.allocated + sum(saved.file.allocated for saved in tuple(self._saved))

    @property
    def is_saving(self) -> bool:
        """Whether somebody needs it as it was."""
        return bool(self._saved)

    # ---- who needs it ----

    def share(self, saved: Saved | None) -> None:
        """One user more, of what is `saved`; None: of the disk, which is written no more."""
        with self.lock:
            self.users += 1
            if saved is not None:
                saved.users += 1

    def leave(self, saved: Saved | None = None) -> None:
        """One user less. Raises OSError when the disk has to be closed and cannot store what it has."""
        with self.lock:
            self.users -= 1
            if saved is not None:
                saved.users -= 1
                # What is in the middle is what older ones have not.
                while self._saved and not self._saved[0].users:
                    self._saved.pop(0).file.close()
            last = not self.users
        if last:
            self.disk.close()

    def save(self) -> Saved:
        """Keep the disk as it is now, for one user. Raises ImageError when the host has no place for that."""
        with self.lock:
            newest = self._saved[-1] if self._saved else None
            if newest is None or newest.written:
                older, newest = newest, Saved(temporary_folder(self.disk.host_path), self.size)
                if older is not None:
                    older.newer = newest
                self._saved.append(newest)
            newest.users += 1
            self.users += 1
            return newest

    # ---- what it has now ----

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`. Raises OSError."""
        ground = self._enter()
        if ground is None:
            with self.lock:
                return self.disk.read(lba, count)
        try:
            return ground.disk.read(lba, count)
        finally:
            self._exit(ground)

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views` from sector `lba` on. Raises OSError."""
        ground = self._enter()
        if ground is None:
            with self.lock:
                self.disk.read_into(lba, views)
            return
        try:
            ground.disk.read_into(lba, views)
        finally:
            self._exit(ground)

    def _enter(self) -> _Ground | None:
        """What can be read without the lock until `_exit`, if it can."""
        with self.lock:
            ground = self._ground
            if not ground.parallel:
                return None
            ground.readers += 1
            return ground

    def _exit(self, ground: _Ground) -> None:
        with self.lock:
            ground.readers -= 1
            last = ground.retired and not ground.readers
        if last:
            ground.disk.close()

    def changing(self, lba: int, count: int) -> None:
        """Before `count` sectors from `lba` change; under the lock. Raises OSError when the host has no room to save
        what they have: then they must stay."""
        start, end = lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE
        if self._saved:
            newest = self._saved[-1]
            self._save_clusters(newest, start, end)
            newest.written.add(start, end)
        for watcher in self.watchers:
            watcher.add(start, end)

    def _save_clusters(self, saved: Saved, start: int, end: int) -> None:
        position = start - start % CLUSTER_SIZE
        end = min(end + -end % CLUSTER_SIZE, self.size)
        while position < end:
            stop, there = saved.present.run(position, end)
            if not there:
                for first in range(position, stop, PIECE):
                    last = min(first + PIECE, stop)
                    self._save_piece(saved, first, last)
                    saved.present.add(first, last)
            position = stop

    def _save_piece(self, saved: Saved, start: int, end: int) -> None:
        """What is zeros stays a hole in the file."""
        count = (end - start) // SECTOR_SIZE
        extents = data_extents(self.disk, start // SECTOR_SIZE, count)
        for first, last in aligned_extents(extents, CLUSTER_SECTORS, self.size // SECTOR_SIZE):
            data = self.disk.read(first, last - first)
            if not is_zero(data):
                saved.file.write(first * SECTOR_SIZE, data)

    def flush(self) -> None:
        """Return when everything written is on stable storage. Raises OSError."""
        if isinstance(self.disk, RawDisk):  # readers need not wait for it
            self.disk.flush()
            return
        with self.lock:
            self.disk.flush()

    def settle(self) -> None:
        """It is written no more: return when it is on stable storage; others may read its file then. Raises OSError."""
        if not self._settled:
            self.flush()
            if isinstance(self.disk, SharedFile):
                try:
                    self.disk.share_file()
                except ImageError as error:  # somebody came between exclusive and shared
                    raise OSError(errno.EBUSY, str(error), self.disk.name) from error
            self._settled = True

    def replace(self, disk: BlockDevice, base: "Moment | None" = None) -> None:
        """Go on with `disk`, which has the same content; the one before is closed. Not while the guest runs."""
        with self.lock:
            self.base = base
            old, self._ground = self._ground, _Ground(disk)
            old.retired = True
            unread = not old.readers
        if unread:
            old.disk.close()

    # ---- what it had ----

    def read_saved(self, saved: Saved | None, lba: int, views: Buffers) -> None:
        """Fill `views` from sector `lba` on with what the disk had when it was `saved`; None: has, for good. Raises
        OSError."""
        if saved is None:
            self.read_into(lba, views)
            return
        first = lba * SECTOR_SIZE
        position, end = first, first + sum(map(len, views))
        while position < end:
            stop, owner = saved.find(position, end)
            piece = part(views, position - first, stop - first)
            if owner is not None:
                owner.file.read_into(position, piece)
            elif not self._read_unchanged(saved, position, stop, piece):
                continue
            position = stop

    def _read_unchanged(self, saved: Saved, start: int, end: int, piece: Buffers) -> bool:
        """Read what no saved cluster has; False when meanwhile one of them was, so that it may be wrong."""
        ground = self._enter()
        if ground is None:
            with self.lock:
                if saved.find(start, end) != (end, None):
                    return False
                self.disk.read_into(start // SECTOR_SIZE, piece)
                return True
        try:
            ground.disk.read_into(start // SECTOR_SIZE, piece)
        finally:
            self._exit(ground)
        return saved.find(start, end) == (end, None)  # clusters are saved before they change

    def saved_extents(self, saved: Saved | None, lba: int, count: int) -> Iterator[tuple[int, int]]:
        """The sector ranges among `count` from `lba` that may have something else than zeros. Raises OSError."""
        position, end = lba * SECTOR_SIZE, (lba + count) * SECTOR_SIZE
        while position < end:
            stop, owner = (end, None) if saved is None else saved.find(position, end)
            if owner is not None:
                for first, behind in file_extents(owner.file.fd, position, stop - position):
                    yield first // SECTOR_SIZE, -(-behind // SECTOR_SIZE)
            else:
                with self.lock:
                    extents = data_extents(
                        self.disk, position // SECTOR_SIZE, (stop - position) // SECTOR_SIZE
                    )
                    found = list(extents)
                    if saved is not None and saved.find(position, stop) != (stop, None):
                        continue
                yield from found
            position = stop

    def written_since(self, saved: Saved | None) -> ClusterMap:
        """The clusters in which the disk may differ from what is `saved`; None: in none."""
        written = ClusterMap(self.size)
        while saved is not None:
            written.update(saved.written)
            saved = saved.newer
        return written

    def is_back(self, saved: Saved | None) -> None:
        """The disk has again what it had when it was `saved`."""
        if saved is not None and saved.newer is None:
            saved.written.clear()
