"""The file format of an overlay: which clusters of a disk it holds, and for which base.

    offset       size  content
    0            8     magic "EMUVOVL\\0"
    8            4     version, 2 (1 has neither of the fields from 56 to 71, nor the base's name)
    12           4     cluster size in bytes, a power of two from 4 KiB to 2 MiB
    16           8     size of the base in bytes
    24           32    identity of the base, see `identity_of`; zeros while a commit into it is under way, ones until
                       the base is on stable storage, which is before any cluster is
    56           8     when the base was last changed, in ns (its file's st_mtime_ns); 0: not known
    64           8     inode number of the overlay when this was written
    72           4     CRC-32 of the 72 bytes before (version 1: of the 56 bytes before, at 56)
    512          16    format of the base: "raw", "qcow2" or "overlay"
    528          2     bytes in the base's name
    530          ...   the base's name, UTF-8; a relative one begins at the overlay's folder
    4092         4     CRC-32 of what is from 512 up to here
    4096         512n  the bitmap: sectors of 508 bytes and their CRC-32; bit i % 8 of byte i // 8 belongs to cluster i
    data offset        the clusters, each at its place in the disk; a multiple of the cluster size behind the bitmap

Numbers are little-endian. The file always has its full length and is sparse. A bitmap sector is written in one
piece and covers itself with its checksum, seeded with its number, so that one which the host tore, lost or
misplaced is noticed. What is in the clusters is not covered, as in any disk image.
"""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Literal, cast, get_args

import numpy as np

from emuvisor.devices.storage.blockdevice import BlockDevice
from emuvisor.errors import ImageError
from emuvisor.units import KIB, MIB

__all__ = [
    "BITMAP_SECTOR",
    "BITS_PER_SECTOR",
    "CLUSTER_SIZE",
    "COMMITTING",
    "FIRST_SECTOR",
    "HEADER_SIZE",
    "UNBOUND",
    "BaseFile",
    "BaseFormat",
    "Layout",
    "decode_bitmap",
    "encode_bitmap_sector",
    "encode_empty_bitmap",
    "identity_of",
]

MAGIC = b"EMUVOVL\0"
VERSION = 2
NAMELESS_VERSION = 1
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

UNBOUND = b"\xff" * 32
"""In the place of the identity: the base is not on stable storage yet, and the overlay has no clusters."""

BaseFormat = Literal["raw", "qcow2", "overlay"]

_FIELDS = Struct("<8sIIQ32s")
_STAMP = Struct("<QQ")
_CRC = Struct("<I")
_NAME = Struct("<16sH")
FIRST_SECTOR = 512
"""What changes is in the first sector of the header, which storage writes whole or not at all; the name is behind."""
_NAME_CRC = HEADER_SIZE - _CRC.size
MAX_NAME = _NAME_CRC - FIRST_SECTOR - _NAME.size

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
class BaseFile:
    """The file of an overlay's base."""

    path: Path
    format: BaseFormat

    def name_for(self, overlay: Path) -> str:
        """What the overlay file calls it: in the same folder by its name alone, so that the folder can be moved."""
        path, beside = self.path.absolute(), overlay.absolute().parent
        return path.name if path.parent == beside else str(path)


@dataclass(frozen=True, slots=True)
class Layout:
    """The header: where everything is."""

    cluster_size: int
    base_size: int
    identity: bytes
    base_name: str = ""
    """The base's file; a relative name begins at the overlay's folder. Empty: it is not said (version 1)."""
    base_format: BaseFormat = "raw"
    base_changed_ns: int = 0
    inode: int = 0

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
        """Refuse a cluster size or name that the format does not have; `name` is the file's. Raises ImageError."""
        size = self.cluster_size
        if size & (size - 1) or not MIN_CLUSTER <= size <= MAX_CLUSTER:
            raise ImageError(
                f"{name}: the overlay's clusters have {size} bytes; "
                f"a power of two from {MIN_CLUSTER} to {MAX_CLUSTER} is allowed"
            )
        if len(self.base_name.encode()) > MAX_NAME:
            raise ImageError(f"{name}: the name of an overlay's base has {MAX_NAME} bytes at the most")

    def base_file(self, overlay: Path) -> BaseFile | None:
        """The file that has the base of the overlay at this path, if it is said."""
        return BaseFile(overlay.parent / self.base_name, self.base_format) if self.base_name else None

    def encode(self) -> bytes:
        """The header, `HEADER_SIZE` bytes."""
        version = VERSION if self.base_name else NAMELESS_VERSION
        fields = _FIELDS.pack(MAGIC, version, self.cluster_size, self.base_size, self.identity)
        if not self.base_name:
            return (fields + _CRC.pack(zlib.crc32(fields))).ljust(HEADER_SIZE, b"\0")
        fields += _STAMP.pack(self.base_changed_ns, self.inode)
        first = (fields + _CRC.pack(zlib.crc32(fields))).ljust(FIRST_SECTOR, b"\0")
        name = self.base_name.encode()
        rest = (_NAME.pack(self.base_format.encode(), len(name)) + name).ljust(
            _NAME_CRC - FIRST_SECTOR, b"\0"
        )
        return first + rest + _CRC.pack(zlib.crc32(rest))

    @classmethod
    def decode(cls, header: bytes, name: str) -> "Layout":
        """The layout of the overlay file `name` from its first bytes. Raises ImageError."""
        if header[: len(MAGIC)] != MAGIC:
            raise ImageError(f"{name}: not an overlay file")
        if len(header) < _FIELDS.size + _CRC.size:
            raise ImageError(f"{name}: the overlay is cut short inside its header")
        _, version, cluster_size, base_size, identity = _FIELDS.unpack_from(header)
        covered = _FIELDS.size + (0 if version == NAMELESS_VERSION else _STAMP.size)
        if len(header) < covered + _CRC.size:
            raise ImageError(f"{name}: the overlay is cut short inside its header")
        if _CRC.unpack_from(header, covered)[0] != zlib.crc32(header[:covered]):
            raise ImageError(f"{name}: the overlay is damaged: the checksum of its header is wrong")
        if version not in (NAMELESS_VERSION, VERSION):
            raise ImageError(
                f"{name}: the overlay has version {version}; this emuvisor reads {NAMELESS_VERSION} and {VERSION}"
            )
        layout = cls(cluster_size, base_size, identity)
        if version == VERSION:
            changed_ns, inode = _STAMP.unpack_from(header, _FIELDS.size)
            base_name, base_format = _decode_name(header, name)
            layout = cls(cluster_size, base_size, identity, base_name, base_format, changed_ns, inode)
        layout.check(name)
        return layout


def _decode_name(header: bytes, overlay: str) -> tuple[str, BaseFormat]:
    """The base's file and its format. Raises ImageError."""
    rest = header[FIRST_SECTOR:_NAME_CRC]
    if len(header) < HEADER_SIZE or _CRC.unpack_from(header, _NAME_CRC)[0] != zlib.crc32(rest):
        raise ImageError(f"{overlay}: the overlay is damaged: the checksum of its base's name is wrong")
    kind, length = _NAME.unpack_from(rest)
    base_format = kind.rstrip(b"\0").decode("ascii", "replace")
    base_name = rest[_NAME.size : _NAME.size + length].decode("utf-8", "replace")
    if base_format not in get_args(BaseFormat) or not base_name or "\0" in base_name or length > MAX_NAME:
        raise ImageError(f"{overlay}: the overlay is damaged: it names no base that there can be")
    return base_name, cast(BaseFormat, base_format)


def encode_bitmap_sector(present: bytearray, number: int) -> bytes:
    """Sector `number` of the bitmap of `present`, which has a byte of 0 or 1 for each cluster."""
    flags = present[number * BITS_PER_SECTOR : (number + 1) * BITS_PER_SECTOR]
    bits = np.packbits(np.frombuffer(flags, np.uint8), bitorder="little").tobytes().ljust(BITMAP_BYTES, b"\0")
    return bits + _CRC.pack(zlib.crc32(bits, number))


def encode_empty_bitmap(sectors: int) -> bytes:
    """The bitmap of an overlay that has no clusters."""
    empty = bytes(BITMAP_BYTES)
    return b"".join(empty + _CRC.pack(zlib.crc32(empty, number)) for number in range(sectors))


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
