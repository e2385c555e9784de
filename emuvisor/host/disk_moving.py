"""Moves a running guest's disk to another file: copied while the guest writes, then exchanged between two runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emuvisor.bus.bucket import TokenBucket
from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDevice
from emuvisor.devices.storage.diskcopy import DiskCopy
from emuvisor.devices.storage.extents import is_zero
from emuvisor.devices.storage.formats import DiskFormat, format_of, open_image
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.layerfiles import base_file
from emuvisor.devices.storage.moment import Moment
from emuvisor.devices.storage.overlay import OverlayDisk
from emuvisor.devices.storage.qcow2.create import create
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.rawdisk import RawDisk, create_raw
from emuvisor.errors import HostError, ImageError, StateError, UsageError
from emuvisor.host.states import GuestState
from emuvisor.units import MIB

if TYPE_CHECKING:
    from emuvisor.host.guest import Guest

__all__ = ["DiskMove", "MovedDisk"]

PIECE = MIB
"""Bytes that are copied at a time."""
STOP_BYTES = 4 * MIB
"""That the guest stands for at the most, while it writes more slowly than it is copied."""
PATIENT_PASSES = 4
"""So often what is left may be too much; then, each time, twice as much is enough."""
BURST_S = 0.1
"""Of a limited move: what passes at once."""

Progress = Callable[[int, int], object]
"""Called with how many bytes are copied, and how many there will be in all, as things are."""


@dataclass(frozen=True, slots=True)
class MovedDisk:
    """What was done."""

    path: Path
    format: DiskFormat
    copied: int
    """Bytes, those among them that were copied more than once."""
    passes: int
    stop_ns: int
    """How long the guest stood at the end."""


class DiskMove:
    """Moves hard disk `disk` of `guest`, its number or name, to a new file at `path` of `format` (None: by its name):
    "raw" and "qcow2" get all that the disk has, "overlay" only what is above the disk's base.

    At most `bytes_per_s` are copied in a second. `keep` is called when all is in the new file, before the guest writes
    to that: it notes for good where the disk is, and the guest stands meanwhile; `lock` is taken before the guest's for
    it. Raises UsageError for a disk that there is not, that cannot be written
    or, for an overlay, has no base in a file.
    """

    def __init__(
        self,
        guest: "Guest",
        disk: int | str,
        path: Path | str,
        format: DiskFormat | None = None,
        *,
        progress: Progress | None = None,
        bytes_per_s: int | None = None,
        keep: Callable[["DiskMove"], object] = lambda _move: None,
        lock: AbstractContextManager[object] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.path = Path(path).absolute()
        self.format = format_of(self.path, format)
        self._guest = guest
        self._progress = progress or (lambda _done, _all: None)
        self._keep = keep
        self._lock = lock or nullcontext()
        self.number, drive = guest.find_disk(disk)
        """Of the disk, among the guest's."""
        if not isinstance(drive.image, LayeredDisk):
            raise UsageError(
                f"guest {guest.name!r}: disk {disk!r} cannot be written, so it can be copied as a file"
            )
        if bytes_per_s is not None and bytes_per_s < 1:
            raise UsageError(f"{bytes_per_s} bytes in a second are no limit for a disk's move")
        self._disk = drive.image
        self._now_ns = now_ns
        self._bucket = None
        if bytes_per_s is not None:
            burst = max(PIECE, int(bytes_per_s * BURST_S))
            self._bucket = TokenBucket(bytes_per_s / 1e9, burst, now_ns(), level=burst)
        self._cancelled = threading.Event()
        self._copied = 0

    def cancel(self) -> None:
        """Let `run` end, with the guest on its old file. Any thread; without effect when the files were exchanged."""
        self._cancelled.set()

    def run(self) -> MovedDisk:
        """Move it; returns when the guest uses the new file, on which everything is on stable storage. The old one is
        closed then, and whoever starts the guest again must be told of the new one.

        Whatever fails, and what `progress` and `keep` raise, leaves the guest on the old file and no new one. Raises
        StateError when it was cancelled, another move of the disk is going on or the guest is gone; ImageError when the
        new file cannot be made; HostError when the host cannot read or write.
        """
        name = f"guest {self._guest.name!r}: disk {self._disk.name}"
        if not self._disk.moving.acquire(blocking=False):
            raise StateError(f"{name} is being moved already")
        try:
            target, base = self._make_target()
            try:
                return self._move(target, base, name)
            except BaseException as error:
                with suppress(OSError):
                    target.close()
                self.path.unlink(missing_ok=True)
                if isinstance(error, OSError):
                    if self._guest.state is GuestState.GONE:
                        raise StateError(f"{name} cannot be moved: the guest is deleted") from error
                    raise HostError(f"{name} cannot be moved to {self.path}: {error.strerror}") from error
                raise
        finally:
            self._disk.moving.release()

    def _move(self, target: BlockDevice, base: Moment | None, name: str) -> MovedDisk:
        began = self._guest.between_runs(lambda: DiskCopy(self._disk, top_only=self.format == "overlay"))
        with began as copy:
            enough = STOP_BYTES
            while True:
                self._copy_pass(copy, target, name)
                target.flush()
                if copy.passes >= PATIENT_PASSES:
                    enough *= 2
                self._check(name)
                with self._lock:
                    moved = self._guest.between_runs(partial(self._finish, copy, target, base, enough))
                if moved is not None:
                    return moved

    def _check(self, name: str) -> None:
        if self._cancelled.is_set():
            raise StateError(f"{name}: the move to {self.path} was cancelled")

    def _copy_pass(self, copy: DiskCopy, target: BlockDevice, name: str) -> None:
        """Copy what is left until the disk's end."""
        passes = copy.passes
        while copy.passes == passes and (ranges := copy.next_ranges(PIECE)):
            self._check(name)
            self._copy(ranges, target)
            self._progress(self._copied, self._copied + copy.remaining)
            self._wait()

    def _copy(self, ranges: list[tuple[int, int]], target: BlockDevice) -> None:
        for lba, count in ranges:
            data = self._disk.read(lba, count)
            if is_zero(data):
                target.write_zeroes(lba, count, unmap=True)
            else:
                target.write(lba, data)
            self._copied += len(data)
            if self._bucket is not None:
                self._bucket.take(len(data), self._now_ns())

    def _wait(self) -> None:
        """Until more may be copied."""
        if self._bucket is not None:
            now = self._now_ns()
            self._cancelled.wait((self._bucket.when(0, now) - now) / 1e9)

    def _finish(
        self, copy: DiskCopy, target: BlockDevice, base: Moment | None, enough: int
    ) -> MovedDisk | None:
        """The guest stands: copy the rest and exchange the files, or None when more than `enough` is left."""
        began = time.perf_counter_ns()
        if copy.remaining > enough:
            return None
        while ranges := copy.next_ranges(PIECE):
            self._copy(ranges, target)
        target.flush()
        guest = self._guest
        disks = list(guest.config.disks)
        disks[self.number] = replace(disks[self.number], path=self.path, format=self.format, overlay=None)
        config = replace(guest.config, disks=tuple(disks))
        device = self.path.stat().st_dev
        self._keep(self)
        copy.close()
        with suppress(OSError):  # of the old file, which nobody needs any more
            self._disk.replace(target, base)
        guest.config = guest.machine.config = config
        guest.host.backends.moved(guest.name, guest.machine.drives[self.number], device)
        return MovedDisk(
            self.path, self.format, self._copied, copy.passes + 1, time.perf_counter_ns() - began
        )

    def _make_target(self) -> tuple[BlockDevice, Moment | None]:
        """The new file, and what it stands on. Raises ImageError."""
        size = self._disk.sectors * SECTOR_SIZE
        if self.format == "raw":
            create_raw(self.path, size)
            return RawDisk(self.path), None
        if self.format == "qcow2":
            create(self.path, size)
            return Qcow2Disk(self.path), None
        return self._make_overlay()

    def _make_overlay(self) -> tuple[BlockDevice, Moment | None]:
        """Above what the layer that is written stands on. Raises ImageError."""
        base, top = self._disk.layer.base, self._disk.layer.disk
        if base is not None:
            handle = base.share()
            with _closed_if_it_fails(handle):
                file = base_file(handle, self.path)
                return OverlayDisk.create(handle, self.path, file=file), handle
        if isinstance(top, OverlayDisk) and top.file is not None:
            below = open_image(top.file.path, top.file.format, read_only=True)
            with _closed_if_it_fails(below):
                return OverlayDisk.create(below, self.path, file=top.file), None
        raise ImageError(
            f"{self.path}: disk {self._disk.name} does not stand on another file, which an overlay would need; "
            "move it to a raw or qcow2 image"
        )


@contextmanager
def _closed_if_it_fails(disk: BlockDevice) -> Iterator[None]:
    try:
        yield
    except BaseException:
        disk.close()
        raise
