"""The file format of an overlay: which clusters of a disk it holds, and for which base.

    offset       size  content
    0            8     magic "EMUVOVL\\0"
    8            4     version, 1
    12           4     cluster size in bytes, a power of two from 4 KiB to 2 MiB
    16           8     size of the base in bytes
    24           32    identity of the base, see `identity_of`; zeros while a commit into it is under way
    56           4     CRC-32 of the 56 bytes before
    4096         512n  the bitmap: sectors of 508 bytes and their CRC-32; bit i % 8 of byte i // 8 belongs to cluster i
    data offset        the clusters, each at its place in the disk; a multiple of the cluster size behind the bitmap

Numbers are little-endian. The file always has its full length and is sparse. A bitmap sector is written in one
piece and covers itself with its checksum, seeded with its number, so that one which the host tore, lost or
misplaced is noticed. What is in the clusters is not covered, as in any disk image.
"""

import hashlib
import zlib
from dataclasses import dataclass
from struct import Struct

import numpy as np

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.errors import ImageError
from emuvisor.units import KIB, MIB

__all__ = [
    "BITMAP_SECTOR",
    "BITS_PER_SECTOR",
    "CLUSTER_SIZE",
    "COMMITTING",
    "HEADER_SIZE",
    "Layout",
    "decode_bitmap",
    "encode_bitmap_sector",
    "identity_of",
]

MAGIC = b"EMUVOVL\0"
VERSION = 1
CLUSTER_SIZE = 64 * KIB
"""Of new overlays: large enough that reads stay few, small enough that a first write copies little."""
MIN_CLUSTER = 4 * KIB
MAX_CLUSTER = 2 * MIB
HEADER_SIZE = 4096
BITMAP_SECTOR = 512
"""A unit that storage writes whole or not at all."""
BITMAP_BYTES = BITMAP_SECTOR - 4
BITS_PER_SECTOR = 8 * BITMAP_BYTES

COMMITTING = bytes(32)
"""In the place of the identity: the base is changing."""

_FIELDS = Struct("<8sIIQ32s")
_CRC = Struct("<I")

SAMPLES = 64
SAMPLE_SECTORS = 8


def identity_of(base: BlockDevice) -> bytes:
    """32 bytes that tell `base` from other disks: a hash of its size and of 64 samples of 4 KiB spread evenly over it.

    It finds a base that was mixed up or replaced, in the time of a few reads; it is no proof that nothing
    has changed. Raises OSError.
    """
    digest = hashlib.sha256(base.sectors.to_bytes(8, "little"))
    length = min(SAMPLE_SECTORS, base.sectors)
    for number in range(SAMPLES):
        digest.update(base.read((base.sectors - length) * number // (SAMPLES - 1), length))
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Layout:
    """The header: where everything is."""

    cluster_size: int
    base_size: int
    identity: bytes

    @property
    def clusters(self) -> int:
        """How many clusters the disk has; the last may be only partly used."""
        return -(-self.base_size // self.cluster_size)

    @property
    def bitmap_sectors(self) -> int:
        """How many sectors the bitmap has."""
        return -(-self.clusters // BITS_PER_SECTOR)

    @property
    def data_offset(self) -> int:
        """Where the clusters begin."""
        end = HEADER_SIZE + self.bitmap_sectors * BITMAP_SECTOR
        return -(-end // self.cluster_size) * self.cluster_size

    @property
    def file_size(self) -> int:
        """Bytes that an overlay file of this layout has."""
        return self.data_offset + self.clusters * self.cluster_size

    def check(self, name: str) -> None:
        """Refuse a cluster size that the format does not have; `name` is the file's. Raises ImageError."""
        size = self.cluster_size
        if size & (size - 1) or not MIN_CLUSTER <= size <= MAX_CLUSTER:
            raise ImageError(
                f"{name}: the overlay's clusters have {size} bytes; "
                f"a power of two from {MIN_CLUSTER} to {MAX_CLUSTER} is allowed"
            )

    def encode(self) -> bytes:
        """The header, `HEADER_SIZE` bytes."""
        fields = _FIELDS.pack(MAGIC, VERSION, self.cluster_size, self.base_size, self.identity)
        return (fields + _CRC.pack(zlib.crc32(fields))).ljust(HEADER_SIZE, b"\0")

    @classmethod
    def decode(cls, header: bytes, name: str) -> "Layout":
        """The layout of the overlay file `name` from its first bytes. Raises ImageError."""
        if header[: len(MAGIC)] != MAGIC:
            raise ImageError(f"{name}: not an overlay file")
        if len(header) < _FIELDS.size + _CRC.size:
            raise ImageError(f"{name}: the overlay is cut short inside its header")
        _, version, cluster_size, base_size, identity = _FIELDS.unpack_from(header)
        if _CRC.unpack_from(header, _FIELDS.size)[0] != zlib.crc32(header[: _FIELDS.size]):
            raise ImageError(f"{name}: the overlay is damaged: the checksum of its header is wrong")
        if version != VERSION:
            raise ImageError(f"{name}: the overlay has version {version}; this emuvisor reads {VERSION}")
        layout = cls(cluster_size, base_size, identity)
        layout.check(name)
        return layout


def encode_bitmap_sector(present: bytearray, number: int) -> bytes:
    """Sector `number` of the bitmap of `present`, which has a byte of 0 or 1 for each cluster."""
    flags = present[number * BITS_PER_SECTOR : (number + 1) * BITS_PER_SECTOR]
    bits = np.packbits(np.frombuffer(flags, np.uint8), bitorder="little").tobytes().ljust(BITMAP_BYTES, b"\0")
    return bits + _CRC.pack(zlib.crc32(bits, number))


def decode_bitmap(bitmap: bytes, clusters: int, name: str) -> bytearray:
    """A byte of 0 or 1 for each of `clusters` clusters of the overlay file `name`. Raises ImageError."""
    bits = bytearray()
    for number, start in enumerate(range(0, len(bitmap), BITMAP_SECTOR)):
        part = bitmap[start : start + BITMAP_BYTES]
        if _CRC.unpack_from(bitmap, start + BITMAP_BYTES)[0] != zlib.crc32(part, number):
            raise ImageError(
                f"{name}: the overlay is damaged: the checksum of bitmap sector {number} is wrong"
            )
        bits += part
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    if flags[clusters:].any():
        raise ImageError(f"{name}: the overlay is damaged: its bitmap names clusters behind the disk's end")
    return bytearray(flags[:clusters].tobytes())
