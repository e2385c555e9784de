"""A guest's disks at the source: sent while they are written, or given out of the hand."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.layered import LayeredDisk
from emuvisor.devices.storage.overlay import TemporaryOverlay
from emuvisor.errors import MigrationError
from emuvisor.machine.disks import open_disk
from emuvisor.machine.machine import Machine
from emuvisor.migration.channel import Channel
from emuvisor.migration.disk_blocks import PIECE, DiskPlan, Sectors
from emuvisor.migration.frames import FrameKind
from emuvisor.migration.options import DiskMode

__all__ = ["SourceDisks"]


class SourceDisks:
    """The disks of `machine`; `mode` says what becomes of those that are files. `held` keeps the guest off its pCPU."""

    def __init__(
        self, machine: Machine, mode: DiskMode, held: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._machine = machine
        self._mode = mode
        self._held = held
        self._written: dict[int, ClusterMap] = {}
        """What is to be sent, by drive."""
        self._given: list[int] = []
        """Drives whose files are closed here."""
        self._held_disks: list[LayeredDisk] = []
        """They cannot move to other files meanwhile."""

    def _layered(self) -> Iterator[tuple[int, LayeredDisk]]:
        for number, drive in enumerate(self._machine.drives):
            if isinstance(drive.image, LayeredDisk):
                yield number, drive.image

    def check(self) -> None:
        """From now on until `cancel` the disks stay in their files. Raises MigrationError for one that is being moved,
        and one that cannot go along as it was asked."""
        for _, disk in self._layered():
            if not disk.moving.acquire(blocking=False):
                raise MigrationError(f"migration: disk {disk.name} is being moved to another file")
            self._held_disks.append(disk)
            if self._mode == "copy":
                continue
            if disk.layer.base is not None:
                raise MigrationError(
                    f"migration: disk {disk.name} stands on a moment that only this process has; its content has to be "
                    "copied"
                )
            if disk.layer.users > 1 and not isinstance(disk.layer.disk, TemporaryOverlay):
                raise MigrationError(
                    f"migration: disk {disk.name} is part of a checkpoint; close that, or copy the disk's content"
                )

    def plans(self) -> list[DiskPlan]:
        """By drive, how it goes along."""
        plans = []
        for drive in self._machine.drives:
            size = 0 if drive.image is None else drive.image.sectors * SECTOR_SIZE
            way = "as it is"
            if isinstance(drive.image, LayeredDisk):
                if self._mode == "copy":
                    way = "copy"
                elif isinstance(drive.image.layer.disk, TemporaryOverlay):
                    way = "overlay"
            plans.append(DiskPlan(way, size))
        return plans

    def start(self) -> None:
        """From now on note what is written. The guest is on no pCPU meanwhile."""
        for number, plan in enumerate(self.plans()):
            image = self._machine.drives[number].image
            if plan.way == "as it is" or not isinstance(image, LayeredDisk):
                continue
            pending = ClusterMap(plan.size)
            top = image.layer.disk
            if plan.way == "overlay" and isinstance(top, TemporaryOverlay):
                for start, end in top.present_runs():
                    pending.add(start, end)
            else:
                for first, behind in image.data_extents(0, image.sectors):
                    pending.add(first * SECTOR_SIZE, behind * SECTOR_SIZE)
            image.layer.watchers.append(pending)
            self._written[number] = pending

    @property
    def left(self) -> int:
        """Bytes that are still to be sent."""
        return sum(pending.bytes for pending in self._written.values())

    def send(self, channel: Channel, stop: Callable[[], bool] = lambda: False) -> None:
        """Send what is to be sent now, until `stop`; what is written meanwhile is for the next time. Raises LineLost,
        MigrationError when a disk cannot be read."""
        for number, pending in self._written.items():
            for start, end in list(pending.runs()):
                for first in range(start, end, PIECE):
                    if stop():
                        return
                    self._send(channel, number, pending, first, min(first + PIECE, end))

    def _send(self, channel: Channel, number: int, pending: ClusterMap, start: int, end: int) -> None:
        image = self._machine.drives[number].image
        assert image is not None
        with self._held():
            pending.remove(start, end)
            try:
                data = image.read(start // SECTOR_SIZE, (end - start) // SECTOR_SIZE)
            except OSError as error:
                raise MigrationError(
                    f"migration: disk {image.name} cannot be read: {error.strerror}"
                ) from None
        kept = data if any(data) else b""
        channel.send_data(FrameKind.DISK, Sectors(number, start, end - start, kept).encode())

    def finish(self, channel: Channel) -> None:
        """The guest stands still: send the rest, and close the files that the target is to open. Raises as `send`."""
        self.send(channel)
        for number, disk in self._layered():
            if self.plans()[number].way != "as it is":
                continue
            try:
                disk.flush()
                disk.layer.disk.close()
            except OSError as error:
                raise MigrationError(
                    f"migration: disk {disk.name} cannot be stored: {error.strerror}"
                ) from None
            self._given.append(number)

    def take_back(self) -> None:
        """The guest stays: open again what was closed. Raises ImageError when somebody else has the file."""
        self.cancel()
        while self._given:
            number = self._given[-1]
            image = self._machine.drives[number].image
            assert isinstance(image, LayeredDisk)
            opened = open_disk(self._machine.config.disks[number])
            assert isinstance(opened, LayeredDisk)
            image.layer.replace(opened.layer.disk)
            self._given.pop()

    def cancel(self) -> None:
        """Note no longer what is written, and let the disks move."""
        for number, pending in self._written.items():
            image = self._machine.drives[number].image
            if isinstance(image, LayeredDisk) and pending in image.layer.watchers:
                image.layer.watchers.remove(pending)
        self._written.clear()
        while self._held_disks:
            self._held_disks.pop().moving.release()
