"""What a disk controller needs from the disk behind it."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["SECTOR_SIZE", "BlockDevice", "DiscardingDevice", "sectors_that_work"]

SECTOR_SIZE = 512
"""Bytes in a sector, the unit of every LBA and count."""


class BlockDevice(Protocol):
    """A disk of `sectors` sectors of `SECTOR_SIZE` bytes.

    The controller checks ranges first, so that `lba + count <= sectors` holds in every call.
    """

    @property
    def name(self) -> str:
        """What the disk is called in messages."""
        ...

    @property
    def sectors(self) -> int:
        """Capacity in sectors."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether `write` must not be called."""
        ...

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from sector `lba`: `count * SECTOR_SIZE` bytes.

        Raises OSError when the host cannot read them.
        """
        ...

    def write(self, lba: int, data: bytes) -> None:
        """Store `data`, whole sectors, from sector `lba` on.

        Raises OSError when the host cannot write them.
        """
        ...

    def flush(self) -> None:
        """Return when everything written is on the host's stable storage. Raises OSError when it cannot be."""
        ...

    def close(self) -> None:
        """Give the host's files back; more than once is allowed."""
        ...


@runtime_checkable
class DiscardingDevice(BlockDevice, Protocol):
    """A disk that can give space back to the host."""

    def discard(self, lba: int, count: int) -> None:
        """The guest no longer needs these sectors: each keeps its content or becomes zeros. Raises OSError."""
        ...


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
