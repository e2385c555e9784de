"""Making the reference counts of an image anew from what its tables use."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from emuvisor.devices.storage.imagefile import ImageFile
from emuvisor.devices.storage.qcow2.entries import decode_table, encode_table
from emuvisor.devices.storage.qcow2.header import CORRUPT, DIRTY, ENTRY_SIZE, Header, damaged
from emuvisor.devices.storage.qcow2.scan import Scan
from emuvisor.devices.storage.qcow2.widths import pack

__all__ = ["rebuild_refcounts"]


def rebuild_refcounts(file: ImageFile, header: Header) -> Header:
    """Write new refcounts behind the end of `file`, then make its header name them; returns that header.

    At whatever moment the host stops, the image has its old refcounts or its new ones. What nothing uses becomes
    free, and a hole in the file. The dirty bit goes, and the corrupt bit if nothing wrong is left. Raises ImageError
    when a cluster is used more often than can be counted, or the image cannot be scanned; OSError.
    """
    scan = Scan(file, header)
    if scan.overlaps():
        raise damaged(str(file.path), f"{scan.problems.messages[0]}, which cannot be repaired")
    used = scan.references.used()
    highest = int(scan.references.of(used).max())
    if highest >> header.refcount_bits:
        raise damaged(
            str(file.path),
            f"a cluster is used {highest} times, more than {header.refcount_bits} bits can count",
        )
    scan.wrong_copied_flags(repair=True)
    size, per_block = header.cluster_size, header.refcounts_per_block
    start = max(scan.end, int(used[-1]) + 1)
    numbers = np.unique(used // per_block)
    table_clusters = 1
    while True:
        # The structure counts itself: more of it until it fits.
        behind = start + table_clusters + len(numbers)
        more = np.union1d(numbers, np.arange(start // per_block, (behind - 1) // per_block + 1))
        needed = -(-(int(more[-1]) + 1) * ENTRY_SIZE // size)
        if len(more) == len(numbers) and needed <= table_clusters:
            break
        numbers, table_clusters = more, max(needed, table_clusters)
    first_block = start + table_clusters
    table = decode_table(bytes(table_clusters * size))
    for index, number in enumerate(numbers.tolist()):
        first = number * per_block
        counts = scan.references.between(first, first + per_block).astype(np.uint64)
        counts[max(0, start - first) : max(0, behind - first)] = 1
        table[number] = (first_block + index) * size
        width = max(1, header.refcount_bits // 8)
        file.write(table[number], pack(counts.astype(f"u{width}"), header.refcount_order))
    file.write(start * size, encode_table(table))
    file.flush()
    renewed = replace(
        header,
        refcount_table_offset=start * size,
        refcount_table_clusters=table_clusters,
        incompatible_features=header.incompatible_features
        & ~(DIRTY | (0 if scan.problems.count else CORRUPT)),
    )
    file.write(0, renewed.encode_fields())
    file.flush()
    file.size = behind * size
    _give_back(file, used, start, size)
    return renewed


def _give_back(file: ImageFile, used: npt.NDArray[np.int64], end: int, size: int) -> None:
    """Make holes of the clusters before `end` that are not among the ascending `used`."""
    starts = used + 1
    ends = np.append(used[1:], end)
    for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
        if start < stop:
            file.discard(start * size, (stop - start) * size)
