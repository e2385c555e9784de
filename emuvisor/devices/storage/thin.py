"""Thin provisioning of disks: how much was promised to guests, how much of it is used, and how much the host still has.

Disks that take their space from the same file system of the host form one pool. `fill_level` is about the file
system and not about the disks alone: other files fill it too.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.errors import UsageError

__all__ = ["HIGH_WATER", "HYSTERESIS", "ThinDisk", "ThinPool", "ThinUsage", "is_high", "measure"]

HIGH_WATER = 0.9
"""Fill level of a file system at which people should hear of it."""
HYSTERESIS = 0.02
"""How far the fill level has to fall below the mark before another crossing counts."""


class ThinDisk(Protocol):
    """The part of a `BlockDevice` that this is about."""

    @property
    def host_path(self) -> Path:
        """A file or folder on the file system that the disk takes its space from."""
        ...

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        ...

    @property
    def allocated(self) -> int:
        """Bytes that the disk takes on the host. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class ThinUsage:
    """One file system of the host and the disks on it; sizes in bytes."""

    path: Path
    """Of the first disk on it."""
    device: int
    """Its number (`st_dev`)."""
    disks: int
    promised: int
    """Capacities of the disks."""
    used: int
    """What the disks take now."""
    free: int
    """What this user can still write to the file system."""
    capacity: int
    """What the file system has for files: taken and free."""

    @property
    def fill_level(self) -> float:
        """The part of the file system that is taken, by whomever: 0 to 1."""
        return 1 - self.free / self.capacity if self.capacity else 1.0

    @property
    def overcommitted(self) -> int:
        """Bytes that the host would lack if every guest wrote all of its disks; 0 when it has enough."""
        return max(0, self.promised - self.used - self.free)

    def __str__(self) -> str:
        return (
            f"{self.path}: the host's file system is {self.fill_level:.0%} full: {self.disks} disks use {self.used} of "
            f"{self.promised} promised bytes, and {self.free} are free"
        )


def measure(disks: Iterable[ThinDisk]) -> list[ThinUsage]:
    """The usage of each file system that `disks` are on, in the order of the disks. Raises OSError."""
    pools: dict[int, list[ThinDisk]] = {}
    for disk in disks:
        pools.setdefault(disk.host_path.stat().st_dev, []).append(disk)
    return [_measure_pool(device, members) for device, members in pools.items()]


def _measure_pool(device: int, disks: list[ThinDisk]) -> ThinUsage:
    path = disks[0].host_path
    status = os.statvfs(path)
    taken = status.f_blocks - status.f_bfree
    return ThinUsage(
        path=path,
        device=device,
        disks=len(disks),
        promised=sum(disk.sectors for disk in disks) * SECTOR_SIZE,
        used=sum(disk.allocated for disk in disks),
        free=status.f_bavail * status.f_frsize,
        capacity=(taken + status.f_bavail) * status.f_frsize,
    )


def is_high(usage: ThinUsage, mark: float, was_high: bool) -> bool:
    """Whether the file system counts as filled over `mark`, given whether it did before (hysteresis)."""
    return usage.fill_level >= (mark - HYSTERESIS if was_high else mark)


class ThinPool:
    """The disks of a host, on however many file systems.

    `on_warning(usage)` is called by `check` once each time that a file system fills up to `high_water`, which lies
    above 0 and is at most 1. Raises UsageError for another mark.
    """

    def __init__(
        self, high_water: float = HIGH_WATER, on_warning: Callable[[ThinUsage], None] = lambda _: None
    ) -> None:
        if not 0 < high_water <= 1:
            raise UsageError(f"high-water mark {high_water}: above 0 and at most 1 is allowed")
        self.high_water = high_water
        self._on_warning = on_warning
        self._disks: list[ThinDisk] = []
        self._high: set[int] = set()
        """Devices of the file systems that were over the mark at the last check."""

    def add(self, disk: ThinDisk) -> None:
        """Count `disk` from now on, until `remove`: before it is closed."""
        self._disks.append(disk)

    def remove(self, disk: ThinDisk) -> None:
        """Count `disk` no longer. Raises ValueError when it was not added."""
        self._disks.remove(disk)

    def usage(self) -> list[ThinUsage]:
        """The usage of each file system that has disks. Raises OSError."""
        return measure(self._disks)

    def check(self) -> list[ThinUsage]:
        """`usage`, after the warnings that it gives cause for. Raises OSError."""
        usages = self.usage()
        high = set()
        for usage in usages:
            was_high = usage.device in self._high
            if is_high(usage, self.high_water, was_high):
                high.add(usage.device)
                if not was_high:
                    self._on_warning(usage)
        self._high = high
        return usages
