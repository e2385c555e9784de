"""The first sector of a hard disk: boot code and a partition table."""

import struct
from dataclasses import dataclass

__all__ = ["EFI_SYSTEM", "FAT16_LBA", "LINUX", "PARTITION_START", "SECTOR", "Partition", "boot_sector"]

SECTOR = 512
PARTITION_START = 2048
"""LBA of the first partition: 1 MiB, which leaves room for a boot loader behind the boot sector."""

FAT16_LBA = 0x0E
LINUX = 0x83
EFI_SYSTEM = 0xEF

CODE_SIZE = 440
SIGNATURE_OFFSET = 0x1B8
TABLE_OFFSET = 0x1BE
ENTRY = struct.Struct("<B3sB3sII")
ACTIVE = 0x80
CHS_BEYOND = b"\xfe\xff\xff"
"""Cylinder, head and sector where only the LBA counts."""
BOOT_SIGNATURE = b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Partition:
    """`start` and `length` in sectors."""

    kind: int
    start: int
    length: int


def boot_sector(code: bytes, partition: Partition, disk_signature: int) -> bytes:
    """`code` (its first 440 bytes), one active partition, and the number by which Linux finds the disk."""
    sector = bytearray(code[:CODE_SIZE].ljust(SECTOR, b"\0"))
    struct.pack_into("<I", sector, SIGNATURE_OFFSET, disk_signature)
    entry = (ACTIVE, CHS_BEYOND, partition.kind, CHS_BEYOND, partition.start, partition.length)
    ENTRY.pack_into(sector, TABLE_OFFSET, *entry)
    sector[-2:] = BOOT_SIGNATURE
    return bytes(sector)
