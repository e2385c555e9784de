"""What a disk controller needs from the disk behind it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from emuvisor.devices.storage.scatter import Buffers, total_length
from emuvisor.units import MIB

__all__ = [
    "SECTOR_SIZE",
    "BlockDefaults",
    "BlockDevice",
    "ParallelDevice",
    "host_full_reason",
    "is_host_full",
    "reads_in_parallel",
    "sectors_that_work",
]

SECTOR_SIZE = 512
"""Bytes in a sector, the unit of every LBA and count."""

ZERO_SECTORS = MIB // SECTOR_SIZE
"""Sectors of zeros that are written at a time."""


class BlockDevice(Protocol):
    """A disk of `sectors` sectors of `SECTOR_SIZE` bytes.

    The controller checks ranges first, so that `lba + count <= sectors` holds in every call. Whatever changes the disk
    may raise an OSError of which `is_host_full` is true: once there is room again, the same call can be made again.
    """

    @property
    def name(self) -> str:
        """What the disk is called in messages."""
        ...

    @property
    def host_path(self) -> Path:
        """A file or folder on the host's file system that the disk takes its space from."""
        ...

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether what changes the disk must not be called."""
        ...

    @property
    def allocated(self) -> int:
        """Bytes that the disk takes on the host, not counting its base, which others may share. Raises OSError."""
        ...

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`: `count * SECTOR_SIZE` bytes.

        Raises OSError when the host cannot read them.
        """
        ...

    def read_into(self, lba: int, views: Buffers) -> None:
        """Fill `views`, whole sectors together, with the sectors from `lba` on. Raises OSError."""
        ...

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on.

        Raises OSError when the host cannot write them.
        """
        ...

    def write_from(self, lba: int, views: Buffers) -> None:
        """Store what `views` have, whole sectors together, from sector `lba` on. Raises OSError."""
        ...

    def write_zeroes(self, lba: int, count: int, *, unmap: bool) -> None:
        """Make the sectors zeros; with `unmap` their space may go back to the host. Raises OSError."""
        ...

    def discard(self, lba: int, count: int) -> None:
        """The guest no longer needs these sectors: each keeps its content or becomes zeros, and the host gets
        back what it can. Raises OSError."""
        ...

    def flush(self) -> None:
        """Return when everything written is on the host's stable storage: it survives this process and a loss of
        power. Raises OSError when it cannot be."""
        ...

    def close(self) -> None:
        """Give the host's files back; more than once is allowed."""
        ...


@runtime_checkable
class ParallelDevice(Protocol):
    """A disk that says whether several threads may read it, while one writes to other places of it."""

    @property
    def reads_in_parallel(self) -> bool:
        """Whether they may."""
        ...


def reads_in_parallel(disk: BlockDevice) -> bool:
    """Whether several threads may read `disk`, while one writes to other places of it."""
    return isinstance(disk, ParallelDevice) and disk.reads_in_parallel


class BlockDefaults:
    """What a `BlockDevice` can be without, made of `read` and `write`: no scatter and gather, nothing given back."""

    @property
    def host_path(self: BlockDevice) -> Path:
        """The file that the disk is named after."""
        return Path(self.name)

    @property
    def allocated(self: BlockDevice) -> int:
        """The whole capacity."""
        return self.sectors * SECTOR_SIZE

    def read_into(self: BlockDevice, lba: int, views: Buffers) -> None:
        """Fill `views`, whole sectors together, with the sectors from `lba` on. Raises OSError."""
        data = memoryview(self.read(lba, total_length(views) // SECTOR_SIZE))
        done = 0
        for view in views:
            view[:] = data[done : done + len(view)]
            done += len(view)

    def write_from(self: BlockDevice, lba: int, views: Buffers) -> None:
        """Store what `views` have, whole sectors together, from sector `lba` on. Raises OSError."""
        self.write(lba, b"".join(views))

    def write_zeroes(self: BlockDevice, lba: int, count: int, *, unmap: bool) -> None:
        """Write zeros. Raises OSError."""
        for start in range(lba, lba + count, ZERO_SECTORS):
            self.write(start, bytes(min(ZERO_SECTORS, lba + count - start) * SECTOR_SIZE))

    def discard(self, lba: int, count: int) -> None:
        """Nothing: the sectors keep their content."""


def is_host_full(error: OSError) -> bool:
    """Whether a disk could not be changed because the host's file system, or the user's part of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def host_full_reason(disk: BlockDevice, error: OSError) -> str:
    """Why a guest is paused whose `disk` ran into `error`, of which `is_host_full` is true."""
    return (
        f"disk {disk.name}: the host's file system is full ({os.strerror(error.errno or 0)}); "
        "make room, then resume the guest"
    )


def sectors_that_work(attempt: Callable[[int], object], count: int) -> int:
    """How many of the first of `count` sectors can be transferred, when all of them together cannot.

    `attempt(n)` transfers the first `n` and raises OSError when one of them fails.
    """
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            attempt(middle)
            good = middle
        except OSError:
            bad = middle
    return good
