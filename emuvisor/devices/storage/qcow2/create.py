"""Making a new qcow2 image."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from emuvisor.devices.storage.blockdevice import SECTOR_SIZE
from emuvisor.devices.storage.imagefile import sync_directory
from emuvisor.devices.storage.qcow2.backing import backing_path
from emuvisor.devices.storage.qcow2.disk import Qcow2Disk
from emuvisor.devices.storage.qcow2.entries import Kind, decode_table, encode_table
from emuvisor.devices.storage.qcow2.header import (
    BACKING_FORMAT,
    COMPRESSION_TYPE,
    COMPRESSIONS,
    ENTRY_SIZE,
    FEATURE_NAMES,
    LAZY_REFCOUNTS,
    MAX_BACKING_NAME,
    MAX_CLUSTER_BITS,
    MIN_CLUSTER_BITS,
    V2_REFCOUNT_ORDER,
    Header,
    check_size,
    feature_name_table,
)
from emuvisor.devices.storage.qcow2.widths import pack, unpack
from emuvisor.devices.storage.rawdisk import RawDisk
from emuvisor.errors import ImageError
from emuvisor.holes import allocate
from emuvisor.units import MIB

__all__ = ["CLUSTER_SIZE", "Preallocation", "create"]

CLUSTER_SIZE = 65_536
"""Of new images: what QEMU takes too."""

Preallocation = Literal["off", "metadata", "falloc", "full"]
"""What a new image gets at once: nothing, its tables, the space of all clusters too, or zeros written to that."""

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
CHUNK = MIB


def create(
    path: str | os.PathLike[str],
    size: int | None = None,
    *,
    cluster_size: int = CLUSTER_SIZE,
    backing: str | os.PathLike[str] | None = None,
    backing_format: Literal["raw", "qcow2"] | None = None,
    version: Literal[2, 3] = 3,
    preallocation: Preallocation = "off",
    compression: Literal["zlib", "zstd"] = "zlib",
    refcount_bits: int = 16,
    lazy_refcounts: bool = False,
) -> None:
    """Make an image of a disk of `size` bytes (None: as large as the backing file's) that reads as `backing`, or as
    zeros.

    A relative `backing` begins at the new image's folder, and is stored as it is given; `backing_format` must be
    given with it. `compression` is how `Qcow2Disk.write_compressed` will pack clusters. Raises ImageError for what
    the format cannot have, a `path` that exists, a backing file that cannot be opened, and when the host cannot make
    the file; nothing is then left of it.
    """
    path = Path(path)
    header = _header(
        path,
        version=version,
        cluster_size=cluster_size,
        refcount_bits=refcount_bits,
        compression=compression,
        lazy=lazy_refcounts,
    )
    if backing is not None:
        if preallocation != "off":
            raise ImageError(f"{path}: an image with a backing file cannot be preallocated")
        header, backing_size = _with_backing(header, path, os.fspath(backing), backing_format)
        size = backing_size if size is None else size
    if size is None:
        raise ImageError(f"{path}: a disk image without a backing file needs a size")
    check_size(size, header.cluster_bits, str(path))
    header = replace(header, size=size)
    try:
        with path.open("xb", buffering=0) as file:
            try:
                _write_empty(file.fileno(), replace(header, l1_size=header.l1_entries_needed), str(path))
                if preallocation != "off":
                    _preallocate(path, preallocation)
                sync_directory(path)
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        reason = error.strerror
        if error.errno == errno.EOPNOTSUPP:
            reason = "its file system cannot preallocate; preallocation full writes zeros instead"
        raise ImageError(f"{path}: cannot make the disk image: {reason}") from error


def _header(
    path: Path, *, version: int, cluster_size: int, refcount_bits: int, compression: str, lazy: bool
) -> Header:
    """A header without places and size. Raises ImageError for what the format cannot have."""
    bits = max(0, cluster_size.bit_length() - 1)
    if cluster_size != 1 << bits or not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS:
        raise ImageError(
            f"{path}: clusters cannot have {cluster_size} bytes; "
            f"a power of two from {1 << MIN_CLUSTER_BITS} to {1 << MAX_CLUSTER_BITS} is allowed"
        )
    if version not in (2, 3):
        raise ImageError(f"{path}: qcow2 has no version {version}; 2 and 3 are supported")
    if refcount_bits not in WIDTHS:
        raise ImageError(
            f"{path}: reference counts cannot have {refcount_bits} bits; "
            f"{', '.join(map(str, WIDTHS))} are allowed"
        )
    if compression not in COMPRESSIONS:
        raise ImageError(f"{path}: the compression {compression!r} is not one of {', '.join(COMPRESSIONS)}")
    order = refcount_bits.bit_length() - 1
    if version == 2 and (order != V2_REFCOUNT_ORDER or compression != "zlib" or lazy):
        raise ImageError(
            f"{path}: version 2 has only reference counts of 16 bits, zlib compression and no lazy refcounts"
        )
    kind = COMPRESSIONS.index(compression)
    return Header(
        version=version,
        cluster_bits=bits,
        size=0,
        l1_size=0,
        l1_table_offset=0,
        refcount_table_offset=0,
        refcount_table_clusters=0,
        refcount_order=order,
        compression_type=kind,
        incompatible_features=COMPRESSION_TYPE if kind else 0,
        compatible_features=LAZY_REFCOUNTS if lazy else 0,
        more_fields=bytes([kind]).ljust(8, b"\0") if version > 2 else b"",
    )


def _with_backing(header: Header, path: Path, name: str, backing_format: str | None) -> tuple[Header, int]:
    """The header with a backing file, and that one's size. Raises ImageError."""
    if not 0 < len(name.encode()) <= MAX_BACKING_NAME:
        raise ImageError(
            f"{path}: the name of the backing file has {len(name.encode())} bytes; "
            f"1 to {MAX_BACKING_NAME} are allowed"
        )
    if backing_format is not None:
        header = replace(header, extensions=((BACKING_FORMAT, backing_format.encode()),))
    header = replace(header, backing_file=name)
    place = backing_path(path, header)
    assert place is not None
    with Qcow2Disk(place, read_only=True) if backing_format == "qcow2" else RawDisk(place, True) as disk:
        return header, disk.sectors * SECTOR_SIZE


def _write_empty(fd: int, header: Header, name: str) -> None:
    """Write the tables of an image with no cluster of the disk: header, refcount table, its blocks, L1 table."""
    size, per_block = header.cluster_size, header.refcounts_per_block
    l1_clusters = -(-header.l1_size * ENTRY_SIZE // size)
    table_clusters = blocks = 1
    while True:
        # The blocks count themselves and their table: more of them until they suffice.
        clusters = 1 + table_clusters + blocks + l1_clusters
        needed = -(-clusters // per_block)
        if needed <= blocks and blocks * ENTRY_SIZE <= table_clusters * size:
            break
        blocks = max(needed, blocks)
        table_clusters = -(-blocks * ENTRY_SIZE // size)
    first_block = 1 + table_clusters
    header = replace(
        header,
        refcount_table_offset=size,
        refcount_table_clusters=table_clusters,
        l1_table_offset=(first_block + blocks) * size,
    )
    table = decode_table(bytes(table_clusters * size))
    counts = unpack(bytes(blocks * size), header.refcount_order)
    counts[:clusters] = 1
    for number in range(blocks):
        table[number] = (first_block + number) * size
    os.ftruncate(fd, clusters * size)
    for data, offset in (
        (_encode(header, name), 0),
        (encode_table(table), size),
        (pack(counts, header.refcount_order), first_block * size),
    ):
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)
    os.fsync(fd)


def _encode(header: Header, name: str) -> bytes:
    """The header with the feature name table, if there is room for one."""
    if header.version > 2:
        with_names = replace(header, extensions=(*header.extensions, (FEATURE_NAMES, feature_name_table())))
        if with_names.encoded_length <= header.cluster_size:
            return with_names.encode()
    if header.encoded_length > header.cluster_size:
        raise ImageError(
            f"{name}: the header would have {header.encoded_length} bytes, and must fit into a cluster of "
            f"{header.cluster_size}; take a larger cluster size or a shorter backing file name"
        )
    return header.encode()


def _preallocate(path: Path, preallocation: Preallocation) -> None:
    """Give the new image its space. Raises OSError."""
    with Qcow2Disk(path) as disk:
        disk.preallocate()
        fd = disk.image.file.fd
        if preallocation == "falloc":
            allocate(fd, 0, os.fstat(fd).st_size)
        elif preallocation == "full":
            zeros = memoryview(bytes(CHUNK))
            for extent in disk.extents():
                assert extent.kind is Kind.DATA
                for start in range(0, extent.length, CHUNK):
                    disk.image.file.write(extent.host + start, zeros[: extent.length - start])
        disk.flush()
