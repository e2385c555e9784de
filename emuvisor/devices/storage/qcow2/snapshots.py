"""Internal snapshots: the table of them, which we keep as it is.

Source: "qcow2 image file format", section "Snapshots".
"""

from dataclasses import dataclass
from struct import Struct

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.header import ENTRY_SIZE, MAX_L1_BYTES, Header, damaged
from emuvisor.units import MIB, NS_PER_S

__all__ = ["Snapshot", "read_snapshots", "snapshot_table_length"]

_FIELDS = Struct(">QIHHIIQII")
_SIZES = Struct(">QQ")
MAX_TABLE_BYTES = 64 * MIB
MAX_ALL_L1_BYTES = 256 * MIB
"""The L1 tables of all snapshots together."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An internal snapshot. `time_ns` is since the Epoch; the sizes are in bytes."""

    id: str
    name: str
    time_ns: int
    vm_state_size: int
    disk_size: int
    l1_table_offset: int
    l1_size: int
    length: int
    """Bytes of its entry in the snapshot table."""


def snapshot_table_length(snapshots: list[Snapshot]) -> int:
    """Bytes of the snapshot table."""
    return sum(snapshot.length for snapshot in snapshots)


def read_snapshots(file: ImageFile, header: Header) -> list[Snapshot]:
    """The snapshots of an image. Raises ImageError when their table cannot be right, OSError."""
    name = str(file.path)
    snapshots: list[Snapshot] = []
    position, end = header.snapshots_offset, min(file.size, header.snapshots_offset + MAX_TABLE_BYTES)
    l1_bytes = 0
    for _ in range(header.nb_snapshots):
        if position + _FIELDS.size > end:
            raise damaged(name, "its snapshot table does not end inside the file")
        fields = _FIELDS.unpack(file.read(position, _FIELDS.size))
        l1_offset, l1_size, id_length, name_length, seconds, nanoseconds, _, state_size, extra_length = fields
        length = _FIELDS.size + extra_length + id_length + name_length
        if position + length > end:
            raise damaged(name, "its snapshot table does not end inside the file")
        length += -length % 8
        extra = file.read(position + _FIELDS.size, min(extra_length, _SIZES.size)).ljust(_SIZES.size, b"\0")
        large_state_size, disk_size = _SIZES.unpack(extra)
        text = file.read(position + _FIELDS.size + extra_length, id_length + name_length)
        l1_bytes += l1_size * ENTRY_SIZE
        l1_end = l1_offset + l1_size * ENTRY_SIZE
        if l1_offset % header.cluster_size or l1_end > file.size or l1_size * ENTRY_SIZE > MAX_L1_BYTES:
            raise damaged(
                name,
                f"the L1 table of snapshot {len(snapshots)} is misaligned, too large, or outside the file",
            )
        if l1_bytes > MAX_ALL_L1_BYTES:
            raise damaged(name, f"the L1 tables of its snapshots have more than {MAX_ALL_L1_BYTES} bytes")
        snapshots.append(
            Snapshot(
                id=text[:id_length].decode("utf-8", "replace"),
                name=text[id_length:].decode("utf-8", "replace"),
                time_ns=seconds * NS_PER_S + nanoseconds,
                vm_state_size=large_state_size or state_size,
                disk_size=disk_size if extra_length >= _SIZES.size else header.size,
                l1_table_offset=l1_offset,
                l1_size=l1_size,
                length=length,
            )
        )
        position += length
    return snapshots
