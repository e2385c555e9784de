"""Memory and a floppy disk for controllers on a bench."""

import errno

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.errors import GuestAddressError

MEMORY_SIZE = 256 * 1024


class FlatRam:
    """RAM from 0 on; nothing else has an address."""

    def __init__(self, size: int = MEMORY_SIZE) -> None:
        self.bytes = bytearray(size)

    def _check(self, gpa: int, length: int) -> None:
        if gpa < 0 or gpa + length > len(self.bytes):
            raise GuestAddressError(f"{gpa:#x} is outside guest memory")

    def read(self, gpa: int, length: int) -> bytes:
        self._check(gpa, length)
        return bytes(self.bytes[gpa : gpa + length])

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        self._check(gpa, len(data))
        self.bytes[gpa : gpa + len(data)] = data


class FakeFloppy:
    """A disk whose sectors begin with their number; what was written is in `written`."""

    name = "fake.img"

    def __init__(self, sectors: int = 2880, read_only: bool = False) -> None:
        self.sectors = sectors
        self.read_only = read_only
        self.broken = False
        self.written: dict[int, bytes] = {}

    def sector(self, lba: int) -> bytes:
        return self.written.get(lba, lba.to_bytes(4, "little") + bytes((lba & 0xFF,)) * (SECTOR_SIZE - 4))

    def read(self, lba: int, count: int) -> bytes:
        assert 0 <= lba <= lba + count <= self.sectors
        self._fail_if_broken()
        return b"".join(self.sector(lba + i) for i in range(count))

    def write(self, lba: int, data: bytes) -> None:
        assert not self.read_only
        assert len(data) == SECTOR_SIZE
        assert 0 <= lba < self.sectors
        self._fail_if_broken()
        self.written[lba] = bytes(data)

    def flush(self) -> None:
        self._fail_if_broken()

    def _fail_if_broken(self) -> None:
        if self.broken:
            raise OSError(errno.EIO, "no such luck")
