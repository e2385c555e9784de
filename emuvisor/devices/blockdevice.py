"""What a disk controller needs from the disk behind it."""

from typing import Protocol

__all__ = ["SECTOR_SIZE", "BlockDevice"]

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
