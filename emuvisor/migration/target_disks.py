"""A guest's disks at the target: what comes is kept until the guest is made."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.clustermap import ClusterMap
from emuvisor.devices.storage.temporary import TemporaryFile, temporary_folder
from emuvisor.errors import MigrationError
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.migration.disk_blocks import PIECE, DiskPlan, Sectors

__all__ = ["TargetDisks"]


class TargetDisks:
    """What comes of the disks of `config` by `plans`. Raises MigrationError for a file that is there already, or cannot
    be made."""

    def __init__(self, config: GuestConfig, plans: Sequence[DiskPlan]) -> None:
        if len(plans) != len(config.disks):
            raise MigrationError("migration: the guest's disks are not those of its configuration")
        self._plans = plans
        self._files: dict[int, int | TemporaryFile] = {}
        """By drive: the new file, or what has come of an overlay."""
        self._came: dict[int, ClusterMap] = {}
        self._made: list[Path] = []
        self.config = replace(
            config,
            disks=tuple(
                replace(disk, format="raw", overlay=None) if plan.way == "copy" else disk
                for disk, plan in zip(config.disks, plans, strict=True)
            ),
        )
        """As the guest has it here: what was copied is a raw image."""
        try:
            for number, plan in enumerate(plans):
                path = Path(config.disks[number].path)
                if plan.way == "copy":
                    self._files[number] = self._make(path, plan.size)
                elif plan.way == "overlay":
                    self._files[number] = TemporaryFile(temporary_folder(path), plan.size)
                    self._came[number] = ClusterMap(plan.size)
        except OSError as error:
            self.discard()
            raise MigrationError(f"migration: {error.filename}: {error.strerror}") from None
        except BaseException:
            self.discard()
            raise

    def _make(self, path: Path, size: int) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._made.append(path)
        try:
            os.ftruncate(fd, size)
        except OSError:
            os.close(fd)
            raise
        return fd

    def receive(self, sectors: Sectors) -> None:
        """Some have come. Raises MigrationError for what cannot be, and when the host cannot keep it."""
        file = self._files.get(sectors.drive)
        if file is None or sectors.start + sectors.length > self._plans[sectors.drive].size:
            raise MigrationError("migration: the other side sent sectors of no disk of the guest")
        data = sectors.data or bytes(sectors.length)
        try:
            if isinstance(file, int):
                os.pwrite(file, data, sectors.start)
            else:
                file.write(sectors.start, data)
                self._came[sectors.drive].add(sectors.start, sectors.start + sectors.length)
        except OSError as error:
            raise MigrationError(f"migration: a disk cannot be written: {error.strerror}") from None

    def sync(self) -> None:
        """Have what has come of copies stored now, while the guest runs. Raises MigrationError."""
        for file in self._files.values():
            if isinstance(file, int):
                _sync(file)

    def close_files(self) -> None:
        """Everything has come: what was copied can be opened. Raises MigrationError when it cannot be stored."""
        for number, file in list(self._files.items()):
            if isinstance(file, int):
                del self._files[number]
                try:
                    _sync(file)
                finally:
                    os.close(file)

    def fill(self, machine: Machine) -> None:
        """Put what has come of overlays into those of `machine`. Raises MigrationError."""
        for number, came in self._came.items():
            file, image = self._files[number], machine.drives[number].image
            assert isinstance(file, TemporaryFile)
            assert image is not None
            if image.sectors * SECTOR_SIZE != self._plans[number].size:
                raise MigrationError(f"migration: disk {image.name} has another size here")
            for start, end in came.runs():
                for first in range(start, end, PIECE):
                    length = min(PIECE, end - first)
                    try:
                        image.write(first // SECTOR_SIZE, file.read(first, length))
                    except OSError as error:
                        raise MigrationError(
                            f"migration: disk {image.name} cannot be written: {error.strerror}"
                        ) from None

    def keep(self) -> None:
        """The guest runs here: new files stay."""
        self._made.clear()
        self.discard()

    def discard(self) -> None:
        """The guest is not coming: nothing is left."""
        for file in self._files.values():
            if isinstance(file, int):
                os.close(file)
            else:
                file.close()
        self._files.clear()
        self._came.clear()
        for path in self._made:
            with suppress(OSError):
                path.unlink()
        self._made.clear()


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise MigrationError(f"migration: a disk cannot be stored: {error.strerror}") from None
