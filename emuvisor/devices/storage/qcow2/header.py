"""The header of a qcow2 image: its fields, features and extensions, and what they may say.

Source: "qcow2 image file format" (QEMU, docs/interop/qcow2.txt), sections "Header", "Header extensions" and "Feature
name table". All numbers are big-endian.
"""

from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Self

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.errors import ImageError
from emuvisor.units import GIB, KIB, MIB, format_size

__all__ = ["COMPRESSIONS", "MAGIC", "MAX_L1_BYTES", "MAX_REFCOUNT_TABLE_BYTES", "MAX_SNAPSHOTS", "Header"]

MAGIC = b"QFI\xfb"

MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
MAX_L1_BYTES = 32 * MIB
MAX_REFCOUNT_TABLE_BYTES = 8 * MIB
MAX_SNAPSHOTS = 65_536
MAX_BACKING_NAME = 1023
MAX_EXTENSIONS = 64
MAX_REFCOUNT_ORDER = 6
ENTRY_SIZE = 8
"""Bytes of an entry in the L1, L2 and refcount tables."""

_V2 = Struct(">4sIQIIQIIQQIIQ")
_V3 = Struct(">QQQII")
V3_LENGTH = _V2.size + _V3.size
COMPRESSION_LENGTH = V3_LENGTH + 8
"""Length of a version 3 header with the compression type and its padding."""
V2_REFCOUNT_ORDER = 4

# Incompatible features
DIRTY = 1 << 0
CORRUPT = 1 << 1
EXTERNAL_DATA_FILE = 1 << 2
COMPRESSION_TYPE = 1 << 3
EXTENDED_L2 = 1 << 4
SUPPORTED = DIRTY | CORRUPT | COMPRESSION_TYPE
# Compatible features
LAZY_REFCOUNTS = 1 << 0
# Auto-clear features
BITMAPS = 1 << 0

# Header extensions
END_OF_EXTENSIONS = 0x0000_0000
BACKING_FORMAT = 0xE279_2ACA
FEATURE_NAMES = 0x6803_F857
BITMAPS_EXTENSION = 0x2385_2875
_EXTENSION = Struct(">II")
_FEATURE = Struct(">BB46s")

INCOMPATIBLE, COMPATIBLE, AUTOCLEAR = range(3)
"""Types of feature in the feature name table."""

KNOWN_FEATURES = (
    (INCOMPATIBLE, DIRTY, "dirty bit"),
    (INCOMPATIBLE, CORRUPT, "corrupt bit"),
    (INCOMPATIBLE, EXTERNAL_DATA_FILE, "external data file"),
    (INCOMPATIBLE, COMPRESSION_TYPE, "compression type"),
    (INCOMPATIBLE, EXTENDED_L2, "extended L2 entries"),
    (COMPATIBLE, LAZY_REFCOUNTS, "lazy refcounts"),
    (AUTOCLEAR, BITMAPS, "bitmaps"),
)

COMPRESSIONS = ("zlib", "zstd")
"""Names of the compression types 0 and 1."""
ENCRYPTIONS = {1: "AES", 2: "LUKS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of one image. Offsets and sizes are in bytes, of the image file or of the virtual disk (`size`)."""

    version: int = 3
    cluster_bits: int
    size: int
    l1_size: int
    """Entries of the L1 table."""
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    nb_snapshots: int = 0
    snapshots_offset: int = 0
    incompatible_features: int = 0
    compatible_features: int = 0
    autoclear_features: int = 0
    refcount_order: int = V2_REFCOUNT_ORDER
    compression_type: int = 0
    backing_file: str | None = None
    backing_file_offset: int = 0
    extensions: tuple[tuple[int, bytes], ...] = ()
    """(type, data) of every extension, the unknown ones too."""
    more_fields: bytes = field(default=b"", repr=False)
    """What a version 3 header has behind the fields above, as it is."""

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_bits(self) -> int:
        """An L2 table has `1 << l2_bits` entries."""
        return self.cluster_bits - 3

    @property
    def refcount_bits(self) -> int:
        """Width of a reference count."""
        return 1 << self.refcount_order

    @property
    def refcounts_per_block(self) -> int:
        """Clusters that one refcount block counts."""
        return self.cluster_size * 8 >> self.refcount_order

    @property
    def clusters(self) -> int:
        """Clusters of the virtual disk; the last may be only partly used."""
        return -(-self.size >> self.cluster_bits)

    @property
    def l1_entries_needed(self) -> int:
        """Entries that the L1 table must have for the virtual disk."""
        return -(-self.clusters >> self.l2_bits)

    @property
    def compression(self) -> str:
        """Name of the compression type."""
        return COMPRESSIONS[self.compression_type]

    @property
    def backing_format(self) -> str | None:
        """Format of the backing file, if the image names one."""
        data = self.extension(BACKING_FORMAT)
        return None if data is None else data.decode("utf-8", "replace")

    def extension(self, kind: int) -> bytes | None:
        """Data of the first extension of a type, if there is one."""
        return next((data for number, data in self.extensions if number == kind), None)

    @property
    def fields_length(self) -> int:
        """Bytes of the header before the extensions."""
        return _V2.size if self.version == 2 else V3_LENGTH + len(self.more_fields)

    def encode_fields(self) -> bytes:
        """The header without extensions and backing file name. It lies in one sector, which storage writes whole or
        not at all (what follows the compression type, which we never change, is left out)."""
        name = (self.backing_file or "").encode()
        data = _V2.pack(
            MAGIC,
            self.version,
            self.backing_file_offset,
            len(name),
            self.cluster_bits,
            self.size,
            0,
            self.l1_size,
            self.l1_table_offset,
            self.refcount_table_offset,
            self.refcount_table_clusters,
            self.nb_snapshots,
            self.snapshots_offset,
        )
        if self.version > 2:
            data += _V3.pack(
                self.incompatible_features,
                self.compatible_features,
                self.autoclear_features,
                self.refcount_order,
                self.fields_length,
            )
        return data

    def encode(self) -> bytes:
        """All of the header, for a new image: fields, extensions, backing file name."""
        extensions = b"".join(
            _EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in self.extensions
        )
        extensions += _EXTENSION.pack(END_OF_EXTENSIONS, 0)
        name = (self.backing_file or "").encode()
        offset = self.fields_length + len(extensions)
        placed = replace(self, backing_file_offset=offset if name else 0)
        return placed.encode_fields() + self.more_fields + extensions + name

    @property
    def encoded_length(self) -> int:
        """Bytes of all of the header, which must fit into a cluster."""
        return len(self.encode())

    @classmethod
    def decode(cls, data: bytes, file_size: int, name: str) -> Self:
        """The header from `data`, the first bytes of the image file `name` that has `file_size`: at least the first
        cluster, or all of the file. Raises ImageError for an image that is damaged, or not for us."""
        if data[: len(MAGIC)] != MAGIC:
            raise ImageError(f"{name}: not a qcow2 image")
        if len(data) < _V2.size:
            raise ImageError(f"{name}: the qcow2 image is cut short inside its header")
        fields = _V2.unpack_from(data)
        (_, version, backing_offset, backing_length, cluster_bits, size, encryption) = fields[:7]
        (l1_size, l1_offset, table_offset, table_clusters, nb_snapshots, snapshots_offset) = fields[7:]
        if version not in (2, 3):
            raise ImageError(f"{name}: the qcow2 image has version {version}; 2 and 3 are supported")
        if not MIN_CLUSTER_BITS <= cluster_bits <= MAX_CLUSTER_BITS:
            raise ImageError(
                f"{name}: the qcow2 image has clusters of 2^{cluster_bits} bytes; "
                f"2^{MIN_CLUSTER_BITS} to 2^{MAX_CLUSTER_BITS} are supported"
            )
        header = cls(
            version=version,
            cluster_bits=cluster_bits,
            size=size,
            l1_size=l1_size,
            l1_table_offset=l1_offset,
            refcount_table_offset=table_offset,
            refcount_table_clusters=table_clusters,
            nb_snapshots=nb_snapshots,
            snapshots_offset=snapshots_offset,
            backing_file_offset=backing_offset,
        )
        data = data[: header.cluster_size]
        if version > 2:
            header = header._with_version_3(data, name)
        header = header._with_extensions(data, name)
        if encryption:
            kind = ENCRYPTIONS.get(encryption, f"of unknown kind {encryption}")
            raise ImageError(f"{name}: the qcow2 image is encrypted ({kind}), which is not supported")
        header._check_features(name)
        if backing_offset:
            header = header._with_backing_file(data, backing_length, name)
        header._check_ranges(file_size, name)
        return header

    def _with_version_3(self, data: bytes, name: str) -> Self:
        if len(data) < V3_LENGTH:
            raise ImageError(f"{name}: the qcow2 image is cut short inside its header")
        incompatible, compatible, autoclear, order, length = _V3.unpack_from(data, _V2.size)
        if length < V3_LENGTH or length % 8 or length > len(data):
            raise damaged(name, f"its header says to have {length} bytes")
        if order > MAX_REFCOUNT_ORDER:
            raise damaged(name, f"its reference counts have 2^{order} bits; at most 64 are allowed")
        more = data[V3_LENGTH:length]
        compression = more[0] if more else 0
        if bool(incompatible & COMPRESSION_TYPE) != bool(compression):
            raise damaged(name, "its compression type and the feature bit for it disagree")
        if compression >= len(COMPRESSIONS):
            raise ImageError(
                f"{name}: the qcow2 image has compression type {compression}, which is not supported"
            )
        return replace(
            self,
            incompatible_features=incompatible,
            compatible_features=compatible,
            autoclear_features=autoclear,
            refcount_order=order,
            compression_type=compression,
            more_fields=more,
        )

    def _with_extensions(self, data: bytes, name: str) -> Self:
        position = self.fields_length
        end = self.backing_file_offset or len(data)
        extensions: list[tuple[int, bytes]] = []
        while position + _EXTENSION.size <= min(end, len(data)):
            kind, length = _EXTENSION.unpack_from(data, position)
            position += _EXTENSION.size
            if kind == END_OF_EXTENSIONS:
                break
            if length > end - position or len(extensions) == MAX_EXTENSIONS:
                raise damaged(name, "its header extensions do not fit into the header")
            extensions.append((kind, data[position : position + length]))
            position += length + -length % 8
        return replace(self, extensions=tuple(extensions))

    def _check_features(self, name: str) -> None:
        """Refuse what a writer said that no reader may ignore, with its name."""
        unsupported = self.incompatible_features & ~SUPPORTED
        if unsupported:
            bit = (unsupported & -unsupported).bit_length() - 1
            what = self.feature_names().get((INCOMPATIBLE, bit), f"unknown incompatible feature {bit}")
            raise ImageError(f"{name}: the qcow2 image uses a feature that is not supported: {what}")

    def feature_names(self) -> dict[tuple[int, int], str]:
        """Names of features by (type, bit): the standard's, and those of the image's feature name table."""
        names = {}
        table = self.extension(FEATURE_NAMES) or b""
        for kind, bit, text in _FEATURE.iter_unpack(table[: len(table) - len(table) % _FEATURE.size]):
            printable = "".join(filter(str.isprintable, text.rstrip(b"\0").decode("utf-8", "replace")))
            names[kind, bit] = printable
        names.update({(kind, mask.bit_length() - 1): text for kind, mask, text in KNOWN_FEATURES})
        return names

    def _with_backing_file(self, data: bytes, length: int, name: str) -> Self:
        if not 0 < length <= MAX_BACKING_NAME:
            raise damaged(
                name, f"the name of its backing file has {length} bytes; 1 to {MAX_BACKING_NAME} are allowed"
            )
        text = data[self.backing_file_offset : self.backing_file_offset + length]
        if len(text) < length:
            raise damaged(name, "the name of its backing file lies outside its header")
        try:
            backing = text.decode()
        except UnicodeDecodeError:
            raise damaged(name, "the name of its backing file is not UTF-8") from None
        if "\0" in backing:
            raise damaged(name, "the name of its backing file has a zero byte")
        return replace(self, backing_file=backing)

    def _check_ranges(self, file_size: int, name: str) -> None:
        """Bound every size, and place every table inside the file."""
        check_size(self.size, self.cluster_bits, name)
        mask = self.cluster_size - 1
        if self.l1_size * ENTRY_SIZE > MAX_L1_BYTES:
            raise damaged(name, f"its L1 table has {self.l1_size} entries; {MAX_L1_BYTES // 8} are allowed")
        if self.l1_size < self.l1_entries_needed:
            raise damaged(
                name, f"its L1 table has {self.l1_size} entries; the disk needs {self.l1_entries_needed}"
            )
        table_bytes = self.refcount_table_clusters << self.cluster_bits
        if not 0 < table_bytes <= MAX_REFCOUNT_TABLE_BYTES:
            raise damaged(
                name,
                f"its refcount table has {table_bytes} bytes; 1 to {MAX_REFCOUNT_TABLE_BYTES} are allowed",
            )
        if self.nb_snapshots > MAX_SNAPSHOTS:
            raise damaged(name, f"it has {self.nb_snapshots} snapshots; at most {MAX_SNAPSHOTS} are allowed")
        tables = [
            ("L1 table", self.l1_table_offset, self.l1_size * ENTRY_SIZE),
            ("refcount table", self.refcount_table_offset, table_bytes),
        ]
        if self.nb_snapshots:
            tables.append(("snapshot table", self.snapshots_offset, self.nb_snapshots))
        for what, offset, length in tables:
            if offset == 0 or offset & mask or offset + length > file_size:
                raise damaged(
                    name, f"its {what} is at byte {offset}, which is misaligned or outside the file"
                )


def check_size(size: int, cluster_bits: int, name: str) -> None:
    """Refuse a size that no disk with such clusters has. Raises ImageError naming the file."""
    entry_covers = 1 << (2 * cluster_bits - 3)
    limit = min(entry_covers * (MAX_L1_BYTES // ENTRY_SIZE), GIB * GIB)
    if size == 0 or size % SECTOR_SIZE:
        raise ImageError(
            f"{name}: a disk image cannot have {size} bytes; "
            f"a positive multiple of the {SECTOR_SIZE}-byte sector is allowed"
        )
    if size > limit:
        cluster = 1 << cluster_bits
        raise ImageError(
            f"{name}: a disk of {size} bytes is too large for clusters of "
            f"{format_size(cluster) if cluster >= KIB else f'{cluster} bytes'}; {format_size(limit)} are possible"
        )


def damaged(name: str, why: str) -> ImageError:
    """The error for an image that says what no honest writer says."""
    return ImageError(f"{name}: the qcow2 image is damaged: {why}")


def feature_name_table() -> bytes:
    """The feature name table of new images."""
    return b"".join(
        _FEATURE.pack(kind, mask.bit_length() - 1, text.encode()) for kind, mask, text in KNOWN_FEATURES
    )
