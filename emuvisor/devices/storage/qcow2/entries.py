"""Entries of L1 and L2 tables: where the clusters of the virtual disk are, in 64 bits each.

Source: "qcow2 image file format", section "Cluster mapping".
"""

import sys
from array import array
from enum import Enum

import numpy as np
import numpy.typing as npt

__all__ = [
    "COMPRESSED",
    "COPIED",
    "DAMAGED",
    "OFFSET",
    "ZERO",
    "CompressedEntries",
    "Kind",
    "decode_table",
    "encode_table",
    "kind_of",
]

COPIED = 1 << 63
"""The refcount is exactly one: the cluster (or L2 table) may be written where it is."""
COMPRESSED = 1 << 62
ZERO = 1 << 0
"""The cluster reads as zeros, whatever its offset."""
OFFSET = 0x00FF_FFFF_FFFF_FE00
"""Bits 9 to 55: the offset of a standard cluster or of an L2 table in the file."""
RESERVED_L1 = ~(COPIED | OFFSET) & (1 << 64) - 1
RESERVED_L2 = ~(COPIED | COMPRESSED | OFFSET | ZERO) & (1 << 64) - 1
OFFSET_BITS = 56

DAMAGED = COMPRESSED | COMPRESSED - 1
"""Stands in a loaded table for an entry that cannot be right. No file is so long that it could be a real one."""

IN_PLACE = COPIED | COMPRESSED | ZERO
"""`entry & IN_PLACE == COPIED`: the data is in a cluster of its own, at `entry ^ COPIED`."""

_SWAP = sys.byteorder == "little"


class Kind(Enum):
    """What a cluster of the virtual disk is."""

    BACKING = "backing"
    """Not in the image: the backing file's, or zeros."""
    ZERO = "zero"
    DATA = "data"
    COMPRESSED = "compressed"


def kind_of(entry: int) -> Kind:
    """The kind of an L2 entry that is not DAMAGED."""
    if entry & COMPRESSED:
        return Kind.COMPRESSED
    if entry & ZERO:
        return Kind.ZERO
    return Kind.DATA if entry & OFFSET else Kind.BACKING


class CompressedEntries:
    """How entries of compressed clusters say where their data is; it depends on the cluster size."""

    def __init__(self, cluster_bits: int) -> None:
        self.shift = COMPRESSED.bit_length() - 1 - (cluster_bits - 8)
        """Bits of the offset; those of the number of additional sectors follow."""
        self._offsets = (1 << self.shift) - 1
        self._sectors = (1 << cluster_bits - 8) - 1
        self.end = 1 << min(self.shift, OFFSET_BITS)
        """Offsets from here on cannot be said."""

    def encode(self, offset: int, length: int) -> int:
        """The entry for `length` bytes at `offset` of the file."""
        additional = (offset + length - 1 >> 9) - (offset >> 9)
        return COMPRESSED | additional << self.shift | offset

    def decode(self, entry: int) -> tuple[int, int]:
        """Offset in the file, and the most bytes that the data may have."""
        offset = entry & self._offsets
        sectors = (entry >> self.shift & self._sectors) + 1
        return offset, sectors * 512 - offset % 512

    def ends(self, entries: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Offsets of the first byte, and of the byte behind the last, of many entries."""
        offsets = entries & np.uint64(self._offsets)
        sectors = (entries >> np.uint64(self.shift) & np.uint64(self._sectors)) + np.uint64(1)
        return offsets, (offsets & ~np.uint64(511)) + sectors * np.uint64(512)


def decode_table(data: bytes) -> "array[int]":
    """The big-endian 64-bit numbers in `data`."""
    table = array("Q", data)
    if _SWAP:
        table.byteswap()
    return table


def encode_table(entries: "array[int]") -> bytes:
    """Numbers as the file has them."""
    copy = entries[:]
    if _SWAP:
        copy.byteswap()
    return copy.tobytes()
