"""Sectors on their way: the payload of a disk frame."""

import struct
from dataclasses import dataclass
from typing import Any

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.errors import MigrationError
from emuvisor.units import MIB, TIB

__all__ = ["PIECE", "DiskPlan", "Sectors"]

PIECE = MIB
"""Bytes in a frame at most."""
MAX_SIZE = 64 * TIB
_HEAD = struct.Struct("<HQI")
"""Number of the drive, first byte, bytes."""
WAYS = ("as it is", "overlay", "copy")


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How one drive of a guest goes along. "as it is": the target opens what the configuration names. "overlay": so it
    does, and what the guest has written to its temporary overlay is sent. "copy": all is sent, into a new file."""

    way: str
    size: int
    """Bytes."""

    def as_list(self) -> list[Any]:
        """As plain data."""
        return [self.way, self.size]

    @classmethod
    def of(cls, data: Any) -> "DiskPlan":
        """From plain data. Raises MigrationError."""
        match data:
            case [str(way), int(size)] if way in WAYS and 0 <= size <= MAX_SIZE and size % SECTOR_SIZE == 0:
                return cls(way, size)
        raise MigrationError("migration: the other side does not say how the guest's disks go along")


@dataclass(frozen=True, slots=True)
class Sectors:
    """`length` bytes of drive number `drive` from byte `start`; without `data` they are zeros."""

    drive: int
    start: int
    length: int
    data: bytes

    def encode(self) -> bytes:
        """As the payload of a frame."""
        return _HEAD.pack(self.drive, self.start, self.length) + self.data

    @classmethod
    def decode(cls, payload: bytes) -> "Sectors":
        """What `encode` made `payload` from. Raises MigrationError for anything else."""
        if len(payload) >= _HEAD.size:
            drive, start, length = _HEAD.unpack_from(payload)
            data = payload[_HEAD.size :]
            whole = start % SECTOR_SIZE == length % SECTOR_SIZE == 0
            if whole and 0 < length <= PIECE and len(data) in (0, length):
                return cls(drive, start, length, data)
        raise MigrationError("migration: the other side sent sectors that cannot be read")
