"""Disks in memory for controllers on a bench."""

import errno

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE, BlockDefaults


def pattern(sectors: int) -> bytes:
    """Sectors that begin with their number."""
    return b"".join(lba.to_bytes(4, "little") + bytes([lba & 0xFF]) * 508 for lba in range(sectors))


class FakeDisk(BlockDefaults):
    """A disk whose sectors in `bad` can be neither read nor written; `full` is what the host says to every write."""

    def __init__(self, sectors: int, *, read_only: bool = False, name: str = "fake.img") -> None:
        self.name = name
        self.sectors = sectors
        self.read_only = read_only
        self.bytes = bytearray(pattern(sectors))
        self.bad: set[int] = set()
        self.full: OSError | None = None
        self.flush_error: OSError | None = None
        self.flushes = 0
        self.closed = False

    def _check(self, lba: int, count: int) -> None:
        assert 0 <= lba <= lba + count <= self.sectors
        if self.bad & set(range(lba, lba + count)):
            raise OSError(errno.EIO, "no such luck")

    def read(self, lba: int, count: int) -> bytes:
        self._check(lba, count)
        return bytes(self.bytes[lba * SECTOR_SIZE : (lba + count) * SECTOR_SIZE])

    def write(self, lba: int, data: bytes) -> None:
        assert not self.read_only
        if self.full is not None:
            raise self.full
        assert len(data) % SECTOR_SIZE == 0
        self._check(lba, len(data) // SECTOR_SIZE)
        self.bytes[lba * SECTOR_SIZE : lba * SECTOR_SIZE + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1
        if self.flush_error is not None:
            raise self.flush_error

    def close(self) -> None:
        self.closed = True


class TrimmingDisk(FakeDisk):
    """A disk that gives space back."""

    def discard(self, lba: int, count: int) -> None:
        self._check(lba, count)
        self.bytes[lba * SECTOR_SIZE : (lba + count) * SECTOR_SIZE] = bytes(count * SECTOR_SIZE)
