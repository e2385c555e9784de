"""Persistent dirty bitmaps: only which clusters they take, for the check. Writers that do not keep them say so in the
header (auto-clear feature), as we do.

Source: "qcow2 image file format", sections "Bitmaps extension" and "Bitmaps".
"""

from collections.abc import Iterator
from struct import Struct, error

import numpy as np

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.entries import OFFSET, decode_table
from emuvisor.devices.storage.qcow2.header import BITMAPS, BITMAPS_EXTENSION, ENTRY_SIZE, Header, damaged
from emuvisor.units import MIB

__all__ = ["bitmap_clusters"]

_EXTENSION = Struct(">IIQQ")
_DIRECTORY_ENTRY = Struct(">QIIBBHI")
MAX_BYTES = 64 * MIB
"""The directory, or one table."""
MAX_BITMAPS = 65_535


def bitmap_clusters(file: ImageFile, header: Header) -> Iterator[tuple[int, int]]:
    """Runs of clusters (first, count) that valid bitmaps take. Raises ImageError when they cannot be right,
    OSError."""
    data = header.extension(BITMAPS_EXTENSION)
    if data is None or not header.autoclear_features & BITMAPS:
        return
    name, size = str(file.path), header.cluster_size
    wrong = damaged(name, "its bitmaps are misaligned, too large, or outside the file")
    try:
        count, _, length, offset = _EXTENSION.unpack(data)
        if offset % size or length > MAX_BYTES or offset + length > file.size or count > MAX_BITMAPS:
            raise wrong
        yield offset // size, -(-length // size)
        directory = file.read(offset, length)
        position = 0
        for _ in range(count):
            fields = _DIRECTORY_ENTRY.unpack_from(directory, position)
            table_offset, entries, _, _, _, name_length, extra_length = fields
            position += _DIRECTORY_ENTRY.size + extra_length + name_length
            position += -position % 8
            table_length = entries * ENTRY_SIZE
            if table_offset % size or table_length > MAX_BYTES or table_offset + table_length > file.size:
                raise wrong
            yield table_offset // size, -(-table_length // size)
            table = np.asarray(decode_table(file.read(table_offset, table_length)))
            for cluster in (table & np.uint64(OFFSET)).tolist():
                if cluster:
                    yield cluster // size, 1
    except error:
        raise wrong from None
